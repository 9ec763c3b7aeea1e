//! What COPY reads from: a tree of files with their attributes, be it a stack of layers or a directory of the client.

use std::collections::BTreeMap;
use std::io;

use mica_archive::{ContentDigest, Entry, Kind, Timestamp, View, path};

use crate::context::Identity;

/// Symbolic links followed in one look-up before it is taken for a loop.
const MAX_LINKS: usize = 255;

/// A path of a tree. Hard links are ordinary files here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Node<'a> {
    /// What is there.
    pub kind: NodeKind<'a>,
    /// Permission bits, `0o7777`.
    pub mode: u32,
    /// Owner; always 0 in a local context.
    pub uid: u32,
    /// Group; always 0 in a local context.
    pub gid: u32,
    /// Time of the last change.
    pub mtime: Timestamp,
    /// Extended attributes that belong into a layer.
    pub xattrs: Option<&'a BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Of a file: the digest of its bytes, if it is known without reading; else see [`Tree::digests`].
    pub digest: Option<ContentDigest>,
    /// How many names the file has, wherever they are, if that is known.
    pub names: Option<u32>,
}

/// What a path of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind<'a> {
    /// A regular file.
    File {
        /// Its length.
        size_bytes: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// What it points to.
        target: &'a [u8],
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

impl Node<'_> {
    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        self.kind == NodeKind::Directory
    }
}

/// How a copier recognises that a file is not any more what its digest was made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// The file has still this identity when its last byte was read.
    Identity(Identity),
    /// The bytes have this digest: the file was too young for its identity to mean anything.
    Digest(ContentDigest),
}

/// Why a tree could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The file system refused.
    #[error("cannot {action} /{}", String::from_utf8_lossy(path))]
    Io {
        /// What was tried.
        action: &'static str,
        /// Path inside the tree.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// A layer table without the digest of a file: the layer was never finished.
    #[error("no digest is known for /{}", String::from_utf8_lossy(.0))]
    NoDigest(Vec<u8>),
}

impl TreeError {
    pub(crate) fn io(action: &'static str, path: &[u8]) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_vec();
        move |source| Self::Io { action, path, source }
    }
}

/// A tree of files. Paths are slash paths without leading or trailing slash; the root is `""`.
///
/// No look-up follows a link; [`resolve`] does, and never leaves the tree.
pub trait Tree: Send + Sync {
    /// Returns what is at `path`. The root always exists and is a directory.
    fn get(&self, path: &[u8]) -> Result<Option<Node<'_>>, TreeError>;

    /// Returns names and nodes directly in a directory, sorted by name.
    fn children<'a>(&'a self, directory: &'a [u8]) -> Result<Vec<(&'a [u8], Node<'a>)>, TreeError>;

    /// Says that everything below `directory` will be asked for.
    fn prefetch(&self, _directory: &[u8]) -> Result<(), TreeError> {
        Ok(())
    }

    /// Returns the content digests of regular files, in the order of `files`.
    fn digests(&self, files: &[Vec<u8>]) -> Result<Vec<ContentDigest>, TreeError>;

    /// Returns what a copier has to find; `None` where files cannot change.
    fn expectation(&self, _file: &[u8]) -> Option<Expectation> {
        None
    }
}

impl<'a> From<&'a Entry> for Node<'a> {
    fn from(entry: &'a Entry) -> Self {
        let kind = match &entry.kind {
            Kind::File { size, .. } => NodeKind::File { size_bytes: *size },
            Kind::Directory { .. } => NodeKind::Directory,
            Kind::Symlink { target } => NodeKind::Symlink { target },
            Kind::CharDevice { major, minor } => NodeKind::CharDevice { major: *major, minor: *minor },
            Kind::BlockDevice { major, minor } => NodeKind::BlockDevice { major: *major, minor: *minor },
            Kind::Fifo => NodeKind::Fifo,
            // A view resolves hard links and applies whiteouts, so neither is ever met.
            Kind::Hardlink { .. } | Kind::Whiteout => NodeKind::File { size_bytes: 0 },
        };
        let digest = if let Kind::File { digest, .. } = entry.kind { digest } else { None };
        Self {
            digest,
            names: None,
            kind,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: Some(&entry.xattrs),
        }
    }
}

impl Tree for View {
    fn get(&self, path: &[u8]) -> Result<Option<Node<'_>>, TreeError> {
        Ok(View::get(self, path).map(Node::from))
    }

    fn children<'a>(&'a self, directory: &'a [u8]) -> Result<Vec<(&'a [u8], Node<'a>)>, TreeError> {
        Ok(View::children(self, directory).map(|(name, entry)| (name, Node::from(entry))).collect())
    }

    fn digests(&self, files: &[Vec<u8>]) -> Result<Vec<ContentDigest>, TreeError> {
        let digest = |path: &Vec<u8>| match View::get(self, path).map(|entry| &entry.kind) {
            Some(Kind::File { digest: Some(digest), .. }) => Ok(*digest),
            _ => Err(TreeError::NoDigest(path.clone())),
        };
        files.iter().map(digest).collect()
    }
}

/// Follows all links of a path inside the tree; `None` if something on the way is missing or no directory.
///
/// Absolute targets restart at the root of the tree, and `..` stops there.
pub fn resolve(tree: &dyn Tree, path: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
    let mut todo: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
    let mut real = Vec::new();
    let mut links = 0;
    while let Some(component) = todo.pop() {
        if component == b".." {
            real.truncate(path::parent(&real).map_or(0, <[u8]>::len));
            continue;
        }
        let next = path::join(&real, &component);
        match tree.get(&next)? {
            None => return Ok(None),
            Some(Node { kind: NodeKind::Symlink { target }, .. }) => {
                links += 1;
                if links > MAX_LINKS {
                    return Ok(None);
                }
                if target.starts_with(b"/") {
                    real.clear();
                }
                todo.extend(components(target).rev().map(<[u8]>::to_vec));
            }
            Some(node) if node.is_directory() || todo.is_empty() => real = next,
            Some(_) => return Ok(None),
        }
    }
    Ok(Some(real))
}

/// The components of a slash path; empty ones and `.` mean nothing.
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|component| !matches!(*component, b"" | b"."))
}

/// A slash path without leading slash, dots and doubled slashes; `..` stops at the root (C2).
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for component in components(path) {
        if component == b".." {
            kept.pop();
        } else {
            kept.push(component);
        }
    }
    kept.join(&b'/')
}
