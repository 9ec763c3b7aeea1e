//! Requests that are wrong: each gets its status and code, none harms the registry (the rows of registry.md 5c).

use std::io::Write;

use mica_oci::media_type;
use mica_tests::registry::{Ask, Image, Registry, Reply, digest, location, read_reply, with};
use serde_json::json;

/// An answer with one of these statuses, and this code if it is not empty.
#[track_caller]
fn refused(reply: &Reply, statuses: &[u16], code: &str) {
    assert!(statuses.contains(&reply.status), "{} {:?} {}", reply.status, reply.headers, reply.text());
    if !code.is_empty() {
        assert_eq!(reply.code(), code, "{}", reply.text());
    }
    assert!(!reply.text().contains("/tmp"), "a path of this machine: {}", reply.text());
}

/// After all that, it still serves, and nothing is where it should not be.
#[track_caller]
fn unharmed(registry: &Registry) {
    registry.push("after/all", "x", &Image::new("after all")).is(201);
    let entries = std::fs::read_dir(registry.data().parent().unwrap()).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["data", "log"]);
}

#[test]
fn names_that_are_none_are_refused() {
    let registry = Registry::mica(&[]);
    let long = "a".repeat(300);
    let tag = "t".repeat(129);
    let hex = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    for (method, path, statuses, code) in [
        ("GET", "/v2/UPPER/Case/tags/list".to_owned(), &[400][..], "NAME_INVALID"),
        ("GET", "/v2/a-/b/tags/list".to_owned(), &[400], "NAME_INVALID"),
        ("POST", format!("/v2/{long}/blobs/uploads/"), &[400], "NAME_INVALID"),
        ("GET", "/v2/a%00b/tags/list".to_owned(), &[400], "NAME_INVALID"),
        ("GET", "/v2/../../../etc/passwd".to_owned(), &[404], "NAME_UNKNOWN"),
        ("POST", "/v2/%2e%2e/%2e%2e/evil/blobs/uploads/".to_owned(), &[400], "NAME_INVALID"),
        ("PUT", "/v2/a/manifests/..%2f..%2fevil".to_owned(), &[400], "TAG_INVALID"),
        ("GET", "/v2/a/blobs/sha256:..%2f..%2fetc%2fpasswd".to_owned(), &[400], "DIGEST_INVALID"),
        ("PATCH", "/v2/a/blobs/uploads/..%2f..%2fx".to_owned(), &[404], "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", format!("/v2/a/manifests/{tag}"), &[400], "TAG_INVALID"),
        ("GET", "/v2/a/blobs/sha256:e3b0".to_owned(), &[400], "DIGEST_INVALID"),
        ("GET", "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(), &[400], "DIGEST_INVALID"),
        ("GET", format!("/v2/a/blobs/sha256:{}", hex.to_uppercase()), &[400], "DIGEST_INVALID"),
        ("GET", "/v2/a/manifests/sha256:baddigeststring".to_owned(), &[400], "DIGEST_INVALID"),
        ("GET", "/v2/a/referrers/sha256:zz".to_owned(), &[400], "DIGEST_INVALID"),
        ("GET", "/v2//a/tags/list".to_owned(), &[400], "NAME_INVALID"),
        ("GET", "/v1/search".to_owned(), &[404], "NAME_UNKNOWN"),
        ("GET", "/v2/_catalog?n=-1".to_owned(), &[400], "PAGINATION_NUMBER_INVALID"),
        ("GET", "/v2/a/tags/list?n=abc".to_owned(), &[400], "PAGINATION_NUMBER_INVALID"),
        ("POST", "/v2/a/manifests/x".to_owned(), &[405], "UNSUPPORTED"),
        ("POST", "/v2/a/blobs/uploads/?mount=sha256:x&from=b".to_owned(), &[400], "DIGEST_INVALID"),
        ("DELETE", format!("/v2/a/blobs/sha256:{hex}"), &[404], "BLOB_UNKNOWN"),
        ("GET", format!("/{}", "x".repeat(10_000)), &[414], ""),
    ] {
        println!("{method} {path:.80}");
        let reply = registry.ask(method, &path).send();
        refused(&reply, statuses, code);
        assert_eq!(reply.get("allow").is_some(), reply.status == 405);
    }
    unharmed(&registry);
}

#[test]
fn uploads_that_do_not_add_up_are_refused() {
    let registry = Registry::mica(&[]);
    let ten = [b'x'; 10];
    let begun = registry.begin("a/b");
    refused(
        &registry.ask("PUT", &with(&begun, "digest=sha256:zz")).body("x").send(),
        &[400],
        "DIGEST_INVALID",
    );
    refused(&registry.ask("PUT", &begun).body("x").send(), &[400], "DIGEST_INVALID");
    let unknown = format!("/v2/a/b/blobs/uploads/{}", "0".repeat(32));
    refused(&registry.ask("PATCH", &unknown).body("x").send(), &[404], "BLOB_UPLOAD_UNKNOWN");
    // The id of an upload is worth nothing in another repository.
    let elsewhere = begun.replace("/a/b/", "/a/c/");
    refused(&registry.ask("PATCH", &elsewhere).body("x").send(), &[404], "BLOB_UPLOAD_UNKNOWN");
    for (range, statuses, code) in [
        ("0-99", &[400][..], "SIZE_INVALID"),
        ("0-9223372036854775808", &[416], "BLOB_UPLOAD_INVALID"),
        ("0-18446744073709551616", &[416], "BLOB_UPLOAD_INVALID"),
        ("9-0", &[416], "BLOB_UPLOAD_INVALID"),
        ("x", &[416], "BLOB_UPLOAD_INVALID"),
        ("5-14", &[416], "BLOB_UPLOAD_INVALID"),
    ] {
        let reply = registry.ask("PATCH", &begun).header("Content-Range", range).body(ten).send();
        refused(&reply, statuses, code);
    }
    let after = registry.ask("GET", &begun).send().is(204);
    assert_eq!(after.get("range"), Some("0-0"));
    // A body that is shorter than announced, without a length of its own.
    let reply = registry
        .ask("PATCH", &begun)
        .header("Content-Range", "0-9")
        .header("Transfer-Encoding", "chunked")
        .body("3\r\nabc\r\n0\r\n\r\n")
        .send();
    refused(&reply, &[400], "SIZE_INVALID");
    registry.ask("PATCH", &begun).header("Content-Range", "0-9").body(ten).send().is(202);
    let path = with(&begun, &format!("digest={}", digest(&ten)));
    registry.ask("PUT", &path).send().is(201);
    refused(&registry.ask("PUT", &path).send(), &[404], "BLOB_UPLOAD_UNKNOWN");
    unharmed(&registry);
}

#[test]
fn a_connection_that_is_cut_inside_a_chunk_loses_no_byte_that_arrived() {
    let registry = Registry::mica(&[]);
    let begun = registry.begin("cut");
    let ask = registry.ask("PATCH", &begun).header("Content-Length", "1000");
    let mut stream = ask.connect();
    stream.write_all(&ask.head()).unwrap();
    stream.write_all(&[b'x'; 400]).unwrap();
    drop(stream);
    mica_tests::until("the bytes are there", || {
        registry.ask("GET", &begun).send().is(204).get("range") == Some("0-399")
    });
}

#[test]
fn manifests_that_are_none_are_refused() {
    let registry = Registry::mica(&[]);
    let image = Image::new("base");
    registry.push("m", "x", &image).is(201);
    let base: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    let changed = |key: &str, value: serde_json::Value| {
        let mut document = base.clone();
        document[key] = value;
        document.to_string()
    };
    let part = |digest: &str, size: usize| json!({ "mediaType": "x/y", "digest": digest, "size": size });
    let known = digest(&image.blobs[0]);
    let index = |digest: String| {
        json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [part(&digest, 5)] })
            .to_string()
    };
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for (what, text, content_type, statuses, code) in [
        (
            "missing child",
            index(digest(b"absent")),
            media_type::OCI_INDEX,
            &[400, 404][..],
            "MANIFEST_BLOB_UNKNOWN",
        ),
        ("trailing bytes", format!("{base} x"), media_type::OCI_MANIFEST, &[400], "MANIFEST_INVALID"),
        ("both kinds", changed("manifests", json!([])), media_type::OCI_MANIFEST, &[400], "MANIFEST_INVALID"),
        ("other type", base.to_string(), media_type::OCI_INDEX, &[400], "MANIFEST_INVALID"),
        (
            "schema 1",
            json!({ "schemaVersion": 1, "name": "m", "tag": "x", "fsLayers": [] }).to_string(),
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            &[400],
            "MANIFEST_INVALID",
        ),
        (
            "wrong size",
            changed("config", part(&known, 5)),
            media_type::OCI_MANIFEST,
            &[400],
            "MANIFEST_INVALID",
        ),
        (
            "digest that climbs",
            changed("config", part("sha256:../../../../etc/passwd", 5)),
            media_type::OCI_MANIFEST,
            &[400],
            "MANIFEST_INVALID",
        ),
        ("depth", nested, media_type::OCI_MANIFEST, &[400], "MANIFEST_INVALID"),
        ("no JSON", "\u{0}".to_owned(), media_type::OCI_MANIFEST, &[400], "MANIFEST_INVALID"),
        ("empty", String::new(), media_type::OCI_MANIFEST, &[400], "MANIFEST_INVALID"),
        (
            "5 MB",
            changed("annotations", json!({ "a": "x".repeat(5 << 20) })),
            media_type::OCI_MANIFEST,
            &[413],
            "SIZE_INVALID",
        ),
    ] {
        println!("{what}");
        refused(&registry.put_manifest("m", "y", content_type, text.as_bytes()), statuses, code);
    }
    // A body without end is not read to it.
    let ask = registry.ask("PUT", "/v2/m/manifests/y").header("Transfer-Encoding", "chunked");
    let mut stream = ask.connect();
    stream.write_all(&ask.head()).unwrap();
    let chunk = [&b"10000\r\n"[..], &[b' '; 0x10000], b"\r\n"].concat();
    let written = (0..1000).take_while(|_| stream.write_all(&chunk).is_ok()).count();
    assert!(written < 1000, "64 MB were read");
    unharmed(&registry);
}

#[test]
fn http_that_is_none_is_refused() {
    let registry = Registry::mica(&[]);
    let begun = registry.begin("h");
    let raw = |text: &[u8]| {
        let mut stream = Ask::connect(&registry.ask("GET", "/"));
        // Refused before the end.
        let _refused = stream.write_all(text);
        read_reply(&stream, false).status
    };
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2 << 20));
    assert!(matches!(raw(long.as_bytes()), 414 | 431 | 0));
    let huge = format!("GET /v2/ HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    assert!(matches!(raw(huge.as_bytes()), 431 | 0));
    assert_eq!(raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03garbage\r\n\r\n"), 400);
    assert_eq!(raw(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"), 400);
    assert_eq!(raw(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), 400);
    let patch = |rest: &str| raw(format!("PATCH {begun} HTTP/1.1\r\nHost: x\r\n{rest}").as_bytes());
    // Chunked wins over a length: what is in the chunks is the body.
    assert!(matches!(
        patch("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"),
        202 | 400
    ));
    assert_eq!(patch("Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n"), 400);
    unharmed(&registry);
}

#[test]
fn deletions_can_be_switched_off_for_every_kind() {
    let registry = Registry::mica(&["--no-delete"]);
    let image = Image::new("kept");
    registry.push("k", "x", &image).is(201);
    let blob = digest(&image.blobs[0]);
    for path in [
        "/v2/k/manifests/x".to_owned(),
        format!("/v2/k/manifests/{}", image.digest()),
        format!("/v2/k/blobs/{blob}"),
    ] {
        refused(&registry.ask("DELETE", &path).send(), &[405], "UNSUPPORTED");
        registry.ask("GET", &path).send().is(200);
    }
    // Giving up an upload deletes nothing that was kept.
    registry.ask("DELETE", &registry.begin("k")).send().is(204);
}

#[test]
fn pages_are_small_however_much_is_asked_for() {
    let registry = Registry::mica(&[]);
    registry.push("p", "x", &Image::new("p")).is(201);
    for n in ["99999999999999999999", "18446744073709551615", "1000000"] {
        let reply = registry.ask("GET", &format!("/v2/_catalog?n={n}")).send().is(200);
        assert_eq!(reply.json()["repositories"], json!(["p"]));
    }
    let zero = registry.ask("GET", "/v2/p/tags/list?n=0").send().is(200);
    assert_eq!((zero.json()["tags"].clone(), zero.get("link")), (json!([]), None));
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let registry = Registry::mica(&[]);
    let image = Image::new("etag");
    registry.push("e", "x", &image).is(201);
    let blob = digest(&image.blobs[0]);
    for path in ["/v2/e/manifests/x".to_owned(), format!("/v2/e/blobs/{blob}")] {
        let first = registry.ask("GET", &path).send().is(200);
        let tag = first.get("etag").unwrap();
        let again = registry.ask("GET", &path).header("If-None-Match", tag).send().is(304);
        assert_eq!(again.get("etag"), Some(tag));
    }
    assert_eq!(location(&registry.push_blob("e", b"y").is(201)), format!("/v2/e/blobs/{}", digest(b"y")));
}
