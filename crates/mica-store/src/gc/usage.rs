//! What takes how much: `system df`, with the same arithmetic as the prune that follows.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;
use std::time::Instant;

use mica_oci::{Digest, ImageId, Reference};
use mica_sys::root::Root;
use rustix::fs::FileType;

use super::census::{Census, RecordRow, lease_ids, makers};
use super::loose::{self, Loose};
use super::plan::Plan;
use super::sweep::{Life, life};
use super::{CacheItem, GcRequest, PruneCache, PruneImages};
use crate::cache::{self, CacheKind, CacheRecord};
use crate::error::{IoContext as _, StoreError};
use crate::image::names_of;
use crate::{ContainerId, LayerId, LeaseId, Store, layout};

/// What the store holds, and what each prune would free.
#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    /// Each image, newest first.
    pub images: Vec<ImageUsage>,
    /// What all images need together, everything counted once.
    pub images_bytes: u64,
    /// The build cache, least recently used first.
    pub cache: Vec<CacheUsage>,
    /// Each container, newest first.
    pub containers: Vec<ContainerUsage>,
    /// Each volume, by name.
    pub volumes: Vec<VolumeUsage>,
    /// What each prune would free.
    pub reclaimable: Reclaimable,
}

/// An image and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageUsage {
    /// Its manifest or index.
    pub target: Digest,
    /// Its ID.
    pub image_id: ImageId,
    /// Its names, sorted.
    pub names: Vec<Reference>,
    /// Everything it needs.
    pub size_bytes: u64,
    /// The part that other images need too.
    pub shared_bytes: u64,
    /// How many containers were made from it.
    pub containers: u64,
}

impl ImageUsage {
    /// The part that no other image needs.
    pub fn unique_bytes(&self) -> u64 {
        self.size_bytes - self.shared_bytes
    }
}

/// A part of the build cache and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheUsage {
    /// Which.
    pub item: CacheItem,
    /// Its name for people: 25 characters, the same as long as it exists.
    pub id: String,
    /// `id` of the result that it builds on.
    pub parent: Option<String>,
    /// What made it.
    pub description: String,
    /// What kind of thing it is.
    pub kind: CacheKind,
    /// When it was made, nanoseconds since 1970.
    pub created: i64,
    /// When it was last used, nanoseconds since 1970.
    pub last_used: i64,
    /// How often it was used.
    pub uses: u64,
    /// What the layers take that it made: each layer counts for one record.
    pub size_bytes: u64,
    /// The part of it that images and containers have too.
    pub shared_bytes: u64,
    /// The part of it that [`PruneCache::everything`] would free now.
    pub reclaimable_bytes: u64,
    /// Whether the whole result belongs to images and containers too.
    pub is_shared: bool,
    /// Whether a running process uses it.
    pub in_use: bool,
}

/// A container and what its writable files take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerUsage {
    /// The container.
    pub id: ContainerId,
    /// What its directory takes.
    pub bytes: u64,
}

/// A volume and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeUsage {
    /// Its name.
    pub name: String,
    /// What its files take.
    pub bytes: u64,
    /// How many containers mount it.
    pub containers: u64,
}

/// What each prune would free; each figure includes `garbage_bytes`, because every prune collects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reclaimable {
    /// What nothing needs already.
    pub garbage_bytes: u64,
    /// `image prune`.
    pub dangling_images_bytes: u64,
    /// `image prune --all`.
    pub unused_images_bytes: u64,
    /// `builder prune --all`, cache mounts included.
    pub cache_bytes: u64,
    /// `volume prune --all`; without garbage.
    pub volumes_bytes: u64,
    /// `system prune --all`, without containers and volumes.
    pub images_and_cache_bytes: u64,
}

impl Store {
    /// Measures the store. Walks the files of containers, volumes and cache mounts.
    pub fn disk_usage(&self) -> Result<DiskUsage, StoreError> {
        self.flush_touched();
        let dead = self.dead_leases()?;
        let boot = self.boot().as_str();
        let (mut census, records, mut usage) = self.database().read(|sql| {
            let census = Census::read(sql, boot, &dead)?;
            let mut usage = DiskUsage { images: image_usage(&census), ..DiskUsage::default() };
            for image in &mut usage.images {
                image.names = names_of(sql, &image.target)?;
            }
            let count = "SELECT count(*) FROM container_volumes WHERE volume = ?1";
            let mut volumes = sql.prepare_cached("SELECT name FROM volumes ORDER BY name")?;
            for name in volumes.query_map([], |row| row.get::<_, String>(0))? {
                let name = name?;
                let containers: i64 = sql.prepare_cached(count)?.query_row([&name], |row| row.get(0))?;
                usage.volumes.push(VolumeUsage { name, bytes: 0, containers: containers.cast_unsigned() });
            }
            Ok((census, cache::records(sql, boot)?, usage))
        })?;
        census.loose = loose::measure(self, None)?;
        usage.images_bytes = union_of_images(&census);
        usage.cache = cache_usage(&census, &records);
        self.measure_trees(&mut usage)?;
        usage.reclaimable = reclaimable(&census, &usage);
        Ok(usage)
    }

    /// Measures the build cache alone, least recently used first, and what nothing needs. Of files it walks those of
    /// cache mounts.
    pub fn cache_usage(&self) -> Result<(Vec<CacheUsage>, u64), StoreError> {
        self.flush_touched();
        let dead = self.dead_leases()?;
        let boot = self.boot().as_str();
        let (mut census, records) =
            self.database().read(|sql| Ok((Census::read(sql, boot, &dead)?, cache::records(sql, boot)?)))?;
        census.loose = loose::measure(self, None)?;
        Ok((cache_usage(&census, &records), freed(&census, &GcRequest::default())))
    }

    /// Leases that nobody holds, without touching them.
    fn dead_leases(&self) -> Result<BTreeSet<LeaseId>, StoreError> {
        let mut dead = BTreeSet::new();
        for id in self.database().read(lease_ids)? {
            if let Life::Dead(_) = life(self, id)? {
                dead.insert(id);
            }
        }
        Ok(dead)
    }

    fn measure_trees(&self, usage: &mut DiskUsage) -> Result<(), StoreError> {
        for container in self.containers()? {
            let bytes = tree_bytes(&self.state().container(&container.id), None)?;
            usage.containers.push(ContainerUsage { id: container.id, bytes });
        }
        for volume in &mut usage.volumes {
            if let Some(record) = self.volume(&volume.name)? {
                volume.bytes = tree_bytes(&self.state().volume_data(record.id), None)?;
            }
        }
        Ok(())
    }
}

fn prune_all_cache() -> GcRequest {
    GcRequest { cache: Some(PruneCache::everything()), ..GcRequest::default() }
}

fn freed(census: &Census, request: &GcRequest) -> u64 {
    let plan = Plan::new(census, request);
    plan.freed_bytes + plan.loose_bytes
}

fn reclaimable(census: &Census, usage: &DiskUsage) -> Reclaimable {
    let images = |images| GcRequest { images, ..GcRequest::default() };
    let everything = GcRequest { images: PruneImages::Unused, ..prune_all_cache() };
    Reclaimable {
        garbage_bytes: freed(census, &GcRequest::default()),
        dangling_images_bytes: freed(census, &images(PruneImages::Dangling)),
        unused_images_bytes: freed(census, &images(PruneImages::Unused)),
        cache_bytes: freed(census, &prune_all_cache()),
        volumes_bytes: usage.volumes.iter().filter(|volume| volume.containers == 0).map(|v| v.bytes).sum(),
        images_and_cache_bytes: freed(census, &everything),
    }
}

fn image_usage(census: &Census) -> Vec<ImageUsage> {
    let mut layer_images = vec![0_u32; census.layers.len()];
    let mut blob_images = vec![0_u32; census.blobs.len()];
    for image in &census.images {
        image.layers.iter().for_each(|layer| layer_images[*layer] += 1);
        image.blobs.iter().for_each(|blob| blob_images[*blob] += 1);
    }
    let usage = census.images.iter().map(|image| {
        let layers = image.layers.iter().map(|layer| (census.layers[*layer].bytes, layer_images[*layer]));
        let blobs = image.blobs.iter().map(|blob| (census.blobs[*blob].bytes, blob_images[*blob]));
        let parts: Vec<(u64, u32)> = layers.chain(blobs).collect();
        ImageUsage {
            target: image.target.clone(),
            image_id: image.image_id.clone(),
            names: Vec::new(),
            size_bytes: parts.iter().map(|(bytes, _)| bytes).sum(),
            shared_bytes: parts.iter().filter(|(_, images)| *images > 1).map(|(bytes, _)| bytes).sum(),
            containers: image.containers,
        }
    });
    usage.collect()
}

fn union_of_images(census: &Census) -> u64 {
    let layers: BTreeSet<usize> = census.images.iter().flat_map(|image| &image.layers).copied().collect();
    let blobs: BTreeSet<usize> = census.images.iter().flat_map(|image| &image.blobs).copied().collect();
    let layers: u64 = layers.into_iter().map(|layer| census.layers[layer].bytes).sum();
    let blobs: u64 = blobs.into_iter().map(|blob| census.blobs[blob].bytes).sum();
    layers + blobs
}

fn cache_usage(census: &Census, described: &[CacheRecord]) -> Vec<CacheUsage> {
    let described: HashMap<i64, &CacheRecord> =
        described.iter().map(|record| (record.record, record)).collect();
    let rows: Vec<&RecordRow> = census.usable_records().collect();
    let shared = census.shared_layers();
    let mut made = vec![Vec::new(); rows.len()];
    for (layer, maker) in makers(&rows, &shared, census.layers.len()).into_iter().enumerate() {
        maker.into_iter().for_each(|maker: usize| made[maker].push(layer));
    }
    let by_layers = oldest_by_layers(described.values().copied());
    let mut usage: Vec<CacheUsage> = census.loose.iter().map(loose_usage).collect();
    for (row, made) in rows.iter().zip(&made) {
        // Recorded between the two readings, which one transaction excludes.
        let Some(record) = described.get(&row.record) else { continue };
        let bytes = |counts: &dyn Fn(usize) -> bool| {
            made.iter().filter(|layer| counts(**layer)).map(|layer| census.layers[*layer].bytes).sum::<u64>()
        };
        usage.push(CacheUsage {
            item: CacheItem::Record(record.record),
            id: id_of_content(&record.content),
            parent: parent_of(record, &by_layers).map(|parent| id_of_content(&parent.content)),
            description: record.description.clone(),
            kind: record.kind,
            created: record.created,
            last_used: record.last_used,
            uses: record.uses,
            size_bytes: bytes(&|_| true),
            shared_bytes: bytes(&|layer| shared.contains(&layer)),
            reclaimable_bytes: bytes(&|layer| {
                !shared.contains(&layer) && !census.leased_layers.contains(&layer)
            }),
            is_shared: row.is_within(&shared),
            in_use: row.is_within(&census.leased_layers),
        });
    }
    usage.sort_by_key(|part| part.last_used);
    usage
}

fn loose_usage(loose: &Loose) -> CacheUsage {
    let (kind, id, description) = match &loose.item {
        CacheItem::Mount(id) => {
            (CacheKind::CacheMount, layout::hash_name(id.as_bytes()), format!("cached mount with id {id:?}"))
        }
        CacheItem::Context(name) => {
            (CacheKind::LocalSource, name.clone(), "digests of the files of a build context".to_owned())
        }
        CacheItem::Record(record) => (CacheKind::Regular, record.to_string(), String::new()),
    };
    CacheUsage {
        item: loose.item.clone(),
        id: short(&id),
        parent: None,
        description,
        kind,
        created: loose.created,
        last_used: loose.last_used,
        uses: 1,
        size_bytes: loose.bytes,
        shared_bytes: 0,
        reclaimable_bytes: if loose.in_use { 0 } else { loose.bytes },
        is_shared: false,
        in_use: loose.in_use,
    }
}

fn oldest_by_layers<'a>(
    records: impl Iterator<Item = &'a CacheRecord>,
) -> HashMap<&'a [LayerId], &'a CacheRecord> {
    let mut oldest: HashMap<&[LayerId], &CacheRecord> = HashMap::new();
    for record in records {
        let known = oldest.entry(&record.layers).or_insert(record);
        if record.record < known.record {
            *known = record;
        }
    }
    oldest
}

/// The record whose result is the longest beginning of this one; of equal ones the oldest.
fn parent_of<'a>(
    record: &CacheRecord,
    by_layers: &HashMap<&[LayerId], &'a CacheRecord>,
) -> Option<&'a CacheRecord> {
    let same = by_layers.get(record.layers.as_slice()).filter(|same| same.record < record.record);
    let shorter = || (1..record.layers.len()).rev().find_map(|count| by_layers.get(&record.layers[..count]));
    same.or_else(shorter).copied()
}

fn id_of_content(content: &[u8; 32]) -> String {
    let hex: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
    short(&hex)
}

/// As long as BuildKit's identities.
fn short(id: &str) -> String {
    id.chars().take(25).collect()
}

/// What a tree takes on disk: blocks as the file system counts them, a hard-linked file once; 0 if it is missing.
///
/// What vanishes while we look, because a container removes it, counts nothing; nor does what the deadline cuts off.
pub(super) fn tree_bytes(path: &Path, deadline: Option<Instant>) -> Result<u64, StoreError> {
    let root = match Root::open(path) {
        Ok(root) => root,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).context("open", path),
    };
    let mut linked: HashSet<(u64, u64)> = HashSet::new();
    let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
    let mut bytes = 0_u64;
    while let Some(directory) = todo.pop() {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        let Ok(items) = root.read_dir(&directory) else { continue };
        for item in items {
            let mut child = directory.clone();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(&item.name);
            let Ok(stat) = root.lstat(&child) else { continue };
            if stat.st_nlink < 2
                || item.file_type == FileType::Directory
                || linked.insert((stat.st_dev, stat.st_ino))
            {
                bytes = bytes.saturating_add(u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512));
            }
            if item.file_type == FileType::Directory {
                todo.push(child);
            }
        }
    }
    Ok(bytes)
}
