//! Images from and to registries, against distribution, and with crane and skopeo as witnesses.

use std::process::Command;

use mica_testkit::{Mica, peer};
use mica_tests::{Answer, Build, Distribution, REGISTRY_PASSWORD, REGISTRY_USER, Web, holds, with_base};
use serde_json::{Value, json};

/// Three layers of random-looking bytes that compress badly, so that sizes mean something.
const DOCKERFILE: &str =
    "FROM scratch\nCOPY one /a/one\nCOPY two /b/two\nCOPY three /c/three\nCMD [\"/x\"]\n";

fn image(mica: &Mica, name: &str) {
    let bytes = |seed: u32| -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_le_bytes()[3]
        };
        (0..300_000).map(|_| next()).collect()
    };
    Build::new(mica, DOCKERFILE)
        .file("one", bytes(1))
        .file("two", bytes(2))
        .file("three", bytes(3))
        .option("-t", name)
        .run()
        .success();
}

/// Runs a peer to its end; `None` if it is not here.
fn run_peer(name: &str, arguments: &[&str]) -> Option<String> {
    let program = peer::need(name)?;
    let done = Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    Some(String::from_utf8(done.stdout).unwrap())
}

#[test]
fn a_built_image_is_pushed_with_few_requests_and_again_with_one() {
    let Some(registry) = Distribution::open() else { return };
    let mica = Mica::new();
    let name = registry.name("team/app:1");
    image(&mica, &name);
    registry.requests();
    let pushed = mica.run(["push", &name]).success();
    let text = pushed.stdout_text();
    holds(&text, &[&format!("The push refers to repository [{}]", registry.name("team/app")), ": Pushed\n"]);
    let digest = text.lines().last().unwrap().strip_prefix("1: digest: ").unwrap();
    let digest = digest.split(' ').next().unwrap().to_owned();
    // 4 blobs of two requests each, and the manifest
    let asked = registry.requests();
    assert_eq!(asked.len(), 9, "{asked:#?}");
    let again = mica.run(["push", &name]).success().stdout_text();
    assert_eq!(again.matches("Layer already exists").count(), 3, "{again}");
    assert_eq!(registry.requests(), ["HEAD /v2/team/app/manifests/1 200"]);
    if let Some(seen) = run_peer("crane", &["digest", &name]) {
        assert_eq!(seen.trim(), digest);
        run_peer("crane", &["validate", "--remote", &name]);
    }
}

#[test]
fn a_pulled_image_keeps_its_digest_wherever_it_goes() {
    let Some(registry) = Distribution::open() else { return };
    let maker = Mica::new();
    let name = registry.name("app:1");
    image(&maker, &name);
    maker.run(["push", &name]).success();
    registry.requests();

    let mica = Mica::new();
    let text = mica.run(["pull", &name]).success().stdout_text();
    holds(&text, &["1: Pulling from app\n", ": Pulling fs layer\n", ": Pull complete\n"]);
    let lines: Vec<&str> = text.lines().rev().take(3).collect();
    let digest = lines[2].strip_prefix("Digest: ").unwrap().to_owned();
    assert_eq!(lines[1], format!("Status: Downloaded newer image for {name}"));
    assert_eq!(lines[0], name);
    // manifest, config and three layers
    assert_eq!(registry.requests().len(), 5);

    let again = mica.run(["pull", &name]).success().stdout_text();
    assert_eq!(
        again,
        format!("1: Pulling from app\nDigest: {digest}\nStatus: Image is up to date for {name}\n{name}\n")
    );
    assert_eq!(registry.requests(), ["HEAD /v2/app/manifests/1 200"]);

    let elsewhere = registry.name("else/where:2");
    mica.run(["tag", &name, &elsewhere]).success();
    let mounted = mica.run(["push", &elsewhere]).success().stdout_text();
    assert_eq!(mounted.matches("Mounted from app").count(), 3, "{mounted}");
    holds(&mounted, &[&format!("2: digest: {digest} size: ")]);

    let Some(other) = Distribution::open() else { return };
    let there = other.name("app:1");
    mica.run(["tag", &name, &there]).success();
    holds(&mica.run(["push", "-q", &there]).success().stdout_text(), &[&there]);
    if let Some(seen) = run_peer("crane", &["digest", &there]) {
        assert_eq!(seen.trim(), digest);
        run_peer("crane", &["validate", "--remote", &there]);
    }
    // an archive of it has the same manifest, and is an image like any other
    mica.run(["save", "-o", "x.tar", &name]).success();
    let archive = mica.work().join("x.tar");
    if let Some(seen) =
        run_peer("skopeo", &["inspect", "--raw", &format!("oci-archive:{}", archive.display())])
    {
        let seen: Value = serde_json::from_str(&seen).unwrap();
        assert_eq!(seen["layers"].as_array().unwrap().len(), 3, "{seen}");
    }
    let loaded = Mica::new();
    loaded.run(["load", "-i", archive.to_str().unwrap()]).success();
    mica.run(["system", "check"]).success();
}

#[test]
fn layers_of_every_compression_and_both_kinds_of_media_types_come_in() {
    let Some(registry) = Distribution::open() else { return };
    let Some(_) = peer::need("skopeo") else { return };
    let maker = Mica::new();
    image(&maker, "app:1");
    maker.run(["save", "-o", "x.tar", "app:1"]).success();
    let archive = format!("docker-archive:{}", maker.work().join("x.tar").display());
    for (tag, form) in [
        ("gzip", ["--format", "v2s2", "--dest-compress-format", "gzip"]),
        ("zstd", ["--format", "oci", "--dest-compress-format", "zstd"]),
    ] {
        let name = registry.name(&format!("forms:{tag}"));
        let target = format!("docker://{name}");
        let more = ["--dest-tls-verify=false", "--dest-compress", &archive, &target];
        run_peer("skopeo", &[&["copy"], &form[..], &more].concat());
        let mica = Mica::new();
        mica.run(["pull", &name]).success();
        let layers = |mica: &Mica, name: &str| {
            mica.run(["image", "inspect", "-f", "{{json .RootFS.Layers}}", name]).success().line()
        };
        assert_eq!(layers(&mica, &name), layers(&maker, "app:1"), "{tag}");
    }
}

#[test]
fn a_platform_that_is_missing_is_refused_with_those_that_are_there() {
    let Some(registry) = Distribution::open() else { return };
    let mica = Mica::new();
    let name = registry.name("app:1");
    image(&mica, &name);
    mica.run(["push", &name]).success();
    mica.run(["pull", "--platform", "linux/s390x", &name])
        .exits(1)
        .complains("does not provide the specified platform (linux/s390x)");
    let list = registry.name("app:list");
    if run_peer("crane", &["index", "append", "-m", &name, "-t", &list]).is_none() {
        return;
    }
    let refused = mica.run(["pull", "--platform", "linux/s390x", &list]).exits(1);
    holds(
        &refused.stderr_text(),
        &["no matching manifest for linux/s390x", "the index has linux/", "--platform linux/"],
    );
    mica.run(["pull", &list]).success();
    let id = mica.run(["images", "-q", "--no-trunc", &list]).line();
    let digest = run_peer("crane", &["digest", &list]).unwrap();
    assert_eq!(id, digest.trim(), "of an index, the image ID is its digest");
    // what is here of it leaves again as it came
    let copy = registry.name("copy:list");
    mica.run(["tag", &list, &copy]).success();
    mica.run(["push", &copy]).success();
    assert_eq!(run_peer("crane", &["digest", &copy]).unwrap(), digest);
}

#[test]
fn what_is_not_there_is_named() {
    let Some(registry) = Distribution::open() else { return };
    let mica = Mica::new();
    let name = registry.name("nope:1");
    mica.run(["pull", &name]).exits(1).complains(&format!("manifest for {name} not found: manifest unknown"));
    mica.run(["push", &name]).exits(1).complains("An image does not exist locally with the tag");
    let closed = Web::start().url("/x:1").replace("http://", "");
    mica.run(["pull", &closed]).exits(1);
}

#[test]
fn a_login_is_tried_kept_and_used() {
    let Some(registry) = Distribution::with_users() else { return };
    let mica = Mica::new();
    let name = registry.name("app:1");
    image(&mica, &name);
    let refused = mica.run(["push", &name]).exits(1).stderr_text();
    holds(&refused, &["unauthorized", &format!("`mica login {}`", registry.address())]);
    mica.run(["pull", &name]).exits(1).complains("pull access denied");
    let login = ["login", "-u", REGISTRY_USER, "--password-stdin", registry.address()];
    mica.run_with_input(login, "wrong\n").exits(1).complains("unauthorized");
    let done = mica.run_with_input(login, format!("{REGISTRY_PASSWORD}\n")).success();
    assert_eq!(done.stdout_text(), "Login Succeeded\n");
    let config = mica.work().parent().unwrap().join("home/.docker/config.json");
    let kept: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    assert!(kept["auths"][registry.address()]["auth"].is_string(), "{kept}");
    mica.run(["push", &name]).success();
    mica.run(["pull", &name]).success();
    holds(&mica.run(["registry", "explain", &name]).success().stdout_text(), &["config.json", "plain HTTP"]);
    let out = mica.run(["logout", registry.address()]).success().stdout_text();
    assert_eq!(out, format!("Removing login credentials for {}\n", registry.address()));
    mica.run(["pull", &name]).exits(1).complains("pull access denied");
}

#[test]
fn an_interrupted_pull_goes_on_where_it_stopped() {
    let Some(registry) = Distribution::open() else { return };
    let maker = Mica::new();
    let name = registry.name("app:1");
    image(&maker, &name);
    maker.run(["push", &name]).success();
    let manifest = run_peer("crane", &["manifest", &name]);
    let Some(manifest) = manifest else { return };
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    let digest = manifest["layers"][0]["digest"].as_str().unwrap().replace("sha256:", "");
    let blob =
        registry.data().join("docker/registry/v2/blobs/sha256").join(&digest[..2]).join(&digest).join("data");
    let bytes = std::fs::read(blob).unwrap();

    let mica = Mica::new();
    mica.run(["images"]).success();
    let partial = mica.root().join("content/partial");
    std::fs::create_dir(&partial).unwrap();
    let half = bytes.len() / 2;
    std::fs::write(partial.join(format!("sha256-{digest}")), &bytes[..half]).unwrap();
    registry.requests();
    mica.run(["pull", &name]).success();
    let asked = registry.requests();
    let of_layer = asked.iter().find(|line| line.contains(&digest)).unwrap();
    assert!(of_layer.ends_with(" 206"), "{asked:#?}");
    assert_eq!(std::fs::read_dir(&partial).unwrap().count(), 0);
    mica.run(["system", "check"]).success();
}

/// A scripted registry with one image of one layer, which a test then spoils.
struct Scripted {
    web: Web,
    layer: String,
    manifest: Vec<u8>,
}

impl Scripted {
    fn new() -> Self {
        let web = Web::start();
        let layer = vec![0u8; 1024];
        let layer_digest = sha256(&layer);
        let config = json!({"architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
            "os": "linux", "rootfs": {"type": "layers", "diff_ids": [layer_digest]}});
        let config = config.to_string().into_bytes();
        let manifest = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256(&config), "size": config.len()},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer_digest, "size": layer.len()}]});
        web.file(&format!("/v2/x/blobs/{}", sha256(&config)), &config, &[]);
        web.file(&format!("/v2/x/blobs/{layer_digest}"), &layer, &[]);
        let manifest = manifest.to_string().into_bytes();
        let scripted = Self { web, layer: format!("/v2/x/blobs/{layer_digest}"), manifest };
        scripted.manifest(&scripted.manifest);
        scripted
    }

    fn manifest(&self, bytes: &[u8]) {
        let kind = [("Content-Type", "application/vnd.oci.image.manifest.v1+json")];
        self.web.file("/v2/x/manifests/latest", bytes, &kind);
    }

    fn name(&self) -> String {
        self.web.url("/x").replace("http://", "")
    }
}

fn sha256(bytes: &[u8]) -> String {
    mica_oci::Digest::of(bytes).to_string()
}

#[test]
fn bytes_with_another_digest_are_refused_and_leave_nothing() {
    let server = Scripted::new();
    let mica = Mica::new();
    server.web.file(&server.layer, vec![1u8; 1024], &[]);
    mica.run(["pull", &server.name()]).exits(1).complains("arrived as sha256:");
    assert_eq!(std::fs::read_dir(mica.root().join("content/partial")).unwrap().count(), 0);
    mica.run(["images", "-q", "-a"]).success();
    assert_eq!(mica.run(["images", "-q", "-a"]).stdout_text(), "");
    // the next, honest transfer works
    server.web.file(&server.layer, vec![0u8; 1024], &[]);
    mica.run(["pull", &server.name()]).success();
}

#[test]
fn a_server_that_sends_too_much_is_cut_off() {
    let server = Scripted::new();
    let mica = Mica::new();
    server.web.file(&server.layer, vec![0u8; 4096], &[]);
    mica.run(["pull", &server.name()]).exits(1).complains("sends more than the 1024 bytes");
    server.manifest(&vec![b' '; (4 << 20) + 1]);
    mica.run(["pull", &server.name()]).exits(1).complains("answers with more than 4194304 bytes");
}

#[test]
fn manifests_that_are_two_things_or_nothing_are_refused() {
    let server = Scripted::new();
    let mica = Mica::new();
    for text in [r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#, "[]", "{", r#"{"schemaVersion":1}"#] {
        server.manifest(text.as_bytes());
        mica.run(["pull", &server.name()]).exits(1).complains("is refused");
    }
}

#[test]
fn credentials_stay_with_the_registry_when_it_redirects() {
    let server = Scripted::new();
    let other = Web::start();
    let mica = Mica::new();
    let blob = server.layer.clone();
    other.file(&blob, vec![0u8; 1024], &[]);
    server.web.answer(&blob, Answer::Redirect(other.url(&blob)));
    let config = mica.work().parent().unwrap().join("home/.docker");
    std::fs::create_dir_all(&config).unwrap();
    let auth = json!({"auths": {server.name().trim_end_matches("/x"): {"username": "u", "password": "p"}}});
    let headers = vec![("Content-Type", "application/vnd.oci.image.manifest.v1+json".to_owned())];
    server.web.answer("/v2/x/manifests/latest", Answer::Guarded { body: server.manifest.clone(), headers });
    std::fs::write(config.join("config.json"), auth.to_string()).unwrap();
    mica.run(["pull", &server.name()]).success();
    let asked = server.web.log().join("\n");
    assert!(asked.contains(&format!("GET {blob} 302 Basic dTpw")), "{asked}");
    let asked = other.log().join("\n");
    assert!(asked.contains(&blob), "{asked}");
    assert!(!asked.contains("Basic"), "{asked}");
}

#[test]
fn bases_come_from_their_registry_and_builds_go_to_theirs() {
    let Some(registry) = Distribution::open() else { return };
    let maker = Mica::new();
    let base = registry.name("base:1");
    image(&maker, &base);
    maker.run(["push", &base]).success();

    let mica = Mica::new();
    let app = registry.name("app:1");
    let dockerfile = format!("FROM {base}\nCOPY --from={base} /a/one /copy\n");
    registry.requests();
    let metadata = mica.work().join("metadata.json");
    Build::new(&mica, &dockerfile)
        .option("-t", &app)
        .flag("--push")
        .option("--metadata-file", metadata.to_str().unwrap())
        .run()
        .success();
    let asked = registry.requests();
    let mounts = asked.iter().filter(|line| line.contains("from=base") && line.ends_with(" 201")).count();
    assert_eq!(mounts, 3, "the base's layers are mounted: {asked:#?}");
    let sent = asked.iter().filter(|line| line.starts_with("PUT /v2/app/blobs")).count();
    assert_eq!(sent, 2, "one new layer and the config: {asked:#?}");
    if let Some(digest) = run_peer("crane", &["digest", &app]) {
        let metadata: Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
        assert_eq!(metadata["containerimage.digest"], digest.trim());
        run_peer("crane", &["validate", "--remote", &app]);
    }
    // nothing is asked of a registry for what is here, unless somebody wants to know
    registry.requests();
    Build::again(&mica, &dockerfile).run().success();
    assert_eq!(registry.requests(), Vec::<String>::new());
    Build::again(&mica, &dockerfile).flag("--pull").run().success();
    assert_eq!(registry.requests(), ["HEAD /v2/base/manifests/1 200"]);
    let missing = registry.name("nope:1");
    Build::new(&mica, format!("FROM {missing}\n"))
        .fails(&format!("failed to resolve source metadata for {missing}: {missing}: not found"));
    Build::new(&mica, "FROM scratch\nCOPY Dockerfile /\n").flag("--push").fails("tag is needed when pushing");
}

#[test]
fn a_digest_is_pushed_without_a_tag_and_layers_as_they_are_asked_for() {
    let Some(registry) = Distribution::open() else { return };
    let Some(_) = peer::need("crane") else { return };
    let mica = Mica::new();
    let name = registry.name("by/digest");
    let output = format!("type=image,push-by-digest=true,push=true,name={name},compression=zstd");
    let file = mica.work().join("m.json");
    Build::new(&mica, "FROM scratch\nCOPY Dockerfile /\n")
        .option("-o", &output)
        .option("--metadata-file", file.to_str().unwrap())
        .run()
        .success();
    let metadata: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let digest = metadata["containerimage.digest"].as_str().unwrap();
    let manifest = run_peer("crane", &["manifest", &format!("{name}@{digest}")]).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.oci.image.layer.v1.tar+zstd");
}

#[test]
fn a_container_of_a_missing_image_pulls_it_and_says_so_on_standard_error() {
    let Some(registry) = Distribution::open() else { return };
    let Some(maker) = with_base() else { return };
    let name = registry.name("base:1");
    maker.run(["tag", "base", &name]).success();
    maker.run(["push", &name]).success();
    let mica = Mica::new();
    mica.run(["run", "--rm", "--pull", "never", &name, "true"]).exits(125).complains("No such image");
    let ran = mica.run(["run", "--rm", "--network", "none", &name, "echo", "hello"]).success();
    assert_eq!(ran.stdout_text(), "hello\n");
    holds(
        &ran.stderr_text(),
        &[&format!("Unable to find image '{name}' locally"), "Status: Downloaded newer image for"],
    );
    let again = mica.run(["run", "--rm", "--network", "none", &name, "echo", "hello"]).success();
    assert_eq!(again.stderr_text(), "");
    let nope = registry.name("nope:1");
    mica.run(["run", "--rm", &nope, "true"]).exits(125).complains("not found: manifest unknown");
}

#[test]
fn images_of_several_platforms_get_one_name() {
    let Some(registry) = Distribution::open() else { return };
    let mica = Mica::new();
    let tags = ["amd64", "arm64"].map(|arch| (arch, registry.name(&format!("app:{arch}"))));
    for (arch, name) in &tags {
        Build::new(&mica, "FROM scratch\nCOPY Dockerfile /\n")
            .option("--platform", &format!("linux/{arch}"))
            .option("-t", name)
            .flag("--push")
            .run()
            .success();
    }
    let elsewhere = registry.name("other:arm");
    mica.run(["tag", &tags[1].1, &elsewhere]).success();
    mica.run(["push", &elsewhere]).success();
    let list = registry.name("app:all");
    let created = mica.run(["manifest", "create", &list, &tags[0].1, &elsewhere]).success().stdout_text();
    assert_eq!(created, format!("Created manifest list {list}\n"));
    mica.run(["manifest", "create", &list, &tags[0].1]).exits(1).complains("with no --amend flag");
    mica.run(["manifest", "create", "-a", &list, &registry.name("nope:1")])
        .exits(1)
        .complains("no such manifest: ");
    mica.run(["manifest", "annotate", "--variant", "v8", &list, &elsewhere]).success();
    mica.run(["manifest", "annotate", "--arch", "abacus", &list, &elsewhere])
        .exits(1)
        .complains("unsupported os/arch combination: linux/abacus");
    let digest = mica.run(["manifest", "push", "-p", &list]).success().line();
    let shown: Value =
        serde_json::from_str(&mica.run(["manifest", "inspect", &list]).success().stdout_text()).unwrap();
    let platforms: Vec<String> = shown["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| format!("{} {}", entry["platform"]["architecture"], entry["platform"]["variant"]))
        .collect();
    assert_eq!(platforms, ["\"amd64\" null", "\"arm64\" \"v8\""]);
    mica.run(["manifest", "push", &list]).exits(1).complains("No such manifest");
    if let Some(seen) = run_peer("crane", &["digest", &list]) {
        assert_eq!(seen.trim(), digest);
    }
    mica.run(["pull", "--platform", "linux/arm64", &list]).success();
    let details = mica.run(["manifest", "inspect", "-v", &list]).success().stdout_text();
    holds(&details, &["\"Descriptor\"", "\"OCIManifest\"", "\"Raw\""]);
}

#[test]
fn a_search_is_a_table() {
    let web = Web::start();
    let answer = json!({"results": [
        {"name": "tomcat", "description": "Apache Tomcat is an open source implementation of the Java Servlet",
         "star_count": 3000, "is_official": true},
        {"name": "me/tomcat", "description": "", "star_count": 1, "is_official": false},
    ]});
    web.file("/v1/search?q=tomcat&n=25", answer.to_string(), &[]);
    let mica = Mica::new();
    let term = web.url("/tomcat").replace("http://", "");
    let text = mica.run(["search", &term]).success().stdout_text();
    let expected = "NAME        DESCRIPTION                                     STARS     OFFICIAL\n\
                    tomcat      Apache Tomcat is an open source implementati…   3000      [OK]\n\
                    me/tomcat                                                   1         \n";
    assert_eq!(text, expected);
    assert_eq!(
        mica.run(["search", "--format", "{{.Name}}", "-f", "stars=2", &term]).stdout_text(),
        "tomcat\n"
    );
    let nothing = web.url("/nothing").replace("http://", "");
    mica.run(["search", &nothing]).exits(1).complains("cannot search");
}
