//! Collection: what nothing needs any more, and prune: what a policy gives up.
//!
//! Roots are images, containers, cache records and live leases. A lease is dead when its file can be locked.
//!
//! # Order, and why
//! 1. List the directories. Everything in them was named by a row before, or inside the transaction that follows it;
//!    so what is listed here and has no row in step 2 belongs to nobody.
//! 2. One `synchronous=FULL` write transaction: delete dead leases, mark, delete rows. Who looks something up and
//!    leases it does so in a write transaction too: either it comes first and the thing stays, or it finds nothing.
//! 3. Rename what was forgotten into the trash, then unlink it. Killed before that, step 1 of the next collection
//!    finds it. Blobs are renamed under the write lock and only if still forgotten, because a digest can come back.
//!
//! One collector at a time; a second one does not wait.

mod budget;
mod census;
mod loose;
mod plan;
mod sweep;
mod usage;

use std::collections::BTreeSet;
use std::fs::File;
use std::time::Instant;

use mica_api::CacheLimits;
use mica_oci::{DiffId, Digest, ImageId, Reference};
use rusqlite::params;

use crate::db::{Strength, Write};
use crate::error::StoreError;
use crate::image::{SELECT_IMAGE, image_record, names_of};
use crate::image_find::delete_image;
use crate::layer::forget_layer;
use crate::volume::VolumeRecord;
use crate::{LeaseId, Store};

pub use budget::Budget;
use census::Census;
use plan::Plan;
pub use usage::{CacheUsage, ContainerUsage, DiskUsage, ImageUsage, Reclaimable, VolumeUsage};

/// What a prune gives up. The default gives up nothing, and only collects.
#[derive(Debug, Clone, Default)]
pub struct GcRequest {
    /// Which images.
    pub images: PruneImages,
    /// Only these, if they qualify; `None` is all that qualify.
    pub only_images: Option<BTreeSet<Digest>>,
    /// Which part of the build cache; `None` keeps all.
    pub cache: Option<PruneCache>,
    /// Which volumes.
    pub volumes: PruneVolumes,
    /// Only these, if they qualify; `None` is all that qualify.
    pub only_volumes: Option<BTreeSet<String>>,
    /// When to stop measuring and unlinking; the rest stays in the trash for the next collection.
    pub deadline: Option<Instant>,
}

/// Images that a prune gives up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PruneImages {
    /// None.
    #[default]
    None,
    /// Those without a name and without a container.
    Dangling,
    /// Those without a container.
    Unused,
}

/// One part of the build cache.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheItem {
    /// The result of a step.
    Record(i64),
    /// A cache mount, by the id in the Dockerfile.
    Mount(String),
    /// What is known of the files of a build context, by the name of its file.
    Context(String),
}

/// Build cache that a prune gives up; every condition must hold. What running processes use stays.
#[derive(Debug, Clone, Default)]
pub struct PruneCache {
    /// Not used since this time, nanoseconds since 1970.
    pub unused_since: Option<i64>,
    /// Only these.
    pub only: Option<BTreeSet<CacheItem>>,
    /// Results that belong to an image or a container, too: their layers stay, but are not found again.
    pub shared: bool,
    /// Least recently used first, until what only the cache needs fits.
    pub limits: CacheLimits,
}

impl PruneCache {
    /// Gives up everything.
    pub fn everything() -> Self {
        Self { shared: true, ..Self::default() }
    }
}

/// Volumes that a prune gives up: never one that a container mounts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PruneVolumes {
    /// None.
    #[default]
    None,
    /// Those whose name mica made up.
    Anonymous,
    /// All.
    All,
}

/// An image that a prune removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunedImage {
    /// Its names.
    pub untagged: Vec<Reference>,
    /// Its ID.
    pub image_id: ImageId,
    /// Its manifest or index.
    pub target: Digest,
    /// Its layers that nothing else needed, topmost first.
    pub layers: Vec<DiffId>,
}

/// A part of the build cache that a prune removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunedCache {
    /// Which.
    pub item: CacheItem,
    /// What removing it freed: a layer that several had counts for the one that made it.
    pub freed_bytes: u64,
}

/// What a collection did.
#[derive(Debug, Default)]
pub struct GcReport {
    /// Images removed.
    pub images: Vec<PrunedImage>,
    /// Parts of the build cache removed, least recently used first.
    pub cache: Vec<PrunedCache>,
    /// Names of volumes removed.
    pub volumes: Vec<String>,
    /// Layers removed.
    pub layers: u64,
    /// Blobs removed.
    pub blobs: u64,
    /// Bytes that layers, blobs, volumes and cache mounts took on disk: what `system df` announced.
    pub freed_bytes: u64,
    /// What could not be unlinked; it is in the trash, or found again by the next collection.
    pub problems: Vec<StoreError>,
}

/// Why nothing was collected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GcError {
    /// Another process is collecting right now.
    #[error("another process is already collecting{}", holder.map(|pid| format!(" (pid {pid})")).unwrap_or_default())]
    Busy {
        /// Its process ID, if known.
        holder: Option<u32>,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was looked at before the transaction, which must be short.
struct Walked {
    listing: sweep::Listing,
    volumes: Vec<(VolumeRecord, u64)>,
    loose: Vec<loose::Loose>,
    free_bytes: u64,
}

/// The lock of the one collector.
const LOCK: &str = "gc";

impl Store {
    /// Removes what `request` gives up and everything that nothing needs. Never waits for another collector.
    pub fn collect(&self, request: &GcRequest) -> Result<GcReport, GcError> {
        self.database().refuse_read_only()?;
        self.give_up_reserve();
        let lock = self.lock(LOCK);
        let Some(_held) = lock.try_acquire()? else {
            return Err(GcError::Busy { holder: lock.holder() });
        };
        self.flush_touched();
        let mut report = GcReport::default();
        let listing = sweep::Listing::read(self)?;
        let walked = Walked {
            listing,
            volumes: self.volume_sizes(request)?,
            loose: match request.cache {
                Some(_) => loose::measure(self, request.deadline)?,
                None => Vec::new(),
            },
            free_bytes: self.space()?.free_bytes,
        };
        let forgotten = self
            .database()
            .write(Strength::Full, |write| self.forget(write, request, &walked, &mut report))?;
        sweep::run(self, &walked.listing, forgotten, request, &mut report);
        self.set_reserve_aside();
        Ok(report)
    }

    /// Step 2 of the module.
    fn forget(
        &self,
        write: &Write<'_>,
        request: &GcRequest,
        walked: &Walked,
        report: &mut GcReport,
    ) -> Result<sweep::Forgotten, StoreError> {
        let dead = delete_dead_leases(self, write)?;
        let mut census = write.sql(|sql| Census::read(sql, self.boot().as_str(), &BTreeSet::new()))?;
        census.loose.clone_from(&walked.loose);
        census.free_bytes = walked.free_bytes;
        let plan = Plan::new(&census, request);
        // Before the rows go: what has a row now is not an orphan, what has none never gets one.
        let mut forgotten = write.sql(|sql| walked.listing.without_rows(sql))?;
        forgotten.leases = dead;
        for record in &plan.unusable {
            delete_record(write, *record)?;
        }
        for pruned in &plan.cache {
            if let CacheItem::Record(record) = pruned.item {
                delete_record(write, record)?;
            }
        }
        for digest in &plan.images {
            report.images.push(prune_image(write, digest)?);
        }
        for id in &plan.layers {
            forget_layer(write, *id)?;
        }
        for digest in &plan.blobs {
            write.sql(|sql| {
                sql.prepare_cached("DELETE FROM blobs WHERE digest = ?1")?.execute([digest.to_string()])
            })?;
        }
        write.sql(|sql| {
            let orphans = "DELETE FROM forms WHERE manifest NOT IN
                (SELECT digest FROM images UNION SELECT manifest FROM image_layers)";
            sql.prepare_cached(orphans)?.execute([])?;
            let orphans = "DELETE FROM fetched WHERE content NOT IN (SELECT content FROM cache_records)";
            sql.prepare_cached(orphans)?.execute([])
        })?;
        for (volume, bytes) in &walked.volumes {
            if delete_unused_volume(write, volume)? {
                report.volumes.push(volume.name.clone());
                report.freed_bytes += bytes;
                forgotten.directories.push(self.state().volume(volume.id));
            }
        }
        report.layers = plan.layers.len() as u64;
        report.blobs = plan.blobs.len() as u64;
        report.freed_bytes += plan.freed_bytes;
        forgotten.directories.extend(plan.layers.iter().map(|id| self.state().layer(*id)));
        forgotten.blobs.extend(plan.blobs);
        forgotten.cache = plan.cache;
        Ok(forgotten)
    }

    /// The volumes that `request` gives up, with their sizes: walked before the transaction, which must be short.
    fn volume_sizes(&self, request: &GcRequest) -> Result<Vec<(VolumeRecord, u64)>, StoreError> {
        let mut sizes = Vec::new();
        for volume in self.volumes()? {
            let chosen = match request.volumes {
                PruneVolumes::None => false,
                PruneVolumes::Anonymous => volume.anonymous,
                PruneVolumes::All => true,
            };
            let named = request.only_volumes.as_ref().is_none_or(|only| only.contains(&volume.name));
            if chosen && named {
                let bytes = usage::tree_bytes(&self.state().volume_data(volume.id), request.deadline)?;
                sizes.push((volume, bytes));
            }
        }
        Ok(sizes)
    }
}

fn delete_record(write: &Write<'_>, record: i64) -> Result<(), StoreError> {
    write.sql(|sql| sql.prepare_cached("DELETE FROM cache_records WHERE seq = ?1")?.execute([record]))?;
    Ok(())
}

/// Deletes the rows of leases whose lock we get; returns the locks, to be held until the files are gone.
fn delete_dead_leases(store: &Store, write: &Write<'_>) -> Result<Vec<(LeaseId, Option<File>)>, StoreError> {
    let mut dead = Vec::new();
    for id in write.sql(census::lease_ids)? {
        if let sweep::Life::Dead(file) = sweep::life(store, id)? {
            write.sql(|sql| sql.prepare_cached("DELETE FROM leases WHERE id = ?1")?.execute([id]))?;
            dead.push((id, file));
        }
    }
    Ok(dead)
}

fn prune_image(write: &Write<'_>, target: &Digest) -> Result<PrunedImage, StoreError> {
    let digest = target.to_string();
    let untagged = write.sql(|sql| names_of(sql, target))?;
    let select = format!("{SELECT_IMAGE} WHERE digest = ?1");
    let image = write.sql(|sql| sql.prepare_cached(&select)?.query_row([&digest], image_record))?;
    write.sql(|sql| sql.prepare_cached("DELETE FROM names WHERE image = ?1")?.execute([&digest]))?;
    let deleted = delete_image(write, image)?;
    Ok(PrunedImage { untagged, image_id: deleted.image_id, target: deleted.target, layers: deleted.layers })
}

/// Deletes the row of a volume unless a container mounts it; whether it is gone.
fn delete_unused_volume(write: &Write<'_>, volume: &VolumeRecord) -> Result<bool, StoreError> {
    let deleted = write.sql(|sql| {
        let delete = "DELETE FROM volumes WHERE name = ?1 AND id = ?2
            AND NOT EXISTS (SELECT 1 FROM container_volumes WHERE container_volumes.volume = volumes.name)";
        sql.prepare_cached(delete)?.execute(params![volume.name, volume.id])
    })?;
    Ok(deleted == 1)
}
