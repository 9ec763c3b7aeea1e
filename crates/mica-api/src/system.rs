//! The engine itself: facts, usage, cleaning, and `pack`.

use std::path::PathBuf;

use mica_oci::{Digest, Platform, Reference};
use serde::Serialize;

use crate::CacheEntry;

/// `pack`: an image from programs of the host.
#[derive(Debug, Clone, Default)]
pub struct PackRequest {
    /// Programs and files, absolute or in PATH (resolved by the client).
    pub paths: Vec<PathBuf>,
    /// Names for the image.
    pub tags: Vec<Reference>,
    /// Only say what would go in.
    pub list: bool,
    /// Entrypoint of the image.
    pub entrypoint: Vec<String>,
    /// Cmd of the image.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
}

/// One file that `pack` takes, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackEntry {
    /// Path in the image.
    pub path: PathBuf,
    /// Bytes; 0 for links and directories.
    pub size_bytes: u64,
    /// `asked for`, `ELF interpreter of /bin/ls`, `needed by /bin/ls (libc.so.6)`, `link on the way to …`.
    pub reason: String,
    /// Target, for a symbolic link.
    pub link: Option<PathBuf>,
}

/// What `pack` made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackReply {
    /// What went in, sorted by path.
    pub entries: Vec<PackEntry>,
    /// The image, unless only listed.
    pub image_id: Option<Digest>,
}

/// `info`: docker's keys for what scripts ask.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SystemInfo {
    /// Identity of the store.
    #[serde(rename = "ID")]
    pub id: String,
    /// All containers.
    pub containers: u64,
    /// Running ones.
    pub containers_running: u64,
    /// Paused ones.
    pub containers_paused: u64,
    /// Ended ones.
    pub containers_stopped: u64,
    /// Images.
    pub images: u64,
    /// Storage driver.
    pub driver: String,
    /// Facts about it.
    pub driver_status: Vec<(String, String)>,
    /// Where the store is.
    pub docker_root_dir: String,
    /// Name of the machine.
    pub name: String,
    /// Kernel.
    pub kernel_version: String,
    /// Distribution.
    pub operating_system: String,
    /// `linux`.
    #[serde(rename = "OSType")]
    pub os_type: String,
    /// Kernel's name of the processor.
    pub architecture: String,
    /// Processors.
    #[serde(rename = "NCPU")]
    pub ncpu: u64,
    /// Bytes of memory.
    pub mem_total: u64,
    /// `1`, `2` or `none`.
    pub cgroup_version: String,
    /// mica's version.
    pub server_version: String,
    /// `seccomp`, `rootless`…
    pub security_options: Vec<String>,
    /// The mode chosen and what it limits, in the user's words.
    pub warnings: Vec<String>,
    /// `own`.
    pub default_runtime: String,
}

/// `version`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VersionInfo {
    /// mica's version.
    pub version: String,
    /// API version that the docker client of this vintage speaks.
    pub api_version: String,
    /// Commit it was built from, if known.
    pub git_commit: String,
    /// `linux`.
    pub os: String,
    /// Go's name of the processor.
    pub arch: String,
}

/// One row of `system df`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UsageRow {
    /// How many.
    pub total: u64,
    /// How many are in use.
    pub active: u64,
    /// Bytes of all.
    pub size_bytes: u64,
    /// Bytes that a prune would free.
    pub reclaimable_bytes: u64,
}

/// `system df`.
#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    /// Images.
    pub images: UsageRow,
    /// Containers.
    pub containers: UsageRow,
    /// Volumes (cache mounts are not volumes).
    pub volumes: UsageRow,
    /// Build cache: records, their layers no image uses, cache mounts.
    pub build_cache: UsageRow,
    /// The cache, record by record.
    pub cache_entries: Vec<CacheEntry>,
}

/// `system prune`.
#[derive(Debug, Clone, Default)]
pub struct SystemPrune {
    /// All unused images, not only untagged ones.
    pub all: bool,
    /// Anonymous volumes that no container has.
    pub volumes: bool,
}

/// What `system check` found wrong with one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckFinding {
    /// The file or row, as a user finds it.
    pub object: String,
    /// What is wrong.
    pub problem: String,
    /// Which images need it.
    pub needed_by: Vec<String>,
    /// Whether it was repaired, and how.
    pub repaired: Option<String>,
}

/// What `system check` found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Blobs, layers, rows looked at.
    pub checked: u64,
    /// What is wrong.
    pub findings: Vec<CheckFinding>,
    /// Platforms whose content is incomplete, for information.
    pub platforms: Vec<Platform>,
}
