//! The forms that an image or its files can have when they leave: times, media types, annotations, metadata.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use mica_tests::{Build, Tree, holds, with_base};
use serde_json::Value;

const DOCKERFILE: &str = "FROM base\nRUN mkdir /d && echo hi > /d/f\nWORKDIR /w\n";
const EPOCH: i64 = 1_600_000_000;

fn json_of(path: impl AsRef<Path>) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn blob(layout: &Path, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().unwrap();
    json_of(layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:")))
}

fn epoch(build: Build<'_>) -> Build<'_> {
    build.option("--build-arg", &format!("SOURCE_DATE_EPOCH={EPOCH}"))
}

#[test]
fn rewritten_times_make_two_builds_one_image() {
    let Some(mica) = with_base() else { return };
    let layout = |name: &str| mica.work().join(name);
    let output = |name: &str, more: &str| format!("type=oci,tar=false,dest={}{more}", layout(name).display());
    let build = || epoch(Build::new(&mica, DOCKERFILE)).flag("--no-cache");
    build().option("-o", &output("a", ",rewrite-timestamp=true")).run().success();
    // whole seconds are what a tar has
    std::thread::sleep(std::time::Duration::from_millis(1100));
    build()
        .option("-o", &output("b", ",rewrite-timestamp=true"))
        .option("-o", &output("c", ""))
        .run()
        .success();
    let digest = |name: &str| json_of(layout(name).join("index.json"))["manifests"][0]["digest"].clone();
    assert_eq!(digest("a"), digest("b"));
    assert_ne!(digest("b"), digest("c"), "RUN's own times are kept without it");
    let manifest = blob(&layout("a"), &json_of(layout("a").join("index.json"))["manifests"][0]);
    let layers = manifest["layers"].as_array().unwrap();
    let note =
        |layer: &Value| layer["annotations"]["buildkit/rewritten-timestamp"].as_str().map(str::to_owned);
    assert_eq!(note(layers.last().unwrap()), Some(EPOCH.to_string()));
    assert_eq!(note(&layers[0]), None, "the base's layers are as they were");
    let wrong = build().option("-o", "type=image,rewrite-timestamp=true,unpack=true").run().exits(1);
    holds(&wrong.stderr_text(), &["\"rewrite-timestamp\" conflicts with \"unpack\""]);
}

#[test]
fn a_stored_image_can_be_rewritten_and_run() {
    let Some(mica) = with_base() else { return };
    epoch(Build::new(&mica, DOCKERFILE))
        .option("-t", "r")
        .option("-o", "type=image,rewrite-timestamp=true")
        .run()
        .success();
    let shown = mica.run(["run", "--rm", "r", "stat", "-c", "%Y %n", "/d/f", "/d"]).success();
    assert_eq!(shown.stdout_text(), format!("{EPOCH} /d/f\n{EPOCH} /d\n"));
}

#[test]
fn files_are_as_old_as_the_epoch() {
    let Some(mica) = with_base() else { return };
    let (tar, folder) = (mica.work().join("o.tar"), mica.work().join("out"));
    epoch(Build::new(&mica, DOCKERFILE))
        .option("-o", &format!("type=tar,dest={}", tar.display()))
        .option("-o", &format!("type=local,dest={}", folder.display()))
        .run()
        .success();
    let tree = Tree::extract(&tar);
    assert_eq!((tree.lstat("/d/f").mtime(), tree.lstat("/bin").mtime()), (EPOCH, EPOCH));
    assert_eq!(folder.join("d/f").metadata().unwrap().mtime(), EPOCH);
}

#[test]
fn a_mirror_has_nothing_else_and_needs_leave_elsewhere() {
    let Some(mica) = with_base() else { return };
    mica.write("out/d/old", "old");
    mica.write("out/f/x", "a directory where a file will be");
    let mica = mica.working_directory("/");
    let dest = mica.work().join("out");
    let output = format!("type=local,mode=delete,dest={}", dest.display());
    let dockerfile = "FROM scratch\nCOPY f /f\nCOPY f /d/new\n";
    Build::new(&mica, dockerfile).file("f", "f").option("-o", &output).run().success();
    let names = |path: &str| Tree::names_in(&dest.join(path));
    assert_eq!((names(""), names("d")), (vec!["d".to_owned(), "f".to_owned()], vec!["new".to_owned()]));
    let mica = mica.working_directory("/usr");
    let refused = Build::new(&mica, dockerfile).file("f", "f").option("-o", &output).run().exits(1);
    holds(&refused.stderr_text(), &["outside the current directory", "--allow=buildx.local.delete"]);
    let split = format!("{output},platform-split=true");
    Build::new(&mica, dockerfile)
        .file("f", "f")
        .option("-o", &split)
        .option("--allow", "buildx.local.delete")
        .run()
        .success();
    assert!(names("").iter().any(|name| name.starts_with("linux_")));
}

#[test]
fn annotations_go_where_they_are_told() {
    let Some(mica) = with_base() else { return };
    let layout = mica.work().join("o");
    let output = format!(
        "type=oci,tar=false,dest={},annotation.own=1,annotation-manifest-descriptor.d=2",
        layout.display()
    );
    Build::new(&mica, DOCKERFILE)
        .option("-o", &output)
        .option("--annotation", "own=overridden")
        .option("--annotation", "manifest[linux/s390x]:other=x")
        .option("--annotation", "manifest,manifest-descriptor:both=3")
        .run()
        .success();
    let entry = json_of(layout.join("index.json"))["manifests"][0].take();
    let manifest = blob(&layout, &entry);
    assert_eq!(manifest["annotations"], serde_json::json!({ "both": "3", "own": "1" }));
    assert_eq!(
        (entry["annotations"]["d"].as_str(), entry["annotations"]["both"].as_str()),
        (Some("2"), Some("3"))
    );
    let index = Build::new(&mica, DOCKERFILE).option("--annotation", "index:a=b");
    index.fails("index annotations not supported for single platform export");
}

#[test]
fn docker_media_types_are_there_for_those_who_need_them() {
    let Some(mica) = with_base() else { return };
    let layout = mica.work().join("o");
    let output =
        format!("type=oci,tar=false,oci-mediatypes=false,compression=zstd,dest={}", layout.display());
    Build::new(&mica, DOCKERFILE).option("-o", &output).run().success();
    let entry = json_of(layout.join("index.json"))["manifests"][0].take();
    assert_eq!(entry["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    let manifest = blob(&layout, &entry);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.zstd");
    Build::new(&mica, DOCKERFILE)
        .option("-t", "d")
        .option("-o", "type=image,oci-mediatypes=false")
        .run()
        .success();
    mica.run(["run", "--rm", "d", "true"]).success();
    mica.run(["system", "check"]).success();
}

#[test]
fn metadata_names_what_came_out() {
    let Some(mica) = with_base() else { return };
    let (file, layout) = (mica.work().join("m.json"), mica.work().join("o"));
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    Build::new(&mica, DOCKERFILE)
        .option("-t", "app:1")
        .option("-o", &output)
        .option("--metadata-file", file.to_str().unwrap())
        .run()
        .success();
    let metadata = json_of(&file);
    let entry = json_of(layout.join("index.json"))["manifests"][0].take();
    assert_eq!(metadata["containerimage.digest"], entry["digest"]);
    assert_eq!(metadata["containerimage.config.digest"], blob(&layout, &entry)["config"]["digest"]);
    assert!(metadata["buildx.build.ref"].as_str().unwrap().starts_with("default/default/"));
    let missing = mica.work().join("none/m.json");
    let build = Build::new(&mica, DOCKERFILE).option("--metadata-file", missing.to_str().unwrap());
    holds(&build.run().stderr_text(), &["cannot write metadata to"]);
}
