//! Why the store could not do something.

use std::io;
use std::path::{Path, PathBuf};

use mica_oci::{Digest, Reference};

use crate::flavour::Mismatch;
use crate::{ContainerId, LayerId};

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The store was made by, or for, another kind of process.
    #[error("cannot use the store {}: {mismatch}", root.display())]
    Flavour {
        /// Where the store is.
        root: PathBuf,
        /// What differs.
        mismatch: Mismatch,
    },
    /// A newer mica wrote it; nothing was touched.
    #[error("the store {} has schema {found}, this program knows up to {known}", root.display())]
    Newer {
        /// Where the store is.
        root: PathBuf,
        /// Schema of the store.
        found: u32,
        /// Newest schema of this program.
        known: u32,
    },
    /// There is no store, and none can be made here.
    #[error("cannot create a store in {}", root.display())]
    Create {
        /// Where it would have been.
        root: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Anything that can also happen later.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an operation on an open store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: "write", "rename".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// The metadata could not be read or written.
    #[error("cannot {action} the metadata {}", path.display())]
    Database {
        /// "open", "read" or "write".
        action: &'static str,
        /// The database.
        path: PathBuf,
        /// The answer of SQLite.
        source: rusqlite::Error,
    },
    /// A file of the store is not what was written.
    #[error("the store is damaged: {}: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The store can only be read.
    #[error("the store {} is read-only", root.display())]
    ReadOnly {
        /// Where it is.
        root: PathBuf,
    },
    /// A layer that was looked up is no longer there: look again, or make it again.
    #[error("layer {0} is no longer in the store")]
    LayerGone(LayerId),
    /// A blob is not there.
    #[error("blob {0} is not in the store")]
    BlobGone(Digest),
    /// The caller cancelled while we waited.
    #[error("cancelled")]
    Cancelled,
}

/// Shorthand for naming the action and the path of a failed system call.
pub(crate) trait IoContext<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, StoreError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io { action, path: path.to_owned(), source })
    }
}

impl<T> IoContext<T> for rustix::io::Result<T> {
    fn context(self, action: &'static str, path: &Path) -> Result<T, StoreError> {
        self.map_err(io::Error::from).context(action, path)
    }
}

/// Why a blob could not be added.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// The bytes received do not have the digest their sender announced.
    #[error("blob {expected} arrived as {actual} ({received_bytes} bytes)")]
    DigestMismatch {
        /// What was announced.
        expected: Digest,
        /// What came.
        actual: Digest,
        /// How much came.
        received_bytes: u64,
    },
    /// More or fewer bytes than announced.
    #[error("blob {digest} has {expected_bytes} bytes, {received_bytes} arrived")]
    SizeMismatch {
        /// Which blob.
        digest: Digest,
        /// What was announced.
        expected_bytes: u64,
        /// What came, at most one more than announced.
        received_bytes: u64,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an image could not be removed or found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// Nothing has this name, ID or digest.
    #[error("No such image: {query}")]
    NotFound {
        /// As the user wrote it.
        query: String,
    },
    /// An ID prefix that several images share.
    #[error("image ID prefix {query} is ambiguous")]
    Ambiguous {
        /// As the user wrote it.
        query: String,
        /// The images it could mean.
        candidates: Vec<String>,
    },
    /// An image with several names, to be removed by ID without force.
    #[error(
        "conflict: unable to delete {id} (must be forced) - image is referenced in multiple repositories"
    )]
    ManyNames {
        /// The short ID.
        id: String,
        /// Its names.
        names: Vec<Reference>,
    },
    /// A container was made from it.
    #[error("conflict: unable to remove repository reference {query:?} (must force) - container {} is using its referenced image {id}", container.short())]
    InUse {
        /// As the user wrote it.
        query: String,
        /// One of the containers.
        container: ContainerId,
        /// The short image ID.
        id: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a container could not be created, found or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// Nothing has this name or ID.
    #[error("No such container: {0}")]
    NotFound(String),
    /// An ID prefix that several containers share.
    #[error("multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// The name is taken.
    #[error(
        "Conflict. The container name {name:?} is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
    )]
    NameTaken {
        /// The name, with docker's leading slash.
        name: String,
        /// Who has it.
        holder: ContainerId,
    },
    /// Somebody else changed the container since it was read: read it again and decide again.
    #[error("container {} was changed by another process", .0.short())]
    Changed(ContainerId),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}
