//! The rules of build.md C2-C18 that need no disk, and the cache consequences of K5 and K6.

use std::sync::Arc;

use mica_archive::{ContentDigest, Entry, Kind, Table, View};

use super::*;

fn file(path: &str, content: &str) -> Entry {
    let digest = Some(ContentDigest::of(content.as_bytes()));
    Entry::new(path, Kind::File { size: content.len() as u64, digest }, 0o644)
}

fn link(path: &str, target: &str) -> Entry {
    Entry::new(path, Kind::Symlink { target: target.into() }, 0o777)
}

fn directory(path: &str) -> Entry {
    Entry::directory(path, 0o755)
}

fn view(entries: Vec<Entry>) -> View {
    View::stack([Arc::new(Table::from_entries(entries).unwrap())])
}

fn sample() -> View {
    view(vec![
        directory("d"),
        file("d/a.txt", "a"),
        file("d/b.md", "b"),
        directory("d/sub"),
        file("d/sub/c.txt", "c"),
        directory("e"),
        file("e/a.txt", "a"),
        file("f", "f"),
        file("home.txt", "h"),
        file("homage", "h"),
        file(".hidden", "h"),
        file("[x", "x"),
        link("l", "f"),
        link("to-dir", "/d"),
        link("dangling", "nowhere"),
        link("escape", "../../../f"),
        link("evil", "/etc/passwd"),
        link("loop", "loop"),
    ])
}

fn action(source: &str) -> CopyAction {
    CopyAction::new(Input::Vertex(1), source, "/x/")
}

fn paths(tree: &View, source: &str) -> Result<Vec<String>, String> {
    let selection = select(tree, &action(source), "ctx").map_err(|error| error.to_string())?;
    Ok(selection.items.into_iter().map(|item| String::from_utf8(item.path).unwrap()).collect())
}

/// Every path below the selected ones that would be copied, directories with a slash.
fn taken(tree: &View, action: &CopyAction) -> Vec<String> {
    fn walk(tree: &View, filter: &Filter, path: &[u8], relative: &[u8], taken: &mut Vec<String>) {
        for (name, node) in Tree::children(tree, path).unwrap() {
            let (below, child) = (path::join(relative, name), path::join(path, name));
            let verdict = filter.judge(&below, &node);
            if verdict == Verdict::Take {
                let slash = if node.is_directory() { "/" } else { "" };
                taken.push(format!("{}{slash}", String::from_utf8_lossy(&below)));
            }
            if verdict != Verdict::Leave && node.is_directory() {
                walk(tree, filter, &child, &below, taken);
            }
        }
    }
    let selection = select(tree, action, "ctx").unwrap();
    let mut found = Vec::new();
    for item in &selection.items {
        walk(tree, &selection.filter, &item.path, b"", &mut found);
    }
    found
}

fn key(tree: &View, action: &CopyAction) -> [u8; 32] {
    selection_digest(tree, &select(tree, action, "ctx").unwrap()).unwrap()
}

#[test]
fn sources_are_relative_to_the_root_and_cannot_escape() {
    let tree = sample();
    for source in ["/f", "f", "../../f", "/d/../f", "./f", "//f", "/f/"] {
        assert_eq!(paths(&tree, source).unwrap(), ["f"], "{source}");
    }
    assert_eq!(paths(&tree, "/").unwrap(), [""]);
}

#[test]
fn a_missing_plain_source_is_not_found() {
    let text = "failed to compute cache key: failed to calculate checksum of ref ctx: \"/nope\": not found";
    assert_eq!(paths(&sample(), "/nope").unwrap_err(), text);
    assert_eq!(paths(&sample(), "nope").unwrap_err(), text);
    assert!(paths(&sample(), "/f/below").unwrap_err().ends_with("\"/f/below\": not found"));
}

#[test]
fn a_source_in_the_empty_root_does_not_exist() {
    let scratch = CopyAction { from: Input::Scratch, ..action("/x") };
    let error = select(&View::empty(), &scratch, "scratch").unwrap_err();
    assert_eq!(error.to_string(), "lstat /x: no such file or directory");
}

#[test]
fn a_wildcard_that_matches_nothing_selects_nothing() {
    assert!(paths(&sample(), "/nope*").unwrap().is_empty());
    assert!(paths(&sample(), "/f/*").unwrap().is_empty());
}

#[test]
fn wildcards_match_per_component_and_match_leading_dots() {
    let tree = sample();
    assert_eq!(paths(&tree, "/hom*").unwrap(), ["homage", "home.txt"]);
    assert_eq!(paths(&tree, "/?/a.txt").unwrap(), ["d/a.txt", "e/a.txt"]);
    assert_eq!(paths(&tree, "/d/*.txt").unwrap(), ["d/a.txt"]);
    assert_eq!(paths(&tree, "/.h*").unwrap(), [".hidden"]);
    assert_eq!(paths(&tree, "/*hidden").unwrap(), [".hidden"]);
    assert_eq!(paths(&tree, "/[[]x").unwrap(), ["[x"]);
    assert_eq!(paths(&tree, "/[").unwrap_err(), "syntax error in pattern");
}

#[test]
fn named_links_are_followed_inside_the_root() {
    let tree = sample();
    let selection = select(&tree, &action("/l"), "ctx").unwrap();
    let expected = Selected { path: b"f".to_vec(), name: b"l".to_vec(), with_header: true };
    assert_eq!(selection.items, [expected]);
    assert_eq!(paths(&tree, "/to-dir/sub/c.txt").unwrap(), ["d/sub/c.txt"]);
    assert_eq!(paths(&tree, "/to-di?").unwrap(), ["d"]);
    assert_eq!(paths(&tree, "/to-dir/*.md").unwrap(), ["d/b.md"]);
    assert_eq!(paths(&tree, "/escape").unwrap(), ["f"]);
    for source in ["/evil", "/dangling", "/dang*", "/loop"] {
        assert!(paths(&tree, source).unwrap_err().ends_with("not found"), "{source}");
    }
}

#[test]
fn excludes_apply_below_directories_only() {
    let tree = sample();
    let exclude = |source: &str, patterns: &[&str]| CopyAction {
        exclude: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
        ..action(source)
    };
    assert_eq!(taken(&tree, &exclude("/d", &["*.txt"])), ["b.md", "sub/", "sub/c.txt"]);
    assert_eq!(taken(&tree, &exclude("/d", &["**/*.txt"])), ["b.md", "sub/"]);
    assert_eq!(taken(&tree, &exclude("/d", &["sub", "!sub/c.txt"])), ["a.txt", "b.md", "sub/c.txt"]);
    let direct = select(&tree, &exclude("/hom*", &["*.txt"]), "ctx").unwrap();
    assert_eq!(direct.items.len(), 2, "what a wildcard matches is not excluded");
}

#[test]
fn parents_walk_from_the_pivot() {
    let tree = sample();
    let parents = |source: &str| CopyAction { parents: true, ..action(source) };
    assert_eq!(taken(&tree, &parents("/d/sub/c.txt")), ["d/sub/c.txt"]);
    assert_eq!(taken(&tree, &parents("/d/./sub/c.txt")), ["sub/c.txt"]);
    assert_eq!(taken(&tree, &parents("/d/sub")), ["d/sub/", "d/sub/c.txt"]);
    assert_eq!(taken(&tree, &parents("/**/c.txt")), ["d/sub/c.txt"]);
    assert_eq!(taken(&tree, &parents("/*/a.txt")), ["d/a.txt", "e/a.txt"]);
    assert!(taken(&tree, &parents("/nope*")).is_empty());
    for source in ["/nope", "/d/./nope", "/", "/."] {
        let error = select(&tree, &parents(source), "ctx").unwrap_err();
        assert!(error.to_string().ends_with("not found"), "{source}");
    }
}

#[test]
fn a_touched_file_is_a_hit_and_everything_else_is_a_miss() {
    let base = || file("d/f", "content");
    let key_of = |entry: Entry| key(&view(vec![directory("d"), entry]), &action("/d"));
    let reference = key_of(base());
    let mut touched = base();
    touched.mtime.seconds = 99;
    assert_eq!(key_of(touched), reference, "time");
    let label =
        Entry { xattrs: [(b"security.selinux".to_vec(), b"x".to_vec())].into_iter().collect(), ..base() };
    assert_eq!(key_of(label), reference, "host label");
    let capability =
        Entry { xattrs: [(b"security.capability".to_vec(), b"x".to_vec())].into_iter().collect(), ..base() };
    for (what, changed) in [
        ("content", file("d/f", "Content")),
        ("name", file("d/g", "content")),
        ("mode", Entry { mode: 0o755, ..base() }),
        ("owner", Entry { uid: 1, ..base() }),
        ("group", Entry { gid: 1, ..base() }),
        ("type", link("d/f", "content")),
        ("capability", capability),
    ] {
        assert_ne!(key_of(changed), reference, "{what}");
    }
    assert_ne!(key_of(link("d/f", "a")), key_of(link("d/f", "b")), "link target");
}

#[test]
fn the_same_bytes_under_the_same_name_from_another_directory_are_a_hit() {
    let tree = sample();
    assert_eq!(key(&tree, &action("/d/a.txt")), key(&tree, &action("/e/a.txt")));
    assert_ne!(key(&tree, &action("/home.txt")), key(&tree, &action("/homage")));
}

#[test]
fn a_directory_counts_itself_unless_it_is_the_root_or_ends_in_a_slash() {
    let tree = |mode| view(vec![Entry::directory("d", mode), file("d/f", "f")]);
    let (before, after) = (tree(0o755), tree(0o700));
    assert_ne!(key(&before, &action("/d")), key(&after, &action("/d")));
    assert_eq!(key(&before, &action("/d/")), key(&after, &action("/d/")));
    let root = |mode| view(vec![Entry::directory("", mode), file("f", "f")]);
    assert_eq!(key(&root(0o755), &action("/")), key(&root(0o700), &action("/")));
    assert_ne!(key(&before, &action("/")), key(&after, &action("/")), "nested directories count");
}

#[test]
fn what_is_not_selected_does_not_count() {
    let with = view(vec![directory("d"), file("d/a", "a"), file("d/b", "b")]);
    let without = view(vec![directory("d"), file("d/a", "a")]);
    let excluded = CopyAction { exclude: vec!["b".to_owned()], ..action("/d") };
    assert_ne!(key(&with, &action("/d")), key(&without, &action("/d")));
    assert_eq!(key(&with, &excluded), key(&without, &excluded));
    assert_eq!(key(&with, &action("/d/a*")), key(&without, &action("/d/a*")));
}
