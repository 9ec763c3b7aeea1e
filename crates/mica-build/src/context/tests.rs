use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use mica_archive::{Timestamp, path};

use super::stat_cache::StatCache;
use super::*;

/// Makes files (and their directories); all with an old time.
fn context(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = directory.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::File::open(&path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(1000)).unwrap();
    }
    directory
}

fn open(directory: &tempfile::TempDir, ignore: &str) -> LocalContext {
    let ignore = (!ignore.is_empty()).then(|| Patterns::parse(ignore.as_bytes()).unwrap());
    LocalContext::open(directory.path(), ignore, None).unwrap()
}

fn all(context: &LocalContext) -> Vec<String> {
    fn walk(context: &LocalContext, path: &[u8], found: &mut Vec<String>) {
        for (name, node) in context.children(path).unwrap() {
            let child = path::join(path, name);
            found.push(String::from_utf8_lossy(&child).into_owned());
            if node.is_directory() {
                walk(context, &child, found);
            }
        }
    }
    context.prefetch(b"").unwrap();
    let mut found = Vec::new();
    walk(context, b"", &mut found);
    found
}

const FILES: &[(&str, &str)] = &[
    ("a.txt", "a"),
    ("src/main.c", "m"),
    ("src/main.o", "o"),
    ("dir/sub/z.txt", "z"),
    ("dir/sub/deep/w.txt", "w"),
    ("dir/x", "x"),
    (".git/HEAD", "g"),
];

#[test]
fn without_an_ignore_file_everything_is_there() {
    let directory = context(FILES);
    let found = all(&open(&directory, ""));
    assert_eq!(found.len(), FILES.len() + 5, "{found:?}");
    assert!(found.contains(&".git/HEAD".to_owned()));
}

#[test]
fn the_last_matching_line_decides() {
    let directory = context(FILES);
    assert_eq!(all(&open(&directory, "*\n!src\nsrc/*.o\n")), ["src", "src/main.c"]);
    assert_eq!(all(&open(&directory, "*\n!a.txt\na.txt\n")), Vec::<String>::new());
}

#[test]
fn parents_of_what_is_included_again_exist_and_others_do_not() {
    let directory = context(FILES);
    let found = all(&open(&directory, "*\n!dir/sub/z.txt\n"));
    assert_eq!(found, ["dir", "dir/sub", "dir/sub/z.txt"]);
    let context = open(&directory, "*\n!dir/sub/z.txt\n");
    assert!(context.get(b"dir/sub/z.txt").unwrap().is_some());
    for path in [&b"dir/sub/deep"[..], b"dir/x", b"src", b"src/main.c", b"a.txt", b"dir/x/y"] {
        assert!(context.get(path).unwrap().is_none(), "{}", String::from_utf8_lossy(path));
    }
}

#[test]
fn directories_emptied_by_exclusion_remain() {
    let directory = context(FILES);
    let found = all(&open(&directory, "dir/sub/deep/w.txt\nsrc\n.git\n"));
    assert!(found.contains(&"dir/sub/deep".to_owned()));
}

#[test]
fn nodes_belong_to_nobody_and_keep_mode_and_time() {
    let directory = context(&[("f", "f")]);
    let path = directory.path().join("f");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4711)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(5), Some(6)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4711)).unwrap();
    }
    let context = open(&directory, "");
    let node = context.get(b"f").unwrap().unwrap();
    assert_eq!((node.uid, node.gid, node.mode), (0, 0, 0o4711));
    assert_eq!(node.kind, NodeKind::File { size_bytes: 1 });
    assert_ne!(node.mtime, Timestamp::default());
}

#[test]
fn links_are_links_and_never_lead_out() {
    let directory = context(&[("d/f", "f")]);
    symlink("/etc", directory.path().join("etc")).unwrap();
    let context = open(&directory, "");
    assert_eq!(context.get(b"etc").unwrap().unwrap().kind, NodeKind::Symlink { target: b"/etc" });
    assert!(context.get(b"etc/passwd").unwrap().is_none());
    assert!(crate::select::resolve(&context, b"etc/passwd").unwrap().is_none());
}

#[test]
fn a_directory_swapped_for_a_link_is_not_followed() {
    let directory = context(&[("d/f", "f")]);
    let context = open(&directory, "");
    context.children(b"").unwrap();
    fs::remove_dir_all(directory.path().join("d")).unwrap();
    symlink("/etc", directory.path().join("d")).unwrap();
    assert!(context.children(b"d").is_err());
}

#[test]
fn only_directories_that_are_asked_for_are_listed() {
    let directory = context(FILES);
    let context = open(&directory, "");
    context.get(b"src/main.c").unwrap();
    let names: Vec<_> = context.top.known().unwrap().iter().filter_map(listed_name).collect();
    assert_eq!(names, ["src"]);
}

fn listed_name(item: &Item) -> Option<String> {
    let ItemKind::Directory { listing, .. } = &item.kind else { return None };
    listing.known().map(|_| String::from_utf8_lossy(&item.name).into_owned())
}

#[test]
fn digests_of_young_files_are_not_remembered() {
    let directory = context(&[("f", "one")]);
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("c.stat");
    let context = LocalContext::open(directory.path(), None, Some(file.clone())).unwrap();
    let digests = context.digests(&[b"f".to_vec()]).unwrap();
    assert_eq!(digests, [ContentDigest::of(b"one")]);
    // The change time cannot be set: a file that was just made is young whatever its modification time.
    assert_eq!(context.expectation(b"f"), Some(Expectation::Digest(digests[0])));
    context.save().unwrap();
    assert!(!file.exists());
}

#[test]
fn remembered_digests_are_used_and_outdated_ones_dropped() {
    let directory = context(&[("f", "one"), ("g", "two")]);
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("c.stat");
    let paths = [b"f".to_vec(), b"g".to_vec()];
    let identities = {
        let context = LocalContext::open(directory.path(), None, None).unwrap();
        paths.clone().map(|path| context.find(&path).unwrap().unwrap().identity)
    };
    let planted = ContentDigest([7; 32]);
    let record = |identity: &Identity| Record { identity: *identity, digest: planted, has_xattrs: false };
    StatCache::save(&file, identities.iter().map(record).collect()).unwrap();
    let context = LocalContext::open(directory.path(), None, Some(file.clone())).unwrap();
    assert_eq!(context.digests(&paths).unwrap(), [planted, planted]);
    assert_eq!(context.expectation(b"f"), Some(Expectation::Identity(identities[0])));

    fs::write(directory.path().join("f"), "changed").unwrap();
    let context = LocalContext::open(directory.path(), None, Some(file.clone())).unwrap();
    assert_eq!(context.digests(&paths).unwrap(), [ContentDigest::of(b"changed"), planted]);
}

#[test]
fn a_large_tree_is_listed_by_two_threads() {
    let names: Vec<String> = (0..40).flat_map(|d| (0..20).map(move |f| format!("d{d}/s/f{f}"))).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), "x")).collect();
    let directory = context(&files);
    let context = open(&directory, "");
    assert_eq!(all(&context).len(), 40 * 20 + 40 * 2);
    let paths: Vec<_> = names.iter().map(|name| name.clone().into_bytes()).collect();
    let digests = context.digests(&paths).unwrap();
    assert!(digests.iter().all(|digest| *digest == ContentDigest::of(b"x")));
}

#[test]
fn attributes_are_seen_and_a_change_of_them_alone_as_well() {
    let directory = context(&[("d/f", "f"), ("plain", "p")]);
    let root = Root::open(directory.path()).unwrap();
    for path in [&b"d"[..], b"d/f"] {
        if root.set_xattr(path, b"user.note", b"one").is_err() {
            return eprintln!("SKIP: the temporary directory has no extended attributes");
        }
    }
    let state = tempfile::tempdir().unwrap();
    let file = state.path().join("c.stat");
    let noted = |path: &[u8]| {
        let context = LocalContext::open(directory.path(), None, Some(file.clone())).unwrap();
        let node = context.get(path).unwrap().unwrap();
        node.xattrs.and_then(|xattrs| xattrs.get(&b"user.note"[..])).cloned()
    };
    assert_eq!(noted(b"d").as_deref(), Some(&b"one"[..]));
    assert_eq!(noted(b"d/f").as_deref(), Some(&b"one"[..]));
    // As a build leaves it that ran long after the last change.
    let context = LocalContext::open(directory.path(), None, None).unwrap();
    let known = [&b"d/f"[..], b"plain"].map(|path| context.find(path).unwrap().unwrap());
    let digest = ContentDigest([7; 32]);
    let record =
        |item: &Item| Record { identity: item.identity, digest, has_xattrs: !item.xattrs.is_empty() };
    StatCache::save(&file, known.into_iter().map(record).collect()).unwrap();
    assert_eq!(noted(b"d/f").as_deref(), Some(&b"one"[..]), "known to have attributes, so they are read");
    assert_eq!(noted(b"plain"), None);
    root.set_xattr(b"plain", b"user.note", b"two").unwrap();
    assert_eq!(noted(b"plain").as_deref(), Some(&b"two"[..]), "the change time tells");
}
