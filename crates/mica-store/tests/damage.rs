//! A damaged, full or read-only store: it says so, and everything else goes on.

mod support;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mica_api::Fault as _;
use mica_store::{CheckMode, OpenError, Outcome, Problem, Store, StoreError, repair_unopenable};
use support::{assert_complete, flavour, layer, name, open, publish, tree, try_publish};
use tempfile::TempDir;

/// What the module documentation of `layout` draws.
fn is_documented(path: &str) -> bool {
    let hex = |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    let scratch =
        |text: &str| text.split_once('-').is_some_and(|(id, n)| hex(id, 32) && n.parse::<u64>().is_ok());
    let parts: Vec<&str> = path.split('/').collect();
    match parts.as_slice() {
        ["store.json" | "reserve" | "mica.db" | "mica.db-wal" | "mica.db-shm"] => true,
        [top] => mica_store::layout::names::DIRECTORIES.contains(top),
        ["content", "blobs" | "ingest" | "partial"] | ["content", "blobs", "sha256" | "sha512"] => true,
        ["content", "blobs", "sha256", blob] => hex(blob, 64),
        ["content", "ingest", one] | ["tmp", one, ..] | ["active", one] => scratch(one),
        ["active", one, "fs" | "work" | "merged", ..] => scratch(one),
        ["layers", id] | ["layers", id, "fs", ..] | ["layers", id, "table" | "recipe"] => hex(id, 32),
        ["containers", id, ..] => hex(id, 64),
        ["volumes", id] | ["volumes", id, "data", ..] => hex(id, 32),
        ["cache-mounts", id] => hex(id, 64),
        ["cache-mounts", id, slot, ..] => {
            hex(id, 64) && slot.trim_end_matches(".lock").parse::<u64>().is_ok()
        }
        ["contexts", stat] => stat.strip_suffix(".stat").is_some_and(|id| hex(id, 64)),
        ["journals", _] | ["locks", _] => true,
        ["leases", id] | ["trash", id, ..] => hex(id, 32),
        _ => false,
    }
}

#[test]
fn the_state_directory_looks_as_documented() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let published = publish(&store, "app", "one");
    let lease = store.lease().unwrap();
    let workspace = lease.workspace().unwrap();
    fs::create_dir(workspace.join("fs")).unwrap();
    let _ingest = store.ingest(&lease, None).unwrap();
    let _scratch = lease.scratch().unwrap();
    let _mount = store.cache_mount("id", mica_store::Sharing::Private, &|| false).unwrap();
    let _lock = store.lock("some key").try_acquire().unwrap();
    store.ensure_volume("v", "{}", false).unwrap();
    store.create_journal("build-1").unwrap();
    fs::write(store.state().stat_cache(Path::new("/src")), "").unwrap();
    let id = mica_store::ContainerId::random();
    let new = mica_store::NewContainer {
        id: id.clone(),
        name: "box",
        image_name: None,
        image: Some(&published.target.digest),
        image_id: None,
        layers: &published.contents.manifests[0].layers,
        volumes: &["v".to_owned()],
        config_json: "{}",
        state_json: "{}",
    };
    store.create_container(&new, &lease).unwrap();
    let undocumented: Vec<String> =
        tree(directory.path()).into_iter().filter(|path| !is_documented(path)).collect();
    assert_eq!(undocumented, [] as [String; 0]);
    assert_eq!(store.check(CheckMode::Report, &mut |_| ()).unwrap().findings, []);
    let mode = fs::metadata(directory.path().join("layers")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
}

fn copy_tree(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

/// A way to damage a file, and what to call it.
type Damage = (&'static str, fn(&Path));

/// Ways to damage a file.
const DAMAGE: [Damage; 4] = [
    ("flip", |path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 0x20;
        }
        fs::write(path, bytes).unwrap();
    }),
    ("truncate", |path| {
        let length = fs::metadata(path).unwrap().len();
        fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length / 2).unwrap();
    }),
    ("remove", |path| fs::remove_file(path).unwrap()),
    ("chmod", |path| fs::set_permissions(path, fs::Permissions::from_mode(0o6755)).unwrap()),
];

/// Files that are checked in another way, or in which there is nothing to lose.
fn is_no_object(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    name.starts_with("mica.db") || name == "reserve"
}

#[test]
fn every_damaged_file_is_named_and_only_what_needs_it_is_removed() {
    let directory = TempDir::new().unwrap();
    let pristine = directory.path().join("pristine");
    let store = open(&pristine);
    publish(&store, "app", "one");
    publish(&store, "other", "two");
    drop(store);
    let files: Vec<String> = tree(&pristine)
        .into_iter()
        .filter(|path| pristine.join(path).is_file() && !is_no_object(&pristine.join(path)))
        .collect();
    assert!(files.len() >= 9, "{files:?}");
    for (file, (kind, damage)) in files.iter().flat_map(|file| DAMAGE.map(|damage| (file, damage))) {
        let what = format!("{kind} {file}");
        let root = directory.path().join("damaged");
        copy_tree(&pristine, &root);
        fs::set_permissions(root.join(file), fs::Permissions::from_mode(0o644)).unwrap();
        damage(&root.join(file));
        check_and_repair(&root, &root.join(file), &what);
        fs::remove_dir_all(&root).unwrap();
    }
}

fn check_and_repair(root: &Path, file: &Path, what: &str) {
    let store = match Store::open(root, &flavour()) {
        Ok(store) => store,
        Err(error) => {
            assert!(error.to_string().contains("store.json"), "{what}: {error}");
            repair_unopenable(root, &flavour()).unwrap();
            return assert_eq!(open(root).images().unwrap().len(), 2, "{what}");
        }
    };
    if file.ends_with("store.json") && what.starts_with("remove") {
        return assert_eq!(store.images().unwrap().len(), 2, "{what}");
    }
    let report = store.check(CheckMode::Report, &mut |_| ()).unwrap();
    let is_chmod = what.starts_with("chmod");
    let fits = |problem: &Problem| is_chmod == matches!(problem, Problem::Mode { .. });
    let named = report.findings.iter().find(|finding| finding.path == file && fits(&finding.problem));
    let finding = named.unwrap_or_else(|| panic!("{what}: {report:?}"));
    assert_eq!(finding.outcome, Outcome::Reported);
    assert!(finding.images.len() <= 1, "{what}: {finding:?}");
    let repaired = store.check(CheckMode::Repair, &mut |_| ()).unwrap();
    assert!(repaired.is_sound(), "{what}: {repaired:?}");
    let again = store.check(CheckMode::Report, &mut |_| ()).unwrap();
    assert_eq!(again.findings, [], "{what}");
    let left = store.images().unwrap();
    let lost = if is_chmod { 0 } else { finding.images.len() };
    assert_eq!(left.len(), 2 - lost, "{what}");
    left.iter().for_each(|image| assert_complete(&store, &image.target.digest));
    // What was removed can be made again.
    publish(&store, "app", "one");
    publish(&store, "other", "two");
    let images = store.images().unwrap();
    assert_eq!(images.len(), 2, "{what}");
    images.iter().for_each(|image| assert_complete(&store, &image.target.digest));
}

#[test]
fn a_destroyed_database_can_be_replaced() {
    let directory = TempDir::new().unwrap();
    publish(&open(directory.path()), "app", "one");
    fs::write(directory.path().join("mica.db"), b"").unwrap();
    let error = Store::open(directory.path(), &flavour()).unwrap_err();
    assert!(error.to_string().contains("mica.db"), "{error}");
    assert!(error.advice().unwrap().contains("check --repair"));
    assert!(!repair_unopenable(directory.path(), &flavour()).unwrap().is_empty());
    let store = open(directory.path());
    assert!(store.images().unwrap().is_empty());
    store.collect(&mica_store::GcRequest::default()).unwrap();
    assert_eq!(fs::read_dir(store.state().layers()).unwrap().count(), 0);
}

#[test]
fn foreign_files_are_named_and_removed_on_demand() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let image = publish(&store, "app", "one");
    let layer = image.contents.manifests[0].layers[0];
    let foreign: Vec<PathBuf> = [
        directory.path().join("notes.txt"),
        store.state().layers().join("lost+found"),
        store.state().layer(layer).join("x"),
        store.state().layer_fs(layer).join("etc/smuggled"),
        store.state().blobs(mica_oci::Algorithm::Sha256).join("readme"),
    ]
    .into();
    for path in &foreign {
        fs::write(path, "x").unwrap();
    }
    let report = store.check(CheckMode::Repair, &mut |_| ()).unwrap();
    assert_eq!(report.findings.len(), foreign.len(), "{report:?}");
    assert!(foreign.iter().all(|path| !path.exists()));
    assert_complete(&store, &image.target.digest);
}

#[test]
fn rows_of_an_earlier_boot_that_were_never_synced_count_as_absent() {
    let directory = TempDir::new().unwrap();
    let store = open(directory.path());
    let published = publish(&store, "app", "synced");
    let lease = store.lease().unwrap();
    let record = layer(&store, &lease, "unsynced");
    let blob = store.put_blob(b"unsynced", &lease).unwrap();
    let new = mica_store::NewCacheRecord {
        content: &[9; 32],
        aliases: &[[8; 32]],
        layers: &[record.id],
        description: "RUN x",
        kind: mica_store::CacheKind::Regular,
    };
    store.cache_record(&new, &lease).unwrap();
    drop(lease);
    drop(store);
    let database = rusqlite::Connection::open(directory.path().join("mica.db")).unwrap();
    for table in ["layers", "blobs", "cache_records"] {
        let update = format!("UPDATE {table} SET unsynced = 'earlier boot' WHERE unsynced IS NOT NULL");
        assert_eq!(database.execute(&update, []).unwrap(), 1, "{table}");
    }
    drop(database);
    let store = open(directory.path());
    assert_eq!(store.layer(record.id).unwrap(), None);
    assert_eq!(store.layer_by_diff_id(&record.diff_id).unwrap(), None);
    assert_eq!(store.blob(&blob).unwrap(), None);
    assert_eq!(store.cache_lookup(&[8; 32]).unwrap(), None);
    // The same work done again replaces them.
    let lease = store.lease().unwrap();
    let again = layer(&store, &lease, "unsynced");
    assert_ne!(again.id, record.id);
    store.put_blob(b"unsynced", &lease).unwrap();
    store.collect(&mica_store::GcRequest::default()).unwrap();
    assert!(!store.state().layer(record.id).exists());
    assert!(store.state().layer(again.id).exists());
    assert_eq!(store.read_blob(&blob, 100).unwrap(), b"unsynced");
    assert_complete(&store, &published.target.digest);
}

/// A small file system mounted for one test.
struct Mounted(TempDir);

impl Mounted {
    /// `None`, said aloud, where this is not allowed.
    fn tmpfs(options: &str) -> Option<Self> {
        if !rustix::process::getuid().is_root() {
            eprintln!("SKIP: mounting a small file system needs root");
            return None;
        }
        let directory = TempDir::new().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(directory.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(directory)),
            other => {
                eprintln!("SKIP: cannot mount a tmpfs: {other:?}");
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount").args(["-o", options]).arg(self.0.path()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_fails_clearly_and_works_again_when_there_is_space() {
    let Some(mounted) = Mounted::tmpfs("size=4m") else { return };
    let root = mounted.0.path().join("store");
    let store = open(&root);
    let before = publish(&store, "app:before", "before");
    let ballast = mounted.0.path().join("ballast");
    fill(&ballast).unwrap();
    let mut failures = 0;
    for n in 0..20 {
        if let Err(error) = try_publish(&store, "app:full", &format!("{n} {}", "x".repeat(100_000))) {
            failures += 1;
            assert!(!error.to_string().is_empty());
        }
    }
    assert!(failures > 0);
    assert_complete(&store, &before.target.digest);
    fs::remove_file(&ballast).unwrap();
    drop(store);
    let store = open(&root);
    let after = publish(&store, "app:after", "after");
    store.collect(&mica_store::GcRequest::default()).unwrap();
    for image in store.images().unwrap() {
        assert_complete(&store, &image.target.digest);
    }
    assert_complete(&store, &after.target.digest);
    assert_eq!(store.check(CheckMode::Report, &mut |_| ()).unwrap().findings, []);
}

/// Fills the file system but for a few blocks.
fn fill(path: &Path) -> io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::File::create(path)?;
    loop {
        match file.write_all(&[1; 4096]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
            Err(error) => return Err(error),
        }
    }
    let length = file.metadata()?.len();
    file.set_len(length.saturating_sub(64 * 1024))
}

#[test]
fn a_read_only_store_can_be_read_with_and_without_a_log() {
    let Some(mounted) = Mounted::tmpfs("size=16m") else { return };
    let root = mounted.0.path().join("store");
    let published = publish(&open(&root), "app", "one");
    for with_log in [true, false] {
        if !with_log {
            mounted.remount("remount,rw");
            let database = rusqlite::Connection::open(root.join("mica.db")).unwrap();
            database.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
            drop(database);
            assert!(!root.join("mica.db-wal").exists());
        }
        mounted.remount("remount,ro");
        let store = open(&root);
        assert!(store.is_read_only());
        assert_complete(&store, &published.target.digest);
        let lease = store.lease().unwrap();
        lease.protect_layers(&published.contents.manifests[0].layers).unwrap();
        assert!(matches!(store.put_blob(b"x", &lease), Err(StoreError::ReadOnly { .. })));
        let tagged = store.tag(&published.target.digest, &name("app:2"));
        assert!(matches!(tagged, Err(StoreError::ReadOnly { .. })));
        store.disk_usage().unwrap();
    }
    assert!(matches!(Store::open(&mounted.0.path().join("none"), &flavour()), Err(OpenError::Create { .. })));
}

#[test]
fn a_database_with_a_broken_index_keeps_everything() {
    let directory = TempDir::new().unwrap();
    let published = publish(&open(directory.path()), "app", "one");
    let path = directory.path().join("mica.db");
    let sql = rusqlite::Connection::open(&path).unwrap();
    sql.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let page = |name: &str| -> u64 {
        let number: i64 = sql
            .query_row("SELECT rootpage FROM sqlite_master WHERE name = ?1", [name], |row| row.get(0))
            .unwrap();
        (number - 1).cast_unsigned()
    };
    let size: u64 =
        sql.query_row("PRAGMA page_size", [], |row| row.get::<_, i64>(0)).unwrap().cast_unsigned();
    let at = page("names_image") * size;
    drop(sql);
    let file = fs::File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0xff; usize::try_from(size).unwrap()], at).unwrap();
    let is_sound =
        |store: &Store| store.check(CheckMode::Report, &mut |_| {}).is_ok_and(|report| report.is_sound());
    assert!(!is_sound(&open(directory.path())));
    let replaced = repair_unopenable(directory.path(), &flavour()).unwrap();
    assert_eq!(replaced, [path]);
    let store = open(directory.path());
    assert!(is_sound(&store));
    assert_complete(&store, &published.target.digest);
    assert!(store.image_by_name(&support::name("app")).unwrap().is_some());
}
