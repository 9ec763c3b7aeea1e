//! Caches that others have written.

use std::collections::HashMap;

use base64::Engine as _;
use mica_api::{CacheFrom, Cancel, Error, TransferUpdate};
use mica_distribution::{Directory, FoundLayer, ManifestName, blob_file, read_blob, read_index};
use mica_oci::{
    Descriptor, DiffId, Digest, Document, ImageConfig, Manifest, Platform, Reference, annotation,
};
use mica_solve::{Graph, VertexId};
use mica_store::{CacheKind, LayerId, LayerRecord, Lease, NewCacheRecord};
use serde_json::Value;

use super::format::{Answer, CONFIG_TYPE, CacheConfig, INLINE_KEY, UNCOMPRESSED, answers};
use crate::Workshop;
use crate::hit::Hit;
use crate::intake::bring_in_stack;
use crate::lookup::Known;
use crate::progress::Progress;
use crate::registry::{Transfers, bring_layers};

/// The most bytes a cache's config may have: a record has about 200.
const CONFIG_LIMIT_BYTES: u64 = 64 << 20;

/// The imported caches of one build.
pub(crate) struct Imports<'a> {
    workshop: &'a Workshop,
    lease: &'a Lease,
    cancel: &'a Cancel,
    progress: &'a Progress<'a>,
    caches: Vec<Cache>,
}

struct Cache {
    place: Place,
    answers: HashMap<[u8; 32], Answer>,
    layers: Vec<FoundLayer>,
}

/// Where a cache is.
enum Place {
    Layout(Directory),
    Registry(Reference),
}

/// Why a cache cannot be used; the text is all that becomes of it.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error(transparent)]
    Files(#[from] mica_distribution::FilesError),
    #[error(transparent)]
    Read(#[from] mica_distribution::ReadError),
    #[error(transparent)]
    Document(#[from] mica_oci::DocumentError),
    #[error(transparent)]
    Registry(#[from] mica_distribution::RegistryError),
    #[error("invalid cache config: {0}")]
    Json(#[from] serde_json::Error),
    #[error("invalid inline cache: {0}")]
    Base64(#[from] base64::DecodeError),
    #[error("{0} not found")]
    NoEntry(String),
    #[error("it has neither a cache config nor an inline cache")]
    NoCache,
    #[error("layer {0} has no annotation {UNCOMPRESSED}")]
    NoDiffId(Digest),
    #[error("layer {0} of the cache config is no layer of its manifest")]
    NoLayer(Digest),
}

impl<'a> Imports<'a> {
    /// Reads what the caches answer. One that cannot be read is told and left out (E8).
    pub(crate) fn open(
        workshop: &'a Workshop,
        lease: &'a Lease,
        cancel: &'a Cancel,
        progress: &'a Progress<'a>,
        from: &[CacheFrom],
    ) -> Self {
        let mut caches = Vec::new();
        for source in from {
            let (kind, name) = match source {
                CacheFrom::Local { directory, .. } => ("local", format!("local:{}", directory.display())),
                CacheFrom::Registry(reference) => ("registry", reference.to_string()),
            };
            let step = progress.internal(format!("importing cache manifest from {name}"));
            match read(workshop, source, cancel) {
                Ok(cache) => {
                    caches.push(cache);
                    step.done();
                }
                Err(error) => {
                    let why = with_causes(&error);
                    step.failed(format!("failed to configure {kind} cache importer: {name}: {why}"));
                }
            }
        }
        Self { workshop, lease, cancel, progress, caches }
    }

    /// The result under a key, its layers unpacked here and recorded.
    pub(crate) fn bring(&self, key: &CacheKeys<'_>) -> Result<Option<Hit>, Error> {
        for cache in &self.caches {
            let Some(answer) = key.keys.iter().find_map(|key| cache.answers.get(*key)) else { continue };
            match self.unpack(cache, answer) {
                Ok(layers) => {
                    let record = NewCacheRecord {
                        content: answer.content.as_bytes(),
                        aliases: &key.keys.map(|key| *key),
                        layers: &layers,
                        description: key.description,
                        kind: CacheKind::Regular,
                    };
                    self.workshop.store.cache_record(&record, self.lease)?;
                    return Ok(Some(Hit { key: answer.content, layers }));
                }
                Err(error) => {
                    self.cancel.check()?;
                    self.progress
                        .notice(format!("{}: the imported result is unusable: {error}", key.description));
                }
            }
        }
        Ok(None)
    }

    fn unpack(&self, cache: &Cache, answer: &Answer) -> Result<Vec<LayerId>, Error> {
        let layers: Vec<FoundLayer> =
            answer.layers.iter().filter_map(|index| cache.layers.get(*index)).cloned().collect();
        let records = match &cache.place {
            Place::Layout(files) => {
                bring_in_stack(self.workshop, files, &layers, self.lease, self.cancel, None)?
            }
            Place::Registry(reference) => self.fetch(reference, &layers)?,
        };
        Ok(records.iter().map(|record| record.id).collect())
    }

    /// Layers of a registry: what is known by diff ID is not fetched.
    fn fetch(&self, reference: &Reference, layers: &[FoundLayer]) -> Result<Vec<LayerRecord>, Error> {
        let Self { workshop, lease, cancel, .. } = *self;
        let step = self.progress.internal(format!("importing cached layers from {reference}"));
        let tell = |update: TransferUpdate| step.transfer(&update);
        let transfers = Transfers { workshop, lease, cancel, tell: &tell };
        let blobs: Vec<Descriptor> = layers.iter().filter_map(blob_of).collect();
        let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let repository = workshop.registries.repository(reference)?;
        let brought = bring_layers(transfers, &repository, &blobs, &diff_ids);
        match &brought {
            Ok(_) => step.done(),
            Err(error) => step.failed(error.to_string()),
        }
        brought
    }

    /// Answers what stands between the target and what is known; inputs of an answered vertex are not looked at.
    pub(crate) fn settle(&self, known: &mut [Known], graph: &Graph, target: VertexId) -> Result<(), Error> {
        if self.caches.is_empty() {
            return Ok(());
        }
        let mut waiting = vec![target];
        let mut seen = vec![false; known.len()];
        while let Some(id) = waiting.pop() {
            if std::mem::replace(&mut seen[id.0 as usize], true) {
                continue;
            }
            let vertex = graph.vertex(id);
            if let Known::Vertex { definition, hit, may_hit } = &mut known[id.0 as usize] {
                if hit.is_none() && *may_hit {
                    let keys = CacheKeys { keys: [definition.as_bytes()], description: &vertex.name };
                    *hit = self.bring(&keys)?;
                }
                if hit.is_some() {
                    continue;
                }
            }
            waiting.extend(&vertex.inputs);
        }
        Ok(())
    }
}

/// A key to look for, and what it is of.
pub(crate) struct CacheKeys<'a> {
    pub(crate) keys: [&'a [u8; 32]; 1],
    pub(crate) description: &'a str,
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The blob that a layer is fetched as.
fn blob_of(layer: &FoundLayer) -> Option<Descriptor> {
    Some(Descriptor::new("", layer.digest.clone()?, layer.size_bytes?))
}

fn read(workshop: &Workshop, source: &CacheFrom, cancel: &Cancel) -> Result<Cache, ImportError> {
    match source {
        CacheFrom::Local { directory, tag, digest } => {
            let files = Directory::open(directory)?;
            let index = read_index(&files)?;
            let is_wanted = |entry: &&Descriptor| match digest {
                Some(digest) => entry.digest == *digest,
                None => entry.annotations.get(annotation::REF_NAME) == Some(tag),
            };
            let name = digest.as_ref().map_or_else(|| tag.clone(), ToString::to_string);
            let entry = index.manifests.iter().find(is_wanted).ok_or(ImportError::NoEntry(name))?;
            let bytes = read_blob(&files, entry, Document::LIMIT_BYTES as u64)?;
            let document = Document::parse(&bytes, &entry.media_type)?;
            let blob = |blob: &Descriptor| Ok(read_blob(&files, blob, CONFIG_LIMIT_BYTES)?);
            let (answers, layers) = understand(document, &blob)?;
            Ok(Cache { place: Place::Layout(files), answers, layers })
        }
        CacheFrom::Registry(reference) => {
            let repository = workshop.registries.repository(reference)?;
            let mut found = repository.manifest(&repository.named(), cancel)?;
            if let Some(platform) = of_machine(&found.document) {
                found = repository.manifest(&ManifestName::Digest(platform), cancel)?;
            }
            let limit = usize::try_from(CONFIG_LIMIT_BYTES).unwrap_or(usize::MAX);
            let blob = |blob: &Descriptor| Ok(repository.blob(blob, limit, cancel)?);
            let (answers, layers) = understand(found.document, &blob)?;
            Ok(Cache { place: Place::Registry(reference.clone()), answers, layers })
        }
    }
}

/// The manifest of an index of images that this machine runs: it may have an inline cache.
fn of_machine(document: &Document) -> Option<Digest> {
    let Document::Index(index) = document else { return None };
    let host = Platform::host();
    let fits = |entry: &&Descriptor| entry.platform.as_ref().is_some_and(|found| found.matches(&host));
    index.manifests.iter().find(fits).map(|entry| entry.digest.clone())
}

/// What a cache answers, and its layers.
type Understood = (HashMap<[u8; 32], Answer>, Vec<FoundLayer>);
/// Gives the bytes of a config.
type Blobs<'a> = &'a dyn Fn(&Descriptor) -> Result<Vec<u8>, ImportError>;

/// Both shapes of caches, and images with one inside (E4, E5).
fn understand(document: Document, blob: Blobs<'_>) -> Result<Understood, ImportError> {
    let (config, layers) = match document {
        Document::Manifest(manifest) if manifest.config.media_type == CONFIG_TYPE => {
            (manifest.config, manifest.layers)
        }
        Document::Manifest(manifest) => return inline(&manifest, blob),
        Document::Index(index) => {
            let (configs, layers): (Vec<_>, Vec<_>) =
                index.manifests.into_iter().partition(|entry| entry.media_type == CONFIG_TYPE);
            (configs.into_iter().next().ok_or(ImportError::NoCache)?, layers)
        }
    };
    let config: CacheConfig = serde_json::from_slice(&blob(&config)?)?;
    let by_digest: HashMap<_, _> = layers.iter().map(|layer| (&layer.digest, layer)).collect();
    let layers = config.layers.iter().map(|layer| {
        let descriptor =
            by_digest.get(&layer.blob).ok_or_else(|| ImportError::NoLayer(layer.blob.clone()))?;
        let diff_id = descriptor.annotations.get(UNCOMPRESSED).and_then(|text| text.parse().ok());
        found_layer(descriptor, DiffId(diff_id.ok_or_else(|| ImportError::NoDiffId(layer.blob.clone()))?))
    });
    Ok((answers(&config), layers.collect::<Result<_, _>>()?))
}

/// The cache in an image's own config (E5): results are positions in its list of layers.
fn inline(manifest: &Manifest, blob: Blobs<'_>) -> Result<Understood, ImportError> {
    let config: ImageConfig = serde_json::from_slice(&blob(&manifest.config)?)?;
    let text = config.extra.get(INLINE_KEY).and_then(Value::as_str).ok_or(ImportError::NoCache)?;
    let records = serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(text)?)?;
    let diff_ids = config.rootfs.diff_ids.unwrap_or_default();
    let pairs = manifest.layers.iter().zip(&diff_ids);
    let layers: Vec<FoundLayer> =
        pairs.map(|(layer, diff_id)| found_layer(layer, diff_id.clone())).collect::<Result<_, _>>()?;
    let chained = (0..layers.len()).map(|index| super::format::CacheLayer {
        blob: manifest.layers[index].digest.clone(),
        parent: i64::try_from(index).unwrap_or(0) - 1,
    });
    let config = CacheConfig { layers: chained.collect(), records };
    Ok((answers(&config), layers))
}

fn found_layer(descriptor: &Descriptor, diff_id: DiffId) -> Result<FoundLayer, ImportError> {
    Ok(FoundLayer {
        file: blob_file(&descriptor.digest),
        digest: Some(descriptor.digest.clone()),
        size_bytes: Some(descriptor.size),
        diff_id,
    })
}
