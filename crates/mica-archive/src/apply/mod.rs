//! Applies a layer: tar bytes of anybody become a directory and a table.
//!
//! The destination is a fresh directory that holds this layer's changes and nothing else. What the paths in the tar
//! mean is decided in memory (see [`tree`]); the disk is touched at real paths only, by descriptor.
//!
//! * The last member of a path wins, as if each were applied in turn.
//! * Whiteouts become 0:0 character devices and opaque marks for overlayfs ([`OverlayFlavour`]) or stay in the table.
//! * Directories the tar implies but does not contain are made and are in the table; see [`ApplyOptions::parent`].
//! * Directories get their metadata last: a mode may forbid writing, and every file touches the time.

mod disk;
mod layer;
mod names;
mod stream;
mod tree;

use std::io::{self, Read};

use mica_oci::DiffId;
use mica_sys::root::Root;

pub(crate) use disk::{Applier, CopyError, Metadata, copy_data, create};
pub(crate) use names::clean_rooted;
pub(crate) use stream::StreamId;

use crate::limits::{Cancelled, Limits};
use crate::owners::{OwnerLedger, OwnerPolicy};
use crate::recipe::{Capture, Recipe};
use crate::table::{Table, TableError};
use crate::tar::{TarError, TarReader};
use crate::view::View;
use layer::Layer;

/// How overlayfs is told what a layer hides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OverlayFlavour {
    /// Whiteout devices and `trusted.overlay.opaque`: rootful.
    #[default]
    Trusted,
    /// Whiteout devices and `user.overlay.opaque`: mounts with `userxattr`.
    User,
    /// No marks on disk; only the table knows.
    None,
}

/// How to apply a layer.
#[derive(Debug, Clone, Default)]
pub struct ApplyOptions<'a> {
    /// How much the layer may ask for.
    pub limits: Limits,
    /// Whether owners go to disk.
    pub owners: OwnerPolicy,
    /// Whether device nodes are made. If not, or if the kernel refuses, they are in the table all the same.
    pub devices: bool,
    /// What marks overlayfs wants.
    pub overlay: OverlayFlavour,
    /// Whether to keep a recipe when our writer would not give the same bytes.
    pub keep_recipe: bool,
    /// The layers below, if known: a directory that the tar implies but does not contain gets the metadata it has
    /// there. Without it such a directory is `0755 0:0`, and in an overlay it would show that instead of the lower's.
    pub parent: Option<&'a View>,
}

/// An applied layer.
#[derive(Debug, Clone)]
pub struct Applied {
    /// What it contains.
    pub table: Table,
    /// Digest of the uncompressed stream, up to its last byte.
    pub diff_id: DiffId,
    /// Length of that stream.
    pub tar_bytes: u64,
    /// Whether [`crate::write_tar`] gives the same bytes.
    pub reproducible: bool,
    /// How to give back the bytes, if they are not reproducible and that was asked for. `None` for a layer that is not
    /// reproducible means that the recipe would be larger than [`Limits::recipe_bytes`]: keep the blob.
    pub recipe: Option<Recipe>,
    /// Devices that are in the table and not on disk, and 0:0 devices that are in neither.
    pub skipped_devices: u64,
    /// Extended attributes left out because layers do not keep their kind or the file system refused them.
    pub skipped_xattrs: u64,
    /// Directories that were made because something was in them.
    pub implied: Vec<Vec<u8>>,
    /// With [`OwnerPolicy::Ledger`]: every path whose owner is not 0:0.
    pub ledger: OwnerLedger,
}

/// Why a layer could not be applied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// The stream is not a tar, is cut off, or asks for too much.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// A member has a name that no layer may have.
    #[error("the archive has a member {name:?}: {why}")]
    Name {
        /// Name, escaped.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A link cannot be made or followed.
    #[error("the archive has a bad link {path:?}: {why}")]
    Link {
        /// Name of the link or of what is behind it, escaped.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A member is below something that is no directory.
    #[error("the archive has members below {path:?}, which is not a directory")]
    NotADirectory {
        /// Path, escaped.
        path: String,
    },
    /// Something else is there, and is not to be replaced.
    #[error("cannot overwrite {existing} {path:?} with {new}")]
    Occupied {
        /// Path, escaped.
        path: String,
        /// What is there.
        existing: &'static str,
        /// What was to come.
        new: &'static str,
    },
    /// The destination refused something.
    #[error("cannot create {path:?} of the layer")]
    Write {
        /// Path in the layer, escaped.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The result is no valid table.
    #[error("the archive is no layer")]
    Table(#[from] TableError),
    /// The user gave up.
    #[error("cancelled")]
    Cancelled,
}

/// Applies an uncompressed layer to a fresh directory.
///
/// Reading, decompression (if `tar` does it) and sha256 run on a thread of their own. Nothing is synced to disk.
///
/// # Errors
/// [`ApplyError`]; the destination then holds a part of the layer and is to be thrown away.
pub fn apply(
    tar: impl Read + Send,
    destination: &Root,
    options: &ApplyOptions<'_>,
    cancel: Cancelled<'_>,
) -> Result<Applied, ApplyError> {
    let capture = Capture::new(options.keep_recipe, options.limits.recipe_bytes).map_err(TarError::Io)?;
    let (layer, id) = stream::hashed(tar, |source| {
        let reader = TarReader::with_literals(source, options.limits.clone(), capture);
        let mut layer = Layer::new(reader, destination, options, cancel);
        layer.read_members()?;
        layer.finish_disk()?;
        Ok::<_, ApplyError>(layer)
    })?;
    layer.into_applied(id)
}

#[cfg(test)]
mod tests;
