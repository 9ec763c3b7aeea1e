//! Taking over the folder of another registry: distribution's file system storage, any version.
//!
//! Blobs are linked where both folders are on one file system, else copied; nothing is taken away from the old folder.
//! Everything goes through the same door as a push, so what is damaged there stays there, and an import can be repeated.

mod distribution;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mica_api::{Class, Fault};

pub use self::distribution::Imported;
use self::distribution::Importer;
use crate::error::chain;
use crate::storage::changes::Grace;
use crate::storage::writer::{ChangeError, Terms};
use crate::storage::{OpenError, Storage};

/// Why a folder cannot be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The own data folder cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is nothing of distribution in the folder.
    #[error("{} has no folder docker/registry/v2", .0.display())]
    Foreign(PathBuf),
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The metadata cannot be changed.
    #[error("cannot store what was found: {0}")]
    Store(String),
}

impl Fault for ImportError {
    fn class(&self) -> Class {
        match self {
            Self::Open(error) => error.class(),
            Self::Foreign(_) => Class::NotFound,
            Self::Io { source, .. } => Class::of_io(source),
            Self::Store(_) => Class::Internal,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Open(error) => error.advice(),
            Self::Foreign(_) => Some("name the folder that distribution's `rootdirectory` names".to_owned()),
            Self::Io { .. } | Self::Store(_) => None,
        }
    }
}

impl From<ChangeError> for ImportError {
    fn from(error: ChangeError) -> Self {
        Self::Store(chain(&error))
    }
}

/// Whether blobs are read to check that they are what their names say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Each once.
    Read,
    /// The old registry is trusted.
    Trust,
}

/// Takes over everything in distribution's folder. `skipped` hears of what is left behind, and why.
///
/// # Errors
/// [`ImportError`]; what was imported until then stays.
pub fn import_distribution(
    from: &Path,
    data: &Path,
    check: Check,
    grace: Duration,
    skipped: &dyn Fn(&str),
) -> Result<Imported, ImportError> {
    let root = [from.join("docker/registry/v2"), from.to_owned()];
    let root = root.into_iter().find(|root| root.join("repositories").is_dir());
    let root = root.ok_or_else(|| ImportError::Foreign(from.to_owned()))?;
    let seconds = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX / 4);
    let grace = Grace { unreferenced: seconds, lease: seconds.min(3600) };
    let storage = Storage::open(data, grace, Terms::default())?;
    let imported = Importer { root, storage: &storage, check, skipped }.run();
    storage.close();
    imported
}
