//! One suite for all drivers: the same changes give the same layers, to the byte.
//!
//! Needs root: every test moves its own thread into a private mount namespace, so nothing mounted here is seen, or
//! left, anywhere else.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mica_archive::{Kind, NEVER, OwnerLedger, Table, Timestamp, View, finalize};
use mica_snapshot::{Copy, Driver, LayerDir, Overlay, SnapshotError};
use mica_sys::mount::OverlayCall;
use mica_sys::root::Root;

/// A stack of layers made by one driver.
struct Stack<'a> {
    driver: &'a dyn Driver,
    directory: tempfile::TempDir,
    layers: Vec<LayerDir>,
    diff_ids: Vec<String>,
}

impl<'a> Stack<'a> {
    fn new(driver: &'a dyn Driver) -> Self {
        Self { driver, directory: tempfile::tempdir().unwrap(), layers: Vec::new(), diff_ids: Vec::new() }
    }

    fn workspace(&self) -> PathBuf {
        static NEXT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let workspace = self.directory.path().join(format!("active-{number}"));
        fs::create_dir(&workspace).unwrap();
        workspace
    }

    /// Changes the root file system and commits: one more layer. Times of today are made equal for all drivers.
    fn step(&mut self, change: impl FnOnce(&Path) -> io::Result<()>) -> &Table {
        let workspace = self.workspace();
        let active = self.driver.prepare(&workspace, &self.layers).unwrap();
        change(active.path()).unwrap();
        let expected = self.driver.changes(active.upper(), &self.layers).unwrap();
        let draft = self.driver.commit(active, &OwnerLedger::new()).unwrap();
        assert_eq!(draft.table, expected, "changes shows what commit makes");
        assert_eq!(fs::read_dir(&workspace).unwrap().count(), 1, "only fs is left");
        let id = format!("layer-{}", self.layers.len());
        let root = Root::open(&draft.fs).unwrap();
        let table = draft.table.clamp_times(Timestamp { seconds: 1_000_000_000, nanoseconds: 0 });
        let finalized = finalize(table, &root, NEVER).unwrap();
        self.diff_ids.push(finalized.diff_id.to_string());
        self.layers.push(LayerDir { id, fs: draft.fs, table: Arc::new(finalized.table) });
        // The times on disk have to be those of the table, or everything would count as changed in the next step.
        for entry in self.layers.last().unwrap().table.entries().iter().rev() {
            if entry.kind != Kind::Whiteout {
                root.set_times(&entry.path, entry.mtime).unwrap();
            }
        }
        &self.layers.last().unwrap().table
    }

    fn view(&self) -> View {
        View::stack(self.layers.iter().map(|layer| Arc::clone(&layer.table)))
    }
}

fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIP: {test} needs root: it mounts");
        return false;
    }
    mica_sys::namespace::unshare_mounts().unwrap();
    true
}

/// Runs the same steps on every driver, and compares the layers.
fn contract(test: &str, steps: impl Fn(&mut Stack<'_>)) {
    if !is_root(test) {
        return;
    }
    let by_one_string = Overlay { userxattr: false, call: OverlayCall::OneString };
    let drivers: [&dyn Driver; 3] = [&Copy, &Overlay::new(false), &by_one_string];
    let stacks = drivers.map(|driver| {
        let mut stack = Stack::new(driver);
        steps(&mut stack);
        stack
    });
    let tables = |stack: &Stack<'_>| -> Vec<Vec<String>> {
        stack.layers.iter().map(|layer| listed(&layer.table)).collect()
    };
    let (copied, mounted) = stacks.split_first().unwrap();
    for mounted in mounted {
        assert_eq!(tables(mounted), tables(copied));
        for (overlay, copy) in mounted.layers.iter().zip(&copied.layers) {
            assert_eq!(overlay.table, copy.table, "{}", overlay.id);
        }
        assert_eq!(mounted.diff_ids, copied.diff_ids);
    }
    for stack in &stacks {
        reads_back(stack);
    }
}

/// The paths of a layer; whiteouts with a minus.
fn listed(table: &Table) -> Vec<String> {
    let name = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
    let entries = table.entries().iter();
    entries
        .map(
            |entry| {
                if entry.kind == Kind::Whiteout {
                    format!("-{}", name(&entry.path))
                } else {
                    name(&entry.path)
                }
            },
        )
        .collect()
}

/// A read-only view shows exactly what the tables say, and the layers hold none of overlayfs's marks.
fn reads_back(stack: &Stack<'_>) {
    let mounted = stack.driver.view(&stack.workspace(), &stack.layers).unwrap();
    let mut shown = Vec::new();
    list(mounted.root(), b"", &mut shown);
    let view = stack.view();
    let expected: Vec<Vec<u8>> = view.walk(b"").map(|(path, _)| path.to_vec()).collect();
    assert_eq!(shown, expected);
    for (path, entry) in view.walk(b"") {
        let stat = mounted.root().lstat(path).unwrap();
        assert_eq!((stat.st_uid, stat.st_gid), (entry.uid, entry.gid), "{}", String::from_utf8_lossy(path));
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            assert_eq!(stat.st_mode & 0o7777, entry.mode, "{}", String::from_utf8_lossy(path));
        }
    }
    for layer in &stack.layers {
        let root = Root::open(&layer.fs).unwrap();
        // Whiteouts have no attributes, and the copy driver may do without them on disk.
        for entry in layer.table.entries().iter().filter(|entry| entry.kind != Kind::Whiteout) {
            let marks: Vec<_> = root.xattrs(&entry.path).unwrap().into_keys().collect();
            let mark =
                |name: &&Vec<u8>| name.starts_with(b"trusted.overlay") || name.starts_with(b"user.overlay");
            assert_eq!(marks.iter().find(mark), None, "{}", String::from_utf8_lossy(&entry.path));
        }
    }
}

fn list(root: &Root, directory: &[u8], found: &mut Vec<Vec<u8>>) {
    for item in root.read_dir(directory).unwrap() {
        let path = mica_archive::path::join(directory, &item.name);
        found.push(path.clone());
        if item.file_type == rustix::fs::FileType::Directory {
            list(root, &path, found);
        }
    }
}

/// A base with a bit of everything.
fn base(root: &Path) -> io::Result<()> {
    for directory in ["etc", "usr/lib/deep", "var/cache", "home"] {
        fs::create_dir_all(root.join(directory))?;
    }
    for file in ["etc/passwd", "etc/group", "usr/lib/a.so", "usr/lib/deep/x", "usr/lib/deep/y", "var/cache/c"]
    {
        fs::write(root.join(file), file)?;
    }
    symlink("usr/lib", root.join("lib"))?;
    fs::set_permissions(root.join("home"), fs::Permissions::from_mode(0o1777))?;
    std::os::unix::fs::chown(root.join("var/cache"), Some(5), Some(6))?;
    std::os::unix::fs::chown(root.join("etc/group"), Some(7), Some(8))
}

#[test]
fn files_are_added_changed_and_removed() {
    contract("files_are_added_changed_and_removed", |stack| {
        stack.step(base);
        let table = stack.step(|root| {
            fs::write(root.join("etc/new"), "new")?;
            fs::write(root.join("etc/passwd"), "changed")?;
            fs::remove_file(root.join("usr/lib/a.so"))
        });
        assert_eq!(listed(table), ["etc", "etc/new", "etc/passwd", "usr", "usr/lib", "-usr/lib/a.so"]);
    });
}

#[test]
fn a_removed_directory_is_one_whiteout() {
    contract("a_removed_directory_is_one_whiteout", |stack| {
        stack.step(base);
        let table = stack.step(|root| fs::remove_dir_all(root.join("usr/lib/deep")));
        assert_eq!(listed(table), ["usr", "usr/lib", "-usr/lib/deep"]);
    });
}

#[test]
fn a_directory_made_again_hides_what_was_in_it() {
    contract("a_directory_made_again_hides_what_was_in_it", |stack| {
        stack.step(base);
        let table = stack.step(|root| {
            fs::remove_dir_all(root.join("usr/lib/deep"))?;
            fs::create_dir(root.join("usr/lib/deep"))?;
            fs::write(root.join("usr/lib/deep/y"), "again")?;
            fs::write(root.join("usr/lib/deep/z"), "z")
        });
        assert!(listed(table).contains(&"-usr/lib/deep/x".to_owned()), "{:?}", listed(table));
        assert!(!table.entries().iter().any(|entry| entry.kind == Kind::Directory { opaque: true }));
        stack.step(|root| fs::write(root.join("usr/lib/deep/x"), "back"));
    });
}

#[test]
fn types_change() {
    contract("types_change", |stack| {
        stack.step(base);
        stack.step(|root| {
            fs::remove_dir_all(root.join("var/cache"))?;
            fs::write(root.join("var/cache"), "a file now")?;
            fs::remove_file(root.join("etc/passwd"))?;
            fs::create_dir(root.join("etc/passwd"))?;
            fs::write(root.join("etc/passwd/inside"), "x")?;
            fs::remove_file(root.join("lib"))?;
            fs::create_dir(root.join("lib"))
        });
    });
}

#[test]
fn only_attributes_change() {
    contract("only_attributes_change", |stack| {
        stack.step(base);
        let table = stack.step(|root| {
            fs::set_permissions(root.join("etc/passwd"), fs::Permissions::from_mode(0o600))?;
            std::os::unix::fs::chown(root.join("home"), Some(9), Some(9))?;
            fs::set_permissions(root.join("home"), fs::Permissions::from_mode(0o2755))
        });
        assert_eq!(listed(table), ["etc", "etc/passwd", "home"]);
        stack.step(|root| Root::open(root)?.set_xattr(b"etc/group", b"user.note", b"x"));
    });
}

#[test]
fn what_was_put_back_is_no_change() {
    contract("what_was_put_back_is_no_change", |stack| {
        stack.step(base);
        let table = stack.step(|root| {
            let path = root.join("usr/lib/a.so");
            let modified = fs::metadata(&path)?.modified()?;
            fs::OpenOptions::new().append(true).open(&path)?.set_modified(modified)
        });
        assert_eq!(listed(table), Vec::<String>::new());
        stack.step(|_| Ok(()));
    });
}

#[test]
fn special_files_links_and_odd_names_are_kept() {
    contract("special_files_links_and_odd_names_are_kept", |stack| {
        stack.step(base);
        stack.step(|path| {
            use std::os::unix::ffi::OsStrExt;
            let root = Root::open(path)?;
            root.mknod(b"etc/fifo", rustix::fs::FileType::Fifo, 0o640, 0, 0)?;
            root.mknod(b"etc/null", rustix::fs::FileType::CharacterDevice, 0o666, 1, 3)?;
            symlink("/nowhere", path.join("etc/dangling"))?;
            fs::write(path.join("etc/one"), "linked")?;
            fs::hard_link(path.join("etc/one"), path.join("etc/two"))?;
            fs::write(path.join(std::ffi::OsStr::from_bytes(b"etc/inv\xffalid")), "x")?;
            fs::write(path.join("etc").join("n".repeat(200)), "long")?;
            fs::set_permissions(path.join("etc/one"), fs::Permissions::from_mode(0o4755))
        });
        // One name of a hard-linked file is written: the other keeps the old content.
        let table = stack.step(|path| fs::write(path.join("etc/two"), "changed"));
        assert_eq!(listed(table), ["etc", "etc/two"]);
    });
}

#[test]
fn no_layers_and_one_layer_work() {
    contract("no_layers_and_one_layer_work", |stack| {
        reads_back(stack);
        stack.step(|root| fs::write(root.join("only"), "x"));
        reads_back(stack);
        stack.step(|root| fs::remove_file(root.join("only")));
    });
}

#[test]
fn a_hundred_and_twenty_layers_are_stacked() {
    contract("a_hundred_and_twenty_layers_are_stacked", |stack| {
        for number in 0..120 {
            stack.step(|root| {
                if number % 10 == 9 {
                    fs::remove_file(root.join(format!("f{}", number - 5)))?;
                }
                fs::write(root.join(format!("f{number}")), number.to_string())
            });
        }
    });
}

#[test]
fn the_root_directory_keeps_its_attributes() {
    contract("the_root_directory_keeps_its_attributes", |stack| {
        stack.step(|root| {
            fs::set_permissions(root, fs::Permissions::from_mode(0o700))?;
            std::os::unix::fs::chown(root, Some(3), Some(4))
        });
        let table = stack.step(|root| fs::write(root.join("f"), "x"));
        assert_eq!(listed(table), ["f"]);
        let mounted = stack.driver.view(&stack.workspace(), &stack.layers).unwrap();
        assert_eq!(mounted.root().stat(b"").unwrap().st_mode & 0o7777, 0o700);
    });
}

#[test]
fn layers_are_not_written_by_later_steps() {
    contract("layers_are_not_written_by_later_steps", |stack| {
        stack.step(base);
        stack.step(|root| fs::write(root.join("etc/passwd"), "changed"));
        assert_eq!(fs::read_to_string(stack.layers[0].fs.join("etc/passwd")).unwrap(), "etc/passwd");
    });
}

#[test]
fn a_view_of_an_overlay_is_read_only_and_gone_when_dropped() {
    if !is_root("a_view_of_an_overlay_is_read_only_and_gone_when_dropped") {
        return;
    }
    let driver = Overlay::new(false);
    let mut stack = Stack::new(&driver);
    stack.step(base);
    stack.step(|root| fs::write(root.join("f"), "x"));
    for count in 1..=2 {
        let workspace = stack.workspace();
        let mounted = driver.view(&workspace, &stack.layers[..count]).unwrap();
        let error = fs::write(mounted.path().join("g"), "x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
        drop(mounted);
        assert_eq!(fs::read_dir(workspace.join("merged")).unwrap().count(), 0);
    }
}

#[test]
fn an_unpacked_layer_can_be_stacked() {
    contract("an_unpacked_layer_can_be_stacked", |stack| {
        stack.step(base);
        let mut tar = Vec::new();
        let source = Stack::new(&Copy);
        {
            let mut source = source;
            source.step(base);
            source.step(|root| {
                fs::remove_file(root.join("etc/passwd"))?;
                fs::write(root.join("etc/unpacked"), "x")
            });
            let top = source.layers.last().unwrap();
            let root = Root::open(&top.fs).unwrap();
            mica_archive::write_tar(&top.table, &root, &mut tar, Default::default(), NEVER).unwrap();
        }
        let workspace = stack.workspace();
        let below = stack.view();
        let applied =
            mica_snapshot::unpack(stack.driver, tar.as_slice(), &workspace, Some(&below), NEVER).unwrap();
        assert!(applied.reproducible);
        stack.diff_ids.push(applied.diff_id.to_string());
        let layer =
            LayerDir { id: "unpacked".into(), fs: workspace.join("fs"), table: Arc::new(applied.table) };
        stack.layers.push(layer);
        assert!(stack.view().get(b"etc/passwd").is_none());
    });
}

#[test]
fn a_snapshot_left_behind_is_resumed_with_its_changes() {
    contract("a_snapshot_left_behind_is_resumed_with_its_changes", |stack| {
        stack.step(base);
        let workspace = stack.workspace();
        let left = stack.driver.prepare(&workspace, &stack.layers).unwrap();
        fs::write(left.path().join("left"), "first").unwrap();
        drop(left);
        for _ in 0..2 {
            let resumed = stack.driver.resume(&workspace, &stack.layers).unwrap();
            assert_eq!(fs::read(resumed.path().join("left")).unwrap(), b"first");
            assert_eq!(resumed.upper(), stack.driver.upper(&workspace));
        }
        let upper = stack.driver.upper(&workspace);
        assert_eq!(listed(&stack.driver.changes(&upper, &stack.layers).unwrap()), ["left"]);
    });
}

#[test]
fn a_missing_layer_is_named() {
    if !is_root("a_missing_layer_is_named") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let layer = LayerDir {
        id: "gone".into(),
        fs: directory.path().join("gone"),
        table: Arc::new(Table::from_entries(Vec::new()).unwrap()),
    };
    let error = Overlay::new(false).prepare(directory.path(), &[layer]).unwrap_err();
    assert!(matches!(error, SnapshotError::Mount { .. }), "{error}");
}

#[test]
fn whether_overlays_work_is_tried() {
    if !is_root("whether_overlays_work_is_tried") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    assert!(mica_snapshot::overlay_works(&state, false));
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "the probe is removed");
}
