//! Where a build's result can go.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use mica_tests::{Build, Tree, holds, with_base};
use serde_json::{Value, json};

const DOCKERFILE: &str = "FROM base\nRUN mkdir /d && echo hi > /d/f && chown -R 5:6 /d && chmod 640 /d/f\n";

fn entries(tar: &Path) -> Vec<String> {
    let listed = Command::new("tar").arg("-tf").arg(tar).output().expect("the system has tar");
    String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect()
}

fn json_of(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

#[test]
fn a_directory_gets_the_files() {
    let Some(mica) = with_base() else { return };
    let out = mica.work().join("out");
    mica.write("out/kept", "kept");
    mica.write("out/d/f", "old");
    let output = format!("type=local,dest={}", out.display());
    let built = Build::new(&mica, DOCKERFILE).option("-o", &output).run().success();
    holds(&built.stderr_text(), &["exporting to client directory"]);
    assert_eq!(std::fs::read_to_string(out.join("d/f")).unwrap(), "hi\n");
    let found = out.join("d/f").metadata().unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (0, 0o640), "owned by who builds");
    assert!(out.join("kept").exists());
    assert_eq!(mica.run(["images", "-q"]).success().stdout_text().lines().count(), 1, "only base is stored");
    let short = mica.work().join("short");
    Build::new(&mica, DOCKERFILE).option("-o", short.to_str().unwrap()).run().success();
    assert_eq!(short.metadata().unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_tar_keeps_owners_and_may_go_to_standard_output() {
    let Some(mica) = with_base() else { return };
    let built = Build::new(&mica, DOCKERFILE).succeeds();
    let tree = built.tree();
    assert_eq!((tree.owner("/d/f"), tree.owner("/d"), tree.mode("/d/f")), ((5, 6), (5, 6), 0o640));
    let streamed = Build::new(&mica, DOCKERFILE).option("-o", "-").run().success();
    let file = mica.write("streamed.tar", &streamed.stdout);
    assert_eq!(Tree::extract(&file).text("/d/f"), "hi\n");
}

#[test]
fn hard_links_stay_linked_in_a_tar() {
    let Some(mica) = with_base() else { return };
    let built = Build::new(&mica, "FROM base\nRUN mkdir /d && echo 1 > /d/f && ln /d/f /d/g\n").succeeds();
    let tree = built.tree();
    assert_eq!(tree.lstat("/d/f").ino(), tree.lstat("/d/g").ino());
}

#[test]
fn an_oci_archive_is_an_image_layout() {
    let Some(mica) = with_base() else { return };
    let tar = mica.work().join("o.tar");
    let output = format!("type=oci,dest={}", tar.display());
    let build =
        Build::new(&mica, DOCKERFILE).option("-t", "foo/bar:1").option("-t", "x").option("-o", &output);
    build.run().success();
    let names = entries(&tar);
    holds(&names.join("\n"), &["blobs/", "blobs/sha256/", "index.json", "oci-layout"]);
    assert!(!names.iter().any(|name| name == "manifest.json"));
    let mut sorted = names.clone();
    sorted.sort();
    assert_eq!(names, sorted);
    let tree = Tree::extract(&tar);
    let index = json_of(tree.path("index.json"));
    let described: Vec<(&Value, &Value)> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                &entry["annotations"]["io.containerd.image.name"],
                &entry["annotations"]["org.opencontainers.image.ref.name"],
            )
        })
        .collect();
    assert_eq!(
        described,
        [
            (&json!("docker.io/foo/bar:1"), &json!("1")),
            (&json!("docker.io/library/x:latest"), &json!("latest"))
        ]
    );
    assert_eq!(index["manifests"][0]["platform"]["os"], json!("linux"));
    let layout = json_of(tree.path("oci-layout"));
    assert_eq!(layout, json!({"imageLayoutVersion": "1.0.0"}));
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    let manifest = json_of(tree.path(&format!("blobs/{manifest}")));
    for layer in manifest["layers"].as_array().unwrap() {
        assert_eq!(layer["mediaType"], json!("application/vnd.oci.image.layer.v1.tar+gzip"));
    }
    assert_eq!((tree.mode("index.json"), tree.mode("oci-layout")), (0o644, 0o444));
    assert_eq!(tree.lstat("index.json").mtime(), 0);
}

#[test]
fn an_oci_layout_may_be_a_directory() {
    let Some(mica) = with_base() else { return };
    let layout = mica.work().join("layout");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    Build::new(&mica, DOCKERFILE).option("-t", "x").option("-o", &output).run().success();
    assert!(layout.join("index.json").exists() && layout.join("blobs/sha256").is_dir());
    let context = format!("b=oci-layout://{}", layout.display());
    let next =
        Build::new(&mica, "FROM b\nRUN cat /d/f > /g\n").option("--build-context", &context).succeeds();
    assert_eq!(next.tree().text("/g"), "hi\n");
}

#[test]
fn compression_can_be_chosen() {
    let Some(mica) = with_base() else { return };
    let cases = [
        ("uncompressed", "application/vnd.oci.image.layer.v1.tar"),
        ("gzip", "application/vnd.oci.image.layer.v1.tar+gzip"),
        ("zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
    ];
    for (compression, media_type) in cases {
        let tar = mica.work().join("o.tar");
        let output =
            format!("type=oci,compression={compression},force-compression=true,dest={}", tar.display());
        Build::new(&mica, DOCKERFILE).option("-o", &output).run().success();
        let tree = Tree::extract(&tar);
        let index = json_of(tree.path("index.json"));
        let manifest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
        let manifest = json_of(tree.path(&format!("blobs/{manifest}")));
        for layer in manifest["layers"].as_array().unwrap() {
            assert_eq!(layer["mediaType"], json!(media_type), "{compression}");
        }
    }
}

#[test]
fn a_docker_archive_names_its_tags() {
    let Some(mica) = with_base() else { return };
    let tar = mica.work().join("d.tar");
    let output = format!("type=docker,dest={}", tar.display());
    Build::new(&mica, DOCKERFILE)
        .option("-t", "foo/bar:1")
        .option("-t", "x")
        .option("-o", &output)
        .run()
        .success();
    let tree = Tree::extract(&tar);
    let manifest = json_of(tree.path("manifest.json"));
    assert_eq!(manifest[0]["RepoTags"], json!(["foo/bar:1", "x:latest"]));
    assert!(manifest[0]["Config"].as_str().unwrap().starts_with("blobs/sha256/"));
    assert!(!tree.has("repositories") && tree.has("index.json"));
}

#[test]
fn nothing_may_be_wanted_but_the_cache() {
    let Some(mica) = with_base() else { return };
    Build::new(&mica, DOCKERFILE).option("-o", "type=cacheonly").run().success();
    assert_eq!(mica.run(["images", "-q"]).success().stdout_text().lines().count(), 1);
    assert!(Build::new(&mica, DOCKERFILE).succeeds().cached("RUN mkdir /d"));
}

#[test]
fn the_image_id_is_written_to_a_file() {
    let Some(mica) = with_base() else { return };
    let file = mica.work().join("id");
    let id = Build::new(&mica, DOCKERFILE).option("--iidfile", file.to_str().unwrap()).id();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), id);
    let stored = mica.run(["images", "-a", "-q", "--no-trunc"]).success().stdout_text();
    holds(&stored, &[&id]);
    let with_files =
        Build::new(&mica, DOCKERFILE).option("--iidfile", file.to_str().unwrap()).option("-o", "-");
    with_files.run().exits(1);
}

#[test]
fn labels_and_tags_are_checked_before_anything_is_built() {
    let Some(mica) = with_base() else { return };
    let bad = Build::new(&mica, DOCKERFILE).option("-t", "UPPER");
    bad.fails("invalid reference format");
    let labelled = Build::new(&mica, "FROM base\nLABEL a=1 b=2\n").option("--label", "a=3").succeeds();
    assert_eq!(labelled.config()["Labels"], json!({"a": "3", "b": "2"}));
    assert_eq!(labelled.history(), ["LABEL a=1 b=2"]);
}

#[test]
fn a_failed_export_leaves_no_file() {
    let Some(mica) = with_base() else { return };
    let full = mica.work().join("full");
    std::fs::create_dir(&full).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=300k", "none"]).arg(&full).status();
    if !mounted.is_ok_and(|status| status.success()) {
        return mica_testkit::skip("cannot mount a tmpfs");
    }
    let mut seen = Vec::new();
    for kind in ["oci", "docker", "tar"] {
        let output = format!("type={kind},dest={}", full.join("o.tar").display());
        let failed = Build::new(&mica, DOCKERFILE).option("-o", &output).run();
        let left: Vec<_> = std::fs::read_dir(&full).unwrap().flatten().map(|entry| entry.path()).collect();
        seen.push((kind, failed, left));
    }
    // Before anything is demanded: a mount would outlive a test that fails.
    Command::new("umount").arg("-l").arg(&full).status().unwrap();
    for (kind, failed, left) in seen {
        let text = failed.exits(1).stderr_text();
        assert!(left.is_empty(), "type={kind} leaves {left:?}");
        assert!(text.to_lowercase().contains("no space left on device"), "{text}");
    }
    let nowhere = format!("type=oci,dest={}", mica.work().join("no/such/dir/o.tar").display());
    Build::new(&mica, "FROM base\nRUN false\n").option("-o", &nowhere).run().exits(1);
    assert!(!mica.work().join("no").exists());
}

#[test]
fn outputs_that_make_no_sense_are_refused() {
    let Some(mica) = with_base() else { return };
    let cases =
        ["type=nosuch,dest=x", "dest=x,tar=false", "type=oci,compression=nosuch,dest=x", "type=local"];
    for output in cases {
        let failed = Build::new(&mica, DOCKERFILE).option("-o", output).run();
        assert_ne!(failed.code(), 0, "{output}: {}", failed.stderr_text());
        assert!(failed.stderr_text().contains("rror"), "{output}: {}", failed.stderr_text());
    }
}

#[test]
fn the_context_may_come_as_a_tar_and_the_dockerfile_from_elsewhere() {
    let Some(mica) = with_base() else { return };
    let build = Build::new(&mica, "FROM scratch\nCOPY f /f\n").file("f", "f");
    let context = build.context();
    let tar = |owner: &str| {
        let owner = [format!("--owner={owner}"), format!("--group={owner}")];
        let made = Command::new("tar").args(owner).arg("-czC").arg(&context).arg(".").output();
        made.unwrap().stdout
    };
    let packed = |owner| mica.run_with_input(["build", "-q", "-"], tar(owner)).success().line();
    let direct = build.id();
    assert_eq!(packed("0"), direct);
    assert_ne!(packed("1234"), direct, "an archive says who owns what");
    let context = context.to_str().unwrap();
    let other = "FROM scratch\nCOPY f /other\n";
    let tree = mica.run_with_input(["build", "-f", "-", "-o", "-", context], other).success();
    holds(&String::from_utf8_lossy(&tree.stdout), &["other"]);
    let elsewhere = mica.write("elsewhere/My.Dockerfile", other);
    let tree = mica.run(["build", "-f", elsewhere.to_str().unwrap(), "-o", "-", context]).success();
    holds(&String::from_utf8_lossy(&tree.stdout), &["other"]);
}
