//! Every COPY rule of build.md on real directories: as root on the disk, and with the ledger of a single-id user.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mica_solve::{CopyAction, ModeChange, Owner, OwnerId};

use super::*;
use crate::context::LocalContext;

const OLD: u64 = 1_000_000_000;
const CREATED: i64 = 1_700_000_000;

/// A context and a root to copy it to.
struct Case {
    context: tempfile::TempDir,
    root: tempfile::TempDir,
    owners: OwnerPolicy,
    base: Input,
    past_the_mount: bool,
}

impl Case {
    /// `files` of the context: `path` (directory if it ends in a slash) or `path -> target`.
    fn new(files: &[&str]) -> Self {
        let case = Self {
            context: tempfile::tempdir().unwrap(),
            root: tempfile::tempdir().unwrap(),
            owners: if is_root() { OwnerPolicy::Exact } else { OwnerPolicy::Ledger },
            base: Input::Vertex(0),
            past_the_mount: true,
        };
        make(case.context.path(), files);
        case
    }

    /// Puts files into the root.
    fn with(self, files: &[&str]) -> Self {
        make(self.root.path(), files);
        self
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    fn from(&self, path: &str) -> PathBuf {
        self.context.path().join(path)
    }

    fn run(&self, actions: Vec<FileAction>) -> Result<FileOutcome, String> {
        self.run_from(&self.open(), actions, &Cancel::new())
    }

    fn open(&self) -> LocalContext {
        LocalContext::open(self.context.path(), None, None).unwrap()
    }

    fn run_from(
        &self,
        context: &LocalContext,
        actions: Vec<FileAction>,
        cancel: &Cancel,
    ) -> Result<FileOutcome, String> {
        let op = FileOp { base: self.base, actions };
        let root = Root::open(self.root.path()).unwrap();
        // What a directory "writes to" is itself, so both ways have to give the same.
        let beneath = self.past_the_mount.then_some(&root);
        let options = FileOptions { beneath, ..FileOptions::new(self.owners == OwnerPolicy::Ledger, cancel) };
        let source = SourceTree::local(context, "ctx");
        run(&op, &root, &|_| source, &options).map_err(|error| error.to_string())
    }

    fn copy(&self, source: &str, destination: &str) -> Result<FileOutcome, String> {
        self.run(vec![FileAction::Copy(copy(source, destination))])
    }

    fn copy_with(&self, action: CopyAction) -> FileOutcome {
        self.run(vec![FileAction::Copy(action)]).unwrap()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.at(path)).unwrap().permissions().mode() & 0o7777
    }

    fn mtime(&self, path: &str) -> i64 {
        fs::symlink_metadata(self.at(path)).unwrap().mtime()
    }

    fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at(path)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Makes files whose content is their name; everything gets an old time.
fn make(root: &Path, files: &[&str]) {
    for file in files {
        let (path, target) = file.split_once(" -> ").map_or((*file, None), |(path, to)| (path, Some(to)));
        let full = root.join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        match target {
            Some(target) => symlink(target, &full).unwrap(),
            None if path.ends_with('/') => fs::create_dir_all(&full).unwrap(),
            None => fs::write(&full, path).unwrap(),
        }
    }
    age(root);
}

/// Sets the times of everything below a directory.
fn age(path: &Path) {
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            age(&entry.path());
        }
        if !kind.is_symlink() {
            set_time(&entry.path(), OLD);
        }
    }
}

fn set_time(path: &Path, seconds: u64) {
    fs::File::open(path).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn copy(source: &str, destination: &str) -> CopyAction {
    CopyAction { created_seconds: CREATED, ..CopyAction::new(Input::Vertex(1), source, destination) }
}

fn owner(uid: u32, gid: Option<u32>) -> Option<Owner> {
    Some(Owner { user: OwnerId::Id(uid), group: gid.map(OwnerId::Id) })
}

#[test]
fn a_file_becomes_the_destination_or_goes_into_a_directory() {
    let case = Case::new(&["a.txt"]).with(&["dir/"]);
    for destination in ["/new", "/slash/", "/dir", "/deep/er/file"] {
        case.copy("/a.txt", destination).unwrap();
    }
    for path in ["/new", "/slash/a.txt", "/dir/a.txt", "/deep/er/file"] {
        assert_eq!(case.read(path), "a.txt");
    }
}

#[test]
fn the_content_of_a_directory_is_merged() {
    let case = Case::new(&["d/a", "d/e/b", "d/l -> a"]).with(&["x/old", "x/e/old"]);
    case.copy("/d", "/x").unwrap();
    assert_eq!(case.names("/x"), ["a", "e", "l", "old"]);
    assert_eq!(case.names("/x/e"), ["b", "old"]);
    assert_eq!(fs::read_link(case.at("/x/l")).unwrap(), Path::new("a"));
}

#[test]
fn several_files_to_one_name_overwrite_each_other() {
    let case = Case::new(&["a", "b"]);
    let actions = ["/a", "/b"].map(|source| FileAction::Copy(copy(source, "/x")));
    case.run(actions.to_vec()).unwrap();
    assert_eq!(case.read("/x"), "b");
}

#[test]
fn new_parents_are_0755_and_carry_owner_octal_mode_and_the_time_of_the_build() {
    let case = Case::new(&["a"]).with(&["old/x"]);
    case.copy("/a", "/old/p/q/f").unwrap();
    assert_eq!((case.mode("/old/p"), case.mode("/old/p/q")), (0o755, 0o755));
    assert_eq!((case.mtime("/old/p"), case.mtime("/old/p/q")), (CREATED, CREATED));
    assert_eq!(case.mtime("/old"), CREATED, "a directory that was written into");
    let octal = CopyAction { mode: Some(ModeChange::Octal(0o700)), ..copy("/a", "/r/f") };
    case.copy_with(octal);
    assert_eq!((case.mode("/r"), case.mode("/r/f")), (0o700, 0o700));
    let symbolic = CopyAction { mode: Some(ModeChange::Symbolic("a=".into())), ..copy("/a", "/s/f") };
    case.copy_with(symbolic);
    assert_eq!((case.mode("/s"), case.mode("/s/f")), (0o755, 0));
}

#[test]
fn the_time_of_the_root_does_not_change() {
    let case = Case::new(&["a"]);
    set_time(case.root.path(), 77);
    case.copy("/a", "/f").unwrap();
    assert_eq!(case.mtime("/"), 77);
}

#[test]
fn files_keep_mode_and_time() {
    let case = Case::new(&["d/f"]);
    set_mode(&case.from("d/f"), 0o4711);
    case.copy("/d/f", "/f").unwrap();
    assert_eq!((case.mode("/f"), case.mtime("/f")), (0o4711, OLD as i64));
    let metadata = fs::metadata(case.at("/f")).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (rustix::process::geteuid().as_raw(), metadata.gid()));
}

#[test]
fn a_new_top_directory_is_0755_with_the_time_of_the_source() {
    let case = Case::new(&["d/e/f"]);
    set_mode(&case.from("d"), 0o700);
    set_mode(&case.from("d/e"), 0o1750);
    case.copy("/d", "/new").unwrap();
    assert_eq!((case.mode("/new"), case.mtime("/new")), (0o755, OLD as i64));
    assert_eq!((case.mode("/new/e"), case.mtime("/new/e")), (0o1750, OLD as i64));
}

#[test]
fn an_existing_top_directory_keeps_its_mode_and_nested_ones_do_not() {
    let case = Case::new(&["d/e/f"]).with(&["x/e/old"]);
    set_mode(&case.at("/x"), 0o711);
    set_mode(&case.at("/x/e"), 0o777);
    set_mode(&case.from("d/e"), 0o750);
    set_time(&case.at("/x"), 5);
    case.copy("/d", "/x").unwrap();
    assert_eq!((case.mode("/x"), case.mtime("/x")), (0o711, OLD as i64));
    assert_eq!((case.mode("/x/e"), case.mtime("/x/e")), (0o750, OLD as i64));
}

#[test]
fn conflicts_are_named() {
    let case = Case::new(&["d/f/x", "f", "dir/f"]).with(&["file", "x/f/", "y/f"]);
    assert_eq!(case.copy("/d", "/file").unwrap_err(), "cannot copy to non-directory: /file");
    assert_eq!(case.copy("/d", "/y").unwrap_err(), "cannot copy to non-directory: /y/f");
    assert_eq!(case.copy("/dir", "/x").unwrap_err(), "cannot replace to directory /x/f with file");
    assert_eq!(case.copy("/f", "/x/").unwrap_err(), "cannot replace to directory /x/f with file");
    assert_eq!(case.copy("/f", "/file/").unwrap_err(), "mkdir /file: not a directory");
    assert_eq!(case.copy("/f", "/file/x").unwrap_err(), "mkdir /file: not a directory");
}

#[test]
fn existing_files_are_unlinked_first() {
    let case = Case::new(&["d/f"]).with(&["x/f", "x/other"]);
    fs::hard_link(case.at("/x/f"), case.at("/x/hard")).unwrap();
    case.copy("/d/f", "/x/f").unwrap();
    assert_eq!((case.read("/x/f"), case.read("/x/hard")), ("d/f".to_owned(), "x/f".to_owned()));
    fs::remove_file(case.at("/x/f")).unwrap();
    symlink("other", case.at("/x/f")).unwrap();
    case.copy("/d/f", "/x/").unwrap();
    assert_eq!(case.read("/x/other"), "x/other", "the link was replaced, not written through");
    assert!(fs::symlink_metadata(case.at("/x/f")).unwrap().is_file());
}

#[test]
fn links_named_by_a_source_are_followed_and_keep_their_name() {
    let case = Case::new(&["f", "l -> f", "d/q", "d/l2 -> q", "to -> d"]);
    case.copy("/l", "/x/").unwrap();
    case.copy("/to", "/y").unwrap();
    assert_eq!(case.read("/x/l"), "f");
    assert!(fs::symlink_metadata(case.at("/x/l")).unwrap().is_file());
    assert!(fs::symlink_metadata(case.at("/y/l2")).unwrap().is_symlink());
}

#[test]
fn destination_links_are_followed_inside_the_root() {
    let case =
        Case::new(&["f"]).with(&["real/", "abs -> /real", "up -> ../../../real", "dangling -> /gone/x"]);
    let outside = tempfile::tempdir().unwrap();
    symlink(outside.path(), case.at("/out")).unwrap();
    case.copy("/f", "/abs/a").unwrap();
    case.copy("/f", "/up/").unwrap();
    case.copy("/f", "/dangling/y").unwrap();
    case.copy("/f", "/out/z").unwrap();
    assert_eq!(case.names("/real"), ["a", "f"]);
    assert_eq!(case.read("/gone/x/y"), "f");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    let inside = outside.path().strip_prefix("/").unwrap();
    assert!(case.root.path().join(inside).join("z").exists());
}

#[test]
fn a_final_link_keeps_and_its_target_is_replaced() {
    let case = Case::new(&["f"]).with(&["target", "link -> target"]);
    case.copy("/f", "/link").unwrap();
    assert_eq!(case.read("/target"), "f");
    assert!(fs::symlink_metadata(case.at("/link")).unwrap().is_symlink());
}

#[test]
fn wildcards_copy_each_match_and_nothing_is_fine() {
    let case = Case::new(&["a1", "a2", "ad/x", "b"]);
    case.copy("/a*", "/x/").unwrap();
    assert_eq!(case.names("/x"), ["a1", "a2", "x"]);
    case.copy("/nope*", "/y/").unwrap();
    assert!(!case.at("/y").exists());
}

#[test]
fn chown_reaches_files_directories_and_new_parents() {
    let mut case = Case::new(&["d/e/f", "d/l -> e"]).with(&["etc/passwd", "x/"]);
    fs::write(case.at("/etc/passwd"), "app:x:1000:1001::/:\n").unwrap();
    for owners in [OwnerPolicy::Exact, OwnerPolicy::Ledger] {
        if owners == OwnerPolicy::Exact && !is_root() {
            eprintln!("SKIP: owners on disk need root");
            continue;
        }
        case.owners = owners;
        let name = Some(Owner { user: OwnerId::Name("app".into()), group: None });
        let outcome = case.copy_with(CopyAction { owner: name, ..copy("/d", "/x/p/q") });
        let paths = ["x/p", "x/p/q", "x/p/q/e", "x/p/q/e/f", "x/p/q/l"];
        if owners == OwnerPolicy::Exact {
            for path in paths {
                let metadata = fs::symlink_metadata(case.at(path)).unwrap();
                assert_eq!((metadata.uid(), metadata.gid()), (1000, 1001), "{path}");
            }
            assert_eq!(fs::metadata(case.at("/x")).unwrap().uid(), 0);
            assert_eq!(outcome, FileOutcome::default());
        } else {
            // The directories exist by now and keep their owner; only what was written is in the ledger.
            let expected: BTreeMap<_, _> =
                paths[2..].iter().map(|path| (path.as_bytes().to_vec(), (1000, 1001))).collect();
            assert_eq!(outcome.ledger, expected);
        }
        assert_eq!(case.copy_with(copy("/d/e/f", "/g")).ledger.is_empty(), owners == OwnerPolicy::Exact);
    }
    let outcome = case.copy_with(CopyAction { owner: owner(7, None), ..copy("/d/e/f", "/h") });
    assert_eq!(outcome.ledger[&b"h"[..]], (7, 7));
}

#[test]
fn a_name_needs_a_root_file_system() {
    let mut case = Case::new(&["f"]);
    case.base = Input::Scratch;
    let name = Some(Owner { user: OwnerId::Name("app".into()), group: None });
    let action = FileAction::Copy(CopyAction { owner: name, ..copy("/f", "/f") });
    assert_eq!(case.run(vec![action]).unwrap_err(), "invalid user index: -1");
}

#[test]
fn chmod_reaches_files_and_nested_directories() {
    let case = Case::new(&["d/e/f", "d/l -> e"]);
    case.copy_with(CopyAction { mode: Some(ModeChange::Symbolic("u=rwX,go=rX".into())), ..copy("/d", "/x") });
    assert_eq!((case.mode("/x/e"), case.mode("/x/e/f")), (0o755, 0o644));
    case.copy_with(CopyAction { mode: Some(ModeChange::Octal(0o600)), ..copy("/d", "/y") });
    assert_eq!((case.mode("/y"), case.mode("/y/e")), (0o600, 0o600));
}

#[test]
fn parents_recreates_the_path_with_the_attributes_of_its_directories() {
    let case = Case::new(&["a/b/c/f", "a/b/other", "x/y/z"]);
    set_mode(&case.from("a"), 0o700);
    set_mode(&case.from("a/b"), 0o750);
    case.copy_with(CopyAction { parents: true, ..copy("/a/b/c", "/d/") });
    assert_eq!(case.names("/d/a/b"), ["c"]);
    assert_eq!((case.mode("/d"), case.mode("/d/a"), case.mode("/d/a/b")), (0o755, 0o700, 0o750));
    // directories on the way were written into: their time is that of the writing
    assert_eq!((case.mtime("/d/a"), case.mtime("/d/a/b")), (1_700_000_000, 1_700_000_000));
    case.copy_with(CopyAction { parents: true, ..copy("/x/./y/z", "/e/") });
    assert_eq!(case.read("/e/y/z"), "x/y/z");
    case.copy_with(CopyAction { parents: true, ..copy("/nope*", "/only/") });
    assert_eq!(case.names("/only"), Vec::<String>::new());
}

#[test]
fn exclude_leaves_out_what_is_below_a_directory() {
    let case = Case::new(&["d/a.txt", "d/b.md", "d/s/c.txt", "d/s/k.txt"]);
    let exclude = |patterns: &[&str]| patterns.iter().map(|&text| text.to_owned()).collect();
    case.copy_with(CopyAction { exclude: exclude(&["*.txt"]), ..copy("/d", "/x") });
    assert_eq!(case.names("/x"), ["b.md", "s"]);
    case.copy_with(CopyAction { exclude: exclude(&["*.txt"]), ..copy("/d/a*", "/y/") });
    assert_eq!(case.names("/y"), ["a.txt"]);
    case.copy_with(CopyAction { exclude: exclude(&["s", "!s/k.txt", "*.*"]), ..copy("/d", "/z") });
    assert_eq!(case.names("/z/s"), ["k.txt"]);
    case.copy_with(CopyAction { exclude: exclude(&["s"]), ..copy("/d", "/w") });
    assert_eq!(case.names("/w"), ["a.txt", "b.md"]);
}

#[test]
fn hard_links_inside_one_copied_tree_are_kept() {
    let case = Case::new(&["h/a", "h/s/", "h/d"]);
    fs::hard_link(case.from("h/a"), case.from("h/s/b")).unwrap();
    case.copy("/h", "/h").unwrap();
    let inode = |path: &str| fs::metadata(case.at(path)).unwrap().ino();
    assert_eq!(inode("/h/a"), inode("/h/s/b"));
    assert_ne!(inode("/h/a"), inode("/h/d"));
    case.copy("/h/*", "/i/").unwrap();
    assert_eq!(fs::metadata(case.at("/i/a")).unwrap().nlink(), 1, "each match is a copy of its own");
}

#[test]
fn holes_stay_holes() {
    use std::os::unix::fs::FileExt;
    let case = Case::new(&["d/x"]);
    let file = fs::File::create(case.from("sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(b"end", 40 << 20).unwrap();
    drop(file);
    case.copy("/sparse", "/sparse").unwrap();
    let metadata = fs::metadata(case.at("/sparse")).unwrap();
    assert_eq!(metadata.len(), 64 << 20);
    assert!(metadata.blocks() * 512 < 1 << 20, "{} blocks", metadata.blocks());
    assert!(fs::read(case.from("sparse")).unwrap() == fs::read(case.at("/sparse")).unwrap());
}

#[test]
fn fifos_and_devices_are_kept() {
    let case = Case::new(&["d/x"]);
    let root = Root::open(case.context.path()).unwrap();
    root.mknod(b"d/fifo", rustix::fs::FileType::Fifo, 0o622, 0, 0).unwrap();
    if is_root() {
        root.mknod(b"d/null", rustix::fs::FileType::CharacterDevice, 0o666, 1, 3).unwrap();
    } else {
        eprintln!("SKIP: device nodes need root");
    }
    case.copy("/d", "/x").unwrap();
    assert_eq!(case.mode("/x/fifo"), 0o622);
    if is_root() {
        assert_eq!(fs::metadata(case.at("/x/null")).unwrap().rdev(), rustix::fs::makedev(1, 3));
    }
}

#[test]
fn a_file_that_changed_since_it_was_digested_is_reported() {
    let case = Case::new(&["f", "g"]);
    let context = case.open();
    context.digests(&[b"f".to_vec(), b"g".to_vec()]).unwrap();
    fs::write(case.from("f"), "changed meanwhile").unwrap();
    let actions = vec![FileAction::Copy(copy("/", "/"))];
    let outcome = case.run_from(&context, actions, &Cancel::new()).unwrap();
    assert_eq!(outcome.changed_sources, [b"f".to_vec()]);
}

#[test]
fn a_file_swapped_for_a_link_is_not_followed() {
    let case = Case::new(&["f"]);
    let context = case.open();
    context.prefetch(b"").unwrap();
    fs::remove_file(case.from("f")).unwrap();
    symlink("/etc/passwd", case.from("f")).unwrap();
    let actions = vec![FileAction::Copy(copy("/f", "/f"))];
    assert!(case.run_from(&context, actions, &Cancel::new()).is_err());
    assert!(!case.at("/f").exists());
}

#[test]
fn workdir_makes_all_missing_directories() {
    let case = Case::new(&[]).with(&["old/", "link -> /old", "file"]);
    let action = |path: &str| {
        vec![FileAction::MakeDirectory(MakeDirectory {
            path: path.to_owned(),
            mode: 0o755,
            owner: owner(5, None).filter(|_| is_root()),
            created_seconds: CREATED,
        })]
    };
    case.run(action("/link/a/b")).unwrap();
    assert_eq!((case.mode("/old/a/b"), case.mtime("/old/a/b")), (0o755, CREATED));
    if is_root() {
        assert_eq!(fs::metadata(case.at("/old/a")).unwrap().uid(), 5);
        assert_eq!(fs::metadata(case.at("/old")).unwrap().uid(), 0);
    }
    case.run(action("/")).unwrap();
    assert_eq!(case.run(action("/file/x")).unwrap_err(), "mkdir /file: not a directory");
}

#[test]
fn a_heredoc_becomes_a_file_or_goes_into_a_directory() {
    let case = Case::new(&[]).with(&["tmp/"]);
    let action = |path: &str, name: Option<&str>, change| {
        vec![FileAction::MakeFile(MakeFile {
            path: path.to_owned(),
            name_in_directory: name.map(str::to_owned),
            data: b"text".to_vec(),
            mode: 0o644,
            mode_change: change,
            owner: None,
            created_seconds: CREATED,
        })]
    };
    case.run(action("/a/f", Some("EOF"), None)).unwrap();
    case.run(action("/tmp", Some("EOF"), None)).unwrap();
    case.run(action("/bin/script", None, Some(ModeChange::Octal(0o755)))).unwrap();
    assert_eq!((case.read("/a/f"), case.read("/tmp/EOF")), ("text".to_owned(), "text".to_owned()));
    assert_eq!((case.mode("/a/f"), case.mtime("/a/f"), case.mtime("/a")), (0o644, CREATED, CREATED));
    assert_eq!(case.mode("/bin/script"), 0o755);
}

#[test]
fn names_that_are_no_utf8_are_copied() {
    use std::os::unix::ffi::OsStrExt;
    let case = Case::new(&["d/ok"]);
    let name = std::ffi::OsStr::from_bytes(b"inv\xffalid");
    fs::write(case.from("d").join(name), "x").unwrap();
    case.copy("/d", "/n").unwrap();
    assert!(case.at("/n").join(name).exists());
}

#[test]
fn times_of_copied_files_have_nanoseconds() {
    let case = Case::new(&["f"]);
    let time = SystemTime::UNIX_EPOCH + Duration::new(OLD, 123_456_789);
    fs::File::open(case.from("f")).unwrap().set_modified(time).unwrap();
    case.copy("/f", "/f").unwrap();
    assert_eq!(fs::metadata(case.at("/f")).unwrap().modified().unwrap(), time);
}

/// Runs tar(1) in the context.
fn tar(case: &Case, arguments: &[&str]) {
    let status = std::process::Command::new("tar").current_dir(case.context.path()).args(arguments).status();
    assert!(status.unwrap().success());
}

fn add(source: &str, destination: &str) -> CopyAction {
    CopyAction { unpack: true, ..copy(source, destination) }
}

#[test]
fn local_archives_are_unpacked_by_content() {
    let case = Case::new(&["in/d/f", "in/g", "plain.tar"]).with(&["x/d/old", "x/g", "file"]);
    set_mode(&case.from("in/d"), 0o711);
    tar(&case, &["-cf", "named.txt", "-C", "in", "d", "g"]);
    tar(&case, &["-czf", "packed", "-C", "in", "d/f"]);
    case.copy_with(add("/named.txt", "/x"));
    assert_eq!((case.read("/x/d/f"), case.names("/x/d")), ("in/d/f".to_owned(), names(&["f", "old"])));
    assert_eq!((case.mode("/x/d"), case.mtime("/x/d"), case.mtime("/x")), (0o711, OLD as i64, CREATED));
    case.copy_with(CopyAction { mode: Some(ModeChange::Octal(0o700)), ..add("/packed", "/new/p") });
    assert_eq!((case.mode("/new"), case.mode("/new/p")), (0o755, 0o755));
    assert_eq!((case.mtime("/new/p"), case.mtime("/new/p/d")), (CREATED, CREATED), "nobody dated them");
    case.copy_with(add("/plain.tar", "/copied"));
    assert_eq!(case.read("/copied"), "plain.tar");
    let error = case.run(vec![FileAction::Copy(add("/named.txt", "/file"))]).unwrap_err();
    assert_eq!(error, "mkdir /file: not a directory");
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn archives_below_a_directory_and_for_copy_stay_archives() {
    let case = Case::new(&["in/f", "d/"]);
    tar(&case, &["-cf", "d/a.tar", "in"]);
    case.copy_with(add("/d", "/x"));
    case.copy_with(copy("/d/a.tar", "/y/"));
    assert_eq!((case.names("/x"), case.names("/y")), (names(&["a.tar"]), names(&["a.tar"])));
}

#[test]
fn chown_reaches_what_is_unpacked() {
    let mut case = Case::new(&["in/d/f"]);
    tar(&case, &["-cf", "a.tar", "-C", "in", "d"]);
    case.owners = OwnerPolicy::Ledger;
    let outcome = case.copy_with(CopyAction { owner: owner(7, Some(8)), ..add("/a.tar", "/x") });
    let paths: Vec<&[u8]> = outcome.ledger.keys().map(Vec::as_slice).collect();
    assert_eq!(paths, [&b"x"[..], b"x/d", b"x/d/f"]);
    assert!(outcome.ledger.values().all(|owner| *owner == (7, 8)));
}

#[test]
fn a_cancelled_copy_stops() {
    let case = Case::new(&["f"]);
    let cancel = Cancel::new();
    cancel.cancel();
    let actions = vec![FileAction::Copy(copy("/f", "/f"))];
    assert_eq!(case.run_from(&case.open(), actions, &cancel).unwrap_err(), "context canceled");
}

#[test]
fn a_snapshot_gives_the_owners_of_its_table() {
    use mica_archive::{Entry, Kind, Table};
    let case = Case::new(&["d/f"]);
    let mut file = Entry::new("d/f", Kind::File { size: 3, digest: None }, 0o640);
    (file.uid, file.gid) = (5, 6);
    let mut directory = Entry::directory("d", 0o700);
    directory.uid = 9;
    let view = View::stack([std::sync::Arc::new(Table::from_entries(vec![directory, file]).unwrap())]);
    let files = Root::open(case.context.path()).unwrap();
    let root = Root::open(case.root.path()).unwrap();
    let op = FileOp { base: Input::Vertex(0), actions: vec![FileAction::Copy(copy("/", "/x"))] };
    let cancel = Cancel::new();
    let options = FileOptions::new(true, &cancel);
    let outcome = run(&op, &root, &|_| SourceTree::snapshot(&view, &files), &options).unwrap();
    assert_eq!(outcome.ledger[&b"x/d"[..]], (9, 0));
    assert_eq!(outcome.ledger[&b"x/d/f"[..]], (5, 6));
    assert_eq!((case.mode("/x/d"), case.mode("/x/d/f")), (0o700, 0o640));
    let error = run(&op, &root, &|_| SourceTree::scratch(), &options).map(|_| ());
    assert!(error.is_ok(), "the content of an empty root is nothing");
}

#[test]
fn it_does_not_matter_what_is_written_past_the_mount() {
    let files = &["d/e/f", "d/e/g", "d/link -> e/f", "d/empty/", "top"];
    let (mut through, past) = (Case::new(files), Case::new(files));
    through.past_the_mount = false;
    let shown = |case: &Case| {
        fs::hard_link(case.from("d/e/f"), case.from("d/twin")).unwrap();
        fs::set_permissions(case.from("d/e/g"), fs::Permissions::from_mode(0o4711)).unwrap();
        let twice = CopyAction { mode: Some(ModeChange::Octal(0o640)), ..copy("/top", "/new/d/e/f") };
        let actions = [copy("/d", "/new/d"), copy("/d", "/new/d/again"), twice];
        case.run(actions.map(FileAction::Copy).to_vec()).unwrap();
        let mut found = Vec::new();
        let mut pending = vec![String::new()];
        while let Some(directory) = pending.pop() {
            for name in case.names(&directory) {
                let path = format!("{directory}/{name}");
                let stat = fs::symlink_metadata(case.at(&path)).unwrap();
                found.push(format!("{path} {:o} {} {}", stat.mode(), stat.mtime(), stat.nlink()));
                pending.extend(stat.is_dir().then_some(path));
            }
        }
        found
    };
    assert_eq!(shown(&past), shown(&through));
    assert_eq!((past.read("/new/d/e/f"), past.mode("/new/d/e/f")), ("top".into(), 0o640));
}
