//! What a layer contains so far, in memory: the answer to every question about paths while it is applied.
//!
//! The destination starts empty, so this map and not the disk says what a path is. Links are followed here, inside the
//! root; the disk is then only touched at real paths, where a link would be an error.

use std::collections::{BTreeMap, VecDeque};

use super::ApplyError;
use crate::entry::{ContentDigest, Entry, Kind};
use crate::path::{self, PathKey};
use crate::table::Table;

/// Links followed in one look-up before it is taken for a loop, as in the kernel.
const MAX_LINKS: usize = 40;

/// A path of the layer.
#[derive(Debug)]
pub(crate) enum Node {
    /// A name of the file with this number.
    File(usize),
    /// Anything else; its path is the key.
    Other(Entry),
}

/// A regular file, whatever names it has.
#[derive(Debug)]
pub(crate) struct Inode {
    /// Metadata and [`Kind::File`]; its path is unused.
    pub(crate) entry: Entry,
    pub(crate) names: usize,
}

/// The path that each file of the tree has in the table, by number; none if it lost its last name.
pub(crate) type FilePaths = Vec<Option<Vec<u8>>>;

/// Where the walk to a path's directory stopped.
#[derive(Debug)]
pub(crate) enum Step {
    /// It is this directory.
    Found(Vec<u8>),
    /// This path has to become a directory first.
    Missing(Vec<u8>),
}

/// `real` with the components up to the first `..` appended, and where each of them ends.
fn run(real: &[u8], components: &VecDeque<Vec<u8>>) -> (Vec<u8>, Vec<usize>) {
    let mut whole = real.to_vec();
    let mut ends = Vec::new();
    for component in components.iter().take_while(|component| component.as_slice() != b"..") {
        if !whole.is_empty() {
            whole.push(b'/');
        }
        whole.extend_from_slice(component);
        ends.push(whole.len());
    }
    (whole, ends)
}

#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<PathKey, Node>,
    pub(crate) inodes: Vec<Inode>,
    /// The last directory looked up and what it really is; most members are next to the one before.
    last: Option<(Vec<u8>, Vec<u8>)>,
}

impl Tree {
    pub(crate) fn get(&self, path: &[u8]) -> Option<&Node> {
        // A key is owned bytes; the look-up copies, which is small beside creating a file.
        self.nodes.get(&PathKey(path.to_vec()))
    }

    pub(crate) fn get_mut(&mut self, path: &[u8]) -> Option<&mut Node> {
        self.nodes.get_mut(&PathKey(path.to_vec()))
    }

    /// Follows links inside the layer to the directory that `directory` names.
    pub(crate) fn real_directory(&mut self, directory: &[u8]) -> Result<Step, ApplyError> {
        if let Some((asked, real)) = &self.last
            && asked == directory
        {
            return Ok(Step::Found(real.clone()));
        }
        let step = self.walk(directory)?;
        if let Step::Found(real) = &step {
            self.last = Some((directory.to_vec(), real.clone()));
        }
        Ok(step)
    }

    /// Every key is a real path, so whether a prefix is a directory is monotone and one binary search finds how far the
    /// path goes without a link: deep paths cost look-ups by the logarithm of their depth.
    fn walk(&self, directory: &[u8]) -> Result<Step, ApplyError> {
        let mut todo: VecDeque<Vec<u8>> = path::components(directory).map(<[u8]>::to_vec).collect();
        let mut real = Vec::new();
        let mut links = 0;
        while let Some(first) = todo.front() {
            if first == b".." {
                real.truncate(path::parent(&real).map_or(0, <[u8]>::len));
                todo.pop_front();
                continue;
            }
            let (whole, ends) = run(&real, &todo);
            let known = ends.partition_point(|end| self.is_directory(&whole[..*end]));
            todo.drain(..known);
            if known > 0 {
                real = whole[..ends[known - 1]].to_vec();
            }
            let Some(end) = ends.get(known) else { continue };
            let next = &whole[..*end];
            let component = path::file_name(next);
            if next.len() > path::MAX_PATH_BYTES || component.len() > path::MAX_COMPONENT_BYTES {
                return Err(ApplyError::Link {
                    path: path::show(directory),
                    why: "it leads to a path too long",
                });
            }
            match self.get(next) {
                None => return Ok(Step::Missing(next.to_vec())),
                Some(Node::Other(Entry { kind: Kind::Whiteout, .. })) => {
                    return Ok(Step::Missing(next.to_vec()));
                }
                Some(Node::Other(Entry { kind: Kind::Symlink { target }, .. })) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(ApplyError::Link { path: path::show(directory), why: "it is a loop" });
                    }
                    todo.pop_front();
                    if target.starts_with(b"/") {
                        real.clear();
                    }
                    let parts = path::components(target).filter(|part| part != b".");
                    for part in parts.collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(part.to_vec());
                    }
                }
                Some(_) => return Err(ApplyError::NotADirectory { path: path::show(next) }),
            }
        }
        Ok(Step::Found(real))
    }

    fn is_directory(&self, path: &[u8]) -> bool {
        matches!(self.get(path), Some(Node::Other(Entry { kind: Kind::Directory { .. }, .. })))
    }

    /// Puts something at a path where nothing is.
    pub(crate) fn insert(&mut self, path: Vec<u8>, node: Node) {
        if let Node::File(inode) = node {
            self.inodes[inode].names += 1;
        }
        self.nodes.insert(PathKey(path), node);
    }

    /// Adds a file without a name yet; returns its number.
    pub(crate) fn add_inode(&mut self, entry: Entry) -> usize {
        self.inodes.push(Inode { entry, names: 0 });
        self.inodes.len() - 1
    }

    pub(crate) fn set_digest(&mut self, inode: usize, digest: ContentDigest) {
        if let Kind::File { digest: slot, .. } = &mut self.inodes[inode].entry.kind {
            *slot = Some(digest);
        }
    }

    /// The paths at and below `top`.
    pub(crate) fn subtree(&self, top: &[u8]) -> Vec<Vec<u8>> {
        let start = PathKey(top.to_vec());
        self.nodes
            .range(start..)
            .map(|(key, _)| &key.0)
            .take_while(|path| path.as_slice() == top || path::is_below(path, top))
            .cloned()
            .collect()
    }

    /// Removes a path; returns the number of the file that lost its last name, if one did.
    pub(crate) fn remove(&mut self, path: &[u8]) -> Option<usize> {
        self.last = None;
        match self.nodes.remove(&PathKey(path.to_vec()))? {
            Node::File(inode) => {
                self.inodes[inode].names -= 1;
                (self.inodes[inode].names == 0).then_some(inode)
            }
            Node::Other(_) => None,
        }
    }

    /// All directories, deepest content first, with their entries.
    pub(crate) fn directories(&self) -> impl Iterator<Item = (&[u8], &Entry)> {
        self.others().rev().filter(|(_, entry)| entry.kind.is_directory())
    }

    /// All whiteouts in order.
    pub(crate) fn whiteouts(&self) -> impl Iterator<Item = &[u8]> {
        self.others().filter(|(_, entry)| entry.kind == Kind::Whiteout).map(|(path, _)| path)
    }

    fn others(&self) -> impl DoubleEndedIterator<Item = (&[u8], &Entry)> {
        self.nodes.iter().filter_map(|(key, node)| match node {
            Node::Other(entry) => Some((key.0.as_slice(), entry)),
            Node::File(_) => None,
        })
    }

    /// Turns the tree into a table, and says which path each file has there.
    ///
    /// Of a file with several names the first in order is the file and the others are hard links to it.
    pub(crate) fn into_table(self) -> Result<(Table, FilePaths), ApplyError> {
        let mut first: FilePaths = vec![None; self.inodes.len()];
        let mut entries = Vec::with_capacity(self.nodes.len());
        for (PathKey(path), node) in self.nodes {
            entries.push(match node {
                Node::Other(entry) => Entry { path, ..entry },
                Node::File(inode) => {
                    let file = &self.inodes[inode].entry;
                    match &first[inode] {
                        None => {
                            first[inode] = Some(path.clone());
                            Entry { path, ..file.clone() }
                        }
                        Some(target) => {
                            let kind = Kind::Hardlink { target: target.clone() };
                            let Entry { mode, uid, gid, mtime, .. } = *file;
                            Entry { path, kind, mode, uid, gid, mtime, xattrs: BTreeMap::new() }
                        }
                    }
                }
            });
        }
        Ok((Table::from_entries(entries)?, first))
    }
}
