//! Content digest of a selection (build.md K4, K5): what COPY would write, without times and places.
//!
//! ```text
//! node      = blake3(header, bytes digest)                      anything but a directory
//! directory = blake3(header or nothing, (name, node or directory)*)   children sorted by name
//! selection = blake3((name as written, node or directory)*)     in the order of copying
//! ```
//! The header is type, mode, owner, size, link target, device numbers and attributes; not times, not inode, not links.

use mica_archive::{ContentDigest, path};

use super::{Node, NodeKind, Selection, Tree, TreeError, Verdict};

/// Raised when the meaning of a digest changes, so that no old record is hit again.
const VERSION: u8 = 1;

/// Returns the digest of everything a selection takes.
///
/// Reads no file itself: digests of bytes come from [`Tree::digests`], all in one call.
pub fn selection_digest(tree: &dyn Tree, selection: &Selection) -> Result<[u8; 32], TreeError> {
    let mut collector = Collector { tree, selection, files: Vec::new(), buffer: Vec::new() };
    let mut parts = Vec::with_capacity(selection.items.len());
    for item in &selection.items {
        let Some(node) = tree.get(&item.path)? else { continue };
        if let Some(part) = collector.part(&item.path, b"", &node, item.with_header)? {
            parts.push((item.name.clone(), part));
        }
    }
    let digests = tree.digests(&collector.files)?;
    let mut bytes = vec![VERSION];
    for (name, part) in parts {
        put(&mut bytes, &name);
        bytes.extend_from_slice(&part.digest(&digests));
    }
    Ok(*blake3::hash(&bytes).as_bytes())
}

/// A selected path before the digests of bytes are known.
enum Part {
    /// A regular file that has to be read; its bytes are number `index` of those.
    File { header: Vec<u8>, index: usize },
    /// Something without bytes, or with known ones: ready.
    Other([u8; 32]),
    /// A directory.
    Directory { header: Vec<u8>, children: Vec<(Vec<u8>, Part)> },
}

impl Part {
    fn digest(self, digests: &[ContentDigest]) -> [u8; 32] {
        match self {
            Self::Other(digest) => digest,
            Self::File { mut header, index } => {
                header.extend_from_slice(&digests[index].0);
                *blake3::hash(&header).as_bytes()
            }
            Self::Directory { header, children } => {
                let mut bytes = header;
                for (name, child) in children {
                    put(&mut bytes, &name);
                    bytes.extend_from_slice(&child.digest(digests));
                }
                *blake3::hash(&bytes).as_bytes()
            }
        }
    }
}

struct Collector<'a> {
    tree: &'a dyn Tree,
    selection: &'a Selection,
    files: Vec<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Collector<'_> {
    fn part(
        &mut self,
        path: &[u8],
        relative: &[u8],
        node: &Node<'_>,
        with_header: bool,
    ) -> Result<Option<Part>, TreeError> {
        let verdict = self.selection.filter.judge(relative, node);
        match (verdict, node.kind) {
            (Verdict::Leave, _) => Ok(None),
            (_, NodeKind::Directory) => {
                let children = self.children(path, relative)?;
                if verdict == Verdict::Descend && children.is_empty() {
                    return Ok(None);
                }
                let header = if with_header { self.header(node).to_vec() } else { b"-".to_vec() };
                Ok(Some(Part::Directory { header, children }))
            }
            (_, NodeKind::File { .. }) => {
                if let Some(digest) = node.digest {
                    self.header(node);
                    self.buffer.extend_from_slice(&digest.0);
                    return Ok(Some(Part::Other(*blake3::hash(&self.buffer).as_bytes())));
                }
                let header = self.header(node).to_vec();
                self.files.push(path.to_vec());
                Ok(Some(Part::File { header, index: self.files.len() - 1 }))
            }
            _ => Ok(Some(Part::Other(*blake3::hash(self.header(node)).as_bytes()))),
        }
    }

    fn children(&mut self, path: &[u8], relative: &[u8]) -> Result<Vec<(Vec<u8>, Part)>, TreeError> {
        let listed = self.tree.children(path)?;
        let mut children = Vec::with_capacity(listed.len());
        for (name, node) in listed {
            let child = path::join(path, name);
            if let Some(part) = self.part(&child, &path::join(relative, name), &node, true)? {
                children.push((name.to_vec(), part));
            }
        }
        Ok(children)
    }

    /// The attributes of a node as bytes; every field has a fixed or a written length.
    fn header(&mut self, node: &Node<'_>) -> &[u8] {
        let bytes = &mut self.buffer;
        bytes.clear();
        let (kind, first, second, target): (u8, u64, u64, &[u8]) = match node.kind {
            NodeKind::File { size_bytes } => (b'f', size_bytes, 0, b""),
            NodeKind::Directory => (b'd', 0, 0, b""),
            NodeKind::Symlink { target } => (b'l', 0, 0, target),
            NodeKind::CharDevice { major, minor } => (b'c', major.into(), minor.into(), b""),
            NodeKind::BlockDevice { major, minor } => (b'b', major.into(), minor.into(), b""),
            NodeKind::Fifo => (b'p', 0, 0, b""),
        };
        bytes.push(kind);
        // File systems disagree about the mode of a link, and nothing uses it.
        let mode = if kind == b'l' { 0o777 } else { node.mode };
        for number in [mode, node.uid, node.gid] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for number in [first, second] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        put(bytes, target);
        for (name, value) in node.xattrs.into_iter().flatten().filter(|(name, _)| counts(name)) {
            put(bytes, name);
            put(bytes, value);
        }
        // Ends the list of attributes: no name is empty.
        put(bytes, b"");
        bytes
    }
}

/// Whether an extended attribute is part of a key: host labels are not (K5).
fn counts(name: &[u8]) -> bool {
    name == b"security.capability" || !(name.starts_with(b"security.") || name.starts_with(b"system."))
}

fn put(bytes: &mut Vec<u8>, field: &[u8]) {
    bytes.extend_from_slice(&(field.len() as u64).to_le_bytes());
    bytes.extend_from_slice(field);
}
