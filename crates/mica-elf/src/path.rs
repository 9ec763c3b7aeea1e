//! Paths inside a tree of files: joining them, and following links as the kernel does.

use crate::files::{FileKind, FileStat, Files};

/// The kernel gives up after so many links (`MAXSYMLINKS`).
const LINKS: usize = 40;
/// The kernel's `PATH_MAX`; also keeps hostile link targets from growing the remaining path without end.
const PATH_BYTES: usize = 4096;

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Walked {
    /// The path with every link replaced.
    pub(crate) path: Vec<u8>,
    /// What is there; never a link.
    pub(crate) stat: FileStat,
    /// The links passed on the way, and their targets.
    pub(crate) links: Vec<(Vec<u8>, Vec<u8>)>,
    /// The directories passed on the way, links replaced, the root not among them.
    pub(crate) directories: Vec<(Vec<u8>, FileStat)>,
}

/// Follows an absolute path to the end; `None` if it leads nowhere.
pub(crate) fn walk(files: &dyn Files, path: &[u8]) -> Option<Walked> {
    let mut here: Vec<u8> = Vec::new();
    let mut rest: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
    let mut stat = FileStat { kind: FileKind::Directory, mode: 0o755, uid: 0, gid: 0 };
    let (mut links, mut directories) = (Vec::new(), Vec::new());
    while let Some(name) = rest.pop() {
        if stat.kind != FileKind::Directory {
            return None;
        }
        if name == b".." {
            let parent = parent(&here).len();
            here.truncate(parent);
            continue;
        }
        let next = [&here[..], b"/", &name].concat();
        if next.len() > PATH_BYTES {
            return None;
        }
        let found = files.stat(&next)?;
        if found.kind == FileKind::Symlink {
            let target = files.link(&next)?;
            if links.len() == LINKS || target.is_empty() || target.len() > PATH_BYTES {
                return None;
            }
            if target.starts_with(b"/") {
                here.clear();
            }
            rest.extend(components(&target).rev().map(<[u8]>::to_vec));
            links.push((next, target));
            continue;
        }
        if found.kind == FileKind::Directory {
            directories.push((next.clone(), found));
        }
        (here, stat) = (next, found);
    }
    if here.is_empty() {
        // Only directories lead back to the root.
        stat.kind = FileKind::Directory;
        here.push(b'/');
    }
    Some(Walked { path: here, stat, links, directories })
}

/// Follows a path to a regular file.
pub(crate) fn walk_to_file(files: &dyn Files, path: &[u8]) -> Option<Walked> {
    walk(files, path).filter(|walked| walked.stat.kind == FileKind::File)
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."))
}

/// The directory a path is in; empty for the root's children.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    path.get(..slash).unwrap_or_default()
}

/// `name` below `directory`, unless `name` is absolute already.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if name.starts_with(b"/") {
        return name.to_vec();
    }
    let directory = directory.strip_suffix(b"/").unwrap_or(directory);
    [directory, b"/", name].concat()
}

/// A path for people: bytes that are not text, and control characters, are escaped.
pub(crate) fn shown(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for character in String::from_utf8_lossy(path).chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MemoryFiles;

    fn leads(files: &MemoryFiles, path: &str) -> Option<String> {
        walk(files, path.as_bytes()).map(|walked| shown(&walked.path))
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let files = MemoryFiles::new()
            .file("/usr/bin/ls", b"x")
            .link("/bin", "usr/bin")
            .link("/usr/up", "../../../bin/./ls")
            .link("/abs", "/bin");
        assert_eq!(leads(&files, "/bin/ls").as_deref(), Some("/usr/bin/ls"));
        assert_eq!(leads(&files, "/usr/up").as_deref(), Some("/usr/bin/ls"));
        assert_eq!(leads(&files, "/abs//ls").as_deref(), Some("/usr/bin/ls"));
        assert_eq!(leads(&files, "/bin/../..").as_deref(), Some("/"));
        assert_eq!(leads(&files, "/bin/ls/x"), None);
        assert_eq!(leads(&files, "/bin/none"), None);
        let links = walk(&files, b"/abs/ls").unwrap().links;
        assert_eq!(links.len(), 2);
    }

    #[test]
    fn a_loop_of_links_ends() {
        let files = MemoryFiles::new().link("/a", "b/x").link("/b", "a/x").link("/c", "c");
        assert_eq!(leads(&files, "/a"), None);
        assert_eq!(leads(&files, "/c"), None);
    }

    #[test]
    fn control_characters_are_shown_escaped() {
        assert_eq!(shown(b"/a\r\x1b[1m"), "/a\\r\\u{1b}[1m");
    }
}
