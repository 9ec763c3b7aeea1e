//! Everything durable: blobs, layers, image names, cache records, containers, volumes, leases, locks, collection.
//!
//! One directory, many processes, no daemon. [`layout`] draws the directory and makes every path in it; [`Store`] is
//! the only way in.
//!
//! | question | module |
//! |---|---|
//! | where does it lie? | [`layout`] |
//! | is it on the disk yet? | `durable` |
//! | may it be removed? | `lease`, `gc` |
//! | who else is doing this? | `lock` |
//! | is it what was written? | `check` |
//!
//! # Promises
//! 1. What was reported done survives `kill -9` of any process and a power cut.
//! 2. A process killed at any moment leaves nothing that blocks the next command; leftovers are collected.
//! 3. Nothing that a living process, a container or an image needs is ever collected.
//! 4. Opening and looking up touch no more than `store.json` and the database: no scan, no sync, no write.

mod cache;
mod cache_mount;
mod check;
mod container;
mod content;
mod db;
mod durable;
mod error;
mod fault;
mod fetched;
mod files;
mod flavour;
mod form;
mod gc;
mod id;
mod image;
mod image_find;
mod journal;
mod layer;
mod layer_use;
pub mod layout;
mod lease;
mod lock;
mod migrate;
mod partial;
mod reserve;
mod salvage;
mod store;
mod volume;

pub use cache::{CacheHit, CacheKind, CacheRecord, NewCacheRecord};
pub use cache_mount::{CacheMount, CacheMountRecord, Sharing};
pub use check::{CheckMode, CheckReport, Finding, Outcome, Problem};
pub use container::{ContainerRecord, NewContainer};
pub use content::{Ingest, VerifiedBlob};
pub use error::{CommitError, ContainerError, ImageError, OpenError, StoreError};
pub use fetched::Fetched;
pub use flavour::{DriverKind, Flavour, IdMap, Mismatch, SCHEMA};
pub use form::RemoteForm;
pub use gc::{
    Budget, CacheItem, CacheUsage, ContainerUsage, DiskUsage, GcError, GcReport, GcRequest, ImageUsage,
    PruneCache, PruneImages, PruneVolumes, PrunedCache, PrunedImage, Reclaimable, VolumeUsage,
};
pub use id::{ContainerId, IdError, LayerId, LeaseId, VolumeId};
pub use image::{ImageContents, ImageRecord, ManifestLayers, Published};
pub use image_find::{Deleted, Removal, Removed};
pub use journal::JournalRecord;
pub use layer::{LayerRecord, StagedLayer, layer_disk_bytes};
pub use layer_use::LayerUse;
pub use lease::Lease;
pub use lock::{Lock, LockFile, Waited};
pub use partial::{Feed, FeedReader, Partial};
pub use store::{Space, Store, repair_unopenable};
pub use volume::{VolumeError, VolumeRecord};

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX))
}
