//! Caches for others.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use base64::Engine as _;
use mica_api::{CacheTo, Cancel, Error};
use mica_distribution::{
    ArchiveBlob, BlobBody, Directory, ImageFiles as _, add_to_layout, blob_file, read_blob, read_index,
};
use mica_oci::{
    Descriptor, Digest, Document, ImageConfig, Index, Manifest, Reference, annotation, media_type,
};
use mica_store::{LayerId, LayerRecord, Lease, StoreError};

use super::CacheEntry;
use super::format::{
    CONFIG_TYPE, CREATED_AT, CacheConfig, CacheLayer, CacheRecord, CacheResult, INLINE_KEY, UNCOMPRESSED,
    add_records,
};
use crate::Workshop;
use crate::export::{layer_blob, layer_media_type};
use crate::progress::Step;
use crate::registry::{CacheDocuments, Transfers, push_cache};

/// The time of everything that has none: layers are the same whenever they are made.
const NO_TIME: &str = "1970-01-01T00:00:00Z";

/// Writes entries as an OCI layout. What is under the tag is replaced at once, when everything is there.
///
/// # Errors
/// Layers that are gone, a destination that cannot be written.
pub(crate) fn write_local(
    workshop: &Workshop,
    (directory, tag, reset): (&Path, &str, bool),
    to: &CacheTo,
    entries: &[CacheEntry],
    lease: &Lease,
    cancel: &Cancel,
    step: &Step<'_>,
) -> Result<(), Error> {
    let media = layer_media_type(to.compression, to.oci_media_types);
    let present = present(directory, media);
    let scratch = lease.scratch()?;
    let records = layers_of(workshop, entries)?;
    let mut blobs: BTreeMap<Digest, ArchiveBlob<'_>> = BTreeMap::new();
    let mut descriptors: HashMap<LayerId, Descriptor> = HashMap::new();
    for record in &records {
        cancel.check()?;
        let mut descriptor = match present.get(&record.diff_id.0) {
            Some(descriptor) => descriptor.clone(),
            None => {
                let (descriptor, blob) =
                    layer_blob(workshop, record, to.compression, media, &scratch, cancel)?;
                blobs.insert(descriptor.digest.clone(), blob);
                descriptor
            }
        };
        step.status(format!("writing layer {}", descriptor.digest), descriptor.size);
        descriptor.annotations.insert(UNCOMPRESSED.to_owned(), record.diff_id.0.to_string());
        descriptor.annotations.insert(CREATED_AT.to_owned(), NO_TIME.to_owned());
        descriptors.insert(record.id, descriptor);
    }
    let config = cache_config(entries, &|layer| descriptors[&layer].digest.clone());
    let config = serde_json::to_vec(&config).expect("plain data");
    let config_descriptor = Descriptor::of(CONFIG_TYPE, &config);
    step.status(format!("writing config {}", config_descriptor.digest), config.len() as u64);
    let layers: Vec<Descriptor> = records.iter().map(|record| descriptors[&record.id].clone()).collect();
    let (bytes, kind) = manifest(to, config_descriptor.clone(), layers);
    let mut entry = Descriptor::of(kind, &bytes);
    step.status(format!("writing cache manifest {}", entry.digest), bytes.len() as u64);
    entry.annotations.insert(annotation::REF_NAME.to_owned(), tag.to_owned());
    for (digest, bytes) in [(config_descriptor.digest, config), (entry.digest.clone(), bytes)] {
        blobs.insert(digest, ArchiveBlob { size_bytes: bytes.len() as u64, body: BlobBody::Bytes(bytes) });
    }
    Ok(add_to_layout(directory, entry, reset, &blobs)?)
}

/// Sends entries to a registry. What is under the name is replaced at once, when everything is there.
///
/// # Errors
/// Layers that are gone, a registry that refuses.
pub(crate) fn write_registry(
    transfers: Transfers<'_>,
    name: &Reference,
    to: &CacheTo,
    entries: &[CacheEntry],
) -> Result<(), Error> {
    let records = layers_of(transfers.workshop, entries)?;
    let media = layer_media_type(to.compression, to.oci_media_types);
    push_cache(transfers, (name, &records), (to.compression, media), &|mut layers| {
        for (layer, record) in layers.iter_mut().zip(&records) {
            layer.annotations.insert(UNCOMPRESSED.to_owned(), record.diff_id.0.to_string());
            layer.annotations.insert(CREATED_AT.to_owned(), NO_TIME.to_owned());
        }
        let digest_of = |id: LayerId| {
            let at = records.iter().position(|record| record.id == id);
            at.map_or_else(|| Digest::of(b""), |at| layers[at].digest.clone())
        };
        let config = serde_json::to_vec(&cache_config(entries, &digest_of)).expect("plain data");
        let (manifest, kind) = manifest(to, Descriptor::of(CONFIG_TYPE, &config), layers.clone());
        let (config_type, manifest_type) = (CONFIG_TYPE.to_owned(), kind.to_owned());
        CacheDocuments { config_type, config, manifest_type, manifest }
    })
}

/// Puts the cache of what the image is made of into its config (E5).
pub(crate) fn embed(config: &mut ImageConfig, stack: &[LayerId], entries: &[CacheEntry]) {
    let mut records = Vec::new();
    for entry in entries {
        if let Some(top) = entry.layers.len().checked_sub(1).filter(|_| stack.starts_with(&entry.layers)) {
            add_records(&mut records, &entry.content, &entry.definition, &result(top));
        }
    }
    let json = serde_json::to_vec(&records).expect("plain data");
    let text = base64::engine::general_purpose::STANDARD.encode(json);
    config.extra.insert(INLINE_KEY.to_owned(), text.into());
}

/// Every layer of the entries, once.
fn layers_of(workshop: &Workshop, entries: &[CacheEntry]) -> Result<Vec<LayerRecord>, Error> {
    let mut records: Vec<LayerRecord> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for id in entries.iter().flat_map(|entry| &entry.layers) {
        if known.insert(*id) {
            records.push(workshop.store.layer(*id)?.ok_or(StoreError::LayerGone(*id))?);
        }
    }
    Ok(records)
}

/// A layer has one place for each layer that it stands on.
fn cache_config(entries: &[CacheEntry], blob: &dyn Fn(LayerId) -> Digest) -> CacheConfig {
    let mut config = CacheConfig::default();
    let mut places: HashMap<(LayerId, i64), i64> = HashMap::new();
    for entry in entries {
        let mut parent = -1;
        for id in &entry.layers {
            parent = *places.entry((*id, parent)).or_insert_with(|| {
                config.layers.push(CacheLayer { blob: blob(*id), parent });
                i64::try_from(config.layers.len()).unwrap_or(i64::MAX) - 1
            });
        }
        if let Ok(top) = usize::try_from(parent) {
            add_records(&mut config.records, &entry.content, &entry.definition, &result(top));
        }
    }
    config
}

fn result(layer: usize) -> CacheRecord {
    let created_at = Some(NO_TIME.to_owned());
    let layers = vec![CacheResult { layer, created_at }];
    CacheRecord { layers, chains: Vec::new(), digest: Digest::of(b""), inputs: Vec::new() }
}

fn manifest(to: &CacheTo, config: Descriptor, layers: Vec<Descriptor>) -> (Vec<u8>, &'static str) {
    if to.image_manifest {
        return (Manifest::image(config, layers).to_bytes(), media_type::OCI_MANIFEST);
    }
    let mut index = Index::new(layers.into_iter().chain([config]).collect());
    let kind = if to.oci_media_types { media_type::OCI_INDEX } else { media_type::DOCKER_MANIFEST_LIST };
    index.media_type = kind.to_owned();
    (index.to_bytes(), kind)
}

/// Layers that earlier caches of the same directory have in this form, by diff ID: compressing is what takes long.
fn present(directory: &Path, media: &str) -> HashMap<Digest, Descriptor> {
    let mut found = HashMap::new();
    let Ok(files) = Directory::open(directory) else { return found };
    let Ok(index) = read_index(&files) else { return found };
    for entry in &index.manifests {
        let Ok(bytes) = read_blob(&files, entry, Document::LIMIT_BYTES as u64) else { continue };
        let layers = match Document::parse(&bytes, &entry.media_type) {
            Ok(Document::Manifest(manifest)) => manifest.layers,
            Ok(Document::Index(index)) => index.manifests,
            Err(_) => continue,
        };
        for layer in layers.into_iter().filter(|layer| layer.media_type == media) {
            let diff_id = layer.annotations.get(UNCOMPRESSED).and_then(|text| text.parse().ok());
            let is_whole =
                matches!(files.open(&blob_file(&layer.digest)), Ok(Some((_, size))) if size == layer.size);
            if let Some(diff_id) = diff_id.filter(|_| is_whole) {
                found.insert(diff_id, layer);
            }
        }
    }
    found
}
