//! Each MUST and SHOULD of the OCI distribution specification 1.1 (and the `tag` parameters that come after it), as a
//! request and its answer. Run on mica, where nothing may fail, and on the reference registry, whose failures are known:
//! a check that cannot fail there, or fails where it should not, is a broken check.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mica_oci::media_type;
use mica_tests::registry::{Image, Registry, digest, location, sha512, with};
use serde_json::json;

type Check = fn(&Registry, &str);

/// Name, which is the repository as well, and what is checked.
const CHECKS: &[(&str, Check)] = &[
    ("base", base),
    ("pull/manifest", pull_manifest),
    ("pull/manifest-missing", pull_manifest_missing),
    ("pull/manifest-without-accept", pull_without_accept),
    ("pull/blob", pull_blob),
    ("pull/blob-missing", pull_blob_missing),
    ("pull/blob-range", pull_range),
    ("pull/blob-range-beyond", pull_range_beyond),
    ("push/blob-post-put", push_post_put),
    ("push/blob-single-post", push_single_post),
    ("push/blob-empty", push_empty),
    ("push/blob-chunked", push_chunked),
    ("push/blob-chunk-order", push_chunk_order),
    ("push/blob-last-chunk-order", push_last_chunk_order),
    ("push/blob-wrong-digest", push_wrong_digest),
    ("push/blob-cancel", push_cancel),
    ("push/blob-sha512", push_sha512),
    ("push/mount", mount),
    ("push/mount-missing", mount_missing),
    ("push/mount-anonymous", mount_anonymous),
    ("push/manifest", push_manifest),
    ("push/manifest-missing-blob", push_missing_blob),
    ("push/manifest-wrong-digest", push_manifest_digest),
    ("push/manifest-large", push_large),
    ("push/manifest-sha512", push_manifest_sha512),
    ("push/manifest-subject", push_subject),
    ("push/manifest-foreign-layer", push_foreign),
    ("push/index", push_index),
    ("push/tag-parameters", push_tag_parameters),
    ("list/tags", list_tags),
    ("list/tags-missing", list_tags_missing),
    ("list/catalog", list_catalog),
    ("referrers/empty", referrers_empty),
    ("referrers/listed", referrers_listed),
    ("referrers/filtered", referrers_filtered),
    ("referrers/deleted", referrers_deleted),
    ("delete/tag", delete_tag),
    ("delete/manifest", delete_manifest),
    ("delete/blob", delete_blob),
    ("errors", errors),
];

/// What clients of images accept.
const EVERYTHING: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json";

/// What distribution v3.1 does not do.
const KNOWN: &[&str] = &[
    "pull/manifest-without-accept",
    "push/blob-single-post",
    "push/blob-sha512",
    "push/mount-anonymous",
    "push/manifest-sha512",
    "push/manifest-subject",
    "push/manifest-foreign-layer",
    "push/tag-parameters",
    "referrers/empty",
    "referrers/listed",
    "referrers/filtered",
    "referrers/deleted",
];

fn failures(registry: &Registry) -> Vec<&'static str> {
    // Each failing check says in one line where; a trace of each would bury that.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let failed = |check: &&(&'static str, Check)| {
        let (name, check) = **check;
        catch_unwind(AssertUnwindSafe(|| check(registry, name))).is_err()
    };
    CHECKS.iter().filter(failed).map(|(name, _)| *name).collect()
}

#[test]
fn mica_does_all_that_the_specification_says() {
    let registry = Registry::mica(&[]);
    assert_eq!(failures(&registry), Vec::<&str>::new(), "{}", registry.log());
}

#[test]
fn the_checks_find_what_the_reference_does_not_do_and_nothing_else() {
    let Some(registry) = Registry::distribution() else { return };
    assert_eq!(failures(&registry), KNOWN);
}

fn base(registry: &Registry, _: &str) {
    registry.ask("GET", "/v2/").send().is(200);
}

fn pull_manifest(registry: &Registry, name: &str) {
    let image = Image::new(name);
    registry.push(name, "one", &image).is(201);
    for reference in ["one", &image.digest()] {
        let path = format!("/v2/{name}/manifests/{reference}");
        let got = registry.ask("GET", &path).header("Accept", media_type::OCI_MANIFEST).send().is(200);
        assert_eq!(got.body, image.manifest);
        let head = registry.ask("HEAD", &path).header("Accept", media_type::OCI_MANIFEST).send().is(200);
        for reply in [&got, &head] {
            assert_eq!(reply.get("content-type"), Some(media_type::OCI_MANIFEST));
            assert_eq!(reply.get("docker-content-digest"), Some(image.digest().as_str()));
            assert_eq!(reply.get("content-length"), Some(image.manifest.len().to_string().as_str()));
        }
        assert!(head.body.is_empty());
    }
}

fn pull_manifest_missing(registry: &Registry, name: &str) {
    registry.push(name, "one", &Image::new(name)).is(201);
    let missing = registry.ask("GET", &format!("/v2/{name}/manifests/two")).send().is(404);
    assert_eq!(missing.code(), "MANIFEST_UNKNOWN");
    let absent = digest(b"absent");
    registry.ask("HEAD", &format!("/v2/{name}/manifests/{absent}")).send().is(404);
}

/// A client that names no type gets what there is (3.1: "the content as stored").
fn pull_without_accept(registry: &Registry, name: &str) {
    let image = Image::new(name);
    registry.push(name, "one", &image).is(201);
    let got = registry.ask("GET", &format!("/v2/{name}/manifests/one")).send().is(200);
    assert_eq!(got.body, image.manifest);
}

fn pull_blob(registry: &Registry, name: &str) {
    registry.push_blob(name, b"some bytes").is(201);
    let path = format!("/v2/{name}/blobs/{}", digest(b"some bytes"));
    let got = registry.ask("GET", &path).send().is(200);
    assert_eq!(got.body, b"some bytes");
    assert_eq!(got.get("docker-content-digest"), Some(digest(b"some bytes").as_str()));
    let head = registry.ask("HEAD", &path).send().is(200);
    assert_eq!(head.get("content-length"), Some("10"));
}

fn pull_blob_missing(registry: &Registry, name: &str) {
    registry.push_blob(name, b"x").is(201);
    let path = format!("/v2/{name}/blobs/{}", digest(b"absent"));
    assert_eq!(registry.ask("GET", &path).send().is(404).code(), "BLOB_UNKNOWN");
    registry.ask("HEAD", &path).send().is(404);
}

fn pull_range(registry: &Registry, name: &str) {
    registry.push_blob(name, b"0123456789").is(201);
    let path = format!("/v2/{name}/blobs/{}", digest(b"0123456789"));
    for (range, body, answered) in [
        ("bytes=2-4", &b"234"[..], "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=8-100", b"89", "bytes 8-9/10"),
    ] {
        let got = registry.ask("GET", &path).header("Range", range).send().is(206);
        assert_eq!((got.body.as_slice(), got.get("content-range")), (body, Some(answered)), "{range}");
    }
}

fn pull_range_beyond(registry: &Registry, name: &str) {
    registry.push_blob(name, b"0123456789").is(201);
    let path = format!("/v2/{name}/blobs/{}", digest(b"0123456789"));
    let beyond = registry.ask("GET", &path).header("Range", "bytes=10-20").send().is(416);
    assert_eq!(beyond.get("content-range"), Some("bytes */10"));
}

/// The blob of a finished upload can be had where the answer says.
fn is_there(registry: &Registry, reply: &mica_tests::registry::Reply, bytes: &[u8]) {
    let got = registry.ask("GET", &location(reply)).send().is(200);
    assert_eq!(got.body, bytes);
}

fn push_post_put(registry: &Registry, name: &str) {
    let pushed = registry.push_blob(name, b"two requests").is(201);
    is_there(registry, &pushed, b"two requests");
}

fn push_single_post(registry: &Registry, name: &str) {
    let bytes = b"one request";
    let path = format!("/v2/{name}/blobs/uploads/?digest={}", digest(bytes));
    let pushed = registry
        .ask("POST", &path)
        .header("Content-Type", "application/octet-stream")
        .body(&bytes[..])
        .send();
    is_there(registry, &pushed.is(201), bytes);
}

fn push_empty(registry: &Registry, name: &str) {
    let pushed = registry.push_blob(name, b"").is(201);
    is_there(registry, &pushed, b"");
}

fn chunk(registry: &Registry, path: &str, range: &str, bytes: &[u8]) -> mica_tests::registry::Reply {
    registry
        .ask("PATCH", path)
        .header("Content-Range", range)
        .header("Content-Type", "application/octet-stream")
        .body(bytes)
        .send()
}

fn push_chunked(registry: &Registry, name: &str) {
    let begun = registry.begin(name);
    let first = chunk(registry, &begun, "0-3", b"0123").is(202);
    assert_eq!(first.get("range"), Some("0-3"));
    let asked = registry.ask("GET", &location(&first)).send().is(204);
    assert_eq!(asked.get("range"), Some("0-3"));
    let second = chunk(registry, &location(&asked), "4-5", b"45").is(202);
    assert_eq!(second.get("range"), Some("0-5"));
    let last = registry
        .ask("PUT", &with(&location(&second), &format!("digest={}", digest(b"01234567"))))
        .header("Content-Range", "6-7")
        .header("Content-Type", "application/octet-stream")
        .body("67")
        .send()
        .is(201);
    is_there(registry, &last, b"01234567");
}

fn push_chunk_order(registry: &Registry, name: &str) {
    let begun = registry.begin(name);
    let first = chunk(registry, &begun, "0-3", b"0123").is(202);
    chunk(registry, &location(&first), "6-7", b"67").is(416);
    let asked = registry.ask("GET", &location(&first)).send().is(204);
    assert_eq!(asked.get("range"), Some("0-3"));
}

fn push_last_chunk_order(registry: &Registry, name: &str) {
    let begun = registry.begin(name);
    let first = chunk(registry, &begun, "0-3", b"0123").is(202);
    let path = with(&location(&first), &format!("digest={}", digest(b"012345")));
    registry.ask("PUT", &path).header("Content-Range", "0-1").body("45").send().is(416);
}

fn push_wrong_digest(registry: &Registry, name: &str) {
    let path = with(&registry.begin(name), &format!("digest={}", digest(b"other")));
    assert_eq!(registry.ask("PUT", &path).body("bytes").send().is(400).code(), "DIGEST_INVALID");
    registry.ask("HEAD", &format!("/v2/{name}/blobs/{}", digest(b"bytes"))).send().is(404);
    registry.ask("HEAD", &format!("/v2/{name}/blobs/{}", digest(b"other"))).send().is(404);
}

fn push_cancel(registry: &Registry, name: &str) {
    let begun = registry.begin(name);
    registry.ask("DELETE", &begun).send().is(204);
    assert_eq!(registry.ask("GET", &begun).send().is(404).code(), "BLOB_UPLOAD_UNKNOWN");
}

fn push_sha512(registry: &Registry, name: &str) {
    let wanted = sha512(b"long hash");
    let path = with(&registry.begin(name), &format!("digest={wanted}"));
    let pushed = registry.ask("PUT", &path).body("long hash").send().is(201);
    assert_eq!(pushed.get("docker-content-digest"), Some(wanted.as_str()));
    is_there(registry, &pushed, b"long hash");
    registry.ask("HEAD", &format!("/v2/{name}/blobs/{wanted}")).send().is(200);
}

fn mount(registry: &Registry, name: &str) {
    let source = format!("{name}-source");
    registry.push_blob(&source, b"shared").is(201);
    let wanted = digest(b"shared");
    let path = format!("/v2/{name}/blobs/uploads/?mount={wanted}&from={source}");
    let mounted = registry.ask("POST", &path).send().is(201);
    is_there(registry, &mounted, b"shared");
    registry.ask("HEAD", &format!("/v2/{name}/blobs/{wanted}")).send().is(200);
}

fn mount_missing(registry: &Registry, name: &str) {
    let path = format!("/v2/{name}/blobs/uploads/?mount={}&from={name}-nowhere", digest(b"absent"));
    let begun = registry.ask("POST", &path).send().is(202);
    let path = with(&location(&begun), &format!("digest={}", digest(b"absent")));
    registry.ask("PUT", &path).body("absent").send().is(201);
}

fn mount_anonymous(registry: &Registry, name: &str) {
    registry.push_blob(&format!("{name}-source"), b"somewhere").is(201);
    let path = format!("/v2/{name}/blobs/uploads/?mount={}", digest(b"somewhere"));
    let mounted = registry.ask("POST", &path).send().is(201);
    is_there(registry, &mounted, b"somewhere");
}

fn push_manifest(registry: &Registry, name: &str) {
    let image = Image::new(name);
    let by_tag = registry.push(name, "one", &image).is(201);
    let by_digest = registry.push(name, &image.digest(), &image).is(201);
    for reply in [by_tag, by_digest] {
        assert_eq!(reply.get("docker-content-digest"), Some(image.digest().as_str()));
        let got =
            registry.ask("GET", &location(&reply)).header("Accept", media_type::OCI_MANIFEST).send().is(200);
        assert_eq!(got.body, image.manifest);
    }
    // A tag moves.
    let other = Image::new("other");
    registry.push(name, "one", &other).is(201);
    let head = registry.ask("HEAD", &format!("/v2/{name}/manifests/one")).header("Accept", EVERYTHING).send();
    assert_eq!(head.get("docker-content-digest"), Some(other.digest().as_str()));
}

fn push_missing_blob(registry: &Registry, name: &str) {
    let image = Image::new(name);
    registry.push_blob(name, &image.blobs[0]).is(201);
    let refused = registry.put_manifest(name, "one", media_type::OCI_MANIFEST, &image.manifest);
    assert!(matches!(refused.status, 400 | 404), "{}", refused.status);
    assert_eq!(refused.code(), "MANIFEST_BLOB_UNKNOWN");
}

fn push_manifest_digest(registry: &Registry, name: &str) {
    let image = Image::new(name);
    registry.push(name, "one", &image).is(201);
    let other = digest(b"other");
    let refused = registry.put_manifest(name, &other, media_type::OCI_MANIFEST, &image.manifest).is(400);
    assert_eq!(refused.code(), "DIGEST_INVALID");
}

fn push_large(registry: &Registry, name: &str) {
    let image = Image::with(name, json!({ "annotations": { "large": "x".repeat(4_000_000) } }));
    registry.push(name, "one", &image).is(201);
    let got =
        registry.ask("GET", &format!("/v2/{name}/manifests/one")).header("Accept", EVERYTHING).send().is(200);
    assert_eq!(got.body.len(), image.manifest.len());
    let larger = Image::with(name, json!({ "annotations": { "large": "x".repeat(5_000_000) } }));
    let refused = registry.push(name, "two", &larger);
    assert!((400..500).contains(&refused.status), "{}", refused.status);
}

fn push_manifest_sha512(registry: &Registry, name: &str) {
    let image = Image::new(name);
    registry.push(name, "one", &image).is(201);
    let wanted = sha512(&image.manifest);
    let pushed = registry.put_manifest(name, &wanted, media_type::OCI_MANIFEST, &image.manifest).is(201);
    assert_eq!(pushed.get("docker-content-digest"), Some(wanted.as_str()));
    let got =
        registry.ask("GET", &format!("/v2/{name}/manifests/{wanted}")).header("Accept", EVERYTHING).send();
    assert_eq!(got.is(200).body, image.manifest);
}

fn push_subject(registry: &Registry, name: &str) {
    let subject = Image::new(&format!("{name} subject"));
    let image = Image::with(name, json!({ "subject": subject.descriptor() }));
    let pushed = registry.push(name, "one", &image).is(201);
    assert_eq!(pushed.get("oci-subject"), Some(subject.digest().as_str()));
}

fn push_foreign(registry: &Registry, name: &str) {
    let layer = json!([{
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "digest": digest(b"elsewhere"),
        "size": 9,
        "urls": ["https://example.org/layer"],
    }]);
    registry.push(name, "one", &Image::with(name, json!({ "layers": layer }))).is(201);
}

fn push_index(registry: &Registry, name: &str) {
    let image = Image::new(name);
    registry.push(name, &image.digest(), &image).is(201);
    let index = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [image.descriptor()],
    })
    .to_string();
    registry.put_manifest(name, "all", media_type::OCI_INDEX, index.as_bytes()).is(201);
    let nested = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [{
            "mediaType": media_type::OCI_INDEX, "digest": digest(index.as_bytes()), "size": index.len(),
        }],
    })
    .to_string();
    registry.put_manifest(name, "nested", media_type::OCI_INDEX, nested.as_bytes()).is(201);
    let got =
        registry.ask("GET", &format!("/v2/{name}/manifests/nested")).header("Accept", EVERYTHING).send();
    assert_eq!(got.is(200).text(), nested);
}

fn push_tag_parameters(registry: &Registry, name: &str) {
    let image = Image::new(name);
    let tags: Vec<String> = (0..12).map(|number| format!("t{number:02}")).collect();
    let query: Vec<String> = tags.iter().map(|tag| format!("tag={tag}")).collect();
    let pushed = registry.push(name, &format!("{}?{}", image.digest(), query.join("&")), &image).is(201);
    let answered: Vec<&str> =
        pushed.headers.iter().filter(|(key, _)| key == "oci-tag").map(|(_, value)| value.as_str()).collect();
    assert_eq!(answered, tags);
    let listed = registry.ask("GET", &format!("/v2/{name}/tags/list")).send().is(200);
    assert_eq!(listed.json()["tags"], json!(tags));
}

fn list_tags(registry: &Registry, name: &str) {
    let image = Image::new(name);
    for tag in ["b", "a", "c", "B"] {
        registry.push(name, tag, &image).is(201);
    }
    let path = format!("/v2/{name}/tags/list");
    let all = registry.ask("GET", &path).send().is(200);
    assert_eq!(all.json(), json!({ "name": name, "tags": ["B", "a", "b", "c"] }));
    let first = registry.ask("GET", &format!("{path}?n=2")).send().is(200);
    assert_eq!(first.json()["tags"], json!(["B", "a"]));
    let link = first.get("link").unwrap();
    assert!(link.contains("rel=\"next\""), "{link}");
    let next = link.trim_start_matches('<').split('>').next().unwrap();
    let second = registry.ask("GET", next).send().is(200);
    assert_eq!(second.json()["tags"], json!(["b", "c"]));
    let after = registry.ask("GET", &format!("{path}?last=b")).send().is(200);
    assert_eq!(after.json()["tags"], json!(["c"]));
    let none = registry.ask("GET", &format!("{path}?n=0")).send().is(200);
    assert!(none.json()["tags"].as_array().is_none_or(Vec::is_empty));
    assert_eq!(none.get("link"), None);
}

fn list_tags_missing(registry: &Registry, name: &str) {
    assert_eq!(registry.ask("GET", &format!("/v2/{name}/tags/list")).send().is(404).code(), "NAME_UNKNOWN");
}

fn list_catalog(registry: &Registry, name: &str) {
    registry.push(name, "one", &Image::new(name)).is(201);
    let mut path = "/v2/_catalog?n=5".to_owned();
    let mut names: Vec<String> = Vec::new();
    loop {
        let page = registry.ask("GET", &path).send().is(200);
        names.extend(
            page.json()["repositories"]
                .as_array()
                .unwrap()
                .iter()
                .map(|name| name.as_str().unwrap().to_owned()),
        );
        let Some(link) = page.get("link") else { break };
        path = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    }
    assert!(names.iter().any(|found| found == name), "{names:?}");
    assert!(names.is_sorted(), "{names:?}");
}

fn referrers_empty(registry: &Registry, name: &str) {
    let reply = registry.ask("GET", &format!("/v2/{name}/referrers/{}", digest(b"absent"))).send().is(200);
    assert_eq!(reply.get("content-type"), Some(media_type::OCI_INDEX));
    assert_eq!((&reply.json()["schemaVersion"], &reply.json()["manifests"]), (&json!(2), &json!([])));
}

/// An image, and two manifests that refer to it.
fn refer(registry: &Registry, name: &str) -> (Image, Image, Image) {
    let subject = Image::new(&format!("{name} subject"));
    let signature = json!({
        "subject": subject.descriptor(), "artifactType": "x/signature", "annotations": { "key": "value" },
    });
    let signature = Image::with(&format!("{name} signature"), signature);
    let plain = Image::with(&format!("{name} plain"), json!({ "subject": subject.descriptor() }));
    // A referrer may come before what it refers to.
    registry.push(name, &signature.digest(), &signature).is(201);
    registry.push(name, "subject", &subject).is(201);
    registry.push(name, &plain.digest(), &plain).is(201);
    (subject, signature, plain)
}

fn referrers_listed(registry: &Registry, name: &str) {
    let (subject, signature, plain) = refer(registry, name);
    let reply = registry.ask("GET", &format!("/v2/{name}/referrers/{}", subject.digest())).send().is(200);
    let listed = reply.json()["manifests"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 2);
    let find = |image: &Image| listed.iter().find(|entry| entry["digest"] == image.digest()).unwrap().clone();
    let signature_entry = find(&signature);
    assert_eq!(signature_entry["artifactType"], "x/signature");
    assert_eq!(signature_entry["annotations"], json!({ "key": "value" }));
    assert_eq!(signature_entry["size"], signature.manifest.len());
    assert_eq!(signature_entry["mediaType"], media_type::OCI_MANIFEST);
    // Without a type of its own, a manifest has that of its config.
    assert_eq!(find(&plain)["artifactType"], media_type::OCI_CONFIG);
}

fn referrers_filtered(registry: &Registry, name: &str) {
    let (subject, signature, _) = refer(registry, name);
    let path = format!("/v2/{name}/referrers/{}?artifactType=x%2Fsignature", subject.digest());
    let reply = registry.ask("GET", &path).send().is(200);
    assert_eq!(reply.get("oci-filters-applied"), Some("artifactType"));
    let listed = reply.json()["manifests"].as_array().unwrap().clone();
    assert_eq!((listed.len(), &listed[0]["digest"]), (1, &json!(signature.digest())));
}

fn referrers_deleted(registry: &Registry, name: &str) {
    let (subject, signature, _) = refer(registry, name);
    registry.ask("DELETE", &format!("/v2/{name}/manifests/{}", signature.digest())).send().is(202);
    let reply = registry.ask("GET", &format!("/v2/{name}/referrers/{}", subject.digest())).send().is(200);
    assert_eq!(reply.json()["manifests"].as_array().unwrap().len(), 1);
}

fn delete_tag(registry: &Registry, name: &str) {
    let image = Image::new(name);
    registry.push(name, "one", &image).is(201);
    registry.push(name, "two", &image).is(201);
    registry.ask("DELETE", &format!("/v2/{name}/manifests/one")).send().is(202);
    registry.ask("GET", &format!("/v2/{name}/manifests/one")).header("Accept", EVERYTHING).send().is(404);
    registry
        .ask("GET", &format!("/v2/{name}/manifests/{}", image.digest()))
        .header("Accept", EVERYTHING)
        .send()
        .is(200);
    let listed = registry.ask("GET", &format!("/v2/{name}/tags/list")).send().is(200);
    assert_eq!(listed.json()["tags"], json!(["two"]));
}

fn delete_manifest(registry: &Registry, name: &str) {
    let image = Image::new(name);
    registry.push(name, "one", &image).is(201);
    let path = format!("/v2/{name}/manifests/{}", image.digest());
    registry.ask("DELETE", &path).send().is(202);
    registry.ask("GET", &path).header("Accept", EVERYTHING).send().is(404);
    registry.ask("GET", &format!("/v2/{name}/manifests/one")).header("Accept", EVERYTHING).send().is(404);
    registry.ask("DELETE", &path).send().is(404);
}

fn delete_blob(registry: &Registry, name: &str) {
    registry.push_blob(name, b"doomed").is(201);
    let path = format!("/v2/{name}/blobs/{}", digest(b"doomed"));
    registry.ask("DELETE", &path).send().is(202);
    registry.ask("GET", &path).send().is(404);
    registry.ask("DELETE", &path).send().is(404);
}

/// Errors are JSON, and their codes upper-case words.
fn errors(registry: &Registry, name: &str) {
    registry.push(name, "one", &Image::new(name)).is(201);
    let reply = registry.ask("GET", &format!("/v2/{name}/blobs/{}", digest(b"absent"))).send().is(404);
    let code = reply.code();
    assert!(!code.is_empty() && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'), "{code}");
    assert!(reply.get("content-type").is_some_and(|text| text.starts_with("application/json")));
}
