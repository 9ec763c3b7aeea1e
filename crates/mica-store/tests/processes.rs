//! Many processes on one store: nothing is lost, nothing blocks, nothing in use is collected, whoever is killed.

mod support;

use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use mica_store::{GcError, GcRequest, PruneCache, PruneImages, Store};
use support::{assert_complete, name, open, role, spawn, try_publish};
use tempfile::TempDir;

const COMMITTERS: usize = 6;
const COMMITS: usize = 100;
const KILL_ROUNDS: u32 = 10;

fn wait_all(children: Vec<Child>) {
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
}

/// Every image that can be found is complete, and the metadata are sound.
fn assert_sound(store: &Store) {
    let report = store.check(mica_store::CheckMode::Report, &mut |_| ()).unwrap();
    assert_eq!(report.findings, []);
    for image in store.images().unwrap() {
        assert_complete(store, &image.target.digest);
    }
}

/// After a collection nothing is left that no image needs.
fn assert_clean(store: &Store) {
    let prune = GcRequest {
        images: PruneImages::Dangling,
        cache: Some(PruneCache::default()),
        ..GcRequest::default()
    };
    let report = store.collect(&prune).unwrap();
    assert!(report.problems.is_empty(), "{report:?}");
    for directory in [
        store.state().actives(),
        store.state().tmp(),
        store.state().ingests(),
        store.state().leases(),
        store.state().locks(),
        store.state().trash(),
    ] {
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0, "{}", directory.display());
    }
    let images: Vec<_> = store.images().unwrap();
    let layers: std::collections::BTreeSet<_> = images
        .iter()
        .flat_map(|image| store.image_contents(&image.target.digest).unwrap().unwrap().manifests)
        .flat_map(|manifest| manifest.layers)
        .collect();
    assert_eq!(fs::read_dir(store.state().layers()).unwrap().count(), layers.len());
}

#[test]
fn six_processes_commit_a_hundred_times_each() {
    if let Some((role, store)) = role() {
        for commit in 0..COMMITS {
            let lease = store.lease().unwrap();
            let record = support::layer(&store, &lease, &format!("{role} {commit}"));
            let key = mica_oci_key(&role, commit);
            let new = mica_store::NewCacheRecord {
                content: &key,
                aliases: &[],
                layers: &[record.id],
                description: "RUN x",
                kind: mica_store::CacheKind::Regular,
            };
            store.cache_record(&new, &lease).unwrap();
        }
        store.make_durable().unwrap();
        return;
    }
    let directory = TempDir::new().unwrap();
    let start = Instant::now();
    let test = "six_processes_commit_a_hundred_times_each";
    wait_all((0..COMMITTERS).map(|n| spawn(test, &n.to_string(), directory.path())).collect());
    let store = open(directory.path());
    for (role, commit) in (0..COMMITTERS).flat_map(|role| (0..COMMITS).map(move |commit| (role, commit))) {
        assert!(store.cache_lookup(&mica_oci_key(&role.to_string(), commit)).unwrap().is_some());
    }
    assert_sound(&store);
    eprintln!("{} commits in {:?}", COMMITTERS * COMMITS, start.elapsed());
}

fn mica_oci_key(role: &str, commit: usize) -> [u8; 32] {
    *blake3::hash(format!("{role} {commit}").as_bytes()).as_bytes()
}

/// Publishes for ever, printing nothing; what was reported done is a file `done/<tag>`.
fn publish_for_ever(store: &Store, role: &str) {
    let done = store.state().root().with_extension("done");
    for n in 0.. {
        let tag = format!("{role}-{n}");
        try_publish(store, &format!("app:{tag}"), &tag).unwrap();
        fs::write(done.join(&tag), "").unwrap();
    }
}

fn reported_done(root: &Path) -> Vec<String> {
    support::tree(&root.with_extension("done"))
}

#[test]
fn what_was_reported_done_survives_kill_9_and_nothing_blocks_the_next_command() {
    if let Some((role, store)) = role() {
        if role.starts_with("collect") {
            loop {
                match store.collect(&GcRequest { images: PruneImages::Dangling, ..GcRequest::default() }) {
                    Ok(_) | Err(GcError::Busy { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
        return publish_for_ever(&store, &role);
    }
    let directory = TempDir::new().unwrap();
    let root = directory.path().join("store");
    fs::create_dir(root.with_extension("done")).unwrap();
    for round in 0..KILL_ROUNDS {
        let test = "what_was_reported_done_survives_kill_9_and_nothing_blocks_the_next_command";
        let roles = [format!("a{round}"), format!("b{round}"), "collect".to_owned()];
        let mut children: Vec<Child> = roles.iter().map(|role| spawn(test, role, &root)).collect();
        std::thread::sleep(Duration::from_millis(150 + u64::from(round) * 37));
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let start = Instant::now();
        let store = open(&root);
        for tag in reported_done(&root) {
            let image = store.image_by_name(&name(&format!("app:{tag}"))).unwrap();
            assert_complete(&store, &image.unwrap_or_else(|| panic!("{tag} is lost")).target.digest);
        }
        assert!(start.elapsed() < Duration::from_secs(10), "something blocked");
        assert_sound(&store);
        assert_clean(&store);
    }
    assert!(reported_done(&root).len() > 10, "the children did not get to work");
}

#[test]
fn collection_never_takes_what_another_process_is_about_to_publish() {
    if let Some((role, store)) = role() {
        if role == "collect" {
            let until = store.state().root().with_extension("stop");
            while !until.exists() {
                let prune = GcRequest {
                    images: PruneImages::Dangling,
                    cache: Some(PruneCache::default()),
                    ..GcRequest::default()
                };
                match store.collect(&prune) {
                    Ok(report) => assert!(report.problems.is_empty(), "{report:?}"),
                    Err(GcError::Busy { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            return;
        }
        // Both publishers use the same few contents, so that layers and blobs come back while they are collected.
        for n in 0..60 {
            let image = try_publish(&store, &format!("app:{role}"), &format!("content {}", n % 4)).unwrap();
            assert_complete(
                &store,
                &store.image_by_name(&name(&format!("app:{role}"))).unwrap().unwrap().target.digest,
            );
            drop(image);
        }
        return;
    }
    let directory = TempDir::new().unwrap();
    let root = directory.path().join("store");
    let test = "collection_never_takes_what_another_process_is_about_to_publish";
    let collectors = vec![spawn(test, "collect", &root), spawn(test, "collect", &root)];
    wait_all(vec![spawn(test, "x", &root), spawn(test, "y", &root), spawn(test, "z", &root)]);
    fs::write(root.with_extension("stop"), "").unwrap();
    wait_all(collectors);
    let store = open(&root);
    assert_sound(&store);
    assert_clean(&store);
}

#[test]
fn processes_that_create_the_same_store_at_once_all_get_it() {
    if let Some((role, store)) = role() {
        try_publish(&store, &format!("app:{role}"), &role).unwrap();
        return;
    }
    for _ in 0..3 {
        let directory = TempDir::new().unwrap();
        let root = directory.path().join("store");
        let test = "processes_that_create_the_same_store_at_once_all_get_it";
        wait_all((0..5).map(|n| spawn(test, &format!("r{n}"), &root)).collect());
        assert_eq!(open(&root).images().unwrap().len(), 5);
    }
}

#[test]
fn opening_and_looking_up_takes_few_milliseconds() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    try_publish(&store, "app:1", "one").unwrap();
    drop(store);
    let mut best = Duration::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        let store = open(directory.path());
        assert!(store.image_by_name(&name("app:1")).unwrap().is_some());
        for key in 0..30 {
            assert!(store.cache_lookup(&[key; 32]).unwrap().is_none());
        }
        drop(store);
        best = best.min(start.elapsed());
    }
    eprintln!("open, 31 look-ups, close: {best:?}");
    // Ten times what a release build takes on a quiet machine: this finds a scan or an fsync, not noise.
    assert!(best < Duration::from_millis(20), "{best:?}");
}
