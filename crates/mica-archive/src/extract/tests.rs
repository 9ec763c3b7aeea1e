use std::os::unix::fs::{MetadataExt, symlink};

use tempfile::TempDir;

use super::*;
use crate::NEVER;
use crate::compress::{Compression, compress};
use crate::testing::TarBytes;

fn options() -> ExtractOptions {
    ExtractOptions { owners: OwnerPolicy::Ledger, ..ExtractOptions::default() }
}

fn unpack(directory: &TempDir, tar: &[u8]) -> Result<Extracted, ApplyError> {
    extract(tar, &Root::open(directory.path()).unwrap(), &options(), NEVER)
}

#[test]
fn whiteouts_are_files_and_existing_things_are_replaced() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("outside"), "keep").unwrap();
    std::fs::hard_link(path("outside"), path("file")).unwrap();
    symlink("outside", path("link")).unwrap();
    std::fs::create_dir_all(path("tree/below")).unwrap();
    std::fs::create_dir_all(path("merged/old")).unwrap();
    let tar = TarBytes::default()
        .file(".wh.file", b"")
        .file("file", b"new")
        .file("link", b"no link")
        .file("tree", b"a file now")
        .directory("merged/")
        .file("merged/new", b"")
        .end();
    let done = unpack(&directory, &tar).unwrap();
    assert_eq!(std::fs::read(path("outside")).unwrap(), b"keep");
    assert_eq!(std::fs::read(path("file")).unwrap(), b"new");
    assert_eq!(std::fs::read(path("link")).unwrap(), b"no link");
    assert!(path(".wh.file").exists() && path("tree").is_file());
    assert!(path("merged/old").exists() && path("merged/new").exists());
    assert_eq!(path("merged").metadata().unwrap().mtime(), 1_000_000_000);
    assert_eq!(done.owners.len(), 6);
}

#[test]
fn links_are_followed_inside_the_destination_only() {
    let top = TempDir::new().unwrap();
    let directory = TempDir::new_in(top.path()).unwrap();
    symlink("/real", directory.path().join("abs")).unwrap();
    symlink("../../..", directory.path().join("up")).unwrap();
    let tar = TarBytes::default().directory("real/").file("abs/x", b"x").file("up/y", b"y").end();
    unpack(&directory, &tar).unwrap();
    assert!(directory.path().join("real/x").exists());
    assert!(directory.path().join("y").exists());
    assert_eq!(std::fs::read_dir(top.path()).unwrap().count(), 1);
    unpack(&directory, &TarBytes::default().file("../x", b"").end()).unwrap();
    assert!(directory.path().join("x").exists());
    assert_eq!(std::fs::read_dir(top.path()).unwrap().count(), 1);
    let tar = TarBytes::default().link("z", b'1', "../../etc/passwd").end();
    assert!(matches!(unpack(&directory, &tar), Err(ApplyError::Link { .. })));
}

#[test]
fn a_directory_replacing_a_link_is_used_by_later_members() {
    let directory = TempDir::new().unwrap();
    std::fs::create_dir(directory.path().join("elsewhere")).unwrap();
    let tar = TarBytes::default()
        .link("d", b'2', "elsewhere")
        .file("d/1", b"")
        .directory("d/")
        .file("d/2", b"")
        .link("d/3", b'1', "d/2")
        .end();
    unpack(&directory, &tar).unwrap();
    assert!(directory.path().join("elsewhere/1").exists());
    assert!(!directory.path().join("elsewhere/2").exists());
    assert_eq!(directory.path().join("d/2").metadata().unwrap().nlink(), 2);
}

#[test]
fn everything_belongs_to_whom_chown_says() {
    let directory = TempDir::new().unwrap();
    let options = ExtractOptions { chown: Some((7, 8)), ..options() };
    let root = Root::open(directory.path()).unwrap();
    let done =
        extract(TarBytes::default().file("a/b", b"").end().as_slice(), &root, &options, NEVER).unwrap();
    assert_eq!(done.owners, OwnerLedger::from([(b"a".to_vec(), (7, 8)), (b"a/b".to_vec(), (7, 8))]));
}

#[test]
fn a_tar_is_known_by_its_content() {
    let tar = TarBytes::default().file("a", b"content").end();
    let mut packed = Vec::new();
    compress(&mut tar.as_slice(), &mut packed, Compression::Gzip { level: 5 }, 1).unwrap();
    assert!(is_tar(tar.as_slice()).unwrap());
    assert!(is_tar(packed.as_slice()).unwrap());
    let mut text = Vec::new();
    compress(&mut [b'x'; 5000].as_slice(), &mut text, Compression::Gzip { level: 5 }, 1).unwrap();
    for other in [&b""[..], b"text", &[b'x'; 1000], &[0; 1024], &text, &packed[..20]] {
        assert!(!is_tar(other).unwrap());
    }
    let directory = TempDir::new().unwrap();
    unpack(&directory, &packed).unwrap();
    assert_eq!(std::fs::read(directory.path().join("a")).unwrap(), b"content");
}

#[test]
fn the_top_of_an_archive_can_get_another_name() {
    let tar = TarBytes::default().directory("src/").file("src/a", b"a").link("src/b", b'1', "src/a").end();
    for (to, file) in [("dst", "dst/b"), ("", "b")] {
        let directory = TempDir::new().unwrap();
        let options = ExtractOptions { rename: Some((b"src".to_vec(), to.into())), ..options() };
        extract(&tar[..], &Root::open(directory.path()).unwrap(), &options, NEVER).unwrap();
        assert_eq!(std::fs::read(directory.path().join(file)).unwrap(), b"a");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), if to.is_empty() { 2 } else { 1 });
    }
}

#[test]
fn kinds_can_be_kept() {
    let directory = TempDir::new().unwrap();
    std::fs::create_dir(directory.path().join("dir")).unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let options = ExtractOptions { keep_kinds: true, ..options() };
    let unpack =
        |tar: TarBytes| extract(&tar.end()[..], &Root::open(directory.path()).unwrap(), &options, NEVER);
    let error = unpack(TarBytes::default().file("dir", b"")).unwrap_err();
    assert_eq!(error.to_string(), "cannot overwrite directory \"dir\" with non-directory");
    let error = unpack(TarBytes::default().directory("file/")).unwrap_err();
    assert_eq!(error.to_string(), "cannot overwrite non-directory \"file\" with directory");
    unpack(TarBytes::default().directory("dir/").file("file", b"new")).unwrap();
}
