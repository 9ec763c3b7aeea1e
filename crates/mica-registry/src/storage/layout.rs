//! Every path of the data folder; nothing else makes one.

use std::path::{Path, PathBuf};

use mica_oci::Digest;

use super::upload::UploadKey;

/// The data folder. What is in it: see [`crate::storage`].
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Format and version of the folder.
    pub(crate) fn marker(&self) -> PathBuf {
        self.root.join("registry.json")
    }

    /// Held by the process that may write.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// What tokens are signed with.
    pub(crate) fn token_key(&self) -> PathBuf {
        self.root.join("token.key")
    }

    pub(crate) fn meta(&self) -> PathBuf {
        self.root.join("meta")
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.meta().join("registry.db")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// The folder that a blob is in.
    pub(crate) fn shelf(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.algorithm().name()).join(&digest.hex()[..2])
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.shelf(digest).join(digest.hex())
    }

    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// The bytes of an upload so far.
    pub(crate) fn upload(&self, key: &UploadKey) -> PathBuf {
        self.uploads().join(key.as_str())
    }

    pub(crate) fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }
}
