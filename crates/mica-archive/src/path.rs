//! Paths of layers: bytes, compared component by component.
//!
//! A path here has no leading, trailing or double slash, no `.`, no `..` and no NUL; the root is the empty path.

use std::cmp::Ordering;

/// Longest path accepted (security.md section 5).
pub(crate) const MAX_PATH_BYTES: usize = 4096;
/// Longest component accepted.
pub(crate) const MAX_COMPONENT_BYTES: usize = 255;

/// Compares two paths component by component: a directory comes directly before what is below it.
///
/// Equal to comparing bytes with `/` below every other byte, so `a` < `a/b` < `a.b`.
pub fn compare(left: &[u8], right: &[u8]) -> Ordering {
    let common = common_prefix(left, right);
    match (left.get(common), right.get(common)) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(b'/'), Some(_)) => Ordering::Less,
        (Some(_), Some(b'/')) => Ordering::Greater,
        (Some(a), Some(b)) => a.cmp(b),
    }
}

/// How many bytes two paths have in common at their start. Compares blocks first: deep paths share most of theirs.
pub(crate) fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    const BLOCK: usize = 32;
    let blocks = left.chunks_exact(BLOCK).zip(right.chunks_exact(BLOCK));
    let start = blocks.take_while(|(a, b)| a == b).count() * BLOCK;
    start + left[start..].iter().zip(&right[start..]).take_while(|(a, b)| a == b).count()
}

/// Whether `path` is strictly below `directory`.
pub fn is_below(path: &[u8], directory: &[u8]) -> bool {
    if directory.is_empty() {
        return !path.is_empty();
    }
    path.len() > directory.len() && path[directory.len()] == b'/' && path.starts_with(directory)
}

/// The directory a path is in; `None` for the root.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    Some(path.iter().rposition(|&byte| byte == b'/').map_or(&[], |slash| &path[..slash]))
}

/// The last component; empty for the root.
pub fn file_name(path: &[u8]) -> &[u8] {
    path.iter().rposition(|&byte| byte == b'/').map_or(path, |slash| &path[slash + 1..])
}

/// Appends a component.
pub fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if !directory.is_empty() && !name.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// The components of a path, outermost first; none for the root.
pub(crate) fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|component| !component.is_empty())
}

/// Whether `path` has the form this module promises, within the limits.
pub(crate) fn is_normal(path: &[u8]) -> bool {
    path.is_empty()
        || (path.len() <= MAX_PATH_BYTES && path.split(|&byte| byte == b'/').all(is_normal_component))
}

/// Whether `name` can be the name of a file.
pub(crate) fn is_normal_component(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= MAX_COMPONENT_BYTES
        && name != b"."
        && name != b".."
        && !name.contains(&0)
        && !name.contains(&b'/')
}

/// A path that orders as this module compares; a key for maps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PathKey(pub(crate) Vec<u8>);

impl PartialOrd for PathKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PathKey {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

/// Bytes as text for messages: control characters and invalid UTF-8 are escaped.
pub(crate) fn show(path: &[u8]) -> String {
    path.escape_ascii().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_comes_directly_before_its_children() {
        let mut paths: Vec<&[u8]> = vec![b"a.b", b"a/c", b"", b"a", b"a/b/z", b"a/b", b"ab", b"a-"];
        paths.sort_by(|a, b| compare(a, b));
        assert_eq!(paths, [&b""[..], b"a", b"a/b", b"a/b/z", b"a/c", b"a-", b"a.b", b"ab"]);
    }

    #[test]
    fn long_paths_compare_as_short_ones() {
        for length in 0..100 {
            let (mut left, mut right) = (vec![b'x'; 100], vec![b'x'; 100]);
            right[length] = b'y';
            assert_eq!(compare(&left, &right), Ordering::Less);
            assert_eq!(compare(&left[..length], &left), Ordering::Less);
            left[length] = b'/';
            assert_eq!(compare(&left, &right), Ordering::Less);
        }
    }

    #[test]
    fn below_means_a_whole_component() {
        assert!(is_below(b"a/b", b"a"));
        assert!(!is_below(b"ab", b"a"));
        assert!(!is_below(b"a", b"a"));
        assert!(is_below(b"a", b""));
        assert!(!is_below(b"", b""));
    }

    #[test]
    fn unusual_paths_are_not_normal() {
        for path in [&b"/a"[..], b"a/", b"a//b", b".", b"a/../b", b"a\0b"] {
            assert!(!is_normal(path), "{}", show(path));
        }
        assert!(is_normal(b""));
        assert!(is_normal(b"a/...b/.c"));
    }
}
