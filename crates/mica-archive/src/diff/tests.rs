use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::testing::is_root;
use crate::{NEVER, finalize};

/// A lower tree and the view of it, and an upper directory to put changes into.
struct Pair {
    top: TempDir,
    view: View,
}

const LEDGER: DiffOptions<'static> = DiffOptions { owners: OwnerPolicy::Exact, cancel: NEVER, shared: None };

impl Pair {
    fn new() -> Self {
        let top = TempDir::new().unwrap();
        for directory in ["lower/etc/conf", "lower/var/old", "upper"] {
            std::fs::create_dir_all(top.path().join(directory)).unwrap();
        }
        std::fs::write(top.path().join("lower/etc/a"), "alpha").unwrap();
        std::fs::write(top.path().join("lower/etc/conf/x"), "x").unwrap();
        std::fs::write(top.path().join("lower/var/old/y"), "y").unwrap();
        symlink("etc/a", top.path().join("lower/link")).unwrap();
        let lower = Root::open(&top.path().join("lower")).unwrap();
        let found = diff_views(&View::empty(), &lower, &OwnerLedger::new(), &LEDGER).unwrap();
        let table = finalize(found.table, &lower, NEVER).unwrap().table;
        Self { top, view: View::stack([Arc::new(table)]) }
    }

    fn lower(&self, path: &str) -> PathBuf {
        self.top.path().join("lower").join(path)
    }

    fn upper(&self, path: &str) -> PathBuf {
        self.top.path().join("upper").join(path)
    }

    /// Copies up as overlayfs does: with all metadata.
    fn copy_up(&self, path: &str) {
        let status = std::process::Command::new("cp")
            .arg("-a")
            .arg("--parents")
            .arg("--attributes-only")
            .args(["--preserve=all", path])
            .arg(self.top.path().join("upper"))
            .current_dir(self.lower(""))
            .status()
            .unwrap();
        assert!(status.success());
        if self.lower(path).is_file() {
            let times = self.lower(path).metadata().unwrap().modified().unwrap();
            std::fs::copy(self.lower(path), self.upper(path)).unwrap();
            std::fs::File::options().write(true).open(self.upper(path)).unwrap().set_modified(times).unwrap();
        }
    }

    fn diff_upper(&self) -> UpperDiff {
        let upper = Root::open(&self.upper("")).unwrap();
        diff_upper(&upper, &self.view, &OwnerLedger::new(), &LEDGER).unwrap()
    }

    fn diff_lower(&self) -> UpperDiff {
        let whole = Root::open(&self.lower("")).unwrap();
        diff_views(&self.view, &whole, &OwnerLedger::new(), &LEDGER).unwrap()
    }
}

fn shown(found: &UpperDiff) -> Vec<String> {
    let show = |entry: &Entry| {
        let path = String::from_utf8_lossy(&entry.path);
        if entry.kind == Kind::Whiteout { format!("-{path}") } else { path.into_owned() }
    };
    found.table.entries().iter().map(show).collect()
}

#[test]
fn an_unchanged_tree_is_an_empty_layer() {
    let pair = Pair::new();
    assert_eq!(shown(&pair.diff_lower()), Vec::<String>::new());
    assert_eq!(shown(&pair.diff_upper()), Vec::<String>::new());
}

#[test]
fn a_whole_tree_shows_what_was_added_changed_and_removed() {
    let pair = Pair::new();
    std::fs::write(pair.lower("etc/new"), "n").unwrap();
    std::fs::remove_dir_all(pair.lower("var/old")).unwrap();
    std::fs::remove_file(pair.lower("link")).unwrap();
    std::fs::write(pair.lower("link"), "a file now").unwrap();
    assert_eq!(shown(&pair.diff_lower()), ["etc", "etc/new", "link", "var", "-var/old"]);
}

#[test]
fn a_change_of_content_alone_is_found() {
    let pair = Pair::new();
    let times = pair.lower("etc/a").metadata().unwrap().modified().unwrap();
    std::fs::write(pair.lower("etc/a"), "ALPHA").unwrap();
    std::fs::File::options().write(true).open(pair.lower("etc/a")).unwrap().set_modified(times).unwrap();
    // The directory is unchanged and there all the same: its file needs it.
    assert_eq!(shown(&pair.diff_lower()), ["etc", "etc/a"]);
}

#[test]
fn copies_that_changed_nothing_are_dropped() {
    let pair = Pair::new();
    pair.copy_up("etc/a");
    pair.copy_up("etc/conf/x");
    std::fs::set_permissions(pair.upper("etc/conf/x"), PermissionsExt::from_mode(0o600)).unwrap();
    let found = pair.diff_upper();
    assert_eq!(shown(&found), ["etc", "etc/conf", "etc/conf/x"]);
    assert_eq!(found.dropped, [b"etc/a".to_vec()]);
}

#[test]
fn a_directory_whose_time_changed_is_kept() {
    let pair = Pair::new();
    pair.copy_up("etc/conf");
    std::fs::remove_file(pair.upper("etc/conf/x")).unwrap();
    std::fs::File::open(pair.upper("etc/conf")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(shown(&pair.diff_upper()), ["etc", "etc/conf"]);
}

#[test]
fn hard_links_point_to_their_first_name() {
    let pair = Pair::new();
    std::fs::write(pair.upper("m"), "content").unwrap();
    std::fs::create_dir(pair.upper("a")).unwrap();
    std::fs::hard_link(pair.upper("m"), pair.upper("a/z")).unwrap();
    std::fs::hard_link(pair.upper("m"), pair.upper("b")).unwrap();
    let found = pair.diff_upper();
    let kind = |path: &str| &found.table.get(path.as_bytes()).unwrap().kind;
    assert!(matches!(kind("a/z"), Kind::File { size: 7, .. }));
    for path in ["b", "m"] {
        assert_eq!(kind(path), &Kind::Hardlink { target: b"a/z".to_vec() });
    }
}

#[test]
fn whiteouts_and_opaque_directories_become_explicit() {
    if !is_root() {
        return;
    }
    let pair = Pair::new();
    let upper = Root::open(&pair.upper("")).unwrap();
    upper.mknod(b"link", FileType::CharacterDevice, 0, 0, 0).unwrap();
    upper.mknod(b"never-was", FileType::CharacterDevice, 0, 0, 0).unwrap();
    pair.copy_up("etc/conf/x");
    std::fs::create_dir(pair.upper("var")).unwrap();
    for directory in [&b"etc"[..], b"var"] {
        upper.set_xattr(directory, b"trusted.overlay.opaque", b"y").unwrap();
    }
    let found = pair.diff_upper();
    // `etc/conf` and its file are what they were, so they come from below again once `etc` is no longer opaque.
    assert_eq!(shown(&found), ["etc", "-etc/a", "-link", "var", "-var/old"]);
    assert_eq!(found.opaque, [b"etc".to_vec(), b"var".to_vec()]);
    assert_eq!(found.whiteouts, [b"etc/a".to_vec(), b"var/old".to_vec()]);
    assert_eq!(found.dropped, [&b"etc/conf/x"[..], b"etc/conf", b"never-was"]);
}

#[test]
fn without_owners_on_disk_the_parent_and_the_ledger_know() {
    let pair = Pair::new();
    let mut entries = pair.view.tables()[0].entries().to_vec();
    for entry in &mut entries {
        (entry.uid, entry.gid) = (33, 34);
    }
    let view = View::stack([Arc::new(Table::from_entries(entries).unwrap())]);
    std::fs::write(pair.lower("etc/new"), "").unwrap();
    let whole = Root::open(&pair.lower("")).unwrap();
    let options = DiffOptions { owners: OwnerPolicy::Ledger, ..LEDGER };
    let ledger = OwnerLedger::from([(b"etc/conf/x".to_vec(), (5, 6))]);
    let found = diff_views(&view, &whole, &ledger, &options).unwrap();
    assert_eq!(shown(&found), ["etc", "etc/conf", "etc/conf/x", "etc/new"]);
    let owner = |path: &str| found.table.get(path.as_bytes()).map(|entry| (entry.uid, entry.gid)).unwrap();
    assert_eq!((owner("etc"), owner("etc/conf/x")), ((33, 34), (5, 6)));
}

#[test]
fn cancelling_stops() {
    let pair = Pair::new();
    let whole = Root::open(&pair.lower("")).unwrap();
    let options = DiffOptions { cancel: &|| true, ..LEDGER };
    let result = diff_views(&pair.view, &whole, &OwnerLedger::new(), &options);
    assert!(matches!(result, Err(DiffError::Cancelled)));
}

#[test]
fn a_file_shared_with_another_layer_is_what_that_layer_says() {
    let pair = Pair::new();
    std::fs::create_dir(pair.upper("new")).unwrap();
    std::fs::write(pair.upper("new/f"), "f").unwrap();
    std::fs::hard_link(pair.upper("new/f"), pair.top.path().join("elsewhere")).unwrap();
    std::fs::write(pair.upper("new/alone"), "a").unwrap();
    let digest = Some(ContentDigest::of(b"f"));
    let entry = |path: &str| Entry::new(path, Kind::File { size: 1, digest }, 0o4711);
    let shared = ["new/f", "new/alone"].map(|path| (path.as_bytes().to_vec(), entry(path)));
    let shared = SharedFiles::from(shared);
    let upper = Root::open(&pair.upper("")).unwrap();
    let options = DiffOptions { shared: Some(&shared), ..LEDGER };
    let found = diff_upper(&upper, &pair.view, &OwnerLedger::new(), &options).unwrap();
    assert_eq!(found.table.get(b"new/f"), Some(&entry("new/f")));
    // One name only: it was replaced since.
    let alone = found.table.get(b"new/alone").unwrap();
    assert_eq!((&alone.kind, alone.mode == 0o4711), (&Kind::File { size: 1, digest: None }, false));
    finalize(found.table.clone(), &upper, NEVER).unwrap();
    std::fs::write(pair.upper("new/f"), "x").unwrap();
    let error = finalize(found.table, &upper, NEVER).unwrap_err();
    assert!(matches!(&error, crate::WriteError::Damaged(path) if path.contains("new/f")), "{error}");
}
