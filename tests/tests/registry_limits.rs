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

/// Takes one request and answers it; returns its head and body.
fn hear(listener: &std::net::TcpListener, status: u16) -> (String, String) {
    use std::io::{BufRead, Read, Write};
    let (stream, _) = listener.accept().unwrap();
    let mut reader = std::io::BufReader::new(&stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    write!(&stream, "HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    (head, String::from_utf8(body).unwrap())
}

#[test]
fn pushes_and_deletions_are_told_until_they_were_heard() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = mica_testkit::temp_dir();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "key\n").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let mut registry = Registry::mica(&["--webhook", &url, "--webhook-secret", secret.to_str().unwrap()]);
    let image = Image::new("told");
    registry.push("r", "x", &image).is(201);
    let (head, refused) = hear(&listener, 503);
    assert!(head.starts_with("post /hook ") && head.contains("x-hub-signature-256: sha256="), "{head}");
    // Not even a crash loses it.
    registry.crash();
    registry.ask("DELETE", "/v2/r/manifests/x").send().is(202);
    let mut heard: Vec<serde_json::Value> = Vec::new();
    while heard.len() < 2 {
        let (_, body) = hear(&listener, 200);
        let told: serde_json::Value = serde_json::from_str(&body).unwrap();
        heard.extend(told["events"].as_array().unwrap().iter().cloned());
    }
    let first: serde_json::Value = serde_json::from_str(&refused).unwrap();
    assert_eq!(first["events"][0], heard[0]);
    assert_eq!((&heard[0]["action"], &heard[1]["action"]), (&json!("push"), &json!("delete")));
    let target = &heard[0]["target"];
    assert_eq!((&target["repository"], &target["tag"]), (&json!("r"), &json!("x")));
    assert_eq!(target["digest"], image.digest());
    assert_eq!(heard[1]["target"], json!({ "repository": "r", "tag": "x" }));
}
