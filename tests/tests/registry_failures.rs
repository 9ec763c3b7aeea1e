//! A registry that is killed, starved, raced and told to stop (the rows of registry.md 5a).

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mica_oci::media_type;
use mica_tests::registry::{Image, Registry, digest, read_reply, with};
use mica_tests::{Disk, until};
use rustix::process::Signal;

/// Bytes that do not repeat, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn finish(registry: &Registry, upload: &str, whole: &[u8], rest: &[u8]) {
    let path = with(upload, &format!("digest={}", digest(whole)));
    registry.ask("PUT", &path).body(rest).send().is(201);
    let got = registry.ask("GET", &format!("/v2/r/blobs/{}", digest(whole))).send().is(200);
    assert!(got.body == whole, "other bytes");
}

#[test]
fn an_upload_survives_a_kill_and_goes_on_where_it_was() {
    let mut registry = Registry::mica(&[]);
    let whole = noise(1, 8 << 20);
    let begun = registry.begin("r");
    let ask = registry.ask("PATCH", &begun).header("Content-Length", whole.len().to_string());
    let mut stream = ask.connect();
    stream.write_all(&ask.head()).unwrap();
    stream.write_all(&whole[..5 << 20]).unwrap();
    let upload = registry.data().join("uploads");
    until("five MiB are there", || {
        std::fs::read_dir(&upload).unwrap().any(|entry| entry.unwrap().metadata().unwrap().len() == 5 << 20)
    });
    registry.crash();
    let status = registry.ask("GET", &begun).send().is(204);
    let range = status.get("range").unwrap();
    let held = range.strip_prefix("0-").unwrap().parse::<usize>().unwrap() + 1;
    assert_eq!(held, 5 << 20);
    finish(&registry, &begun, &whole, &whole[held..]);
}

#[test]
fn what_was_answered_with_201_survives_a_kill() {
    let mut registry = Registry::mica(&[]);
    for round in 0..mica_testkit::fault::rounds() {
        let image = Image::new(&format!("round {round}"));
        registry.push("r", "latest", &image).is(201);
        registry.crash();
        let got = registry.ask("GET", "/v2/r/manifests/latest").send().is(200);
        assert_eq!(got.body, image.manifest);
        for blob in &image.blobs {
            let got = registry.ask("GET", &format!("/v2/r/blobs/{}", digest(blob))).send().is(200);
            assert_eq!(&got.body, blob);
        }
    }
}

#[test]
fn a_kill_at_any_moment_leaves_no_blob_with_other_bytes() {
    let mut registry = Registry::mica(&[]);
    for round in 0..mica_testkit::fault::rounds() {
        // All blobs are read after each round: now and then there are none to begin with.
        if round % 10 == 9 {
            registry = Registry::mica(&[]);
        }
        let address = registry.address().to_owned();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for worker in 0..4_u64 {
                let (address, stop) = (address.clone(), &stop);
                scope.spawn(move || {
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        number += 1;
                        try_push(&address, &noise(round as u64 * 1000 + worker * 100 + number, 200_000));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(150 + 37 * (round as u64 % 10)));
            registry.signal(Signal::KILL);
            stop.store(true, Ordering::Relaxed);
        });
        registry.wait();
        registry.start_again();
        every_blob_is_what_its_name_says(&registry);
    }
}

/// Pushes while the registry may die under it.
fn try_push(address: &str, bytes: &[u8]) -> Option<u16> {
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    let path = format!("/v2/k/blobs/uploads/?digest={}", digest(bytes));
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        bytes.len()
    )
    .ok()?;
    stream.write_all(bytes).ok()?;
    Some(read_reply(&stream, false).status)
}

#[track_caller]
fn every_blob_is_what_its_name_says(registry: &Registry) {
    let blobs = registry.data().join("blobs/sha256");
    for shelf in std::fs::read_dir(blobs).into_iter().flatten().flatten() {
        for file in std::fs::read_dir(shelf.path()).unwrap().flatten() {
            // Removed meanwhile: a stray of the crash.
            let Ok(bytes) = std::fs::read(file.path()) else { continue };
            assert_eq!(digest(&bytes), format!("sha256:{}", file.file_name().to_string_lossy()));
        }
    }
}

#[test]
fn eight_uploads_of_one_blob_make_one_file() {
    let registry = Registry::mica(&[]);
    let bytes = noise(2, 3 << 20);
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let (registry, bytes) = (&registry, &bytes);
            scope.spawn(move || registry.push_blob(&format!("w{}", worker % 3), bytes).is(201));
        }
    });
    let files = |folder: &str| std::fs::read_dir(registry.data().join(folder)).unwrap().count();
    assert_eq!(files("uploads"), 0);
    let hex = digest(&bytes).split_off(7);
    assert_eq!(files(&format!("blobs/sha256/{}", &hex[..2])), 1);
}

#[test]
fn a_tag_that_moves_always_points_at_something_whole() {
    let registry = Registry::mica(&[]);
    let images: Vec<Image> = (0..4).map(|number| Image::new(&format!("race {number}"))).collect();
    for image in &images {
        registry.push("r", "latest", image).is(201);
    }
    let known: Vec<String> = images.iter().map(Image::digest).collect();
    std::thread::scope(|scope| {
        for image in &images {
            let registry = &registry;
            scope.spawn(move || {
                for _ in 0..40 {
                    registry.put_manifest("r", "latest", media_type::OCI_MANIFEST, &image.manifest).is(201);
                }
            });
        }
        for _ in 0..3 {
            let (registry, known) = (&registry, &known);
            scope.spawn(move || {
                for _ in 0..60 {
                    let got = registry.ask("GET", "/v2/r/manifests/latest").send().is(200);
                    assert!(known.contains(&digest(&got.body)));
                }
            });
        }
    });
}

#[test]
fn heads_that_never_end_are_cut_and_others_are_served_meanwhile() {
    let registry = Registry::mica(&[]);
    let ask = registry.ask("GET", "/v2/");
    let mut half: Vec<_> = (0..200).map(|_| ask.connect()).collect();
    for stream in &mut half {
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-").unwrap();
    }
    ask.send().is(200);
    for stream in &mut half {
        let mut rest = Vec::new();
        // Cut, with or without a last word; only a test that gave up waiting has not been.
        let read = stream.read_to_end(&mut rest);
        assert!(!read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "still open");
    }
}

#[test]
fn a_slow_body_is_waited_for() {
    let registry = Registry::mica(&[]);
    let begun = registry.begin("r");
    let ask = registry
        .ask("PUT", &with(&begun, &format!("digest={}", digest(b"slowly"))))
        .header("Content-Length", "6");
    let mut stream = ask.connect();
    stream.write_all(&ask.head()).unwrap();
    for byte in b"slowly" {
        std::thread::sleep(Duration::from_millis(400));
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_reply(&stream, false).status, 201);
}

#[test]
fn a_blob_that_is_deleted_under_a_reader_arrives_whole() {
    let registry = Registry::mica(&["--grace", "0s"]);
    let bytes = noise(3, 24 << 20);
    registry.push_blob("r", &bytes).is(201);
    let path = format!("/v2/r/blobs/{}", digest(&bytes));
    let ask = registry.ask("GET", &path);
    let mut stream = ask.connect();
    stream.write_all(&ask.head()).unwrap();
    let mut first = [0; 1000];
    stream.read_exact(&mut first).unwrap();
    let deleted = registry.ask("DELETE", &path).send();
    assert!(matches!(deleted.status, 202 | 404), "{}", deleted.status);
    until("it is gone", || registry.ask("HEAD", &path).send().status == 404);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let got = [&first[..], &rest].concat();
    assert!(got.ends_with(&bytes), "{} of {} bytes", got.len(), bytes.len());
}

#[test]
fn an_image_whose_blob_was_collected_is_refused() {
    let registry = Registry::mica(&["--grace", "0s"]);
    let image = Image::new("collected");
    registry.push("r", "x", &image).is(201);
    registry.ask("DELETE", &format!("/v2/r/manifests/{}", image.digest())).send().is(202);
    let layer = format!("/v2/r/blobs/{}", digest(&image.blobs[1]));
    until("the layer is collected", || registry.ask("HEAD", &layer).send().status == 404);
    let refused = registry.put_manifest("r", "x", media_type::OCI_MANIFEST, &image.manifest);
    assert_eq!((refused.status, refused.code().as_str()), (400, "MANIFEST_BLOB_UNKNOWN"));
    registry.push("r", "x", &image).is(201);
    registry.ask("GET", &layer).send().is(200);
}

#[test]
fn what_was_just_pushed_or_asked_for_is_not_collected() {
    let registry = Registry::mica(&["--grace", "1h"]);
    let image = Image::new("leased");
    registry.push("r", "x", &image).is(201);
    registry.ask("DELETE", &format!("/v2/r/manifests/{}", image.digest())).send().is(202);
    // Time for a collection to do wrong; the next one comes with the restart.
    for blob in &image.blobs {
        registry.ask("HEAD", &format!("/v2/r/blobs/{}", digest(blob))).send().is(200);
    }
    registry.put_manifest("r", "x", media_type::OCI_MANIFEST, &image.manifest).is(201);
}

/// Random rounds of pushes, deletions and collections: what was answered with 201 and not deleted is whole.
#[test]
fn a_collection_under_pushes_and_deletions_loses_nothing() {
    let registry = Registry::mica(&["--grace", "0s", "--log", "none"]);
    let kept: Mutex<HashMap<String, Image>> = Mutex::default();
    let ends = Instant::now() + Duration::from_secs(6);
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            let (registry, kept) = (&registry, &kept);
            scope.spawn(move || {
                let mut round = 0;
                while Instant::now() < ends {
                    round += 1;
                    // Few different images, so that blobs are shared, deleted and pushed again all the time.
                    let image = Image::new(&format!("gc {}", (worker + round * 7) % 5));
                    let repository = format!("w{worker}");
                    let pushed = registry.push(&repository, "latest", &image);
                    match pushed.status {
                        201 => drop(kept.lock().unwrap().insert(repository.clone(), image.clone())),
                        400 => assert_eq!(pushed.code(), "MANIFEST_BLOB_UNKNOWN"),
                        other => panic!("{other}"),
                    }
                    if round % 3 == 0 {
                        let mut kept = kept.lock().unwrap();
                        if let Some(image) = kept.remove(&repository) {
                            let path = format!("/v2/{repository}/manifests/{}", image.digest());
                            registry.ask("DELETE", &path).send().is(202);
                        }
                    }
                }
            });
        }
    });
    // One more collection with nothing else going on.
    std::thread::sleep(Duration::from_millis(2500));
    for (repository, image) in kept.lock().unwrap().iter() {
        let got = registry.ask("GET", &format!("/v2/{repository}/manifests/latest")).send().is(200);
        assert_eq!(got.body, image.manifest);
        for blob in &image.blobs {
            let got = registry.ask("GET", &format!("/v2/{repository}/blobs/{}", digest(blob))).send().is(200);
            assert_eq!(&got.body, blob);
        }
    }
}

#[test]
fn a_full_disk_is_said_and_its_space_comes_back() {
    let Some(disk) = Disk::ext4("32M", &[]) else { return };
    let registry = Registry::mica_on(&disk.path().join("data"), &[]);
    let image = Image::new("before");
    registry.push("r", "before", &image).is(201);
    let large = noise(4, 60 << 20);
    let begun = registry.begin("r");
    let refused =
        registry.ask("PUT", &with(&begun, &format!("digest={}", digest(&large)))).body(&large[..]).send();
    // Refused while it is still being sent: the answer may be lost on the way.
    assert!(matches!(refused.status, 507 | 0), "{} {}", refused.status, refused.text());
    let chunked = registry.ask("PATCH", &registry.begin("r")).header("Transfer-Encoding", "chunked");
    let mut stream = chunked.connect();
    stream.write_all(&chunked.head()).unwrap();
    let chunk = [&b"100000\r\n"[..], &large[..1 << 20], b"\r\n"].concat();
    let _refused = (0..60).try_for_each(|_| stream.write_all(&chunk));
    let uploads = registry.data().join("uploads");
    until("the space is back", || {
        std::fs::read_dir(&uploads)
            .unwrap()
            .all(|entry| entry.unwrap().metadata().map_or(0, |data| data.len()) == 0)
    });
    assert_eq!(registry.ask("GET", "/v2/r/manifests/before").send().is(200).body, image.manifest);
    registry.push_blob("r", &large[..2 << 20]).is(201);
    registry.push("r", "after", &Image::new("after")).is(201);
}

#[test]
fn a_registry_that_is_told_to_stop_finishes_what_it_has_begun() {
    let mut registry = Registry::mica(&[]);
    let bytes = noise(5, 24 << 20);
    registry.push_blob("r", &bytes).is(201);
    let ask = registry.ask("GET", &format!("/v2/r/blobs/{}", digest(&bytes)));
    let mut stream = ask.connect();
    stream.write_all(&ask.head()).unwrap();
    let mut got = vec![0; 1000];
    stream.read_exact(&mut got).unwrap();
    registry.signal(Signal::TERM);
    until("nobody listens any more", || std::net::TcpStream::connect(registry.address()).is_err());
    stream.read_to_end(&mut got).unwrap();
    assert!(got.ends_with(&bytes), "{} of {} bytes", got.len(), bytes.len());
    assert_eq!(registry.wait(), Some(0), "{}", registry.log());
}

#[test]
fn two_registries_do_not_share_a_folder() {
    let registry = Registry::mica(&[]);
    let data = registry.data().to_str().unwrap().to_owned();
    let second =
        registry.command(&["registry", "serve", "--addr", "127.0.0.1:0", "--data", &data]).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains(&format!("is being served by another process ({})", registry.id())), "{text}");
}

#[test]
fn a_folder_of_somebody_else_is_left_alone() {
    let registry = Registry::mica(&[]);
    let folder = mica_testkit::temp_dir();
    std::fs::write(folder.path().join("precious"), "x").unwrap();
    let data = folder.path().to_str().unwrap();
    let refused =
        registry.command(&["registry", "serve", "--addr", "127.0.0.1:0", "--data", data]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("it is not empty, and has no registry.json"), "{text}");
    let mut left: Vec<_> =
        std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["precious"]);
}
