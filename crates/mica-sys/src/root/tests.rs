use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

/// A root with a canary outside of it that links inside try to reach.
struct Fixture {
    directory: tempfile::TempDir,
    root: Root,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("canary"), "outside").unwrap();
    let inside = directory.path().join("root");
    fs::create_dir_all(inside.join("etc")).unwrap();
    fs::create_dir_all(inside.join("run")).unwrap();
    fs::write(inside.join("etc/passwd"), "inside").unwrap();
    symlink("../../../../canary", inside.join("up")).unwrap();
    symlink("/etc", inside.join("absolute")).unwrap();
    symlink("/run/later/here", inside.join("dangling")).unwrap();
    symlink("loop", inside.join("loop")).unwrap();
    let root = Root::open(&inside).unwrap();
    Fixture { directory, root }
}

#[test]
fn links_and_dots_never_leave_the_root() {
    let fixture = fixture();
    assert_eq!(fixture.root.read(b"/absolute/passwd", 100).unwrap(), b"inside");
    assert_eq!(fixture.root.read(b"../../etc/../../etc/passwd", 100).unwrap(), b"inside");
    assert_eq!(fixture.root.read(b"up", 100).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fixture.root.resolve(b"//absolute/./passwd/").unwrap(), b"etc/passwd");
    assert_eq!(fixture.root.resolve(b"/..").unwrap(), b"");
}

#[test]
fn the_component_walk_answers_as_openat2_does() {
    let fixture = fixture();
    let root = fixture.root.as_fd();
    let paths: [&[u8]; 10] = [
        b"",
        b"etc",
        b"etc/passwd",
        b"absolute/passwd",
        b"up",
        b"loop",
        b"dangling",
        b"etc/passwd/x",
        b"..",
        b"absolute/../etc/../absolute/passwd",
    ];
    for path in paths {
        for flags in [OFlags::PATH, OFlags::PATH | OFlags::NOFOLLOW, OFlags::RDONLY] {
            let flags = flags | OFlags::CLOEXEC;
            let kernel = fixture.root.open_at(path, flags, Mode::empty());
            let walked = walk::open(root, trim(path), flags, Mode::empty());
            match (kernel, walked) {
                (Ok(kernel), Ok(walked)) => {
                    let kernel = rustix::fs::fstat(&kernel).unwrap().st_ino;
                    assert_eq!(kernel, rustix::fs::fstat(&walked).unwrap().st_ino, "{path:?}");
                }
                (kernel, walked) => assert_eq!(
                    kernel.unwrap_err().raw_os_error(),
                    walked.unwrap_err().raw_os_error(),
                    "{path:?} {flags:?}"
                ),
            }
        }
    }
}

#[test]
fn create_dirs_follows_a_dangling_link_inside_the_root_and_names_what_it_made() {
    let fixture = fixture();
    let made = fixture.root.create_dirs(b"dangling/deep", 0o751).unwrap();
    assert_eq!(made, [&b"run/later"[..], b"run/later/here", b"run/later/here/deep"]);
    assert_eq!(fixture.root.stat(b"run/later").unwrap().st_mode & 0o7777, 0o751);
    assert!(fixture.root.create_dirs(b"dangling/deep", 0o751).unwrap().is_empty());
    assert_eq!(
        fixture.root.create_dirs(b"etc/passwd/x", 0o755).unwrap_err().kind(),
        ErrorKind::NotADirectory
    );
}

#[test]
fn new_entries_never_replace_or_follow_old_ones() {
    let fixture = fixture();
    for path in [&b"up"[..], b"etc/passwd", b"dangling"] {
        assert_eq!(fixture.root.create_file(path, 0o644).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
    fixture.root.create_file(b"etc/shadow", 0o4755).unwrap();
    assert_eq!(fixture.root.lstat(b"etc/shadow").unwrap().st_mode & 0o7777, 0o4755);
    fixture.root.hard_link(b"up", b"up2").unwrap();
    assert_eq!(fixture.root.read_link(b"up2").unwrap(), b"../../../../canary");
    assert_eq!(fixture.root.parent_of(b"etc/..").unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn metadata_of_a_link_is_its_own() {
    let fixture = fixture();
    let before = fs::symlink_metadata(fixture.directory.path().join("canary")).unwrap();
    let time = Timestamp { seconds: -5, nanoseconds: 7 };
    fixture.root.set_times(b"up", time).unwrap();
    assert!(fixture.root.set_mode(b"up", 0o777).is_err());
    assert_eq!(fixture.root.set_owner(b"up", u32::MAX, 0).unwrap_err().kind(), ErrorKind::InvalidInput);
    let stat = fixture.root.lstat(b"up").unwrap();
    assert_eq!((stat.st_mtime, stat.st_mtime_nsec), (-5, 7));
    fixture.root.set_mode(b"etc/passwd", 0o600).unwrap();
    assert_eq!(fixture.root.stat(b"etc/passwd").unwrap().st_mode & 0o7777, 0o600);
    let after = fs::symlink_metadata(fixture.directory.path().join("canary")).unwrap();
    assert_eq!((before.mtime(), before.mode()), (after.mtime(), after.mode()));
}

#[test]
fn extended_attributes_round_trip() {
    let fixture = fixture();
    match fixture.root.set_xattr(b"etc/passwd", b"user.note", b"a\nb\0c") {
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            return eprintln!("SKIP: no user xattrs here");
        }
        other => other.unwrap(),
    }
    assert_eq!(fixture.root.xattrs(b"etc/passwd").unwrap()[&b"user.note"[..]], b"a\nb\0c");
    fixture.root.remove_xattr(b"etc/passwd", b"user.note").unwrap();
    assert!(fixture.root.xattrs(b"absolute/passwd").unwrap().is_empty());
    assert!(fixture.root.xattrs(b"up").unwrap().is_empty());
}

#[test]
fn only_regular_files_of_bounded_size_are_read() {
    let fixture = fixture();
    fixture.root.mknod(b"fifo", FileType::Fifo, 0o644, 0, 0).unwrap();
    assert_eq!(fixture.root.read(b"fifo", 10).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(fixture.root.read(b"etc/passwd", 5).unwrap_err().kind(), ErrorKind::InvalidData);
    assert!(fixture.root.open_file_nofollow(b"up").is_err());
}

#[test]
fn remove_all_does_not_follow_links_and_ignores_permissions() {
    let fixture = fixture();
    let outside = fixture.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("keep"), "").unwrap();
    let inside = fixture.directory.path().join("root/tree");
    fs::create_dir_all(inside.join("a/b/c")).unwrap();
    fs::write(inside.join("a/b/c/file"), "").unwrap();
    symlink(&outside, inside.join("a/link")).unwrap();
    fs::set_permissions(inside.join("a/b"), fs::Permissions::from_mode(0o500)).unwrap();
    fixture.root.remove_all(b"tree").unwrap();
    fixture.root.remove_all(b"tree").unwrap();
    assert!(fixture.root.lstat(b"tree").is_err());
    assert!(outside.join("keep").exists());
}

#[test]
fn a_tree_deeper_than_path_max_and_the_descriptor_limit_is_removed() {
    let fixture = fixture();
    fixture.root.create_dir(b"deep", 0o755).unwrap();
    let mut level = Root::from_fd(fixture.root.open_at(b"deep", OFlags::RDONLY, Mode::empty()).unwrap());
    for _ in 0..3000 {
        level.create_dir(b"down", 0o755).unwrap();
        level.create_file(b"file", 0o644).unwrap();
        level = Root::from_fd(level.open_at(b"down", OFlags::RDONLY, Mode::empty()).unwrap());
    }
    drop(level);
    fixture.root.remove_all(b"deep").unwrap();
    assert!(fixture.root.lstat(b"deep").is_err());
}

#[test]
fn a_directory_is_listed_by_name() {
    let fixture = fixture();
    let names: Vec<Vec<u8>> = fixture.root.read_dir(b"").unwrap().into_iter().map(|item| item.name).collect();
    let expected: [&[u8]; 6] = [b"absolute", b"dangling", b"etc", b"loop", b"run", b"up"];
    assert_eq!(names, expected);
}
