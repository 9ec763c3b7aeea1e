//! The build context on this machine: a directory, seen through `.dockerignore`, whose files are read only when needed.
//!
//! Directories are listed when somebody asks for them, so a context is as expensive as what COPY takes of it. Whole
//! subtrees are listed by two threads ([`Tree::prefetch`]); file digests come from the stat cache where the file's
//! identity is known, and are computed in parallel where not.
//!
//! # Invariants
//! 1. Everything is opened below the context's own descriptor without following links (security.md row 36).
//! 2. A digest is remembered only if the file had been left alone for [`SETTLED_SECONDS`] when it was read; the digest
//!    of a younger file is good for this build, and the copier checks it again ([`Expectation::Digest`]).

mod hashing;
mod identity;
mod prefetch;
mod scan;
mod stat_cache;

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use mica_api::Cancel;
use mica_archive::{ContentDigest, OwnerLedger};
use mica_dockerfile::ignore::Patterns;
use mica_sys::root::Root;

use crate::select::{Expectation, Node, NodeKind, Tree, TreeError};

pub use identity::Identity;

use scan::{Directory, Item, ItemKind, Scanner};
use stat_cache::{Record, StatCache};

/// How long a file must have been left alone for its identity to stand for its bytes.
pub const SETTLED_SECONDS: i64 = 2;

/// A directory of the client as a [`Tree`].
#[derive(Debug)]
pub struct LocalContext {
    scanner: Scanner,
    top: Directory,
    /// Digests made in this process, by path, with the identity the file had and whether it may be remembered.
    made: Mutex<HashMap<Vec<u8>, Made>>,
}

/// A digest made in this process.
#[derive(Debug, Clone, Copy)]
struct Made {
    identity: Identity,
    digest: ContentDigest,
    settled: bool,
}

impl LocalContext {
    /// Opens a context. Nothing is read yet.
    ///
    /// `ignore` are the parsed patterns of its ignore file; `cache_file` is where digests are remembered.
    ///
    /// # Errors
    /// If `directory` cannot be opened as a directory.
    pub fn open(directory: &Path, ignore: Option<Patterns>, cache_file: Option<PathBuf>) -> io::Result<Self> {
        Ok(Self {
            scanner: Scanner {
                root: Root::open(directory)?,
                ignore,
                cache_file,
                cache: OnceLock::new(),
                owners: OwnerLedger::new(),
                cancel: Cancel::new(),
            },
            top: Directory::default(),
            made: Mutex::default(),
        })
    }

    /// The same context, but listing and reading it fail once somebody gives up.
    #[must_use]
    pub fn stopped_by(mut self, cancel: &Cancel) -> Self {
        self.scanner.cancel = cancel.clone();
        self
    }

    /// The same context with owners; without them, root owns everything (C5).
    #[must_use]
    pub fn owned_by(mut self, owners: OwnerLedger) -> Self {
        self.scanner.owners = owners;
        self
    }

    /// The root that its files are opened in.
    pub fn root(&self) -> &Root {
        &self.scanner.root
    }

    /// How many bytes were read for digests, for progress output.
    pub fn bytes_hashed(&self) -> u64 {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.values().map(|made| made.identity.size_bytes).sum()
    }

    /// Remembers the digests made, for the next build.
    ///
    /// Writes nothing if nothing is new. Records of files that this build has seen in another state are dropped.
    pub fn save(&self) -> io::Result<()> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &self.scanner.cache_file else { return Ok(()) };
        let fresh: Vec<Record> = made.iter().filter_map(|(path, made)| self.record(path, made)).collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let mut seen = HashMap::new();
        collect_identities(&self.top, &mut seen);
        let outdated = |identity: &Identity| {
            seen.get(&(identity.device, identity.inode)).is_some_and(|current| current != identity)
        };
        let mut records: Vec<Record> =
            self.scanner.cache().iter().filter(|record| !outdated(&record.identity)).collect();
        // Files that went away leave their records behind: start over once most of the cache is such.
        if records.len() > 4 * seen.len() + 10_000 {
            records.retain(|Record { identity, .. }| seen.contains_key(&(identity.device, identity.inode)));
        }
        records.extend(fresh);
        StatCache::save(file, records)
    }

    /// What may be remembered of a file whose digest was made: it was still when that was done, and the same when its
    /// directory was listed and its extended attributes were read.
    fn record(&self, path: &[u8], made: &Made) -> Option<Record> {
        let Made { identity, digest, settled } = *made;
        let item = self.find(path).ok().flatten()?;
        let has_xattrs = !item.xattrs.is_empty();
        (settled && item.identity == identity).then_some(Record { identity, digest, has_xattrs })
    }

    /// An entry as the tree shows it.
    fn node(item: &Item) -> Node<'_> {
        let (mut digest, mut file_names) = (None, None);
        let kind = match &item.kind {
            ItemKind::File { digest: remembered, names } => {
                (digest, file_names) = (*remembered, Some(*names));
                NodeKind::File { size_bytes: item.identity.size_bytes }
            }
            ItemKind::Directory { .. } => NodeKind::Directory,
            ItemKind::Symlink { target } => NodeKind::Symlink { target },
            ItemKind::CharDevice { major, minor } => NodeKind::CharDevice { major: *major, minor: *minor },
            ItemKind::BlockDevice { major, minor } => NodeKind::BlockDevice { major: *major, minor: *minor },
            ItemKind::Fifo => NodeKind::Fifo,
        };
        let xattrs = Some(&item.xattrs);
        let (uid, gid) = item.owner;
        let (mode, mtime) = (item.mode, item.identity.mtime);
        Node { kind, mode, uid, gid, mtime, xattrs, digest, names: file_names }
    }

    /// Finds an entry; `None` for what is missing, excluded or below something that is no directory.
    fn find(&self, path: &[u8]) -> io::Result<Option<&Item>> {
        let mut directory = &self.top;
        let mut start = 0;
        loop {
            let end = path[start..].iter().position(|&byte| byte == b'/').map_or(path.len(), |at| start + at);
            let above = &path[..start.saturating_sub(1)];
            let Some(item) = directory.find(&self.scanner, above, &path[start..end])? else {
                return Ok(None);
            };
            if end == path.len() {
                return Ok(self.exists(path, item)?.then_some(item));
            }
            let ItemKind::Directory { listing, .. } = &item.kind else { return Ok(None) };
            directory = listing;
            start = end + 1;
        }
    }

    /// Returns the listing of a directory.
    fn listing(&self, path: &[u8]) -> io::Result<&[Item]> {
        if path.is_empty() {
            return self.top.items(&self.scanner, path);
        }
        match self.find(path)? {
            Some(Item { kind: ItemKind::Directory { listing, .. }, .. }) => {
                listing.items(&self.scanner, path)
            }
            _ => Ok(&[]),
        }
    }

    /// Whether an entry is visible: an excluded directory only if something below it is re-included (D4).
    fn exists(&self, path: &[u8], item: &Item) -> io::Result<bool> {
        let ItemKind::Directory { listing, excluded: true } = &item.kind else { return Ok(true) };
        for child in listing.items(&self.scanner, path)? {
            if self.exists(&scan::child(path, child), child)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The identities of all files listed so far.
fn collect_identities(directory: &Directory, seen: &mut HashMap<(u64, u64), Identity>) {
    for item in directory.known().unwrap_or_default() {
        match &item.kind {
            ItemKind::File { .. } => {
                seen.insert((item.identity.device, item.identity.inode), item.identity);
            }
            ItemKind::Directory { listing, .. } => collect_identities(listing, seen),
            _ => {}
        }
    }
}

impl Tree for LocalContext {
    fn get(&self, path: &[u8]) -> Result<Option<Node<'_>>, TreeError> {
        if path.is_empty() {
            let stat = self.root().stat(b"").map_err(TreeError::io("read", path))?;
            let mtime = Identity::of(&stat).mtime;
            let mode = stat.st_mode & 0o7777;
            return Ok(Some(Node {
                kind: NodeKind::Directory,
                mode,
                uid: 0,
                gid: 0,
                mtime,
                xattrs: None,
                digest: None,
                names: None,
            }));
        }
        Ok(self.find(path).map_err(TreeError::io("read", path))?.map(Self::node))
    }

    fn children<'a>(&'a self, directory: &'a [u8]) -> Result<Vec<(&'a [u8], Node<'a>)>, TreeError> {
        let list = || {
            let mut children = Vec::new();
            for item in self.listing(directory)? {
                if self.exists(&scan::child(directory, item), item)? {
                    children.push((&*item.name, Self::node(item)));
                }
            }
            Ok(children)
        };
        list().map_err(TreeError::io("list", directory))
    }

    fn prefetch(&self, directory: &[u8]) -> Result<(), TreeError> {
        let listing = if directory.is_empty() {
            Some(&self.top)
        } else {
            match self.find(directory).map_err(TreeError::io("read", directory))? {
                Some(Item { kind: ItemKind::Directory { listing, .. }, .. }) => Some(&**listing),
                _ => None,
            }
        };
        listing.map_or(Ok(()), |listing| prefetch::list_below(&self.scanner, listing, directory))
    }

    fn digests(&self, files: &[Vec<u8>]) -> Result<Vec<ContentDigest>, TreeError> {
        hashing::digests(self, files)
    }

    fn expectation(&self, file: &[u8]) -> Option<Expectation> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner).get(file).copied();
        match made {
            Some(Made { settled: false, digest, .. }) => Some(Expectation::Digest(digest)),
            Some(Made { identity, .. }) => Some(Expectation::Identity(identity)),
            // Not hashed in this process: its digest, if anybody wanted it, came from the cache for this identity.
            None => {
                let item = self.find(file).ok().flatten()?;
                Some(Expectation::Identity(item.identity))
            }
        }
    }
}

#[cfg(test)]
mod tests;
