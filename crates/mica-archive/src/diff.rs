//! What a directory changed against the layers below it.
//!
//! A layer is a function of (parent view, new view) and of nothing else, so the two ways to look give the same table:
//! an overlay upper directory shows the changes, a full tree has to be compared. A directory of which everything is on
//! disk (a full tree, or an opaque directory of an upper) is handled in one way: what the parent has and the disk has
//! not becomes an explicit whiteout.
//!
//! A directory stays in the layer if anything about it or below it changed (build.md G10): without its entry, tools
//! that unpack the layer would have to invent its mode and owner.

use std::collections::HashMap;
use std::io;

use mica_sys::root::{DirItem, Root, Timestamp};
use rustix::fs::{AtFlags, FileType, Stat};

use crate::directories::{Directories, c_name};
use crate::entry::{ContentDigest, Entry, Kind};
use crate::limits::{Cancelled, NEVER};
use crate::owners::{OwnerLedger, OwnerPolicy};
use crate::path;
use crate::table::{Table, TableError};
use crate::tar::BUFFER_BYTES;
use crate::view::View;
use crate::xattr;

/// How to look at the directory.
#[derive(Clone, Copy)]
pub struct DiffOptions<'a> {
    /// Whether owners on disk are true. With [`OwnerPolicy::Ledger`] a path keeps the owner it has in the parent
    /// unless the ledger names another one.
    pub owners: OwnerPolicy,
    /// Asked per entry.
    pub cancel: Cancelled<'a>,
    /// Files that another layer on this disk has as well.
    pub shared: Option<&'a SharedFiles>,
}

/// Files that are hard links to files of another layer, with their entries there, by path. How many names they have says
/// nothing about this layer.
pub type SharedFiles = HashMap<Vec<u8>, Entry>;

impl Default for DiffOptions<'_> {
    fn default() -> Self {
        Self { owners: OwnerPolicy::Exact, cancel: NEVER, shared: None }
    }
}

/// The changes found, and what the disk needs so that it shows them and nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UpperDiff {
    /// The layer; files have no content digest yet unless it was needed for comparing.
    pub table: Table,
    /// Directories whose overlay opaque attribute is to be removed, once `whiteouts` exist.
    pub opaque: Vec<Vec<u8>>,
    /// Whiteouts of the table that are not on disk yet.
    pub whiteouts: Vec<Vec<u8>>,
    /// Paths on disk that are not in the table (unchanged copies of the parent), content before its directory.
    pub dropped: Vec<Vec<u8>>,
}

/// Why a directory could not be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// Something in the directory cannot be read.
    #[error("cannot read {path:?} of the layer")]
    Read {
        /// Path in the directory, escaped.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The directory has something that no layer can hold.
    #[error("cannot make a layer of this directory")]
    Table(#[from] TableError),
    /// The user gave up.
    #[error("cancelled")]
    Cancelled,
}

/// Returns what an overlay upper directory changed against the view of the layers below.
///
/// Opaque directories become explicit whiteouts and `*.overlay.*` attributes are dropped. Files equal to the parent's
/// in metadata, size and content (a copy-up that changed nothing) are left out.
///
/// # Errors
/// [`DiffError`] if the directory cannot be read, or holds a name no layer can have.
pub fn diff_upper(
    upper: &Root,
    parent: &View,
    owners: &OwnerLedger,
    options: &DiffOptions<'_>,
) -> Result<UpperDiff, DiffError> {
    Differ::new(upper, parent, owners, options, Form::Upper).run()
}

/// Returns what a whole tree changed against the view it started from: for drivers without overlays.
///
/// # Errors
/// As [`diff_upper`].
pub fn diff_views(
    old: &View,
    new: &Root,
    owners: &OwnerLedger,
    options: &DiffOptions<'_>,
) -> Result<UpperDiff, DiffError> {
    Differ::new(new, old, owners, options, Form::Whole).run()
}

/// What a directory on disk shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Changes; 0:0 character devices are whiteouts.
    Upper,
    /// Everything.
    Whole,
}

/// A directory being compared.
struct Frame {
    /// Its entry, added to the table when the frame ends if it is worth it.
    entry: Entry,
    items: std::vec::IntoIter<DirItem>,
    /// Whether what is not on disk is gone.
    complete: bool,
    /// Whether the directory itself, or something in it, changed.
    changed: bool,
}

struct Differ<'a> {
    directories: Directories<'a>,
    parent: &'a View,
    owners: &'a OwnerLedger,
    options: &'a DiffOptions<'a>,
    form: Form,
    entries: Vec<Entry>,
    /// First path of each hard-linked file.
    linked: HashMap<(u64, u64), usize>,
    found: UpperDiff,
    scratch: Vec<u8>,
}

impl<'a> Differ<'a> {
    fn new(
        root: &'a Root,
        parent: &'a View,
        owners: &'a OwnerLedger,
        options: &'a DiffOptions<'a>,
        form: Form,
    ) -> Self {
        Self {
            directories: Directories::new(root),
            parent,
            owners,
            options,
            form,
            entries: Vec::new(),
            linked: HashMap::new(),
            found: UpperDiff::default(),
            scratch: Vec::new(),
        }
    }

    /// Walks without recursion: a tree may be deeper than the stack.
    fn run(mut self) -> Result<UpperDiff, DiffError> {
        let root = self.root_frame()?;
        let mut frames = vec![root];
        while let Some(frame) = frames.last_mut() {
            if let Some(item) = frame.items.next() {
                let path = path::join(&frame.entry.path, &item.name);
                let complete = frame.complete;
                if let Some(inner) = self.item(path, frame, complete)? {
                    frames.push(inner);
                }
            } else if let Some(done) = frames.pop() {
                let changed = self.leave(done);
                if let Some(outer) = frames.last_mut() {
                    outer.changed |= changed;
                }
            }
        }
        self.found.table = Table::from_entries(self.entries)?;
        Ok(self.found)
    }

    fn root_frame(&mut self) -> Result<Frame, DiffError> {
        let stat =
            rustix::fs::fstat(self.directories.root().as_fd()).map_err(|error| unreadable(b"", error))?;
        self.frame(Vec::new(), &stat, self.form == Form::Whole)
    }

    /// Opens a directory for comparing.
    fn frame(&mut self, path: Vec<u8>, stat: &Stat, complete: bool) -> Result<Frame, DiffError> {
        let (entry, opaque) = self.entry(path, Kind::Directory { opaque: false }, stat)?;
        let items =
            self.directories.root().read_dir(&entry.path).map_err(|error| unreadable(&entry.path, error))?;
        if opaque {
            self.found.opaque.push(entry.path.clone());
        }
        let complete = complete || opaque;
        let gone = if complete { self.whiteouts(&entry.path, &items) } else { Vec::new() };
        let changed = !gone.is_empty() || self.differs(&entry);
        self.entries.extend(gone);
        Ok(Frame { entry, items: items.into_iter(), complete, changed })
    }

    /// Whiteouts for everything the parent has in a directory and the disk has not.
    fn whiteouts(&mut self, directory: &[u8], items: &[DirItem]) -> Vec<Entry> {
        let missing = |name: &[u8]| items.binary_search_by(|item| item.name.as_slice().cmp(name)).is_err();
        let gone: Vec<Entry> = self
            .parent
            .children(directory)
            .filter(|(name, _)| missing(name))
            .map(|(name, _)| Entry::whiteout(path::join(directory, name)))
            .collect();
        if self.form == Form::Upper {
            self.found.whiteouts.extend(gone.iter().map(|entry| entry.path.clone()));
        }
        gone
    }

    /// Whether a directory's own metadata changed. The root's time does not count: every step touches it.
    fn differs(&self, entry: &Entry) -> bool {
        let Some(old) = self.parent.get(&entry.path) else { return true };
        let times = entry.path.is_empty() || entry.mtime == old.mtime;
        !(old.kind.is_directory() && times && same_owner_and_mode(entry, old))
    }

    /// Ends a directory; says whether it is part of the layer.
    fn leave(&mut self, frame: Frame) -> bool {
        if frame.entry.path.is_empty() {
            if self.differs(&frame.entry) {
                self.entries.push(frame.entry);
            }
        } else if frame.changed {
            self.entries.push(frame.entry);
        } else {
            self.found.dropped.push(frame.entry.path);
        }
        frame.changed
    }

    /// Compares one name of a directory; returns the frame of a directory to descend into.
    fn item(&mut self, path: Vec<u8>, frame: &mut Frame, complete: bool) -> Result<Option<Frame>, DiffError> {
        if (self.options.cancel)() {
            return Err(DiffError::Cancelled);
        }
        let stat = self.stat(&path).map_err(|error| unreadable(&path, error))?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match file_type {
            FileType::Directory => return self.frame(path, &stat, complete).map(Some),
            FileType::CharacterDevice if device == (0, 0) => {
                frame.changed |= self.whiteout_on_disk(path);
                return Ok(None);
            }
            // A socket means nothing without the process behind it.
            FileType::Socket | FileType::Unknown => {
                self.found.dropped.push(path);
                return Ok(None);
            }
            FileType::RegularFile => return self.file(path, &stat, frame).map(|()| None),
            FileType::Symlink => {
                Kind::Symlink { target: self.read_link(&path).map_err(|error| unreadable(&path, error))? }
            }
            FileType::CharacterDevice => Kind::CharDevice { major: device.0, minor: device.1 },
            FileType::BlockDevice => Kind::BlockDevice { major: device.0, minor: device.1 },
            FileType::Fifo => Kind::Fifo,
        };
        let (entry, _) = self.entry(path, kind, &stat)?;
        let old = self.parent.get(&entry.path);
        if old.is_some_and(|old| old.kind == entry.kind && same_metadata(&entry, old)) {
            self.found.dropped.push(entry.path);
        } else {
            self.entries.push(entry);
            frame.changed = true;
        }
        Ok(None)
    }

    /// A 0:0 device: a whiteout in an upper directory, nothing that a layer may hold elsewhere (security.md row 8).
    fn whiteout_on_disk(&mut self, path: Vec<u8>) -> bool {
        let hides = self.form == Form::Upper && self.parent.locate(&path).is_some();
        if hides {
            self.entries.push(Entry::whiteout(path));
        } else {
            self.found.dropped.push(path);
        }
        hides
    }

    fn file(&mut self, path: Vec<u8>, stat: &Stat, frame: &mut Frame) -> Result<(), DiffError> {
        let size = stat.st_size.cast_unsigned();
        let shared = self.options.shared.filter(|_| stat.st_nlink > 1);
        let shared = shared.and_then(|shared| shared.get(&path));
        let mut entry = match shared {
            // The table is the truth about a layer, also where somebody has changed its files.
            Some(entry) => entry.clone(),
            None => self.entry(path, Kind::File { size, digest: None }, stat)?.0,
        };
        if stat.st_nlink > 1 && shared.is_none() {
            // Never compared with the parent: dropping one name would break the group on disk.
            let first = *self.linked.entry((stat.st_dev, stat.st_ino)).or_insert(self.entries.len());
            let named = self.owners.get(&entry.path);
            if let Some(file) = self.entries.get_mut(first) {
                // A chown of any name is a chown of the file.
                if let Some(owner) = named {
                    (file.uid, file.gid) = *owner;
                }
                entry.kind = Kind::Hardlink { target: file.path.clone() };
            }
        } else if let Some(old) = self.comparable(&entry, size) {
            let actual = match entry.kind {
                Kind::File { digest: Some(digest), .. } => digest,
                _ => self.digest(&entry.path).map_err(|error| unreadable(&entry.path, error))?,
            };
            if actual == old {
                self.found.dropped.push(entry.path);
                return Ok(());
            }
        }
        self.entries.push(entry);
        frame.changed = true;
        Ok(())
    }

    /// The digest to compare with, if the parent's file is the same in everything but perhaps content.
    fn comparable(&self, entry: &Entry, size: u64) -> Option<ContentDigest> {
        let old = self.parent.get(&entry.path)?;
        match old.kind {
            Kind::File { size: old_size, digest } if old_size == size && same_metadata(entry, old) => digest,
            _ => None,
        }
    }

    fn digest(&mut self, path: &[u8]) -> io::Result<ContentDigest> {
        let (file, _) = self.directories.open_file(path)?;
        digest_of(file)
    }

    /// Makes the entry of a path; says whether overlayfs takes it for an opaque directory.
    fn entry(&mut self, path: Vec<u8>, kind: Kind, stat: &Stat) -> Result<(Entry, bool), DiffError> {
        let attributes = match kind {
            Kind::File { .. } | Kind::Directory { .. } => {
                self.attributes(&path).map_err(|error| unreadable(&path, error))?
            }
            // The kernel allows the attributes kept in layers on files and directories only.
            _ => xattr::Attributes::default(),
        };
        let (uid, gid) = self.owner(&path, stat);
        // The types of `Stat` differ between architectures.
        #[allow(clippy::unnecessary_cast)]
        let nanoseconds = stat.st_mtime_nsec as u32;
        let mtime = Timestamp { seconds: stat.st_mtime, nanoseconds };
        let mode = stat.st_mode & 0o7777;
        Ok((Entry { path, kind, mode, uid, gid, mtime, xattrs: attributes.kept }, attributes.opaque))
    }

    fn owner(&self, path: &[u8], stat: &Stat) -> (u32, u32) {
        if let Some(owner) = self.owners.get(path) {
            return *owner;
        }
        match self.parent.get(path) {
            Some(old) if self.options.owners == OwnerPolicy::Ledger => (old.uid, old.gid),
            _ => (stat.st_uid, stat.st_gid),
        }
    }

    fn attributes(&mut self, path: &[u8]) -> io::Result<xattr::Attributes> {
        if path.is_empty() {
            return xattr::read(self.directories.root().as_fd(), b"", &mut self.scratch);
        }
        let (parent, name) = self.directories.parent(path)?;
        xattr::read(parent, name, &mut self.scratch)
    }

    fn stat(&mut self, path: &[u8]) -> io::Result<Stat> {
        let (parent, name) = self.directories.parent(path)?;
        Ok(rustix::fs::statat(parent, c_name(name)?.as_c_str(), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn read_link(&mut self, path: &[u8]) -> io::Result<Vec<u8>> {
        let (parent, name) = self.directories.parent(path)?;
        Ok(rustix::fs::readlinkat(parent, c_name(name)?.as_c_str(), Vec::new())?.into_bytes())
    }
}

/// BLAKE3 of everything a reader gives.
fn digest_of(mut file: impl io::Read) -> io::Result<ContentDigest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(ContentDigest(*hasher.finalize().as_bytes())),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
    }
}

fn same_owner_and_mode(new: &Entry, old: &Entry) -> bool {
    (new.mode, new.uid, new.gid) == (old.mode, old.uid, old.gid) && new.xattrs == old.xattrs
}

fn same_metadata(new: &Entry, old: &Entry) -> bool {
    same_owner_and_mode(new, old) && new.mtime == old.mtime
}

fn unreadable(path: &[u8], source: impl Into<io::Error>) -> DiffError {
    DiffError::Read { path: path::show(path), source: source.into() }
}

#[cfg(test)]
mod tests;
