//! Moving images in and out of the store (build.md 8.4).

use std::os::fd::OwnedFd;

use mica_oci::{Descriptor, Digest, Platform, Reference};

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

/// `pull` of one image.
#[derive(Debug, Clone)]
pub struct PullImage {
    /// Which, with tag or digest.
    pub reference: Reference,
    /// For this platform instead of the machine's.
    pub platform: Option<Platform>,
}

/// What `pull` brought.
#[derive(Debug, Clone, PartialEq)]
pub struct PulledImage {
    /// What the reference names: a manifest, or an index.
    pub target: Descriptor,
    /// Whether it is another one than was here under this name.
    pub is_newer: bool,
}

/// `push` of one image.
#[derive(Debug, Clone)]
pub struct PushImage {
    /// Which, with tag; also where to.
    pub reference: Reference,
    /// Only this platform of an index.
    pub platform: Option<Platform>,
}

/// What `push` sent.
#[derive(Debug, Clone, PartialEq)]
pub struct PushedImage {
    /// The manifest or index in the registry.
    pub target: Descriptor,
    /// The image here, if the registry got something else than what is here under this name: one platform of an index.
    pub instead_of: Option<Digest>,
}
