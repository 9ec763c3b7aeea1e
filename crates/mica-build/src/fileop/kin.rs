//! Sharing files with an earlier result of the same step (decision 0016).
//!
//! Most files of a COPY that runs again are what they were. Where path, attributes and digest are those of a file of the
//! earlier layer, the new layer gets a hard link to it: nothing is read, written or synced.
//!
//! # Invariants
//! 1. What is linked has the digest that the key of the step was made of. The layer's own hashing proves it
//!    ([`mica_archive::finalize`]), so a damaged file never gets into a second layer.
//! 2. The layer is the same, to the byte, as without sharing: files with several names in the source are copied.
//! 3. An inode has the same path in all layers that share it, so no image shows it twice.

use std::collections::HashSet;
use std::sync::Arc;

use mica_archive::{Directories, Entry, Kind, Table};
use mica_sys::root::Root;

use super::destination::Attributes;

/// Paths of a layer below which it shares: small copies gain nothing.
const WORTH_SHARING: usize = 256;
/// Where programs look for files that must have one name only: crontabs and spools are refused otherwise.
const NEVER_SHARED: [&[u8]; 2] = [b"etc/", b"var/spool/"];
const SET_ID: u32 = 0o6000;

/// A layer that an earlier run of the same step made.
#[derive(Debug)]
pub struct Kin {
    table: Arc<Table>,
    files: Root,
}

impl Kin {
    /// A layer to share files with; `None` if that is not worth it.
    pub fn new(table: Arc<Table>, files: Root) -> Option<Self> {
        (table.entries().len() >= WORTH_SHARING).then_some(Self { table, files })
    }

    pub(super) fn open(&self) -> OpenKin<'_> {
        let target = |entry: &Entry| match &entry.kind {
            Kind::Hardlink { target } => Some(target.clone()),
            _ => None,
        };
        let twins = self.table.entries().iter().filter_map(target).collect();
        OpenKin { table: &self.table, directories: Directories::new(&self.files), twins }
    }
}

/// The layer with descriptors of its directories.
pub(super) struct OpenKin<'a> {
    table: &'a Table,
    pub(super) directories: Directories<'a>,
    /// Files with several names in the layer.
    twins: HashSet<Vec<u8>>,
}

impl<'a> OpenKin<'a> {
    /// The file at a path, if its attributes are these and it may have another name.
    pub(super) fn file(&self, path: &[u8], wanted: &Attributes<'_>) -> Option<&'a Entry> {
        if self.twins.contains(path) || NEVER_SHARED.iter().any(|prefix| path.starts_with(prefix)) {
            return None;
        }
        self.table
            .get(path)
            .filter(|entry| matches!(entry.kind, Kind::File { .. }) && is_dressed(entry, wanted))
    }
}

fn is_dressed(entry: &Entry, wanted: &Attributes<'_>) -> bool {
    let none_wanted = || wanted.xattrs.is_none_or(|xattrs| xattrs.is_empty());
    wanted.mode == Some(entry.mode)
        && entry.mode & SET_ID == 0
        && (wanted.ids.uid, wanted.ids.gid) == (entry.uid, entry.gid)
        && wanted.mtime == entry.mtime
        && (wanted.xattrs == Some(&entry.xattrs) || entry.xattrs.is_empty() && none_wanted())
}
