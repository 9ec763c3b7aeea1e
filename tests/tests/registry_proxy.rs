//! A registry that is a cache of another one.

use std::io::Read;

use mica_oci::media_type;
use mica_tests::registry::{Image, Registry, digest};
use rustix::process::Signal;
use serde_json::json;

/// bcrypt, cost 5, of `secret`.
const SECRET: &str = "$2y$05$OEIDyLKL1ftaK3XWdyfsI.pOgO4oeozhCLhiWjHY4flcUbcyuMyra";

/// A registry, and one that caches it below `up`.
fn pair(options: &[&str]) -> (Registry, Registry) {
    let upstream = Registry::mica(options);
    let rule = format!("up=http://{}", upstream.address());
    let cache = Registry::mica(&["--proxy", &rule]);
    (upstream, cache)
}

/// How often a registry was asked for something, by its log.
fn asked(registry: &Registry, request: &str) -> usize {
    registry.log().lines().filter(|line| line.contains(request)).count()
}

#[test]
fn what_was_pulled_once_is_there_when_upstream_is_not() {
    let (upstream, cache) = pair(&[]);
    let image = Image::new("cached");
    upstream.push("team/app", "v1", &image).is(201);
    let manifest = "/v2/up/team/app/manifests/v1";
    let first = cache.ask("GET", manifest).send().is(200);
    assert_eq!((first.body.as_slice(), first.get("warning")), (image.manifest.as_slice(), None));
    assert_eq!(first.get("content-type"), Some(media_type::OCI_MANIFEST));
    let blob = |at: usize| format!("/v2/up/team/app/blobs/{}", digest(&image.blobs[at]));
    let head = cache.ask("HEAD", &blob(0)).send().is(200);
    assert_eq!(head.get("content-length"), Some(image.blobs[0].len().to_string().as_str()));
    for at in [0, 1, 0] {
        assert_eq!(cache.ask("GET", &blob(at)).send().is(200).body, image.blobs[at]);
    }
    assert_eq!(asked(&upstream, &format!("GET /v2/team/app/blobs/{}", digest(&image.blobs[0]))), 1);
    // Containerd's way of asking a mirror.
    cache.ask("GET", "/v2/team/app/manifests/v1?ns=up").send().is(200);
    cache.ask("GET", "/v2/team/app/manifests/v1").send().is(404);
    let missing = cache.ask("GET", "/v2/up/team/app/manifests/v2").send().is(404);
    assert_eq!(missing.code(), "MANIFEST_UNKNOWN");
    let missing = cache.ask("GET", &format!("/v2/up/team/app/blobs/{}", digest(b"no"))).send().is(404);
    assert_eq!(missing.code(), "BLOB_UNKNOWN");
    let tags = cache.ask("GET", "/v2/up/team/app/tags/list").send().is(200);
    assert_eq!(tags.json(), json!({ "name": "up/team/app", "tags": ["v1"] }));

    drop(upstream);
    // Longer than an answer of upstream is believed.
    std::thread::sleep(std::time::Duration::from_secs(16));
    let stale = cache.ask("GET", manifest).send().is(200);
    assert_eq!(stale.body, image.manifest);
    assert!(stale.get("warning").is_some_and(|text| text.starts_with("110 ")), "{:?}", stale.headers);
    assert_eq!(cache.ask("GET", &blob(1)).send().is(200).body, image.blobs[1]);
    let by_digest = format!("/v2/up/team/app/manifests/{}", image.digest());
    assert_eq!(cache.ask("GET", &by_digest).send().is(200).get("warning"), None);
    cache.ask("GET", "/v2/up/team/app/manifests/v2").send().is(502);
}

#[test]
fn a_blob_is_fetched_once_however_many_want_it() {
    let (upstream, cache) = pair(&[]);
    let bytes: Vec<u8> = (0..20_u32 << 20).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    upstream.push_blob("r", &bytes).is(201);
    let path = format!("/v2/up/r/blobs/{}", digest(&bytes));
    std::thread::scope(|scope| {
        for reader in 0..6 {
            let (cache, path, bytes) = (&cache, &path, &bytes);
            scope.spawn(move || {
                if reader == 5 {
                    // Part of it, while it is still on its way.
                    let part = cache.ask("GET", path).header("Range", "bytes=5-9").send().is(206);
                    assert_eq!(part.body, bytes[5..10]);
                } else {
                    assert!(cache.ask("GET", path).send().is(200).body == *bytes, "other bytes");
                }
            });
        }
    });
    assert_eq!(asked(&upstream, &format!("GET /v2/r/blobs/{}", digest(&bytes))), 1);
}

#[test]
fn a_blob_with_other_bytes_never_arrives_whole() {
    let (upstream, cache) = pair(&[]);
    let bytes = vec![7; 300_000];
    upstream.push_blob("r", &bytes).is(201);
    let hex = digest(&bytes).split_off(7);
    let mut wrong = bytes.clone();
    wrong[150_000] = 8;
    std::fs::write(upstream.data().join(format!("blobs/sha256/{}/{hex}", &hex[..2])), &wrong).unwrap();
    let path = format!("/v2/up/r/blobs/{}", digest(&bytes));
    let got = cache.ask("GET", &path).send();
    assert!(got.body.len() < bytes.len(), "{} bytes of a wrong blob", got.body.len());
    // Nothing of it is kept: when upstream has the right one, it comes.
    std::fs::write(upstream.data().join(format!("blobs/sha256/{}/{hex}", &hex[..2])), &bytes).unwrap();
    assert!(cache.ask("GET", &path).send().is(200).body == bytes);
}

#[test]
fn a_cache_takes_no_pushes() {
    let (_upstream, cache) = pair(&[]);
    let refused = cache.ask("POST", "/v2/up/r/blobs/uploads/").send().is(405);
    assert_eq!(refused.code(), "UNSUPPORTED");
    cache.put_manifest("up/r", "x", media_type::OCI_MANIFEST, &Image::new("x").manifest).is(405);
    cache.push("own/r", "x", &Image::new("x")).is(201);
}

#[test]
fn upstream_may_want_a_token() {
    let folder = mica_testkit::temp_dir();
    let users = folder.path().join("users");
    std::fs::write(&users, format!("alice:{SECRET}\n")).unwrap();
    let users = users.to_str().unwrap();
    let mut upstream = Registry::mica(&[]);
    let image = Image::new("private");
    upstream.push("r", "x", &image).is(201);
    upstream.signal(Signal::TERM);
    assert_eq!(upstream.wait(), Some(0));
    upstream.start_again_with(&["--tokens", "--htpasswd", users]);
    let serve = |credentials: &str| {
        Registry::mica(&["--proxy", &format!("up=http://{credentials}{}", upstream.address())])
    };
    let stranger = serve("");
    stranger.ask("GET", "/v2/up/r/manifests/x").send().is(404);
    let known = serve("alice:secret@");
    known.ask("GET", "/v2/up/r/manifests/x").send().is(200);
    for blob in &image.blobs {
        assert_eq!(&known.ask("GET", &format!("/v2/up/r/blobs/{}", digest(blob))).send().is(200).body, blob);
    }
    assert!(!known.log().contains("secret"), "{}", known.log());
}

#[test]
fn an_upstream_that_is_cut_off_leaves_nothing_behind() {
    let (upstream, cache) = pair(&[]);
    let bytes = vec![3; 64 << 20];
    upstream.push_blob("r", &bytes).is(201);
    let ask = cache.ask("GET", &format!("/v2/up/r/blobs/{}", digest(&bytes)));
    let mut stream = ask.connect();
    std::io::Write::write_all(&mut stream, &ask.head()).unwrap();
    let mut first = [0; 100];
    stream.read_exact(&mut first).unwrap();
    drop(upstream);
    let mut rest = Vec::new();
    // Either all of it had come already, or it is cut.
    let _cut = stream.read_to_end(&mut rest);
    mica_tests::until("the upload is gone", || {
        std::fs::read_dir(cache.data().join("uploads")).unwrap().count() == 0
    });
}
