//! Who owns files on a disk that cannot say so.

use std::collections::BTreeMap;

/// Owners by path, where the disk cannot hold them (single-id rootless: everything belongs to the one id there is).
pub type OwnerLedger = BTreeMap<Vec<u8>, (u32, u32)>;

/// How owners of files are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OwnerPolicy {
    /// On disk, by chown.
    #[default]
    Exact,
    /// Only in the layer table; chown is impossible.
    Ledger,
}
