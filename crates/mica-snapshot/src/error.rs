//! Why a snapshot could not be made.

use std::io;
use std::path::{Path, PathBuf};

use mica_api::{Class, Fault};
use mica_archive::{ApplyError, DiffError};
use mica_sys::mount::MountError;

/// Why a snapshot could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The layers could not be mounted.
    #[error("cannot mount the root file system at {}", path.display())]
    Mount {
        /// Where.
        path: PathBuf,
        /// Why not, in the kernel's words.
        source: MountError,
    },
    /// The changes could not be read.
    #[error("cannot read what was changed")]
    Diff(#[from] DiffError),
    /// A layer could not be unpacked.
    #[error("cannot unpack a layer")]
    Unpack(#[from] ApplyError),
    /// A path of a layer could not be copied or put in order.
    #[error("cannot {action} {:?} of a layer", String::from_utf8_lossy(path))]
    Entry {
        /// What was tried.
        action: &'static str,
        /// Path in the layer.
        path: Vec<u8>,
        /// Why not.
        source: io::Error,
    },
}

impl SnapshotError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn entry(action: &'static str, path: &[u8]) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Entry { action, path, source }
    }
}

impl Fault for SnapshotError {
    fn class(&self) -> Class {
        match self {
            Self::Io { source, .. } | Self::Entry { source, .. } => Class::of_io(source),
            Self::Mount { source, .. } => Class::of_io(&source.source),
            Self::Diff(DiffError::Read { source, .. }) => Class::of_io(source),
            Self::Diff(DiffError::Cancelled) | Self::Unpack(ApplyError::Cancelled) => Class::Cancelled,
            Self::Unpack(ApplyError::Write { source, .. }) => Class::of_io(source),
            Self::Unpack(_) => Class::Corrupt,
            Self::Diff(_) => Class::Build,
        }
    }
}
