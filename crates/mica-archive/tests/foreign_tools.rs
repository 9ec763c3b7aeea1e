//! What we write, read by GNU tar and Python; what GNU tar writes, applied by us.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use mica_archive::{
    ApplyOptions, DiffOptions, NEVER, OverlayFlavour, OwnerLedger, OwnerPolicy, Table, TarFormat, Timestamp,
    View, apply, diff_views, finalize, rebuild, write_tar,
};
use mica_sys::root::Root;
use tempfile::TempDir;

/// Runs a program; `None` if it is not installed.
fn run(program: &str, arguments: &[&str], directory: &Path) -> Option<String> {
    let Ok(output) = Command::new(program).args(arguments).current_dir(directory).env("LC_ALL", "C").output()
    else {
        eprintln!("SKIP: {program} is not installed");
        return None;
    };
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A tree with everything a layer can hold without privileges.
fn tree() -> TempDir {
    let top = TempDir::new().unwrap();
    let path = |name: &str| top.path().join(name);
    let long = format!("{}/{}", "directory".repeat(12), "name".repeat(50));
    std::fs::create_dir_all(path(&long)).unwrap();
    std::fs::create_dir_all(path("etc")).unwrap();
    std::fs::write(path("etc/a"), "alpha").unwrap();
    std::fs::write(path("etc/empty"), "").unwrap();
    std::fs::write(path(&format!("{long}/file")), vec![7; 100_000]).unwrap();
    std::fs::write(path("größe\n"), "utf-8").unwrap();
    std::fs::hard_link(path("etc/a"), path("hard")).unwrap();
    std::os::unix::fs::symlink("etc/a", path("soft")).unwrap();
    std::os::unix::fs::symlink("x".repeat(150), path("long-link")).unwrap();
    top
}

/// The table of a tree with settled times and an attribute, as a layer would have it.
fn table(root: &Root) -> Table {
    let found = diff_views(&View::empty(), root, &OwnerLedger::new(), &DiffOptions::default()).unwrap();
    let mut entries = found.table.into_entries();
    for entry in &mut entries {
        entry.mtime = Timestamp { seconds: 1_600_000_000, nanoseconds: 0 };
        if entry.path == b"etc/a" {
            entry.xattrs = BTreeMap::from([(b"user.note".to_vec(), b"two\nlines".to_vec())]);
            entry.uid = 5_000_000;
        }
        if entry.path == b"etc/empty" {
            entry.mtime.seconds = -1;
        }
    }
    finalize(Table::from_entries(entries).unwrap(), root, NEVER).unwrap().table
}

fn tar_of(table: &Table, root: &Root) -> Vec<u8> {
    let mut tar = Vec::new();
    let summary = write_tar(table, root, &mut tar, TarFormat::V1, NEVER).unwrap();
    assert_eq!(summary.bytes, tar.len() as u64);
    tar
}

fn options() -> ApplyOptions<'static> {
    ApplyOptions {
        owners: OwnerPolicy::Ledger,
        overlay: OverlayFlavour::None,
        keep_recipe: true,
        ..ApplyOptions::default()
    }
}

#[test]
fn the_empty_layer_is_two_zero_blocks() {
    let top = TempDir::new().unwrap();
    let root = Root::open(top.path()).unwrap();
    let finalized = finalize(Table::default(), &root, NEVER).unwrap();
    assert_eq!(finalized.tar_bytes, 1024);
    let expected = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    assert_eq!(finalized.diff_id.to_string(), expected);
    assert_eq!(tar_of(&Table::default(), &root), vec![0; 1024]);
}

#[test]
fn our_tar_comes_back_as_the_same_table_and_the_same_bytes() {
    let top = tree();
    let root = Root::open(top.path()).unwrap();
    let table = table(&root);
    let tar = tar_of(&table, &root);
    let destination = TempDir::new().unwrap();
    let fresh = Root::open(destination.path()).unwrap();
    let applied = apply(tar.as_slice(), &fresh, &options(), NEVER).unwrap();
    assert_eq!(applied.table, table);
    assert!(applied.reproducible && applied.recipe.is_none());
    assert_eq!(applied.diff_id, finalize(table, &root, NEVER).unwrap().diff_id);
    assert_eq!(tar_of(&applied.table, &fresh), tar);
}

#[test]
fn gnu_tar_and_python_agree_with_the_table() {
    let top = tree();
    let root = Root::open(top.path()).unwrap();
    let table = table(&root);
    let out = TempDir::new().unwrap();
    std::fs::write(out.path().join("layer.tar"), tar_of(&table, &root)).unwrap();
    if let Some(listing) =
        run("tar", &["--list", "--quoting-style=literal", "--null", "-f", "layer.tar"], out.path())
    {
        assert_eq!(listing.matches("etc/").count(), 3);
        assert!(listing.contains(&"name".repeat(50)));
    }
    if let Some(listing) =
        run("tar", &["--xattrs", "--numeric-owner", "--utc", "-tvf", "layer.tar"], out.path())
    {
        assert!(listing.contains("5000000/0") || listing.contains("5000000/"), "{listing}");
        assert!(listing.contains("hard link to etc/a"), "{listing}");
    }
    let script = "import tarfile,sys
t=tarfile.open('layer.tar',errorlevel=2)
for m in t: sys.stdout.buffer.write(('%s %o %d %d %s\\n'%(ascii(m.name),m.mode,m.size,m.mtime,ascii(m.linkname))).encode())
m=t.getmember('etc/a'); print(m.uid, ascii(m.pax_headers.get('SCHILY.xattr.user.note')))";
    if let Some(listing) = run("python3", &["-c", script], out.path()) {
        assert_eq!(listing.lines().count(), table.len() + 1);
        assert!(listing.contains("'etc/empty' 644 0 -1 ''"), "{listing}");
        assert!(listing.contains("5000000 'two\\nlines'"), "{listing}");
        assert!(listing.contains(&"x".repeat(150)), "{listing}");
    }
}

#[test]
fn tars_of_gnu_tar_in_every_format_are_applied_and_given_back() {
    let top = tree();
    let hole = std::fs::File::create(top.path().join("hole")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&hole, b"data", 3 << 20).unwrap();
    hole.set_len(5 << 20).unwrap();
    let sparse = ["--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"];
    let formats = ["--format=gnu", "--format=oldgnu", "--format=posix", "--format=posix", "--format=posix"];
    for (index, format) in formats.iter().enumerate() {
        let version = sparse[index.saturating_sub(2)];
        let out = TempDir::new().unwrap();
        let file = out.path().join("foreign.tar");
        let arguments = ["--sparse", version, format, "-cf", file.to_str().unwrap(), "."];
        if run("tar", &arguments, top.path()).is_none() {
            return;
        }
        let tar = std::fs::read(&file).unwrap();
        let fresh_directory = TempDir::new().unwrap();
        let fresh = Root::open(fresh_directory.path()).unwrap();
        let applied = apply(tar.as_slice(), &fresh, &options(), NEVER).unwrap();
        let mut again = Vec::new();
        rebuild(applied.recipe.as_ref().unwrap(), &fresh, &mut again, NEVER).unwrap();
        assert!(again == tar, "{format} {version}");
        let different = run(
            "diff",
            &["-r", "--no-dereference", ".", fresh_directory.path().to_str().unwrap()],
            top.path(),
        );
        assert_eq!(different.unwrap_or_default(), "", "{format} {version}");
    }
}

#[test]
fn the_same_tree_gives_the_same_bytes_every_time() {
    let (one, two) = (tree(), tree());
    let tars = [one, two].map(|top| {
        let root = Root::open(top.path()).unwrap();
        tar_of(&table(&root), &root)
    });
    assert!(tars[0] == tars[1]);
}
