//! What takes how much: `system df`, with the same arithmetic as the prune that follows.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use mica_oci::{Digest, ImageId, Reference};
use mica_sys::root::Root;
use rustix::fs::FileType;

use super::census::{Census, lease_ids};
use super::plan::Plan;
use super::sweep::{Life, life};
use super::{GcRequest, PruneCache, PruneImages};
use crate::error::{IoContext as _, StoreError};
use crate::image::names_of;
use crate::{CacheMountRecord, ContainerId, LeaseId, Store};

/// What the store holds, and what each prune would free.
#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    /// Each image, newest first.
    pub images: Vec<ImageUsage>,
    /// What all images need together, everything counted once.
    pub images_bytes: u64,
    /// Each usable cache record, least recently used first.
    pub cache: Vec<CacheUsage>,
    /// What cache records need and no image, container or running process does.
    pub cache_bytes: u64,
    /// Each cache mount with its size.
    pub cache_mounts: Vec<(CacheMountRecord, u64)>,
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

/// A cache record and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheUsage {
    /// The record.
    pub record: i64,
    /// What the layers take that no other record has.
    pub unique_bytes: u64,
    /// What all its layers take.
    pub size_bytes: u64,
    /// Whether an image, a container or a running process needs one of its layers.
    pub is_shared: bool,
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
        let dead = self.dead_leases()?;
        let (census, mut usage) = self.database().read(|sql| {
            let census = Census::read(sql, self.boot().as_str(), &dead)?;
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
            Ok((census, usage))
        })?;
        usage.images_bytes = union_of_images(&census);
        usage.cache = cache_usage(&census);
        usage.cache_bytes =
            freed(&census, &prune_all_cache()).saturating_sub(freed(&census, &GcRequest::default()));
        self.measure_trees(&mut usage)?;
        usage.reclaimable = reclaimable(&census, &usage);
        Ok(usage)
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
        for mount in self.cache_mounts()? {
            let bytes = tree_bytes(&mount.path)?;
            usage.cache_mounts.push((mount, bytes));
        }
        for container in self.containers()? {
            let bytes = tree_bytes(&self.state().container(&container.id))?;
            usage.containers.push(ContainerUsage { id: container.id, bytes });
        }
        for volume in &mut usage.volumes {
            if let Some(record) = self.volume(&volume.name)? {
                volume.bytes = tree_bytes(&self.state().volume_data(record.id))?;
            }
        }
        Ok(())
    }
}

fn prune_all_cache() -> GcRequest {
    GcRequest { cache: Some(PruneCache::default()), ..GcRequest::default() }
}

fn freed(census: &Census, request: &GcRequest) -> u64 {
    Plan::new(census, request).freed_bytes
}

fn reclaimable(census: &Census, usage: &DiskUsage) -> Reclaimable {
    let images = |images| GcRequest { images, ..GcRequest::default() };
    let mounts: u64 = usage.cache_mounts.iter().map(|(_, bytes)| bytes).sum();
    let everything = GcRequest { images: PruneImages::Unused, ..prune_all_cache() };
    Reclaimable {
        garbage_bytes: freed(census, &GcRequest::default()),
        dangling_images_bytes: freed(census, &images(PruneImages::Dangling)),
        unused_images_bytes: freed(census, &images(PruneImages::Unused)),
        cache_bytes: freed(census, &prune_all_cache()) + mounts,
        volumes_bytes: usage.volumes.iter().filter(|volume| volume.containers == 0).map(|v| v.bytes).sum(),
        images_and_cache_bytes: freed(census, &everything) + mounts,
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

fn cache_usage(census: &Census) -> Vec<CacheUsage> {
    let mut record_count = vec![0_u32; census.layers.len()];
    for record in census.records.iter().filter(|record| record.is_usable) {
        record.layers.iter().for_each(|layer| record_count[*layer] += 1);
    }
    let mut held: BTreeSet<usize> = census.images.iter().flat_map(|image| &image.layers).copied().collect();
    held.extend(census.leased_layers.iter().chain(&census.container_layers));
    let usable = census.records.iter().filter(|record| record.is_usable);
    let usage = usable.map(|record| CacheUsage {
        record: record.record,
        unique_bytes: record
            .layers
            .iter()
            .filter(|layer| record_count[**layer] == 1 && !held.contains(layer))
            .map(|layer| census.layers[*layer].bytes)
            .sum(),
        size_bytes: record.layers.iter().map(|layer| census.layers[*layer].bytes).sum(),
        is_shared: record.layers.iter().any(|layer| held.contains(layer)),
    });
    usage.collect()
}

/// What a tree takes on disk: blocks as the file system counts them, a hard-linked file once; 0 if it is missing.
///
/// What vanishes while we look, because a container removes it, counts nothing.
pub(super) fn tree_bytes(path: &Path) -> Result<u64, StoreError> {
    let root = match Root::open(path) {
        Ok(root) => root,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error).context("open", path),
    };
    let mut linked: HashSet<(u64, u64)> = HashSet::new();
    let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
    let mut bytes = 0_u64;
    while let Some(directory) = todo.pop() {
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
