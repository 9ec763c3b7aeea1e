//! Caches elsewhere: directories and images that carry their own, in BuildKit's container format.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mica_testkit::peer::need;
use mica_testkit::{Mica, needs_root};
use mica_tests::{Build, Distribution, empty, holds, with_base};
use serde_json::Value;

const DOCKERFILE: &str = "FROM base AS tool\nRUN echo tool > /tool\nCOPY f /f\nRUN head -c 100000 /dev/urandom > /big\n\
    FROM base\nCOPY --from=tool /tool /tool\nRUN echo last > /last\n";

fn json_of(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn blob(cache: &Path, digest: &Value) -> Value {
    json_of(cache.join("blobs/sha256").join(digest.as_str().unwrap().trim_start_matches("sha256:")))
}

/// The config blob of the entry `latest`.
fn config(cache: &Path) -> Value {
    let index = json_of(cache.join("index.json"));
    let manifest = blob(cache, &index["manifests"][0]["digest"]);
    match manifest.get("config") {
        Some(config) => blob(cache, &config["digest"]),
        None => blob(cache, &manifest["manifests"].as_array().unwrap().last().unwrap()["digest"]),
    }
}

/// Another machine with the same base image: it has no records of its own.
fn elsewhere(mica: &Mica) -> Option<Mica> {
    let there = empty()?;
    let archive = mica.work().join("base.tar");
    mica.run(["save", "-o", archive.to_str().unwrap(), "base"]).success();
    there.run(["load", "-i", archive.to_str().unwrap()]).success();
    Some(there)
}

fn to(mica: &Mica, name: &str, more: &str) -> (std::path::PathBuf, String) {
    let cache = mica.work().join(name);
    let text = format!("type=local,dest={}{more}", cache.display());
    (cache, text)
}

fn from(cache: &Path) -> String {
    format!("type=local,src={}", cache.display())
}

#[test]
fn a_directory_answers_on_another_machine() {
    let Some(mica) = with_base() else { return };
    let (all, to_all) = to(&mica, "all", ",mode=max");
    let (own, to_own) = to(&mica, "own", "");
    let first = Build::new(&mica, DOCKERFILE)
        .file("f", "f")
        .option("--cache-to", &to_all)
        .option("--cache-to", &to_own)
        .id();
    assert!(
        config(&own)["records"].as_array().unwrap().len() < config(&all)["records"].as_array().unwrap().len()
    );
    let manifest = blob(&all, &json_of(all.join("index.json"))["manifests"][0]["digest"]);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.buildkit.cacheconfig.v0");
    let annotations = &manifest["layers"][0]["annotations"];
    assert!(
        annotations["containerd.io/uncompressed"].is_string()
            && annotations["buildkit/createdat"].is_string()
    );
    for cache in [&all, &own] {
        let Some(there) = elsewhere(&mica) else { return };
        let built =
            Build::new(&there, DOCKERFILE).file("f", "f").option("--cache-from", &from(cache)).succeeds();
        assert!(built.cached("echo last"));
        assert_eq!(Build::again(&there, DOCKERFILE).id(), first, "the result of a random step is the same");
    }
}

#[test]
fn only_the_layers_that_a_step_needs_are_unpacked() {
    let Some(mica) = with_base() else { return };
    let (all, to_all) = to(&mica, "all", ",mode=max");
    Build::new(&mica, DOCKERFILE).file("f", "f").option("--cache-to", &to_all).id();
    let Some(there) = elsewhere(&mica) else { return };
    let before = layer_count(&there);
    // the last step is another one: the copy before it is answered, the stage that it copies from is not even looked at
    let changed = DOCKERFILE.replace("echo last", "echo other");
    let built = Build::new(&there, changed).file("f", "f").option("--cache-from", &from(&all)).succeeds();
    assert!(built.cached("COPY --from=tool") && !built.cached("echo other"));
    assert_eq!(layer_count(&there) - before, 2, "one imported, one made");
}

fn layer_count(mica: &Mica) -> usize {
    std::fs::read_dir(mica.root().join("layers")).unwrap().count()
}

#[test]
fn older_indexes_other_compressions_and_tags_are_read_as_well() {
    let Some(mica) = with_base() else { return };
    let (cache, to_cache) =
        to(&mica, "c", ",image-manifest=false,oci-mediatypes=false,compression=zstd,tag=a");
    let first = Build::new(&mica, DOCKERFILE).file("f", "f").option("--cache-to", &to_cache).id();
    let manifest = blob(&cache, &json_of(cache.join("index.json"))["manifests"][0]["digest"]);
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.list.v2+json");
    assert_eq!(manifest["manifests"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.zstd");
    let Some(there) = elsewhere(&mica) else { return };
    let tagged = format!("{},tag=a", from(&cache));
    Build::new(&there, DOCKERFILE).file("f", "f").option("--cache-from", &tagged).id();
    assert_eq!(Build::again(&there, DOCKERFILE).id(), first);
    // a second entry stays beside the first, unless it replaces it or all are reset
    let names = |cache: &Path| json_of(cache.join("index.json"))["manifests"].as_array().unwrap().len();
    let (_, other) = to(&mica, "c", ",tag=b");
    Build::again(&mica, DOCKERFILE).option("--cache-to", &other).id();
    Build::again(&mica, DOCKERFILE).option("--cache-to", &other).id();
    assert_eq!(names(&cache), 2);
    let (_, reset) = to(&mica, "c", ",reset=true");
    Build::again(&mica, DOCKERFILE).option("--cache-to", &reset).id();
    assert_eq!(names(&cache), 1);
}

#[test]
fn an_image_carries_its_own_cache() {
    let Some(mica) = with_base() else { return };
    let layout = mica.work().join("image");
    let output = format!("type=oci,tar=false,name=app:1,dest={}", layout.display());
    Build::new(&mica, DOCKERFILE)
        .file("f", "f")
        .option("--cache-to", "type=inline")
        .option("-o", &output)
        .id();
    let Some(there) = elsewhere(&mica) else { return };
    let source = format!("{},tag=1", from(&layout));
    let built = Build::new(&there, DOCKERFILE).file("f", "f").option("--cache-from", &source).succeeds();
    assert!(built.cached("echo last"));
    let by_argument =
        Build::again(&mica, DOCKERFILE).option("--build-arg", "BUILDKIT_INLINE_CACHE=1").succeeds();
    assert!(by_argument.stored_config()["moby.buildkit.cache.v0"].is_string());
}

#[test]
fn a_failing_import_is_told_and_fails_nothing() {
    let Some(mica) = with_base() else { return };
    let (cache, to_cache) = to(&mica, "c", ",mode=max");
    Build::new(&mica, DOCKERFILE).file("f", "f").option("--cache-to", &to_cache).id();
    let nowhere =
        Build::again(&mica, DOCKERFILE).option("--cache-from", "type=local,src=nowhere").run().success();
    holds(
        &nowhere.stderr_text(),
        &["ERROR: failed to configure local cache importer: local:", "No such file"],
    );
    // damaged layers: the records lie, the build does not
    for entry in std::fs::read_dir(cache.join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            std::fs::write(
                &path,
                [&bytes[..bytes.len() / 2], &vec![0; bytes.len() - bytes.len() / 2]].concat(),
            )
            .unwrap();
        }
    }
    let Some(there) = elsewhere(&mica) else { return };
    let built =
        Build::new(&there, DOCKERFILE).file("f", "f").option("--cache-from", &from(&cache)).succeeds();
    assert_eq!(built.tree().text("/last"), "last\n");
    assert!(!built.cached("echo last"));
    holds(&built.output.stderr_text(), &["the imported result is unusable"]);
}

#[test]
fn a_failing_export_is_fatal_unless_asked_not_to_be() {
    let Some(mica) = with_base() else { return };
    let file = mica.write("file", "in the way");
    let bad = format!("type=local,dest={}", file.join("c").display());
    Build::new(&mica, DOCKERFILE).file("f", "f").option("--cache-to", &bad).fails("cannot export the cache");
    let ignored = format!("{bad},ignore-error=true");
    Build::again(&mica, DOCKERFILE).option("--cache-to", &ignored).run().success();
}

/// A buildkitd of the test's own.
struct Buildkitd {
    child: Child,
    address: String,
    buildctl: std::path::PathBuf,
}

impl Buildkitd {
    fn start(mica: &Mica) -> Option<Self> {
        if !needs_root() {
            return None;
        }
        let (daemon, buildctl) = (need("buildkitd")?, need("buildctl")?);
        let socket = mica.work().join("bk.sock");
        let address = format!("unix://{}", socket.display());
        let child = Command::new(daemon)
            .args([
                "--oci-worker-binary=runc",
                "--containerd-worker=false",
                "--oci-worker-net=host",
                "--addr",
                &address,
            ])
            .arg("--root")
            .arg(mica.work().join("bk"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let daemon = Self { child, address, buildctl };
        let begun = Instant::now();
        while !daemon.control(&["debug", "workers"]).status.success() {
            assert!(begun.elapsed() < Duration::from_secs(60), "buildkitd starts");
            std::thread::sleep(Duration::from_millis(100));
        }
        Some(daemon)
    }

    fn control(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(&self.buildctl);
        command.args(["--addr", &self.address]).args(arguments).output().unwrap()
    }

    fn build(&self, context: &Path, more: &[&str]) -> String {
        let context = context.display();
        let locals = [format!("--local=context={context}"), format!("--local=dockerfile={context}")];
        let fixed = ["build", "--progress=plain", "--frontend=dockerfile.v0", &locals[0], &locals[1]];
        let done = self.control(&[&fixed[..], more].concat());
        let text = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "{text}");
        text
    }
}

impl Drop for Buildkitd {
    fn drop(&mut self) {
        // SIGTERM lets it take its mounts with it
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

#[test]
fn caches_are_exchanged_with_buildkit() {
    let Some(mica) = empty() else { return };
    let Some(buildkit) = Buildkitd::start(&mica) else { return };
    let dockerfile = "FROM scratch AS a\nCOPY f /f\nFROM scratch\nCOPY --from=a /f /g\nCOPY f /h\n";
    for form in ["", ",image-manifest=false", ",compression=zstd,mode=max"] {
        let (ours, to_ours) = to(&mica, &format!("ours{}", form.len()), form);
        let build = Build::new(&mica, dockerfile).file("f", "f").option("--cache-to", &to_ours);
        let context = build.context();
        build.id();
        let text = buildkit.build(&context, &["--import-cache", &from(&ours)]);
        holds(&text, &["importing cache manifest from local:", "inferred cache manifest type:"]);
        assert!(!text.contains("ERROR"), "{text}");
        let theirs = mica.work().join(format!("theirs{}", form.len()));
        let export = format!("type=local,dest={}{form}", theirs.display());
        buildkit.build(&context, &["--export-cache", &export]);
        let read = Build::again(&mica, dockerfile)
            .option("--cache-from", &from(&theirs))
            .flag("--no-cache")
            .run()
            .success();
        let text = read.stderr_text();
        holds(&text, &["importing cache manifest from local:"]);
        assert!(!text.contains("ERROR"), "{text}");
    }
}

#[test]
fn a_registry_keeps_caches_for_other_machines_and_for_buildkit() {
    let Some(mica) = with_base() else { return };
    let Some(registry) = Distribution::open() else { return };
    let name = registry.name("team/cache:main");
    let to_cache = format!("type=registry,ref={name},mode=max");
    let first = Build::new(&mica, DOCKERFILE).file("f", "f").option("--cache-to", &to_cache).id();
    let Some(there) = elsewhere(&mica) else { return };
    let built = Build::new(&there, DOCKERFILE).file("f", "f").option("--cache-from", &name).succeeds();
    assert!(built.cached("echo last"));
    assert_eq!(Build::again(&there, DOCKERFILE).id(), first);
    // what is there already is not sent again
    registry.requests();
    Build::again(&there, DOCKERFILE).option("--cache-to", &to_cache).id();
    let asked = registry.requests();
    let sent = asked.iter().filter(|line| line.starts_with("PUT /v2/team/cache/blobs")).count();
    assert!(sent <= 1, "layers are there, only what lists them may be new: {asked:#?}");
    let nowhere = registry.name("nope:1");
    let built = Build::again(&there, DOCKERFILE).option("--cache-from", &nowhere).run().success();
    let text = built.stderr_text();
    holds(&text, &[&format!("ERROR: failed to configure registry cache importer: {nowhere}: "), "not found"]);
    // an image with a cache inside
    let inline = registry.name("team/app:inline");
    Build::again(&mica, DOCKERFILE)
        .option("--cache-to", "type=inline")
        .option("-t", &inline)
        .flag("--push")
        .id();
    let Some(third) = elsewhere(&mica) else { return };
    let built = Build::new(&third, DOCKERFILE).file("f", "f").option("--cache-from", &inline).succeeds();
    assert!(built.cached("echo last"));

    let Some(plain) = empty() else { return };
    let Some(buildkit) = Buildkitd::start(&plain) else { return };
    let dockerfile = "FROM scratch AS a\nCOPY f /f\nFROM scratch\nCOPY --from=a /f /g\nCOPY f /h\n";
    for (tag, form) in [("min", ""), ("max", ",mode=max")] {
        let ours = registry.name(&format!("ours:{tag}"));
        let build = Build::new(&plain, dockerfile).file("f", "f");
        let build = build.option("--cache-to", &format!("type=registry,ref={ours}{form}"));
        let context = build.context();
        build.id();
        let text = buildkit.build(&context, &["--import-cache", &format!("type=registry,ref={ours}")]);
        holds(&text, &[&format!("importing cache manifest from {ours}")]);
        assert!(!text.contains("ERROR"), "{text}");
        let theirs = registry.name(&format!("theirs:{tag}"));
        buildkit.build(&context, &["--export-cache", &format!("type=registry,ref={theirs}{form}")]);
        let read = Build::again(&plain, dockerfile)
            .option("--cache-from", &theirs)
            .flag("--no-cache")
            .run()
            .success();
        let text = read.stderr_text();
        holds(&text, &[&format!("importing cache manifest from {theirs}")]);
        assert!(!text.contains("ERROR"), "{text}");
    }
}
