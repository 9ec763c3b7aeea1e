//! One process: what can be put in, found again, named, moved and removed.

mod support;

use std::fs;
use std::io::{Read as _, Write as _};

use mica_api::Fault as _;
use mica_oci::{Descriptor, Digest};
use mica_store::{
    CacheItem, CommitError, ContainerError, ContainerId, Fetched, GcRequest, ImageError, NewCacheRecord,
    NewContainer, OpenError, PruneCache, PruneImages, PruneVolumes, RemoteForm, Removal, Sharing, Store,
    StoreError, Waited,
};
use support::{assert_complete, flavour, image, layer, name, open, publish};
use tempfile::TempDir;

fn prune(images: PruneImages) -> GcRequest {
    GcRequest { images, ..GcRequest::default() }
}

#[test]
fn a_published_image_is_found_again_by_name_id_prefix_and_digest() {
    let directory = TempDir::new().unwrap();
    let published = publish(&open(directory.path()), "app:1", "one");
    let store = open(directory.path());
    let id = published.contents.image_id.to_string();
    for query in
        ["app:1", "docker.io/library/app:1", &id, &id[..17], &id[7..19], &published.target.digest.to_string()]
    {
        assert_eq!(store.find_image(query).unwrap().target.digest, published.target.digest, "{query}");
    }
    let by_digest = format!("app@{}", published.target.digest);
    assert!(store.find_image(&by_digest).is_ok());
    let other_repository = format!("other@{}", published.target.digest);
    assert!(matches!(store.find_image(&other_repository), Err(ImageError::NotFound { .. })));
    assert_eq!(store.find_image("app").unwrap_err().to_string(), "No such image: app");
    assert_complete(&store, &published.target.digest);
}

#[test]
fn publishing_what_is_there_already_writes_nothing() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let published = publish(&store, "app:1", "one");
    let wal =
        || fs::metadata(store.state().database_wal()).map(|file| (file.len(), file.modified().unwrap()));
    let lease = store.lease().unwrap();
    let before = wal().unwrap();
    let again = store.publish(&[name("app:1")], &published.target, &published.contents, &lease).unwrap();
    assert!(again.unchanged);
    assert_eq!(wal().unwrap(), before);
}

#[test]
fn a_moved_name_leaves_the_old_image_dangling() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let old = publish(&store, "app:1", "old");
    let lease = store.lease().unwrap();
    let record = layer(&store, &lease, "new");
    let new = image(&store, &lease, "new", &[&record]);
    let published = store.publish(&[name("app:1")], &new.target, &new.contents, &lease).unwrap();
    assert_eq!(published.moved, [(name("app:1"), old.contents.image_id.clone())]);
    let images = store.images().unwrap();
    assert_eq!(images.len(), 2);
    assert!(images.iter().any(|image| image.name.is_none() && image.target.digest == old.target.digest));
    drop(lease);
    let report = store.collect(&prune(PruneImages::Dangling)).unwrap();
    assert_eq!(report.images.len(), 1);
    assert_eq!(store.images().unwrap().len(), 1);
    assert_complete(&store, &new.target.digest);
}

#[test]
fn removing_one_of_two_names_only_untags() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let published = publish(&store, "app:1", "one");
    store.tag(&published.target.digest, &name("app:2")).unwrap();
    let by_id = store.remove_image(&published.target.digest, Removal::Careful).unwrap_err();
    assert!(by_id.to_string().contains("must be forced"), "{by_id}");
    let removed = store.untag(&name("app:1"), Removal::Careful).unwrap();
    assert_eq!((removed.untagged, removed.deleted), (vec![name("app:1")], None));
    store.collect(&GcRequest::default()).unwrap();
    assert_complete(&store, &published.target.digest);
    let removed = store.untag(&name("app:2"), Removal::Careful).unwrap();
    assert_eq!(removed.deleted.unwrap().layers.len(), 1);
    assert!(store.images().unwrap().is_empty());
}

#[test]
fn disk_usage_announces_exactly_what_prune_frees() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let used = publish(&store, "used", "used");
    publish(&store, "app:1", "old");
    publish(&store, "app:1", "new");
    let lease = store.lease().unwrap();
    let cached = layer(&store, &lease, "cached only");
    let new = NewCacheRecord {
        content: &[7; 32],
        aliases: &[],
        layers: &[cached.id],
        description: "RUN x",
        kind: mica_store::CacheKind::Regular,
    };
    store.cache_record(&new, &lease).unwrap();
    container(&store, &lease, "box", &used);
    drop(lease);
    fs::write(store.cache_mount("go", Sharing::Shared, &|| false).unwrap().path().join("x"), [1; 9000])
        .unwrap();
    let volume = store.ensure_volume("v", "{}", false).unwrap();
    fs::write(store.state().volume_data(volume.id).join("x"), [1; 5000]).unwrap();

    for (announced, request) in [
        (store.disk_usage().unwrap().reclaimable.dangling_images_bytes, prune(PruneImages::Dangling)),
        (store.disk_usage().unwrap().reclaimable.cache_bytes, {
            let cache = PruneCache::everything();
            GcRequest { cache: Some(cache), ..GcRequest::default() }
        }),
    ] {
        assert!(announced > 0);
        let report = store.collect(&request).unwrap();
        assert_eq!(report.freed_bytes, announced, "{report:?}");
        assert!(report.problems.is_empty(), "{report:?}");
    }
    let usage = store.disk_usage().unwrap();
    let report = store.collect(&prune(PruneImages::Unused)).unwrap();
    assert_eq!(report.freed_bytes, usage.reclaimable.unused_images_bytes);
    let request = GcRequest { volumes: PruneVolumes::All, ..GcRequest::default() };
    assert_eq!(store.collect(&request).unwrap().freed_bytes, usage.reclaimable.volumes_bytes);
    assert_complete(&store, &used.target.digest);
    assert!(usage.images.iter().all(|image| image.unique_bytes() == image.size_bytes));
}

#[test]
fn a_layer_known_by_diff_id_is_not_kept_twice() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let lease = store.lease().unwrap();
    let first = layer(&store, &lease, "same");
    let second = layer(&store, &lease, "same");
    assert_eq!(first.id, second.id);
    assert_eq!(fs::read_dir(store.state().layers()).unwrap().count(), 1);
    // a step of this process may have its files mounted: they go with the lease
    drop(lease);
    assert_eq!(fs::read_dir(store.state().actives()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(store.state().tmp()).unwrap().count(), 0);
}

#[test]
fn what_a_live_lease_holds_survives_collection_and_what_a_dead_one_held_does_not() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let lease = store.lease().unwrap();
    let record = layer(&store, &lease, "leased");
    let blob = store.put_blob(b"leased", &lease).unwrap();
    let workspace = lease.workspace().unwrap();
    assert_eq!(store.collect(&GcRequest::default()).unwrap().layers, 0);
    assert!(store.state().layer_table(record.id).exists() && workspace.exists());
    assert!(store.blob(&blob).unwrap().is_some());
    drop(lease);
    assert!(!workspace.exists());
    let report = store.collect(&GcRequest::default()).unwrap();
    assert_eq!((report.layers, report.blobs), (1, 1));
    let again = store.lease().unwrap().protect_layers(&[record.id]);
    assert!(matches!(again, Err(StoreError::LayerGone(gone)) if gone == record.id));
}

#[test]
fn a_blob_with_other_bytes_than_announced_is_refused_and_leaves_nothing() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let lease = store.lease().unwrap();
    let expected = Descriptor::of("x", b"honest");
    let mut ingest = store.ingest(&lease, Some(&expected)).unwrap();
    ingest.write_all(b"forged").unwrap();
    assert!(matches!(ingest.commit(), Err(CommitError::DigestMismatch { .. })));
    let mut ingest = store.ingest(&lease, Some(&expected)).unwrap();
    assert!(ingest.write_all(b"honest and more").unwrap_err().to_string().contains("6 bytes, 7 arrived"));
    drop(ingest);
    let mut ingest = store.ingest(&lease, Some(&expected)).unwrap();
    ingest.write_all(b"hon").unwrap();
    assert!(matches!(ingest.commit(), Err(CommitError::SizeMismatch { received_bytes: 3, .. })));
    assert_eq!(store.blob(&expected.digest).unwrap(), None);
    assert_eq!(fs::read_dir(store.state().ingests()).unwrap().count(), 0);
    // The second, honest attempt works.
    let mut ingest = store.ingest(&lease, Some(&expected)).unwrap();
    ingest.write_all(b"honest").unwrap();
    assert_eq!(ingest.commit().unwrap(), expected.digest);
    assert_eq!(store.read_blob(&expected.digest, 6).unwrap(), b"honest");
    assert!(store.read_blob(&expected.digest, 5).is_err());
}

#[test]
fn damaged_blobs_are_never_read_to_the_end() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let lease = store.lease().unwrap();
    let digest = store.put_blob(b"honest", &lease).unwrap();
    let path = store.state().blob(&digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, b"forged").unwrap();
    assert!(matches!(store.read_blob(&digest, 100), Err(StoreError::Damaged { .. })));
    let mut bytes = Vec::new();
    assert!(store.verified_blob(&digest).unwrap().read_to_end(&mut bytes).is_err());
    fs::write(&path, b"cut").unwrap();
    assert!(matches!(store.open_blob(&digest), Err(StoreError::Damaged { .. })));
    // Bringing the bytes again mends it.
    store.put_blob(b"honest", &lease).unwrap();
    assert_eq!(store.read_blob(&digest, 100).unwrap(), b"honest");
}

#[test]
fn a_cache_record_is_found_by_content_and_definition_while_its_layers_are_here() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let lease = store.lease().unwrap();
    let (lower, upper) = (layer(&store, &lease, "lower"), layer(&store, &lease, "upper"));
    let layers = [lower.id, upper.id];
    let new = NewCacheRecord {
        content: &[1; 32],
        aliases: &[[2; 32], [3; 32]],
        layers: &layers,
        description: "RUN x",
        kind: mica_store::CacheKind::Regular,
    };
    store.cache_record(&new, &lease).unwrap();
    for key in [[1; 32], [2; 32], [3; 32]] {
        let found = store.cache_lookup_leased(&[key, [4; 32]], &lease).unwrap();
        assert_eq!(found[0].as_ref().unwrap().layers, layers);
        assert_eq!(found[1], None);
    }
    assert_eq!(store.cache_lookup(&[4; 32]).unwrap(), None);
    store.make_durable().unwrap();
    drop(lease);
    let request = GcRequest { cache: Some(PruneCache::default()), ..GcRequest::default() };
    assert_eq!(store.collect(&request).unwrap().layers, 2);
    assert_eq!(store.cache_lookup(&[2; 32]).unwrap(), None);
}

fn container(store: &Store, lease: &mica_store::Lease, title: &str, of: &support::Image) -> ContainerId {
    let id = ContainerId::random();
    let layers = of.contents.manifests[0].layers.clone();
    let new = NewContainer {
        id: id.clone(),
        name: title,
        image_name: None,
        image: Some(&of.target.digest),
        image_id: Some(&of.contents.image_id),
        layers: &layers,
        volumes: &[],
        config_json: "{}",
        state_json: "created",
    };
    store.create_container(&new, lease).unwrap();
    id
}

#[test]
fn a_container_keeps_its_image_and_changes_only_for_who_saw_it_last() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let published = publish(&store, "app", "one");
    let lease = store.lease().unwrap();
    let id = container(&store, &lease, "box", &published);
    for query in ["box", "/box", id.as_str(), id.short()] {
        assert_eq!(store.find_container(query).unwrap().id, id, "{query}");
    }
    let error = store.untag(&name("app"), Removal::Careful).unwrap_err().to_string();
    assert!(error.contains("conflict") && error.contains(id.short()), "{error}");
    let forced = store.untag(&name("app"), Removal::Forced).unwrap();
    assert_eq!(forced.deleted, None);
    drop(lease);
    store.collect(&prune(PruneImages::Unused)).unwrap();
    assert_complete(&store, &published.target.digest);

    let seen = store.find_container("box").unwrap();
    store.update_container(&seen, "running").unwrap();
    assert!(matches!(store.update_container(&seen, "dead"), Err(ContainerError::Changed(_))));
    let lease = store.lease().unwrap();
    let taken = std::panic::catch_unwind(|| container(&store, &lease, "box", &published));
    assert!(taken.is_err());
    let seen = store.find_container("box").unwrap();
    assert_eq!(seen.state_json, "running");
    store.remove_container(&seen).unwrap();
    assert!(!store.state().container(&id).exists());
    assert_eq!(store.find_container("box").unwrap_err().to_string(), "No such container: box");
}

#[test]
fn volumes_are_made_once_and_kept_while_a_container_mounts_them() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let volume = store.ensure_volume("data", "{\"a\":1}", false).unwrap();
    assert_eq!(store.ensure_volume("data", "{}", true).unwrap(), volume);
    assert!(store.state().volume_data(volume.id).is_dir());
    store.remove_volume("data").unwrap();
    assert!(!store.state().volume(volume.id).exists());
    assert!(store.remove_volume("data").unwrap_err().to_string().contains("no such volume"));
}

#[test]
fn cache_mounts_are_shared_separate_or_taken_in_turn() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let never = || false;
    let first = store.cache_mount("id", Sharing::Shared, &never).unwrap();
    let second = store.cache_mount("id", Sharing::Shared, &never).unwrap();
    assert_eq!((first.path(), first.is_new(), second.is_new()), (second.path(), true, false));
    let private = store.cache_mount("id", Sharing::Private, &never).unwrap();
    assert_ne!(private.path(), first.path());
    let locked = store.cache_mount("id", Sharing::Locked, &|| true);
    assert!(matches!(locked, Err(StoreError::Cancelled)));
    drop((first, second));
    let locked = store.cache_mount("id", Sharing::Locked, &never).unwrap();
    let request = GcRequest { cache: Some(PruneCache::everything()), ..GcRequest::default() };
    assert!(store.collect(&request).unwrap().cache.is_empty());
    assert!(locked.path().exists());
    drop((locked, private));
    assert_eq!(store.collect(&request).unwrap().cache[0].item, CacheItem::Mount("id".to_owned()));
    assert!(store.cache_mounts().unwrap().is_empty());
    assert_eq!(fs::read_dir(store.state().cache_mounts()).unwrap().count(), 0);
}

#[test]
fn a_lock_names_its_holder_and_leaves_no_file() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let lock = store.lock("../content key");
    let held = lock.try_acquire().unwrap().unwrap();
    assert!(lock.try_acquire().unwrap().is_none());
    assert_eq!(lock.holder(), Some(std::process::id()));
    assert!(matches!(lock.wait(&|| true), Err(StoreError::Cancelled)));
    drop(held);
    assert_eq!(lock.holder(), None);
    assert!(lock.try_acquire().unwrap().is_some());
    assert_eq!(fs::read_dir(store.state().locks()).unwrap().count(), 0);
}

#[test]
fn those_who_wait_for_a_lock_hear_the_note_of_its_holder() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let lock = store.lock("key");
    let held = lock.try_acquire().unwrap().unwrap();
    let waiter = std::thread::spawn({
        let lock = lock.clone();
        move || lock.wait_or_note(&|| false).unwrap()
    });
    std::thread::sleep(std::time::Duration::from_millis(100));
    held.leave_note(b"the step failed").unwrap();
    drop(held);
    assert!(matches!(waiter.join().unwrap(), Waited::Note(note) if note == b"the step failed"));
    assert!(matches!(lock.wait_or_note(&|| false).unwrap(), Waited::Acquired(_)));
}

#[test]
fn a_form_is_remembered_until_its_image_goes() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let published = publish(&store, "app", "one");
    let remote = RemoteForm { manifest: Descriptor::of("m", b"remote"), layers: vec![] };
    store.remember_form(&published.target.digest, "gzip:7", &remote).unwrap();
    assert_eq!(store.form(&published.target.digest, "gzip:7").unwrap(), Some(remote));
    assert_eq!(store.form(&published.target.digest, "zstd:3").unwrap(), None);
    store.untag(&name("app"), Removal::Careful).unwrap();
    assert_eq!(store.form(&published.target.digest, "gzip:7").unwrap(), None);
}

#[test]
fn a_store_of_another_kind_or_a_newer_one_is_refused_untouched() {
    let directory = TempDir::new().unwrap();
    let root = directory.path().join("deep/store");
    drop(open(&root));
    let before = support::tree(&root);
    let other = mica_store::Flavour { owner_uid: 4711, ..flavour() };
    let error = Store::open(&root, &other).unwrap_err();
    assert!(matches!(&error, OpenError::Flavour { .. }) && error.advice().is_some(), "{error}");
    let path = root.join("store.json");
    let newer = fs::read_to_string(&path).unwrap().replace("\"schema\": 3", "\"schema\": 9");
    fs::write(&path, newer).unwrap();
    assert!(matches!(Store::open(&root, &flavour()), Err(OpenError::Newer { found: 9, .. })));
    assert_eq!(support::tree(&root), before);
}

#[test]
fn an_older_store_is_brought_up_to_date_by_opening_it() {
    let directory = TempDir::new().unwrap();
    let published = publish(&open(directory.path()), "app", "one");
    let sql = rusqlite::Connection::open(directory.path().join("mica.db")).unwrap();
    sql.execute_batch(
        "DROP TABLE fetched; ALTER TABLE cache_records DROP COLUMN kind; PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(sql);
    let path = directory.path().join("store.json");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("\"schema\": 3", "\"schema\": 1")).unwrap();
    let store = open(directory.path());
    let fetched = Fetched { etag: Some("\"a\"".into()), last_modified: None, content: [7; 32] };
    store.note_fetched("http://h/x", &fetched).unwrap();
    assert_eq!(store.fetched("http://h/x").unwrap(), Some(fetched));
    assert!(store.cache_records().unwrap().is_empty());
    assert_complete(&store, &published.target.digest);
    assert!(fs::read_to_string(&path).unwrap().contains("\"schema\": 3"));
}

#[test]
fn a_creation_that_was_interrupted_is_completed() {
    let directory = TempDir::new().unwrap();
    drop(open(directory.path()));
    fs::remove_file(directory.path().join("store.json")).unwrap();
    let published = publish(&open(directory.path()), "app", "one");
    fs::remove_file(directory.path().join("store.json")).unwrap();
    assert_complete(&open(directory.path()), &published.target.digest);
}

#[test]
fn an_empty_or_missing_database_is_damage_and_not_an_empty_store() {
    let directory = TempDir::new().unwrap();
    publish(&open(directory.path()), "app", "one");
    let path = directory.path().join("mica.db");
    let bytes = fs::read(&path).unwrap();
    for broken in [Some(Vec::new()), Some(vec![0; 4096]), Some(b"not a database at all".repeat(300)), None] {
        match &broken {
            Some(broken) => fs::write(&path, broken).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        // The log alone must not be replayed into it either.
        let wal = directory.path().join("mica.db-wal");
        let kept = fs::read(&wal).ok();
        let _ = fs::remove_file(&wal);
        let error = Store::open(directory.path(), &flavour()).unwrap_err();
        assert!(matches!(&error, OpenError::Store(StoreError::Damaged { .. })), "{broken:?}: {error:?}");
        if let Some(kept) = kept {
            fs::write(&wal, kept).unwrap();
        }
    }
    fs::write(&path, bytes).unwrap();
    assert_eq!(open(directory.path()).images().unwrap().len(), 1);
}

#[test]
fn digests_and_ids_of_users_do_not_reach_paths() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    for query in ["../../etc/passwd", "sha256:../../x", "", "*", "?", "[a-f]"] {
        assert!(store.find_image(query).is_err(), "{query}");
        assert!(store.find_container(query).is_err(), "{query}");
    }
    let absent = Digest::of(b"absent");
    assert!(matches!(store.open_blob(&absent), Err(StoreError::BlobGone(_))));
}
