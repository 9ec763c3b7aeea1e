//! Parts of the build cache that are files and no layers: cache mounts, and what is known of build contexts.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::CacheItem;
use super::usage::tree_bytes;
use crate::error::{IoContext as _, StoreError};
use crate::{Store, files};

/// One of them, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loose {
    pub(super) item: CacheItem,
    pub(super) path: PathBuf,
    /// What it takes on disk.
    pub(super) bytes: u64,
    pub(super) created: i64,
    pub(super) last_used: i64,
    pub(super) in_use: bool,
}

/// Finds and measures all, least recently used first; what is not measured by the deadline counts less than it takes.
pub(super) fn measure(store: &Store, deadline: Option<Instant>) -> Result<Vec<Loose>, StoreError> {
    let mut found = Vec::new();
    for mount in store.cache_mounts()? {
        found.push(Loose {
            bytes: own_blocks(&mount.path) + tree_bytes(&mount.path, deadline)?,
            in_use: Store::is_cache_mount_used(&mount.path)?,
            item: CacheItem::Mount(mount.id),
            path: mount.path,
            created: mount.created,
            last_used: mount.last_used,
        });
    }
    let directory = store.state().contexts();
    for name in files::list(&directory).context("list", &directory)? {
        let path = directory.join(&name);
        // Replaced or removed between the listing and here: it is looked at the next time.
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        let written = nanoseconds(metadata.modified().unwrap_or(UNIX_EPOCH));
        found.push(Loose {
            item: CacheItem::Context(name),
            path,
            bytes: metadata.blocks() * 512,
            created: written,
            last_used: written,
            in_use: false,
        });
    }
    found.sort_by_key(|loose| loose.last_used);
    Ok(found)
}

/// What a directory itself takes; nothing if it is gone.
fn own_blocks(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

fn nanoseconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}
