//! Taking over the folder of the reference registry.

use mica_oci::media_type;
use mica_tests::registry::{Image, Registry, digest};
use serde_json::json;

/// Imports a folder into that of a registry that is not running.
fn import(registry: &Registry, from: &std::path::Path, options: &[&str]) -> (Option<i32>, String) {
    let data = registry.data().to_str().unwrap();
    let arguments = [&["registry", "import", "--data", data], options, &[from.to_str().unwrap()]].concat();
    let output = registry.command(&arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn everything_of_the_reference_registry_is_taken_over() {
    let Some(old) = Registry::distribution() else { return };
    let (one, two) = (Image::new("one"), Image::new("two"));
    old.push("team/app", "v1", &one).is(201);
    old.push("team/app", "latest", &one).is(201);
    old.push("other", &two.digest(), &two).is(201);
    let index = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [two.descriptor()],
    })
    .to_string();
    old.put_manifest("other", "all", media_type::OCI_INDEX, index.as_bytes()).is(201);
    old.push("other", "gone", &Image::new("gone")).is(201);
    let gone = format!("/v2/other/manifests/{}", Image::new("gone").digest());
    old.ask("DELETE", &gone).send().is(202);

    let mut new = Registry::mica(&[]);
    new.signal(rustix::process::Signal::TERM);
    assert_eq!(new.wait(), Some(0));
    let (code, text) = import(&new, old.data(), &[]);
    assert_eq!((code, text.as_str()), (Some(0), "2 repositories, 3 tags, 3 manifests, 6 blobs, 0 skipped\n"));
    // Again changes nothing.
    assert_eq!(import(&new, old.data(), &["--trust"]).0, Some(0));
    new.start_again();
    for (path, bytes) in [
        ("/v2/team/app/manifests/v1", one.manifest.as_slice()),
        ("/v2/team/app/manifests/latest", &one.manifest),
        ("/v2/other/manifests/all", index.as_bytes()),
    ] {
        assert_eq!(new.ask("GET", path).send().is(200).body, bytes);
    }
    for blob in &two.blobs {
        let got = new.ask("GET", &format!("/v2/other/blobs/{}", digest(blob))).send().is(200);
        assert_eq!(&got.body, blob);
    }
    new.ask("GET", &gone).send().is(404);
    // The old one goes on as ever.
    old.ask("GET", "/v2/team/app/tags/list").send().is(200);
}

#[test]
fn what_is_damaged_stays_behind_and_is_named() {
    let Some(old) = Registry::distribution() else { return };
    let (good, bad) = (Image::new("good"), Image::new("bad"));
    old.push("r", "good", &good).is(201);
    old.push("r", "bad", &bad).is(201);
    let hex = digest(&bad.blobs[1]).split_off(7);
    let blob = old.data().join(format!("docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
    std::fs::write(&blob, "other bytes").unwrap();
    let mut new = Registry::mica(&[]);
    new.signal(rustix::process::Signal::TERM);
    new.wait();
    let (code, text) = import(&new, old.data(), &[]);
    assert_eq!(code, Some(1), "{text}");
    mica_tests::holds(
        &text,
        &[
            &format!("skipped: r: blob {}: its bytes have another digest", digest(&bad.blobs[1])),
            &format!("skipped: r: manifest {}", bad.digest()),
            "1 repositories, 1 tags, 1 manifests, 3 blobs, 2 skipped",
        ],
    );
    new.start_again();
    new.ask("GET", "/v2/r/manifests/good").send().is(200);
    new.ask("GET", "/v2/r/manifests/bad").send().is(404);
}

#[test]
fn a_folder_of_something_else_is_not_taken_over() {
    let mut registry = Registry::mica(&[]);
    registry.signal(rustix::process::Signal::TERM);
    registry.wait();
    let folder = mica_testkit::temp_dir();
    let (code, text) = import(&registry, folder.path(), &[]);
    assert_eq!(code, Some(1));
    mica_tests::holds(&text, &["has no folder docker/registry/v2", "rootdirectory"]);
}
