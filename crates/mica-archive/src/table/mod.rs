//! Layer table: the sorted list of what one layer contains, the truth for tar, diff and cache keys.
//!
//! # Invariants
//! 1. Entries are strictly sorted by [`crate::path::compare`]: no path twice, a directory directly before its content.
//! 2. Every path is normal (see [`crate::path`]) and within the limits.
//! 3. The target of a [`Kind::Hardlink`] is a [`Kind::File`] of the same table and sorts earlier.
//! 4. A hard link has the mode, owner and time of its file and no attributes of its own.
//! 5. Extended attribute names can be written to a PAX header.
//!
//! [`Table::from_entries`] and [`Table::decode`] are the only ways to make one, and both check this.

mod codec;

use std::collections::BTreeMap;

use crate::entry::{Entry, Kind, Timestamp};
use crate::path;

/// The sorted entries of one layer. Immutable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    entries: Vec<Entry>,
}

/// Why bytes or entries are not a layer table.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum TableError {
    /// The bytes do not start as a layer table does.
    #[error("not a layer table")]
    Magic,
    /// Written by a newer mica.
    #[error("layer table has format {0}, this program knows format {known}", known = codec::FORMAT)]
    Format(u32),
    /// The bytes were changed or cut off.
    #[error("layer table is damaged")]
    Damaged,
    /// A path occurs twice or out of order.
    #[error("layer table has {0:?} twice or out of order")]
    Order(String),
    /// A path, link target or attribute name that no layer may have.
    #[error("layer table has the invalid {what} {value:?}")]
    Invalid {
        /// What is invalid.
        what: &'static str,
        /// The value, escaped.
        value: String,
    },
    /// A hard link without the file it names.
    #[error("layer table links {path:?} to {target:?}, which is not an earlier file of the layer")]
    Link {
        /// The link.
        path: String,
        /// What it names.
        target: String,
    },
}

impl Table {
    /// Sorts `entries` and checks them.
    ///
    /// # Errors
    /// [`TableError`] if a path is there twice or an entry breaks one of the rules of the module.
    pub fn from_entries(mut entries: Vec<Entry>) -> Result<Self, TableError> {
        entries.sort_by(|a, b| path::compare(&a.path, &b.path));
        let mut table = Self { entries };
        table.check()?;
        table.settle_links();
        Ok(table)
    }

    /// Gives hard links the metadata of their file: they are one inode, and a tar could not say otherwise.
    fn settle_links(&mut self) {
        for index in 0..self.entries.len() {
            let Kind::Hardlink { target } = &self.entries[index].kind else { continue };
            let Some(Entry { mode, uid, gid, mtime, .. }) = self.get(target) else { continue };
            let (mode, uid, gid, mtime) = (*mode, *uid, *gid, *mtime);
            let link = &mut self.entries[index];
            (link.mode, link.uid, link.gid, link.mtime) = (mode, uid, gid, mtime);
            link.xattrs.clear();
        }
    }

    /// All entries in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether the layer changes nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the entry stored for `path`, a hard link as such.
    pub fn get(&self, path: &[u8]) -> Option<&Entry> {
        self.position(path).map(|index| &self.entries[index])
    }

    /// Returns the entry that has the content of `entry`: the file a hard link names, else `entry` itself.
    pub fn content_of<'a>(&'a self, entry: &'a Entry) -> &'a Entry {
        match &entry.kind {
            Kind::Hardlink { target } => self.get(target).unwrap_or(entry),
            _ => entry,
        }
    }

    /// Returns the entries directly in a directory, in order.
    pub fn children<'a>(&'a self, directory: &'a [u8]) -> impl Iterator<Item = &'a Entry> {
        let mut index = self.first_below(directory);
        std::iter::from_fn(move || {
            let entry = self.entries.get(index)?;
            if !path::is_below(&entry.path, directory) {
                return None;
            }
            index = self.end_of(index);
            Some(entry)
        })
    }

    /// Returns the table with every time after `latest` set to it (`rewrite-timestamp`, build.md G12).
    pub fn clamp_times(mut self, latest: Timestamp) -> Self {
        for entry in &mut self.entries {
            entry.mtime = entry.mtime.min(latest);
        }
        self
    }

    /// Bytes of all files of the layer, a hard-linked file once.
    pub fn content_bytes(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| if let Kind::File { size, .. } = entry.kind { size } else { 0 })
            .fold(0, u64::saturating_add)
    }

    /// Takes the entries out.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Sets the digests of files in place; keys cannot change, so the table stays valid.
    pub(crate) fn set_digest(&mut self, index: usize, digest: crate::ContentDigest) -> Result<(), String> {
        if let Some(Entry { path, kind: Kind::File { digest: slot, .. }, .. }) = self.entries.get_mut(index)
            && *slot.get_or_insert(digest) != digest
        {
            return Err(path::show(path));
        }
        Ok(())
    }

    /// Index of the entry at `path`.
    pub(crate) fn position(&self, path: &[u8]) -> Option<usize> {
        self.entries.binary_search_by(|entry| path::compare(&entry.path, path)).ok()
    }

    /// Index of the first entry strictly below `directory`, whether the directory itself is stored or not.
    fn first_below(&self, directory: &[u8]) -> usize {
        self.entries.partition_point(|entry| path::compare(&entry.path, directory).is_le())
    }

    /// Index after the subtree whose top is at `index`.
    fn end_of(&self, index: usize) -> usize {
        let top = &self.entries[index].path;
        let rest = &self.entries[index + 1..];
        // Most entries are leaves: look at the neighbour before searching.
        match rest.first() {
            Some(next) if path::is_below(&next.path, top) => {
                index + 1 + rest.partition_point(|entry| path::is_below(&entry.path, top))
            }
            _ => index + 1,
        }
    }

    /// Checks the invariants of the module.
    fn check(&self) -> Result<(), TableError> {
        for pair in self.entries.windows(2) {
            if path::compare(&pair[0].path, &pair[1].path).is_ge() {
                return Err(TableError::Order(path::show(&pair[1].path)));
            }
        }
        self.entries.iter().try_for_each(|entry| self.check_entry(entry))
    }

    fn check_entry(&self, entry: &Entry) -> Result<(), TableError> {
        let invalid = |what, value: &[u8]| TableError::Invalid { what, value: path::show(value) };
        if !path::is_normal(&entry.path) {
            return Err(invalid("path", &entry.path));
        }
        if entry.path.is_empty() && !entry.kind.is_directory() {
            return Err(invalid("root", b""));
        }
        if entry.mode > 0o7777 || entry.mtime.nanoseconds >= 1_000_000_000 {
            return Err(invalid("mode or time of", &entry.path));
        }
        check_xattrs(&entry.xattrs).map_err(|name| invalid("attribute name", name))?;
        match &entry.kind {
            Kind::Symlink { target } if !is_link_target(target) => Err(invalid("link target", target)),
            Kind::Hardlink { target } => self.check_link(&entry.path, target),
            _ => Ok(()),
        }
    }

    fn check_link(&self, link: &[u8], target: &[u8]) -> Result<(), TableError> {
        let earlier = path::compare(target, link).is_lt();
        let is_file = self.get(target).is_some_and(|entry| matches!(entry.kind, Kind::File { .. }));
        if earlier && is_file {
            return Ok(());
        }
        Err(TableError::Link { path: path::show(link), target: path::show(target) })
    }
}

/// Whether bytes can be what a symbolic link points to.
pub(crate) fn is_link_target(target: &[u8]) -> bool {
    !target.is_empty() && target.len() < path::MAX_PATH_BYTES && !target.contains(&0)
}

/// Fails with the first name that a PAX header cannot hold.
fn check_xattrs(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<(), &[u8]> {
    let bad =
        |name: &&Vec<u8>| name.is_empty() || name.len() > 255 || name.contains(&b'=') || name.contains(&0);
    xattrs.keys().find(bad).map_or(Ok(()), |name| Err(name))
}

#[cfg(test)]
mod tests;
