//! Layer bytes and directory changes, each from the other. Hostile bytes end here.
//!
//! | from | to | by |
//! |---|---|---|
//! | overlay upper directory, or a whole tree | [`Table`] | [`diff_upper`], [`diff_views`] |
//! | [`Table`] and directory | diff ID and content digests | [`finalize`] |
//! | [`Table`] and directory | tar bytes | [`write_tar`] |
//! | tar bytes of anybody | directory, [`Table`], diff ID | [`apply`] |
//! | tar file of a user (`ADD x.tar`) | files in a root filesystem | [`extract`] |
//! | stack of [`Table`]s | merged tree | [`View`] |
//! | layer bytes | compressed bytes and back | [`compress`] |
//!
//! Knows nothing of the store: takes roots, readers and tables. Paths are bytes; every look-up stays below the
//! [`mica_sys::root::Root`] it was given and follows no link that the layer did not make itself.

mod apply;
pub mod compress;
mod diff;
mod directories;
mod entry;
mod extract;
mod finalize;
mod limits;
mod owners;
pub mod path;
mod recipe;
mod table;
pub mod tar;
#[cfg(test)]
mod testing;
mod varint;
mod view;
mod xattr;

pub use apply::{Applied, ApplyError, ApplyOptions, OverlayFlavour, apply};
pub use diff::{DiffError, DiffOptions, SharedFiles, UpperDiff, diff_upper, diff_views};
pub use directories::Directories;
pub use entry::{ContentDigest, Entry, Kind, Timestamp, keeps_xattr};
pub use extract::{ExtractOptions, Extracted, extract, is_tar};
pub use finalize::{Finalized, finalize};
pub use limits::{Cancelled, LimitExceeded, Limits, NEVER};
pub use owners::{OwnerLedger, OwnerPolicy};
pub use recipe::{Recipe, RecipeError, rebuild};
pub use table::{Table, TableError};
pub use tar::{TarFormat, TarSummary, WriteError, write_tar};
pub use view::{Located, View};
pub use xattr::kept_xattrs;
