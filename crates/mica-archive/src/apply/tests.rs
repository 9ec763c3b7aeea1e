//! The hostile layers of security.md section 1.1 and the honest ones beside them.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::entry::{Entry, Kind};
use crate::recipe::rebuild;
use crate::tar::header::field;
use crate::testing::{TarBytes, is_root};
use crate::{ContentDigest, LimitExceeded, NEVER, TarFormat, finalize, write_tar};

/// A destination, and beside it a file and directory that nothing may touch.
struct Place {
    top: TempDir,
}

impl Place {
    fn new() -> Self {
        let top = TempDir::new().unwrap();
        std::fs::create_dir(top.path().join("root")).unwrap();
        std::fs::create_dir(top.path().join("canary")).unwrap();
        std::fs::write(top.path().join("canary/file"), "safe").unwrap();
        Self { top }
    }

    fn root(&self) -> Root {
        Root::open(&self.path("")).unwrap()
    }

    fn path(&self, relative: &str) -> std::path::PathBuf {
        self.top.path().join("root").join(relative)
    }

    fn apply(&self, tar: &[u8]) -> Result<Applied, ApplyError> {
        self.apply_with(tar, &options())
    }

    fn apply_with(&self, tar: &[u8], options: &ApplyOptions<'_>) -> Result<Applied, ApplyError> {
        let result = apply(tar, &self.root(), options, NEVER);
        self.check_canary();
        result
    }

    fn check_canary(&self) {
        let canary = self.top.path().join("canary");
        assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 1);
        let file = canary.join("file");
        assert_eq!(std::fs::read(&file).unwrap(), b"safe");
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.nlink(), metadata.mode() & 0o7777), (1, 0o644));
        assert_eq!(std::fs::read_dir(self.top.path()).unwrap().count(), 2);
    }
}

fn options() -> ApplyOptions<'static> {
    // As anybody, and on any file system.
    ApplyOptions {
        owners: OwnerPolicy::Ledger,
        overlay: OverlayFlavour::None,
        keep_recipe: true,
        ..ApplyOptions::default()
    }
}

fn paths(table: &Table) -> Vec<String> {
    table.entries().iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
}

fn kind_of<'a>(applied: &'a Applied, path: &str) -> &'a Kind {
    &applied.table.get(path.as_bytes()).unwrap().kind
}

fn link_to_canary(place: &Place) -> String {
    place.top.path().join("canary").to_str().unwrap().to_owned()
}

/// Applies, then demands that either the writer or the recipe gives the same bytes back.
fn round_trip(tar: &[u8]) -> Applied {
    let place = Place::new();
    let applied = place.apply(tar).unwrap();
    assert_eq!(applied.diff_id, DiffId(mica_oci::Digest::of(tar)));
    assert_eq!(applied.tar_bytes, tar.len() as u64);
    let mut out = Vec::new();
    if applied.reproducible {
        write_tar(&applied.table, &place.root(), &mut out, TarFormat::V1, NEVER).unwrap();
    } else {
        let recipe = applied.recipe.as_ref().unwrap();
        assert_eq!(&crate::Recipe::decode(&recipe.encode()).unwrap(), recipe);
        rebuild(recipe, &place.root(), &mut out, NEVER).unwrap();
    }
    assert!(out == tar, "bytes differ");
    // Digests found while applying are those found while reading.
    let again = finalize(applied.table.clone(), &place.root(), NEVER).unwrap();
    assert_eq!(again.table, applied.table);
    applied
}

#[test]
fn an_ordinary_layer_is_laid_down_and_given_back() {
    let tar = TarBytes::default().directory("etc/").file("etc/a", b"hello").link("etc/b", b'2', "a").end();
    let place = Place::new();
    let applied = place.apply(&tar).unwrap();
    assert_eq!(paths(&applied.table), ["etc", "etc/a", "etc/b"]);
    assert_eq!(std::fs::read(place.path("etc/b")).unwrap(), b"hello");
    assert_eq!(place.path("etc/a").metadata().unwrap().mtime(), 1_000_000_000);
    assert_eq!(place.path("etc").metadata().unwrap().mtime(), 1_000_000_000);
    assert_eq!(
        kind_of(&applied, "etc/a"),
        &Kind::File { size: 5, digest: Some(ContentDigest::of(b"hello")) }
    );
    round_trip(&tar);
}

#[test]
fn a_layer_in_another_tools_style_is_given_back_by_recipe() {
    let mut tar =
        TarBytes::default().file("./z", b"last first").directory("./a/").file("./a/x", &[7; 3000]).end();
    tar.resize(10240, 0);
    let applied = round_trip(&tar);
    assert!(!applied.reproducible);
    assert_eq!(paths(&applied.table), ["a", "a/x", "z"]);
}

#[test]
fn names_that_climb_are_refused_and_absolute_ones_land_inside() {
    for name in ["../canary/file", "a/../../canary/file", "..", "/../x"] {
        let tar = TarBytes::default().file(name, b"evil").end();
        assert!(matches!(Place::new().apply(&tar), Err(ApplyError::Name { .. })), "{name}");
    }
    let place = Place::new();
    place.apply(&TarBytes::default().file("/abs/x", b"x").end()).unwrap();
    assert!(place.path("abs/x").exists());
}

#[test]
fn nothing_is_written_through_a_link_out_of_the_root() {
    let place = Place::new();
    let target = link_to_canary(&place);
    let tar = TarBytes::default().link("evil", b'2', &target).file("evil/file", b"evil").end();
    place.apply(&tar).unwrap();
    let place = Place::new();
    let climbing = TarBytes::default().link("evil", b'2', "../canary").file("evil/file", b"evil").end();
    let applied = place.apply(&climbing).unwrap();
    assert_eq!(paths(&applied.table), ["canary", "canary/file", "evil"]);
    assert_eq!(applied.implied, [b"canary".to_vec()]);
}

#[test]
fn a_file_over_a_link_replaces_the_link() {
    let place = Place::new();
    let target = format!("{}/file", link_to_canary(&place));
    let tar = TarBytes::default().link("x", b'2', &target).file("x", b"evil").directory("x/").end();
    let applied = place.apply(&tar).unwrap();
    assert_eq!(paths(&applied.table), ["x"]);
    assert!(applied.table.get(b"x").unwrap().kind.is_directory());
}

#[test]
fn metadata_never_goes_through_a_link() {
    let place = Place::new();
    let target = link_to_canary(&place);
    // A directory whose time is set late, replaced by a link meanwhile.
    let tar = TarBytes::default().directory("d/").link("d", b'2', &target).end();
    place.apply(&tar).unwrap();
    let time = place.top.path().join("canary").metadata().unwrap().mtime();
    assert_ne!(time, 1_000_000_000);
}

#[test]
fn hard_links_reach_only_files_of_the_layer() {
    for target in ["../canary/file", "missing", "d", "l/file", "/"] {
        let place = Place::new();
        let canary = link_to_canary(&place);
        let tar = TarBytes::default().directory("d/").link("l", b'2', &canary).link("x", b'1', target).end();
        assert!(place.apply(&tar).is_err(), "{target}");
    }
    // Through a link that stays inside it is a file of the layer.
    let tar = TarBytes::default()
        .directory("d/")
        .file("d/f", b"content")
        .link("l", b'2', "d")
        .link("a", b'1', "l/f")
        .end();
    let applied = round_trip(&tar);
    assert_eq!(kind_of(&applied, "d/f"), &Kind::Hardlink { target: b"a".to_vec() });
}

#[test]
fn a_link_keeps_its_content_when_the_target_is_replaced() {
    let tar = TarBytes::default().file("a", b"one").link("b", b'1', "a").file("a", b"other").end();
    let applied = round_trip(&tar);
    let digest = |content: &[u8]| Some(ContentDigest::of(content));
    assert_eq!(kind_of(&applied, "a"), &Kind::File { size: 5, digest: digest(b"other") });
    assert_eq!(kind_of(&applied, "b"), &Kind::File { size: 3, digest: digest(b"one") });
}

#[test]
fn the_last_of_two_members_wins_and_the_first_is_still_given_back() {
    let tar = TarBytes::default()
        .file("a", b"one")
        .directory("d/")
        .file("d/x", b"below")
        .file("a", b"two!")
        .file("d", b"file now")
        .end();
    let applied = round_trip(&tar);
    assert_eq!(paths(&applied.table), ["a", "d"]);
    assert_eq!(kind_of(&applied, "a"), &Kind::File { size: 4, digest: Some(ContentDigest::of(b"two!")) });
}

#[test]
fn the_root_can_only_be_a_directory() {
    for name in [".", "./", "/"] {
        let tar = TarBytes::default().link(name, b'2', "/tmp").end();
        assert!(matches!(Place::new().apply(&tar), Err(ApplyError::Name { .. })), "{name}");
    }
    let tar = TarBytes::default().directory("./").end();
    assert_eq!(paths(&Place::new().apply(&tar).unwrap().table), [""]);
}

#[test]
fn whiteouts_hide_and_delete_nothing_here() {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.."] {
        let tar = TarBytes::default().directory("d/").file(name, b"").end();
        assert!(matches!(Place::new().apply(&tar), Err(ApplyError::Name { .. })), "{name}");
    }
    let place = Place::new();
    let canary = link_to_canary(&place);
    let tar = TarBytes::default()
        .link("evil", b'2', &canary)
        .file("evil/.wh.file", b"")
        .file("evil/.wh..wh..opq", b"")
        .file(".wh..wh.plnk/1.2", b"aufs")
        .directory(".wh.dir/")
        .end();
    let applied = place.apply(&tar).unwrap();
    assert_eq!(kind_of(&applied, "dir"), &Kind::Whiteout);
}

#[test]
fn whiteouts_count_for_lower_layers_only() {
    let before = TarBytes::default().directory("d/").file("d/x", b"").file(".wh.d", b"").end();
    let after = TarBytes::default().file(".wh.d", b"").directory("d/").file("d/x", b"").end();
    for tar in [before, after] {
        let applied = Place::new().apply(&tar).unwrap();
        assert_eq!(paths(&applied.table), ["d", "d/x"]);
        assert_eq!(kind_of(&applied, "d"), &Kind::Directory { opaque: true });
    }
}

#[test]
fn marks_for_overlayfs_come_from_whiteouts_only() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let tar = TarBytes::default()
        .directory("d/")
        .file("d/.wh..wh..opq", b"")
        .file(".wh.gone", b"")
        .header(b"raw", b'3', 0, |block| {
            block[field::MAJOR][..7].copy_from_slice(b"0000000");
        })
        .pax(&[
            (b"SCHILY.xattr.trusted.overlay.opaque", b"y"),
            (b"SCHILY.xattr.user.overlay.redirect", b"/x"),
        ])
        .directory("e/")
        .end();
    let options = ApplyOptions { devices: true, ..ApplyOptions::default() };
    let applied = place.apply_with(&tar, &options).unwrap();
    assert_eq!(paths(&applied.table), ["d", "e", "gone"]);
    assert_eq!((applied.skipped_devices, applied.skipped_xattrs), (1, 2));
    let gone = place.path("gone").symlink_metadata().unwrap();
    assert_eq!((gone.mode() & 0o170_000, gone.rdev()), (0o020_000, 0));
    let attributes = |path: &str| place.root().xattrs(path.as_bytes()).unwrap();
    assert_eq!(attributes("d").get(&b"trusted.overlay.opaque"[..]).unwrap(), b"y");
    assert!(attributes("e").is_empty());
}

#[test]
fn only_attributes_that_layers_keep_are_kept() {
    let tar = TarBytes::default()
        .pax(&[
            (b"SCHILY.xattr.user.a", b"line\nbreak\0"),
            (b"SCHILY.xattr.security.selinux", b"label"),
            (b"SCHILY.xattr.system.posix_acl_access", b"acl"),
        ])
        .file("x", b"")
        .end();
    let applied = round_trip(&tar);
    let kept = BTreeMap::from([(b"user.a".to_vec(), b"line\nbreak\0".to_vec())]);
    assert_eq!(applied.table.get(b"x").unwrap().xattrs, kept);
}

#[test]
fn devices_that_cannot_be_made_stay_in_the_table() {
    let tar = TarBytes::default()
        .header(b"null", b'3', 0, |block| {
            block[field::MAJOR][..7].copy_from_slice(b"0000001");
            block[field::MINOR][..7].copy_from_slice(b"0000003");
        })
        .end();
    let place = Place::new();
    let applied = place.apply(&tar).unwrap();
    assert_eq!(kind_of(&applied, "null"), &Kind::CharDevice { major: 1, minor: 3 });
    assert_eq!(applied.skipped_devices, 1);
    assert!(!place.path("null").exists());
}

#[test]
fn setuid_bits_and_owners_survive() {
    let tar = TarBytes::default()
        .header(b"su", b'0', 0, |block| {
            block[field::MODE][..7].copy_from_slice(b"0004755");
            block[field::UID][..7].copy_from_slice(b"0000012");
        })
        .end();
    let place = Place::new();
    let applied = place.apply(&tar).unwrap();
    assert_eq!(applied.ledger, OwnerLedger::from([(b"su".to_vec(), (10, 0))]));
    assert_eq!(place.path("su").metadata().unwrap().permissions().mode() & 0o7777, 0o4755);
    if is_root() {
        let place = Place::new();
        place.apply_with(&tar, &ApplyOptions::default()).unwrap();
        let metadata = place.path("su").metadata().unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (10, 0o4755));
    }
}

#[test]
fn directories_may_forbid_writing_to_themselves() {
    let tar = TarBytes::default()
        .header(b"d/", b'5', 0, |block| block[field::MODE][..7].copy_from_slice(b"0000555"))
        .file("d/x", b"content")
        .end();
    let place = Place::new();
    place.apply(&tar).unwrap();
    let metadata = place.path("d").metadata().unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o555, 1_000_000_000));
}

#[test]
fn missing_directories_look_as_in_the_layers_below() {
    let mut tmp = Entry::directory("tmp", 0o1777);
    tmp.gid = 7;
    let lower = View::stack([std::sync::Arc::new(Table::from_entries(vec![tmp]).unwrap())]);
    let tar = TarBytes::default().file("tmp/a/x", b"").end();
    let options = ApplyOptions { parent: Some(&lower), ..options() };
    let applied = Place::new().apply_with(&tar, &options).unwrap();
    assert_eq!(applied.implied, [b"tmp".to_vec(), b"tmp/a".to_vec()]);
    assert_eq!(applied.table.get(b"tmp").unwrap().mode, 0o1777);
    assert_eq!(applied.table.get(b"tmp").unwrap().gid, 7);
    assert_eq!(applied.table.get(b"tmp/a").unwrap().mode, 0o755);
}

#[test]
fn limits_are_kept() {
    let exceeded = |result: Result<Applied, ApplyError>| match result {
        Err(ApplyError::Tar(TarError::Limit(LimitExceeded { what, .. }))) => what,
        other => panic!("{other:?}"),
    };
    let with = |change: fn(&mut Limits)| {
        let mut options = options();
        change(&mut options.limits);
        options
    };
    let two = TarBytes::default().file("a", b"0123456789").file("b", b"").end();
    let result = Place::new().apply_with(&two, &with(|limits| limits.entries = 1));
    assert_eq!(exceeded(result), "number of entries of the layer");
    let result = Place::new().apply_with(&two, &with(|limits| limits.layer_bytes = 515));
    assert_eq!(exceeded(result), "size of the layer");
    let attribute = TarBytes::default().pax(&[(b"SCHILY.xattr.user.a", &[b'x'; 65537])]).file("a", b"").end();
    assert_eq!(exceeded(Place::new().apply(&attribute)), "size of an extended attribute");
    let header = TarBytes::default().header(b"x", b'x', 256 << 20, |_| {}).end();
    assert_eq!(exceeded(Place::new().apply(&header)), "size of an extended header");
    let name = TarBytes::default().header(b"x", b'L', 5000, |_| {}).data(&[b'a'; 5000]).file("x", b"").end();
    assert_eq!(exceeded(Place::new().apply(&name)), "length of a path");
}

#[test]
fn a_huge_hole_costs_no_disk_and_counts_against_the_limit() {
    let sparse = |size: &str| {
        let records: [(&[u8], &[u8]); 4] = [
            (b"GNU.sparse.major", b"0"),
            (b"GNU.sparse.minor", b"1"),
            (b"GNU.sparse.size", size.as_bytes()),
            (b"GNU.sparse.map", b"1048576,5"),
        ];
        TarBytes::default().pax(&records).file("hole", b"hello").end()
    };
    let applied = round_trip(&sparse("8388608"));
    assert!(!applied.reproducible);
    let place = Place::new();
    place.apply(&sparse("8388608")).unwrap();
    let metadata = place.path("hole").metadata().unwrap();
    assert_eq!(metadata.len(), 8 << 20);
    assert!(metadata.blocks() * 512 < 1 << 20);
    assert!(matches!(Place::new().apply(&sparse("4398046511104")), Err(ApplyError::Tar(TarError::Limit(_)))));
}

#[test]
fn special_files_do_not_block_and_are_replaced() {
    let tar = TarBytes::default().header(b"x", b'6', 0, |_| {}).file("x", b"content").end();
    let place = Place::new();
    place.apply(&tar).unwrap();
    assert_eq!(std::fs::read(place.path("x")).unwrap(), b"content");
}

#[test]
fn deep_paths_need_no_stack() {
    let deep = "d/".repeat(1000);
    let name = format!("{deep}x");
    let tar = TarBytes::default().pax(&[(b"path", name.as_bytes())]).file("short", b"deep").end();
    let applied = round_trip(&tar);
    assert_eq!(applied.implied.len(), 1000);
    let place = Place::new();
    place.apply(&tar).unwrap();
    place.root().remove_all(b"d").unwrap();
}

#[test]
fn links_in_a_circle_are_an_error() {
    let tar = TarBytes::default().link("a", b'2', "b").link("b", b'2', "a").file("a/x", b"").end();
    assert!(matches!(Place::new().apply(&tar), Err(ApplyError::Link { .. })));
}

#[test]
fn a_read_error_is_not_an_end() {
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let tar = TarBytes::default().file("a", &[1; 2048]).end();
            let read = (&tar[self.0..2000.min(tar.len())]).read(buffer)?;
            self.0 += read;
            if read == 0 { Err(io::Error::other("line cut")) } else { Ok(read) }
        }
    }
    let place = Place::new();
    let result = apply(Failing(0), &place.root(), &options(), NEVER);
    assert!(matches!(result, Err(ApplyError::Tar(TarError::Io(_)))), "{result:?}");
}

#[test]
fn cancelling_stops_and_says_so() {
    let tar = TarBytes::default().file("a", b"").end();
    let place = Place::new();
    let result = apply(tar.as_slice(), &place.root(), &options(), &|| true);
    assert!(matches!(result, Err(ApplyError::Cancelled)));
}

#[test]
fn a_changed_file_cannot_be_given_back_as_the_old_layer() {
    let mut tar = TarBytes::default().file("a", b"content").end();
    tar.extend_from_slice(b"trailer");
    let place = Place::new();
    let applied = place.apply(&tar).unwrap();
    std::fs::write(place.path("a"), "CONTENT").unwrap();
    let result = rebuild(&applied.recipe.unwrap(), &place.root(), &mut Vec::new(), NEVER);
    assert!(matches!(result, Err(crate::RecipeError::Mismatch { .. })));
    std::fs::write(place.path("a"), "c").unwrap();
    let result = finalize(applied.table, &place.root(), NEVER);
    assert!(matches!(result, Err(crate::WriteError::Changed { .. })));
}

#[test]
fn a_destination_with_content_is_not_overwritten() {
    let place = Place::new();
    std::fs::hard_link(place.top.path().join("canary/file"), place.path("a")).unwrap();
    let result =
        apply(TarBytes::default().file("a", b"evil").end().as_slice(), &place.root(), &options(), NEVER);
    assert!(matches!(result, Err(ApplyError::Write { .. })));
    assert_eq!(std::fs::read(place.top.path().join("canary/file")).unwrap(), b"safe");
    std::fs::remove_file(place.path("a")).unwrap();
    place.check_canary();
    assert!(Path::new(&place.path("")).exists());
}
