//! Questions about images (build.md 8.5).

use std::collections::BTreeMap;

use mica_oci::{ContainerConfig, Digest, Platform};
use serde::Serialize;

use crate::{CacheEntry, Timestamp};

/// Which images to list.
#[derive(Debug, Clone, Default)]
pub struct ListImages {
    /// Only names that match this `REPOSITORY[:TAG]`.
    pub repository: Option<String>,
    /// Untagged images too.
    pub all: bool,
    /// Further conditions; all must hold.
    pub filters: Vec<ImageFilter>,
    /// Compute shared and unique sizes (costs a pass over all layers).
    pub sizes: bool,
}

/// One `--filter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageFilter {
    /// Untagged, or tagged.
    Dangling(bool),
    /// Has a label, perhaps with this value.
    Label(String, Option<String>),
    /// Has not.
    NotLabel(String, Option<String>),
    /// Newer here than that image.
    Since(String),
    /// Older here than that image.
    Before(String),
    /// Older here than that time.
    Until(Timestamp),
    /// Name matches a glob.
    Reference(String),
}

/// One row of `images`: a name and what it points at, or an untagged image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Repository as docker prints it; `None` is `<none>`.
    pub repository: Option<String>,
    /// Tag; `None` is `<none>`.
    pub tag: Option<String>,
    /// Digest of the manifest or index.
    pub digest: Digest,
    /// Digest of the config, or of the index.
    pub id: Digest,
    /// When it was built, loaded or pulled here (G11a).
    pub created_here: Timestamp,
    /// Sum of the layers, uncompressed.
    pub size_bytes: u64,
    /// Of that, what other images use too.
    pub shared_bytes: Option<u64>,
    /// Of that, what only this image uses.
    pub unique_bytes: Option<u64>,
    /// Containers of this image.
    pub containers: u64,
    /// The platforms whose content is here.
    pub platforms: Vec<Platform>,
}

/// `image inspect`, docker's keys.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageDetails {
    /// Image ID.
    pub id: Digest,
    /// `name:tag` list.
    pub repo_tags: Vec<String>,
    /// `name@digest` list.
    pub repo_digests: Vec<String>,
    /// Always empty: kept for scripts.
    pub parent: String,
    /// Message of `commit`.
    pub comment: String,
    /// RFC 3339, of the config.
    pub created: String,
    /// Version of docker that made it; empty.
    pub docker_version: String,
    /// Author.
    pub author: String,
    /// What containers start with.
    pub config: ContainerConfig,
    /// Processor.
    pub architecture: String,
    /// Variant of it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// System.
    pub os: String,
    /// Bytes of all layers.
    pub size: u64,
    /// Where the layers are.
    pub graph_driver: GraphDriver,
    /// The layers.
    #[serde(rename = "RootFS")]
    pub root_fs: RootFsDetails,
    /// Times that belong to this store.
    pub metadata: ImageMetadata,
    /// What the name points at.
    pub descriptor: serde_json::Value,
}

/// Where an image's layers are.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GraphDriver {
    /// Facts of the driver: for overlay the layer directories.
    pub data: BTreeMap<String, String>,
    /// Its name.
    pub name: String,
}

/// The layers of an image.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RootFsDetails {
    /// Always `layers`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// Diff IDs, lowest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<String>,
}

/// Times that belong to this store.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageMetadata {
    /// RFC 3339: when the image was last named here.
    pub last_tag_time: String,
}

/// One row of `history`, newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Image ID, for the newest; `None` is `<missing>`.
    pub id: Option<Digest>,
    /// When; the top row keeps the config's time.
    pub created: Option<String>,
    /// The instruction.
    pub created_by: String,
    /// Bytes of the layer; 0 without.
    pub size_bytes: u64,
    /// A remark.
    pub comment: String,
}

/// `rmi`.
#[derive(Debug, Clone, Default)]
pub struct RemoveImage {
    /// Name, ID prefix or digest.
    pub query: String,
    /// Remove although several names or a container use it.
    pub force: bool,
}

/// One line of `rmi`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemovedImage {
    /// `Untagged: name`.
    Untagged(String),
    /// `Deleted: sha256:…`.
    Deleted(Digest),
}

/// `image prune`.
#[derive(Debug, Clone, Default)]
pub struct PruneImages {
    /// All without a container, not only untagged ones.
    pub all: bool,
    /// Further conditions.
    pub filters: Vec<ImageFilter>,
}

/// What a prune removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// Images, in docker's words.
    pub images: Vec<RemovedImage>,
    /// Containers.
    pub containers: Vec<String>,
    /// Volumes.
    pub volumes: Vec<String>,
    /// Parts of the build cache; their size is what removing them freed.
    pub cache: Vec<CacheEntry>,
    /// Bytes that are free now.
    pub freed_bytes: u64,
}
