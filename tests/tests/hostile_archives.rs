//! Archives that lie (security.md section 1.2): digests, documents, names, paths.

use std::process::Command;

use mica_oci::Digest;
use mica_testkit::{Mica, Output, peer};
use mica_tests::{Canary, ImageArchive, Member, SECRET, TarMaker, descriptor, empty, empty_stores, measured};
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

fn layer() -> Vec<u8> {
    TarMaker::new().file("f", b"layer").finish()
}

fn image() -> ImageArchive {
    ImageArchive::new(&[layer()])
}

fn load(mica: &Mica, tar: impl AsRef<[u8]>) -> Output {
    let archive = mica.write("image.tar", tar);
    mica.run(["load", "-q", "-i", archive.to_str().unwrap()])
}

/// Demands exit code 1, this text, no image, and a store that takes the honest archive afterwards.
#[track_caller]
fn refused(mica: &Mica, what: &str, tar: impl AsRef<[u8]>, gist: &str) {
    let output = load(mica, tar);
    let said = output.stderr_text();
    assert_eq!(output.code(), 1, "{what}: {}{said}", output.stdout_text());
    assert!(said.contains(gist), "{what}: no {gist:?} in {said}");
    assert!(!said.contains("panicked"), "{what}: {said}");
    assert_eq!(mica.run(["images", "-aq"]).success().line(), "", "{what}: no image");
}

/// The honest image comes in after all that was refused: nothing bad was kept (row 19's local half).
#[track_caller]
fn still_takes_the_honest_one(mica: &Mica) {
    load(mica, image().oci()).success();
    mica.run(["system", "check"]).success();
    mica.run(["rmi", "-f", "hostile"]).success();
    load(mica, image().docker()).success();
}

/// An archive whose blob of this digest has other bytes.
fn with_blob_changed(tar: &[u8], old: &[u8], new: &[u8]) -> Vec<u8> {
    let at = tar.windows(old.len()).position(|window| window == old).expect("the blob is in the archive");
    [&tar[..at], new, &tar[at + old.len()..]].concat()
}

#[test]
fn bytes_are_what_their_digest_says() {
    let Some(mica) = empty() else { return };
    let honest = image().oci();
    let damaged = |blob: &[u8], digit: usize| {
        let mut other = blob.to_vec();
        other[digit] = if other[digit] == b'0' { b'1' } else { b'0' };
        with_blob_changed(&honest, blob, &other)
    };
    let manifest = image().manifest_bytes();
    refused(&mica, "row 18: manifest", damaged(&manifest, manifest.len() - 4), "has digest sha256:");
    let config = image().config_bytes();
    refused(&mica, "row 18: config", damaged(&config, config.len() - 8), "has digest sha256:");
    refused(&mica, "row 18: layer", damaged(&layer(), 512), "");
    for (what, key) in [("config", "config"), ("layer", "layers")] {
        for size in [1, 100_000] {
            let mut archive = image();
            let mut wrong = match key {
                "config" => descriptor(CONFIG, &archive.config_bytes()),
                _ => descriptor(LAYER, &layer()),
            };
            wrong["size"] = json!(size);
            archive.manifest[key] = if key == "layers" { json!([wrong]) } else { wrong };
            refused(&mica, &format!("row 18: size of a {what}"), archive.oci(), "bytes instead of");
        }
    }
    let bytes = image().manifest_bytes();
    let mut target = descriptor(MANIFEST, &bytes);
    target["size"] = json!(7);
    refused(&mica, "row 18: size of a manifest", image().oci_with(&bytes, &target), "bytes instead of 7");
    still_takes_the_honest_one(&mica);
}

#[test]
fn layers_are_what_the_config_says() {
    let Some(mica) = empty() else { return };
    let mut other = image();
    other.config["rootfs"]["diff_ids"] = json!([Digest::of(b"other").to_string()]);
    refused(&mica, "row 20: another diff ID (oci)", other.oci(), "invalid diffID");
    refused(&mica, "row 20: another diff ID (docker)", other.docker(), "invalid diffID");
    let mut more = image();
    let own = Digest::of(&layer()).to_string();
    more.config["rootfs"]["diff_ids"] = json!([own, own]);
    refused(&mica, "row 20: too many (oci)", more.oci(), "layers length mismatch: expected 2, got 1");
    refused(&mica, "row 20: too many (docker)", more.docker(), "layers length mismatch: expected 2, got 1");
    let mut none = image();
    none.config["rootfs"] = json!(null);
    refused(&mica, "row 20: none", none.oci(), "");
    still_takes_the_honest_one(&mica);
}

#[test]
fn documents_are_one_thing_only() {
    let Some(mica) = empty() else { return };
    let own = image().manifest_bytes();
    let both = {
        let mut both: Value = serde_json::from_slice(&own).unwrap();
        both["manifests"] = json!([]);
        both.to_string().into_bytes()
    };
    let as_type = |document: &[u8], kind: &str| image().oci_with(document, &descriptor(kind, document));
    refused(&mica, "row 21: both", as_type(&both, MANIFEST), "ambiguous");
    refused(&mica, "row 21: both, as an index", as_type(&both, INDEX), "is refused");
    refused(&mica, "row 21: a manifest as an index", as_type(&own, INDEX), "was announced as");
    let index = json!({"schemaVersion": 2, "manifests": [descriptor(MANIFEST, &own)]}).to_string();
    refused(&mica, "row 21: an index as a manifest", as_type(index.as_bytes(), MANIFEST), "was announced as");
    let text = String::from_utf8(own.clone()).unwrap();
    let twice = text.replacen('{', r#"{"layers":[],"#, 1);
    refused(&mica, "row 21: a key twice", as_type(twice.as_bytes(), MANIFEST), "twice");
    let twice = text.replacen('{', r#"{"annotations":{"a":"1","a":"2"},"#, 1);
    refused(&mica, "row 21: an annotation twice", as_type(twice.as_bytes(), MANIFEST), "twice");
    for key in ["Layers", "MANIFESTS"] {
        let cased = text.replacen('{', &format!(r#"{{"{key}":[],"#), 1);
        load(&mica, as_type(cased.as_bytes(), MANIFEST)).success();
        mica.run(["rmi", "-f", "hostile"]).success();
    }
    let top = json!({"schemaVersion": 2, "manifests": [], "layers": [], "config": {}}).to_string();
    refused(&mica, "row 21: index.json that is both", image().layout(top.as_bytes(), &[]), "ambiguous");
    let top =
        format!(r#"{{"schemaVersion":2,"manifests":[{0}],"manifests":[{0}]}}"#, descriptor(MANIFEST, &own));
    refused(
        &mica,
        "row 21: index.json with a key twice",
        image().layout(top.as_bytes(), &[&own]),
        "index.json",
    );
    let config = String::from_utf8(image().config_bytes()).unwrap().replacen('{', r#"{"os":"linux","#, 1);
    refused(&mica, "row 21: a config with a key twice", with_config(config.as_bytes()), "is not valid");
    still_takes_the_honest_one(&mica);
}

/// The image with these bytes as its config.
fn with_config(config: &[u8]) -> Vec<u8> {
    let mut archive = image();
    archive.manifest["config"] = descriptor(CONFIG, config);
    let manifest = archive.manifest_bytes();
    let mut target = descriptor(MANIFEST, &manifest);
    target["annotations"] = json!({"io.containerd.image.name": "docker.io/library/hostile:latest"});
    let index = json!({"schemaVersion": 2, "manifests": [target]});
    archive.layout(index.to_string().as_bytes(), &[&manifest, config])
}

#[test]
fn a_digest_is_never_a_path() {
    let canary = Canary::new();
    for (who, mica) in empty_stores() {
        for digest in [
            format!("sha256:{}{}/file", "../".repeat(9), canary.relative()),
            format!("sha256:{}", canary.text()),
            "../../x".to_owned(),
            format!("sha256:{}", "A".repeat(64)),
            format!("sha256:{}", "a".repeat(63)),
            format!("sha1:{}", "a".repeat(40)),
            format!("sha256:{}\n", "a".repeat(64)),
            String::new(),
        ] {
            let what = format!("row 22: {digest:?} ({who})");
            let wrong = json!({"mediaType": LAYER, "digest": digest, "size": 5});
            let mut archive = image();
            archive.manifest["layers"] = json!([wrong]);
            refused(&mica, &what, archive.oci(), "");
            let mut archive = image();
            archive.manifest["config"] = wrong.clone();
            refused(&mica, &what, archive.oci(), "");
            let index = json!({"schemaVersion": 2, "manifests": [wrong]}).to_string();
            refused(&mica, &what, image().layout(index.as_bytes(), &[]), "");
            let mut archive = image();
            archive.config["rootfs"]["diff_ids"] = json!([digest]);
            refused(&mica, &what, archive.docker(), "");
            canary.check(&what);
        }
        still_takes_the_honest_one(&mica);
    }
}

#[test]
fn json_bombs_end_in_errors() {
    let Some(mica) = empty() else { return };
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let text = String::from_utf8(image().manifest_bytes()).unwrap();
    let with = |key: &str, value: &str| text.replacen('{', &format!("{{{key:?}:{value},"), 1).into_bytes();
    let as_manifest = |bytes: &[u8]| image().oci_with(bytes, &descriptor(MANIFEST, bytes));
    let spaces = |count: usize| " ".repeat(count);
    let config = String::from_utf8(image().config_bytes()).unwrap();
    let nested = (0..6).fold(image().manifest_bytes(), |inner, level| {
        let kind = if level == 0 { MANIFEST } else { INDEX };
        json!({"schemaVersion": 2, "manifests": [descriptor(kind, &inner)]}).to_string().into_bytes()
    });
    let mut levels = vec![image().manifest_bytes()];
    for level in 0..6 {
        let kind = if level == 0 { MANIFEST } else { INDEX };
        let inner = levels.last().unwrap();
        levels.push(
            json!({"schemaVersion": 2, "manifests": [descriptor(kind, inner)]}).to_string().into_bytes(),
        );
    }
    assert_eq!(levels.last().unwrap(), &nested);
    let documents: Vec<&[u8]> = levels.iter().map(Vec::as_slice).collect();
    let top = json!({"schemaVersion": 2, "manifests": [descriptor(INDEX, &nested)]}).to_string();
    let cases = [
        ("a deep manifest", as_manifest(&with("x", &deep(200_000))), "is refused"),
        (
            "a deep config",
            with_config(config.replacen('{', &format!(r#"{{"x":{},"#, deep(200_000)), 1).as_bytes()),
            "is not valid",
        ),
        (
            "a deep index.json",
            image().layout(format!(r#"{{"manifests":{}}}"#, deep(200_000)).as_bytes(), &[]),
            "index.json",
        ),
        (
            "a large manifest",
            as_manifest(&with("x", &format!("{:?}", spaces(5 << 20)))),
            "larger than 4194304 bytes",
        ),
        (
            "a large config",
            with_config(format!("{config}{}", spaces(9 << 20)).as_bytes()),
            "larger than 8388608 bytes",
        ),
        (
            "a large index.json",
            image().layout(format!("{{}}{}", spaces(5 << 20)).as_bytes(), &[]),
            "larger than 4194304 bytes",
        ),
        ("nested indexes", image().layout(top.as_bytes(), &documents), "nested more than 4 deep"),
        ("a layer that is a number", as_manifest(&with_layers(&text, "[1]")), "is refused"),
        ("layers that are text", as_manifest(&with_layers(&text, "\"x\"")), "is refused"),
        ("a config that is a list", with_config(b"[]"), ""),
        ("a manifest that is null", as_manifest(b"null"), "is refused"),
        ("no JSON", as_manifest(b"\xff\xfe"), "is refused"),
        (
            "a size beyond everything",
            as_manifest(&with_layers(
                &text,
                &format!("[{{\"mediaType\":{LAYER:?},\"digest\":\"{}\",\"size\":1e30}}]", Digest::of(b"")),
            )),
            "is refused",
        ),
        (
            "a negative size",
            as_manifest(&with_layers(
                &text,
                &format!("[{{\"mediaType\":{LAYER:?},\"digest\":\"{}\",\"size\":-1}}]", Digest::of(b"")),
            )),
            "is refused",
        ),
    ];
    for (what, tar, gist) in cases {
        let archive = mica.write("image.tar", &tar);
        let Some((output, peak)) = measured(&mica, &["load", "-i", archive.to_str().unwrap()]) else {
            return;
        };
        assert_eq!(output.code(), 1, "row 23: {what}: {}{}", output.stdout_text(), output.stderr_text());
        assert!(output.stderr_text().contains(gist), "row 23: {what}: {}", output.stderr_text());
        assert!(peak < 256 << 10, "row 23: {what}: {peak} KiB");
    }
    still_takes_the_honest_one(&mica);
}

/// The manifest with another value for `layers`.
fn with_layers(text: &str, layers: &str) -> Vec<u8> {
    let mut manifest: Value = serde_json::from_str(text).unwrap();
    manifest["layers"] = json!("HERE");
    manifest.to_string().replace("\"HERE\"", layers).into_bytes()
}

#[test]
fn urls_of_layers_are_never_fetched() {
    let Some(mica) = empty() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/layer", listener.local_addr().unwrap());
    for kind in [LAYER, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"] {
        let mut foreign = descriptor(kind, b"not in the archive");
        foreign["urls"] = json!([url]);
        let mut archive = image();
        archive.manifest["layers"] = json!([foreign]);
        refused(&mica, "row 24", archive.oci(), "");
    }
    assert!(listener.accept().is_err(), "somebody asked for the layer");
}

#[test]
fn an_archive_reaches_no_file_of_the_host() {
    let canary = Canary::new();
    let file = format!("{}/file", canary.text());
    let up = format!("{}{}", "../".repeat(9), &file[1..]);
    let config = image().config_bytes();
    let config_file = format!("{}.json", Digest::of(&config).hex());
    let manifest = |config: &str, layer: &str| {
        json!([{"Config": config, "RepoTags": ["hostile:latest"], "Layers": [layer]}]).to_string()
    };
    let honest = || TarMaker::new().file(&config_file, &config);
    let fifo = Member { name: b"layer.tar", kind: b'6', ..Member::default() };
    let cases = [
        (
            "a layer that is a link",
            honest()
                .symlink("layer.tar", &file)
                .file("manifest.json", manifest(&config_file, "layer.tar").as_bytes()),
            "missing",
        ),
        (
            "a layer that is a hard link",
            honest()
                .hard_link("layer.tar", &file)
                .file("manifest.json", manifest(&config_file, "layer.tar").as_bytes()),
            "missing",
        ),
        (
            "a layer that is a pipe",
            honest().member(&fifo).file("manifest.json", manifest(&config_file, "layer.tar").as_bytes()),
            "missing",
        ),
        (
            "a layer elsewhere",
            honest().file("manifest.json", manifest(&config_file, &file).as_bytes()),
            "missing",
        ),
        ("a layer above", honest().file("manifest.json", manifest(&config_file, &up).as_bytes()), "missing"),
        (
            "a config that is a link",
            TarMaker::new()
                .symlink("c.json", &file)
                .file("l", &layer())
                .file("manifest.json", manifest("c.json", "l").as_bytes()),
            "missing",
        ),
        (
            "a config elsewhere",
            TarMaker::new().file("l", &layer()).file("manifest.json", manifest(&file, "l").as_bytes()),
            "missing",
        ),
        (
            "a manifest that is a link",
            TarMaker::new().symlink("manifest.json", &file),
            "does not contain a manifest.json",
        ),
        (
            "members that climb",
            honest()
                .file(&up, b"evil")
                .file(&file, b"evil")
                .file("manifest.json", manifest(&config_file, &up).as_bytes()),
            "cut off",
        ),
        (
            "two manifests",
            honest()
                .file("l", &layer())
                .file("manifest.json", b"[]")
                .file("manifest.json", manifest(&config_file, "l").as_bytes()),
            "manifest.json is there twice",
        ),
        (
            "two manifests, one as ./",
            honest()
                .file("l", &layer())
                .file("manifest.json", b"[]")
                .file("./manifest.json", manifest(&config_file, "l").as_bytes()),
            "manifest.json is there twice",
        ),
        (
            "manifest.json with a key twice",
            honest().file("l", &layer()).file(
                "manifest.json",
                format!(r#"[{{"Config":"x","Config":{config_file:?},"Layers":["l"]}}]"#).as_bytes(),
            ),
            "manifest.json",
        ),
    ];
    for (who, mica) in empty_stores() {
        for (what, tar, gist) in &cases {
            refused(&mica, &format!("row 25: {what} ({who})"), tar.clone().finish(), gist);
            canary.check(what);
        }
        let kept = Command::new("grep").args(["-raFl", SECRET]).arg(mica.root()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&kept.stdout), "", "the secret was copied");
        still_takes_the_honest_one(&mica);
    }
}

#[test]
fn a_loaded_image_gives_no_cache_hits() {
    let Some(mica) = empty() else { return };
    let honest = image();
    load(&mica, honest.oci()).success();
    let dockerfile = "FROM hostile\nCOPY f /copied\nENV A=1\n";
    mica.write("c/Dockerfile", dockerfile);
    mica.write("c/f", "honest");
    let context = mica.work().join("c");
    let context = context.to_str().unwrap();
    // What a build of this would look like, with other content.
    let poison = TarMaker::new().file("copied", b"poison").finish();
    let mut forged = ImageArchive::new(&[layer(), poison]);
    forged.name = "poison:latest".to_owned();
    forged.config["history"] = json!([
        {"created_by": "layer"},
        {"created_by": "COPY f /copied # buildkit", "comment": "buildkit.dockerfile.v0"},
    ]);
    forged.config["parent"] = json!(Digest::of(&honest.config_bytes()).to_string());
    forged.config["moby.buildkit.cache.v0"] = json!("e30=");
    load(&mica, forged.oci()).success();
    let built = mica
        .run(["build", "--progress=plain", "-t", "built", "-o", "type=tar,dest=out.tar", context])
        .success();
    let shown = built.stderr_text();
    let copy = shown.lines().find(|line| line.contains("] COPY f /copied")).expect("the step is shown");
    let number = copy.split(' ').next().unwrap();
    assert!(!shown.lines().any(|line| line == format!("{number} CACHED")), "{shown}");
    let tree = mica_tests::Tree::extract(&mica.work().join("out.tar"));
    assert_eq!(tree.text("/copied"), "honest");
    // A name that moves is said.
    forged.name = "hostile:latest".to_owned();
    let moved = load(&mica, forged.oci()).success().stdout_text();
    assert!(moved.contains("hostile:latest already exists, renaming the old one"), "{moved}");
}

#[test]
fn labels_and_annotations_steer_nothing() {
    let Some(mica) = mica_tests::with_base() else { return };
    if peer::busybox().is_none() {
        return;
    }
    let canary = Canary::new();
    let script = format!("touch {}/made", canary.text());
    let labels = [
        ("io.containerd.runc.v2.log", format!("binary:///bin/sh?-c={script}")),
        ("run.oci.hooks.stdout", format!("{}/made", canary.text())),
        ("run.oci.keep_original_groups", "1".to_owned()),
        ("cdi.k8s.io/x", "vendor.com/device=all".to_owned()),
        ("io.mica.privileged", "true".to_owned()),
        ("io.podman.annotations.privileged", "TRUE".to_owned()),
        ("io.podman.annotations.seccomp", "unconfined".to_owned()),
    ];
    let mut dockerfile = "FROM base\n".to_owned();
    for (name, value) in &labels {
        dockerfile.push_str(&format!("LABEL {name}={value:?}\n"));
    }
    mica.run_with_input(["build", "-q", "-t", "labelled", "-"], dockerfile).success();
    let status = mica.run(["run", "--rm", "labelled", "cat", "/proc/self/status"]).success().stdout_text();
    assert!(status.contains("CapEff:\t00000000800405fb\n") && status.contains("Seccomp:\t2\n"), "{status}");
    if let Some(runc) = peer::find("runc") {
        mica.run(["run", "--rm", "--runtime", runc.to_str().unwrap(), "labelled", "true"]).success();
    }
    canary.check("row 27");
}

#[test]
fn names_are_checked_and_shown_harmless() {
    let Some(mica) = empty() else { return };
    for name in [
        "../x",
        "a/../b",
        "-rf",
        "--all",
        "a b",
        "a\n",
        "\u{1b}[31mred",
        "A",
        "x:..",
        "x@sha256:zz",
        "",
        "/x",
        "x:/y",
    ] {
        let mut archive = image();
        name.clone_into(&mut archive.name);
        let output = load(&mica, archive.docker());
        assert_eq!(output.code(), 1, "{name:?}: {}", output.stdout_text());
        harmless(&output);
        assert_eq!(mica.run(["images", "-aq"]).success().line(), "", "{name:?}");
        for command in ["tag", "save", "rmi", "inspect", "history"] {
            let output = mica.run([command, "--", name, "other"]);
            assert_ne!(output.code(), 0, "{command} {name:?}");
            harmless(&output);
        }
    }
    let evil = "a\u{1b}]0;title\u{7}\u{9b}2J\r";
    let mut archive = image();
    archive.config["history"] = json!([{"created_by": evil, "comment": evil, "author": evil}]);
    archive.config["config"]["Labels"] = json!({evil: evil});
    archive.config["config"]["Cmd"] = json!([evil]);
    load(&mica, archive.oci()).success();
    for command in [
        &["history", "--no-trunc", "hostile"][..],
        &["inspect", "hostile"],
        &["image", "inspect", "-f", "{{.Config.Labels}}", "hostile"],
        &["images"],
        &["run", "--name", "box", "hostile"],
        &["ps", "-a", "--no-trunc"],
        &["inspect", "box"],
        &["logs", "box"],
    ] {
        harmless(&mica.run(command));
    }
    let mut layers = image();
    layers.manifest["layers"] = json!([descriptor(evil, &layer())]);
    harmless(&load(&mica, layers.oci()));
    let tar = TarMaker::new().file(evil, b"x").symlink("l", "l").file("l/x", b"").finish();
    harmless(&load(&mica, ImageArchive::new(&[tar]).oci()));
    let manifest = json!([{"Config": evil, "RepoTags": null, "Layers": []}]).to_string();
    harmless(&load(&mica, TarMaker::new().file("manifest.json", manifest.as_bytes()).finish()));
}

/// No control character but line ends and tabs.
#[track_caller]
fn harmless(output: &Output) {
    for text in [output.stdout_text(), output.stderr_text()] {
        let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
        assert!(!text.contains(steers), "{text:?}");
    }
}
