//! How much a registry keeps, and for how long.

use mica_oci::media_type;
use mica_tests::registry::{Image, Registry, digest};
use mica_tests::until;
use serde_json::json;

#[test]
fn a_quota_is_kept_and_deletions_make_room() {
    let registry = Registry::mica(&["--quota", "100kb", "--quota", "small/*=10kb", "--grace", "0s"]);
    let block = |byte: u8, kib: usize| vec![byte; kib << 10];
    registry.push_blob("a", &block(1, 60)).is(201);
    let refused = registry.push_blob("a", &block(2, 60)).is(413);
    assert_eq!(refused.code(), "DENIED");
    assert!(refused.text().contains("this registry may hold 102400 bytes"), "{}", refused.text());
    // What is there already costs nothing.
    registry.push_blob("b", &block(1, 60)).is(201);
    let refused = registry.push_blob("small/x", &block(3, 20)).is(413);
    assert!(refused.text().contains("small/x may hold 10240 bytes"), "{}", refused.text());
    let mount = format!("/v2/small/x/blobs/uploads/?mount={}&from=a", digest(&block(1, 60)));
    registry.ask("POST", &mount).send().is(413);
    registry.push_blob("small/x", &block(4, 8)).is(201);
    registry.push_blob("small/x", &block(4, 8)).is(201);
    registry.push_blob("small/y", &block(5, 8)).is(201);
    for repository in ["a", "b"] {
        // The collector may have been faster.
        registry.ask("DELETE", &format!("/v2/{repository}/blobs/{}", digest(&block(1, 60)))).send();
    }
    until("there is room again", || registry.push_blob("a", &block(2, 60)).status == 201);
}

#[test]
fn untagged_manifests_expire_and_others_do_not() {
    let registry = Registry::mica(&["--expire-untagged", "0s", "--grace", "1h"]);
    let (kept, child, moved) = (Image::new("kept"), Image::new("child"), Image::new("moved"));
    registry.push("r", "kept", &kept).is(201);
    registry.push("r", "child", &child).is(201);
    let index = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [child.descriptor()],
    })
    .to_string();
    registry.put_manifest("r", "index", media_type::OCI_INDEX, index.as_bytes()).is(201);
    let signature = Image::with("signature", json!({ "subject": kept.descriptor() }));
    registry.push("r", &signature.digest(), &signature).is(201);
    registry.push("r", "moved", &moved).is(201);
    registry.ask("DELETE", "/v2/r/manifests/child").send().is(202);
    registry.ask("DELETE", "/v2/r/manifests/moved").send().is(202);
    let there =
        |digest: &str| registry.ask("HEAD", &format!("/v2/r/manifests/{digest}")).send().status == 200;
    until("the untagged one is gone", || !there(&moved.digest()));
    assert!(there(&kept.digest()) && there(&child.digest()) && there(&signature.digest()));
    registry.ask("DELETE", "/v2/r/manifests/index").send().is(202);
    until("nobody names the child any more", || !there(&child.digest()));
    registry.ask("DELETE", &format!("/v2/r/manifests/{}", kept.digest())).send().is(202);
    until("a signature of nothing goes too", || !there(&signature.digest()));
}
