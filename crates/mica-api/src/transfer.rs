//! Moving images in and out of the store (build.md 8.4).

use std::os::fd::OwnedFd;

use mica_oci::{Platform, Reference};

use crate::Destination;

/// `save`.
#[derive(Debug)]
pub struct SaveImages {
    /// Names, ID prefixes or digests.
    pub images: Vec<String>,
    /// Only this platform of an index.
    pub platform: Option<Platform>,
    /// Where.
    pub destination: Destination,
}

/// `load`.
#[derive(Debug)]
pub struct LoadImages {
    /// The archive, compressed or not.
    pub input: OwnedFd,
    /// Only this platform of an index.
    pub platform: Option<Platform>,
}

/// One image that `load` brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoadedImage {
    /// `Loaded image: name`; the ID that the name had before, if another.
    Named {
        /// The name.
        name: String,
        /// The image it pointed at before.
        replaced: Option<String>,
    },
    /// `Loaded image ID: sha256:…`.
    Unnamed(String),
}

/// `import`.
#[derive(Debug)]
pub struct ImportImage {
    /// The tar, compressed or not.
    pub input: OwnedFd,
    /// Name for the image.
    pub name: Option<Reference>,
    /// Message for the history.
    pub message: String,
    /// `-c`: Dockerfile instructions.
    pub changes: Vec<String>,
    /// What it is for.
    pub platform: Option<Platform>,
}

/// `export`.
#[derive(Debug)]
pub struct ExportContainer {
    /// Name or ID prefix.
    pub container: String,
    /// Where.
    pub destination: Destination,
}
