//! View: what a stack of layers looks like, seen from above.
//!
//! Holds the tables and one sorted list of (table, entry) pairs: 8 bytes per visible path. Look-ups are binary
//! searches; listing a directory costs a search per child.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock};

use crate::entry::{Entry, Kind};
use crate::path;
use crate::table::Table;

/// Symbolic links followed in one look-up before it is taken for a loop.
const MAX_LINKS: usize = 255;

/// The root directory of a stack that says nothing about it.
static DEFAULT_ROOT: LazyLock<Entry> = LazyLock::new(|| Entry::directory(b"", 0o755));

/// Where an entry of a view is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    table: u32,
    entry: u32,
}

/// The merged tree of a stack of layer tables. Whiteouts and what they hide are not in it.
#[derive(Debug, Clone, Default)]
pub struct View {
    tables: Vec<Arc<Table>>,
    merged: Vec<Slot>,
}

/// A path of a view and the layer that provides it.
#[derive(Debug, Clone, Copy)]
pub struct Located<'a> {
    /// Index of the layer, lowest first.
    pub layer: usize,
    /// The entry as the layer has it: a hard link as such.
    pub entry: &'a Entry,
    /// The entry with the content: for a hard link, the file of the same layer.
    pub content: &'a Entry,
}

impl View {
    /// A view of no layers: only an empty root directory.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Merges tables, lowest first.
    pub fn stack(tables: impl IntoIterator<Item = Arc<Table>>) -> Self {
        let mut view = Self::default();
        for table in tables {
            view.push(table);
        }
        view
    }

    /// Puts one more layer on top.
    ///
    /// Cost: a binary search per entry of the new layer and one copy of the merged list.
    pub fn push(&mut self, table: Arc<Table>) {
        let index = u32::try_from(self.tables.len()).expect("fewer than 2^32 layers");
        self.tables.push(table);
        let table = &self.tables[self.tables.len() - 1];
        let mut merged = Vec::with_capacity(self.merged.len() + table.len());
        let mut lower = self.merged.as_slice();
        for (position, entry) in table.entries().iter().enumerate() {
            let (before, rest) = lower.split_at(self.below(lower, &entry.path));
            merged.extend_from_slice(before);
            lower = self.without_hidden(rest, entry);
            if entry.kind != Kind::Whiteout {
                let position = u32::try_from(position).expect("fewer than 2^32 entries in a layer");
                merged.push(Slot { table: index, entry: position });
            }
        }
        merged.extend_from_slice(lower);
        self.merged = merged;
    }

    /// How many of `slots` sort before `path`; looks at the near ones first, as neighbours usually are near.
    fn below(&self, slots: &[Slot], path: &[u8]) -> usize {
        let precedes = |slot: &Slot| path::compare(&self.raw(*slot).path, path).is_lt();
        let mut reach = 1;
        while reach < slots.len() && precedes(&slots[reach - 1]) {
            reach *= 2;
        }
        let (start, end) = (reach / 2, reach.min(slots.len()));
        start + slots[start..end].partition_point(precedes)
    }

    /// Drops from `slots` (which start at the path of `upper` or after it) what `upper` hides.
    fn without_hidden<'a>(&self, slots: &'a [Slot], upper: &Entry) -> &'a [Slot] {
        let same = usize::from(slots.first().is_some_and(|slot| self.raw(*slot).path == upper.path));
        if upper.kind == (Kind::Directory { opaque: false }) {
            return &slots[same..];
        }
        let rest = &slots[same..];
        &rest[rest.partition_point(|slot| path::is_below(&self.raw(*slot).path, &upper.path))..]
    }

    /// The layers, lowest first.
    pub fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    /// The number of visible paths.
    pub fn len(&self) -> usize {
        self.merged.len()
    }

    /// Whether there is nothing but an empty root.
    pub fn is_empty(&self) -> bool {
        self.merged.is_empty()
    }

    /// Returns what is at `path`, a hard link resolved to its file. The root always exists.
    pub fn get(&self, path: &[u8]) -> Option<&Entry> {
        self.locate(path).map(|found| found.content).or_else(|| path.is_empty().then(|| &*DEFAULT_ROOT))
    }

    /// Returns what is at `path` and which layer has it. The root is only found if a layer stores it.
    pub fn locate(&self, path: &[u8]) -> Option<Located<'_>> {
        let found = self.merged.binary_search_by(|slot| path::compare(&self.raw(*slot).path, path)).ok()?;
        Some(self.located(self.merged[found]))
    }

    /// Returns the names and entries directly in a directory, in order; hard links resolved.
    pub fn children<'a>(&'a self, directory: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a Entry)> {
        let mut rest = self.subtree(directory);
        std::iter::from_fn(move || {
            let found = self.located(*rest.first()?);
            rest = &rest[1..];
            let top = &found.entry.path;
            if rest.first().is_some_and(|next| path::is_below(&self.raw(*next).path, top)) {
                rest = &rest[rest.partition_point(|slot| path::is_below(&self.raw(*slot).path, top))..];
            }
            Some((found.entry.name(), found.content))
        })
    }

    /// Returns every path strictly below a directory in order, with its entry; hard links resolved.
    pub fn walk<'a>(&'a self, directory: &[u8]) -> impl Iterator<Item = (&'a [u8], &'a Entry)> {
        self.walk_located(directory).map(|found| (found.entry.path.as_slice(), found.content))
    }

    /// As [`View::walk`], with the layer and the entry as stored.
    pub fn walk_located(&self, directory: &[u8]) -> impl Iterator<Item = Located<'_>> {
        self.subtree(directory).iter().map(|slot| self.located(*slot))
    }

    /// Follows symbolic links inside the root of the view.
    ///
    /// Returns the path that remains, the root as `""`; `None` if a component is missing, is below something that is
    /// no directory, or after 255 links. Leading slashes and `.` mean nothing, `..` of the root is the root. With
    /// `follow_last` off the last component may be a link and stays one.
    pub fn resolve(&self, path: &[u8], follow_last: bool) -> Option<Vec<u8>> {
        let mut todo: VecDeque<Vec<u8>> = path::components(path).map(<[u8]>::to_vec).collect();
        let mut links = 0;
        let mut real: Vec<u8> = Vec::new();
        while let Some(component) = todo.pop_front() {
            if !self.get(&real)?.kind.is_directory() {
                return None;
            }
            match component.as_slice() {
                b"." => continue,
                b".." => {
                    real.truncate(path::parent(&real).map_or(0, <[u8]>::len));
                    continue;
                }
                _ => {}
            }
            let next = path::join(&real, &component);
            match &self.get(&next)?.kind {
                Kind::Symlink { target } if follow_last || !todo.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS || todo.len() > path::MAX_PATH_BYTES {
                        return None;
                    }
                    if target.starts_with(b"/") {
                        real.clear();
                    }
                    for part in path::components(target).collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(part.to_vec());
                    }
                }
                _ => real = next,
            }
        }
        Some(real)
    }

    /// The merged list strictly below `directory`.
    fn subtree(&self, directory: &[u8]) -> &[Slot] {
        let start =
            self.merged.partition_point(|slot| path::compare(&self.raw(*slot).path, directory).is_le());
        let rest = &self.merged[start..];
        &rest[..rest.partition_point(|slot| path::is_below(&self.raw(*slot).path, directory))]
    }

    fn raw(&self, slot: Slot) -> &Entry {
        &self.tables[slot.table as usize].entries()[slot.entry as usize]
    }

    fn located(&self, slot: Slot) -> Located<'_> {
        let table = &self.tables[slot.table as usize];
        let entry = &table.entries()[slot.entry as usize];
        Located { layer: slot.table as usize, entry, content: table.content_of(entry) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, size: u64) -> Entry {
        Entry::new(path, Kind::File { size, digest: None }, 0o644)
    }

    fn link(path: &str, target: &str) -> Entry {
        Entry::new(path, Kind::Symlink { target: target.into() }, 0o777)
    }

    fn view(layers: Vec<Vec<Entry>>) -> View {
        View::stack(layers.into_iter().map(|layer| Arc::new(Table::from_entries(layer).unwrap())))
    }

    fn paths(view: &View) -> Vec<String> {
        view.walk(b"").map(|(path, _)| String::from_utf8(path.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_whiteout_hides_the_whole_subtree_and_nothing_beside_it() {
        let lower = ["a", "a/b", "a/b/c"].map(|path| Entry::directory(path, 0o755));
        let lower = lower.into_iter().chain([file("a.txt", 1), file("b", 1)]).collect();
        let merged = view(vec![lower, vec![Entry::whiteout("a")]]);
        assert_eq!(paths(&merged), ["a.txt", "b"]);
    }

    #[test]
    fn an_opaque_directory_hides_lower_children_only() {
        let mut opaque = Entry::directory("d", 0o700);
        opaque.kind = Kind::Directory { opaque: true };
        let merged = view(vec![
            vec![Entry::directory("d", 0o755), file("d/old", 1), file("e", 1)],
            vec![opaque, file("d/new", 1)],
        ]);
        assert_eq!(paths(&merged), ["d", "d/new", "e"]);
        assert_eq!(merged.get(b"d").unwrap().mode, 0o700);
    }

    #[test]
    fn a_file_replaces_a_directory_with_its_content() {
        let merged = view(vec![
            vec![Entry::directory("d", 0o755), file("d/x", 1), file("d/y", 1)],
            vec![file("d", 3)],
        ]);
        assert_eq!(paths(&merged), ["d"]);
    }

    #[test]
    fn a_directory_changes_its_attributes_and_keeps_its_content() {
        let merged = view(vec![
            vec![Entry::directory("d", 0o755), file("d/x", 1)],
            vec![Entry::directory("d", 0o700)],
        ]);
        assert_eq!(paths(&merged), ["d", "d/x"]);
        assert_eq!(merged.locate(b"d").unwrap().layer, 1);
        assert_eq!(merged.locate(b"d/x").unwrap().layer, 0);
    }

    #[test]
    fn children_skip_what_is_deeper() {
        let merged = view(vec![vec![
            Entry::directory("a", 0o755),
            Entry::directory("a/b", 0o755),
            file("a/b/c", 1),
            file("a/c", 1),
            file("b", 1),
        ]]);
        let names = |path: &[u8]| merged.children(path).map(|(name, _)| name.to_vec()).collect::<Vec<_>>();
        assert_eq!(names(b""), [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(names(b"a"), [b"b".to_vec(), b"c".to_vec()]);
        assert!(names(b"b").is_empty());
    }

    #[test]
    fn a_hard_link_has_the_content_of_its_own_layer() {
        let hard = Entry::new("b", Kind::Hardlink { target: b"a".to_vec() }, 0o644);
        let merged = view(vec![vec![file("a", 1), hard], vec![file("a", 2)]]);
        assert_eq!(merged.get(b"a").unwrap().kind, Kind::File { size: 2, digest: None });
        assert_eq!(merged.get(b"b").unwrap().kind, Kind::File { size: 1, digest: None });
    }

    #[test]
    fn links_resolve_inside_the_root() {
        let merged = view(vec![vec![
            Entry::directory("usr", 0o755),
            Entry::directory("usr/lib", 0o755),
            file("usr/lib/x", 1),
            link("lib", "usr/lib"),
            link("up", "../../../usr/lib"),
            link("abs", "/lib/x"),
            link("loop", "loop"),
        ]]);
        let resolve = |path: &[u8]| merged.resolve(path, true);
        assert_eq!(resolve(b"/lib/x").as_deref(), Some(&b"usr/lib/x"[..]));
        assert_eq!(resolve(b"up/x").as_deref(), Some(&b"usr/lib/x"[..]));
        assert_eq!(resolve(b"abs").as_deref(), Some(&b"usr/lib/x"[..]));
        assert_eq!(merged.resolve(b"abs", false).as_deref(), Some(&b"abs"[..]));
        assert_eq!(resolve(b"../..").as_deref(), Some(&b""[..]));
        assert_eq!(resolve(b"loop"), None);
        assert_eq!(resolve(b"usr/lib/x/y"), None);
    }

    #[test]
    fn the_root_always_exists() {
        assert!(View::empty().get(b"").unwrap().kind.is_directory());
        assert_eq!(View::empty().resolve(b"/", true).as_deref(), Some(&b""[..]));
    }

    #[test]
    fn many_layers_merge_as_one_sorted_list() {
        let layers: Vec<_> =
            (0..20).map(|n| (0..50).map(|m| file(&format!("f{:03}", m * 7 % 50 + n), n)).collect()).collect();
        let merged = view(layers);
        assert!(merged.walk(b"").collect::<Vec<_>>().windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(merged.get(b"f049").unwrap().kind, Kind::File { size: 19, digest: None });
        assert_eq!(merged.get(b"f000").unwrap().kind, Kind::File { size: 0, digest: None });
    }
}
