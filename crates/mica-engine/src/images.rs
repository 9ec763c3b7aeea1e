//! Images: list, look, name, remove.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use mica_api::{
    Cancel, Class, Error, EventSink, GraphDriver, HistoryEntry, ImageDetails, ImageFilter, ImageMetadata,
    ImageSummary, ListImages, PruneImages, PruneReport, RemoveImage, RemovedImage, Result, RootFsDetails,
    Timestamp,
};
use mica_oci::{DiffId, Digest, Document, ImageConfig, ImageId, Manifest, Platform, Reference};
use mica_store::{
    GcRequest, ImageRecord, LayerId, LayerRecord, ManifestLayers, PruneImages as UnneededImages, Removal,
    Removed, StoreError,
};

use crate::LocalEngine;
use crate::glob::matches_reference;
use crate::system::prune_report;
use crate::times::rfc3339;

/// The most bytes an image config may have (security.md section 5).
pub(crate) const CONFIG_LIMIT_BYTES: u64 = 8 << 20;

/// One platform of an image: manifest, config and the layers that are here.
pub(crate) struct PlatformImage {
    pub(crate) digest: Digest,
    pub(crate) manifest: Manifest,
    pub(crate) config: ImageConfig,
    pub(crate) layers: Vec<LayerId>,
}

impl LocalEngine {
    /// The platforms of an image whose content is here, in the order of its index.
    pub(crate) fn platforms(&self, target: &Digest) -> Result<Vec<PlatformImage>> {
        let contents = self.store().image_contents(target)?.unwrap_or_else(|| absent_contents(target));
        let mut manifests = contents.manifests;
        // The store lists layers: of an image without layers it lists nothing.
        if manifests.is_empty() && self.manifest(target).is_ok_and(|manifest| manifest.layers.is_empty()) {
            manifests.push(ManifestLayers { manifest: target.clone(), layers: Vec::new() });
        }
        manifests
            .into_iter()
            .map(|entry| {
                let manifest = self.manifest(&entry.manifest)?;
                let bytes = self.store().read_blob(&manifest.config.digest, CONFIG_LIMIT_BYTES)?;
                let config = serde_json::from_slice(&bytes).map_err(|error| {
                    Error::new(Class::Corrupt, format!("image config {} is damaged", manifest.config.digest))
                        .why(error.to_string())
                })?;
                Ok(PlatformImage { digest: entry.manifest, manifest, config, layers: entry.layers })
            })
            .collect()
    }

    fn manifest(&self, digest: &Digest) -> Result<Manifest> {
        let bytes = self.store().read_blob(digest, Document::LIMIT_BYTES as u64)?;
        match Document::parse(&bytes, "") {
            Ok(Document::Manifest(manifest)) => Ok(manifest),
            Ok(Document::Index(_)) => {
                Err(Error::new(Class::Corrupt, format!("{digest} is an index, not a manifest")))
            }
            Err(error) => {
                Err(Error::new(Class::Corrupt, format!("manifest {digest} is damaged"))
                    .why(error.to_string()))
            }
        }
    }

    /// The image of a platform: the one asked for, else this machine's, else the first.
    pub(crate) fn platform_image(
        &self,
        record: &ImageRecord,
        wanted: Option<&Platform>,
    ) -> Result<PlatformImage> {
        let mut platforms = self.platforms(&record.target.digest)?;
        let host = Platform::host();
        let position = |platform: &Platform| {
            platforms.iter().position(|image| image.config.platform().matches(platform))
        };
        let found = match wanted {
            Some(platform) => position(platform),
            None => position(&host).or((!platforms.is_empty()).then_some(0)),
        };
        match found {
            Some(index) => Ok(platforms.swap_remove(index)),
            None => {
                let has: Vec<String> =
                    platforms.iter().map(|image| image.config.platform().to_string()).collect();
                let shown =
                    record.name.as_ref().map_or_else(|| record.image_id.to_string(), Reference::familiar);
                let wanted = wanted.unwrap_or(&host);
                Err(Error::new(Class::NotFound, format!("image {shown} has no content for {wanted}")).why(
                    format!(
                        "the store has {}",
                        if has.is_empty() { "none".to_owned() } else { has.join(", ") }
                    ),
                ))
            }
        }
    }

    pub(crate) fn layer_records(&self, layers: &[LayerId]) -> Result<Vec<LayerRecord>> {
        layers.iter().map(|id| Ok(self.store().layer(*id)?.ok_or(StoreError::LayerGone(*id))?)).collect()
    }
}

fn absent_contents(target: &Digest) -> mica_store::ImageContents {
    mica_store::ImageContents {
        image_id: mica_oci::ImageId(target.clone()),
        blobs: Vec::new(),
        manifests: Vec::new(),
    }
}

/// Whether an image that was listed is not there any more.
fn is_gone(engine: &LocalEngine, record: &ImageRecord) -> Result<bool> {
    let digest = &record.target.digest;
    Ok(!engine.store().images()?.iter().any(|other| other.target.digest == *digest))
}

/// `images`.
pub(crate) fn list(engine: &LocalEngine, request: &ListImages) -> Result<Vec<ImageSummary>> {
    let store = engine.store();
    let records = store.images()?;
    let mut containers: HashMap<Digest, u64> = HashMap::new();
    for container in store.containers()? {
        if let Some(image) = container.image {
            *containers.entry(image).or_default() += 1;
        }
    }
    let mut sizes = Sizes::new(engine, &records)?;
    let conditions = Conditions::new(engine, &request.filters)?;
    let shows_untagged = request.all || conditions.asks_dangling();
    let mut rows = Vec::new();
    for record in &records {
        if record.name.is_none() && !shows_untagged {
            continue;
        }
        if !matches_repository(record, request.repository.as_deref()) {
            continue;
        }
        let row = conditions.hold(engine, record).and_then(|holds| {
            holds.then(|| summary(engine, record, &mut sizes, request.sizes, &containers)).transpose()
        });
        match row {
            Ok(row) => rows.extend(row),
            // Somebody has just removed it.
            Err(error) if error.class == Class::NotFound && is_gone(engine, record)? => {}
            Err(error) => return Err(error),
        }
    }
    Ok(rows)
}

fn summary(
    engine: &LocalEngine,
    record: &ImageRecord,
    sizes: &mut Sizes,
    detailed: bool,
    containers: &HashMap<Digest, u64>,
) -> Result<ImageSummary> {
    let digest = &record.target.digest;
    let platforms = match engine.platforms(digest) {
        Ok(images) => images.iter().map(|image| image.config.platform()).collect(),
        // a damaged image is still listed, so that it can be removed
        Err(error) if error.class == Class::Corrupt => Vec::new(),
        Err(error) => return Err(error),
    };
    let (shared_bytes, unique_bytes) = match detailed {
        true => {
            let (shared, unique) = sizes.shared_and_unique(digest);
            (Some(shared), Some(unique))
        }
        false => (None, None),
    };
    Ok(ImageSummary {
        repository: record.name.as_ref().map(Reference::familiar_name),
        tag: record.name.as_ref().and_then(Reference::tag).map(ToString::to_string),
        digest: digest.clone(),
        id: record.image_id.0.clone(),
        created_here: Timestamp(record.created_here),
        size_bytes: sizes.total(digest),
        shared_bytes,
        unique_bytes,
        containers: containers.get(digest).copied().unwrap_or(0),
        platforms,
    })
}

/// Bytes of all images' layers, and who shares them.
struct Sizes {
    layers: HashMap<Digest, Vec<LayerRecord>>,
    users: HashMap<LayerId, u64>,
}

impl Sizes {
    fn new(engine: &LocalEngine, records: &[ImageRecord]) -> Result<Self> {
        let mut sizes = Self { layers: HashMap::new(), users: HashMap::new() };
        for record in records {
            let digest = &record.target.digest;
            if sizes.layers.contains_key(digest) {
                continue;
            }
            let contents = engine.store().image_contents(digest)?;
            let ids: HashSet<LayerId> = contents
                .into_iter()
                .flat_map(|contents| contents.manifests)
                .flat_map(|entry| entry.layers)
                .collect();
            let ids: Vec<LayerId> = ids.into_iter().collect();
            for id in &ids {
                *sizes.users.entry(*id).or_default() += 1;
            }
            // Those of an image that somebody has just removed are not there any more.
            let known = ids.iter().filter_map(|id| engine.store().layer(*id).transpose());
            sizes.layers.insert(digest.clone(), known.collect::<std::result::Result<_, _>>()?);
        }
        Ok(sizes)
    }

    fn total(&self, image: &Digest) -> u64 {
        self.layers.get(image).into_iter().flatten().map(|layer| layer.content_bytes).sum()
    }

    fn shared_and_unique(&self, image: &Digest) -> (u64, u64) {
        let layers = self.layers.get(image).into_iter().flatten();
        layers.fold((0, 0), |(shared, unique), layer| {
            match self.users.get(&layer.id).copied().unwrap_or(0) > 1 {
                true => (shared + layer.content_bytes, unique),
                false => (shared, unique + layer.content_bytes),
            }
        })
    }
}

/// `images REPOSITORY[:TAG]`: globs, as docker's client has them.
fn matches_repository(record: &ImageRecord, wanted: Option<&str>) -> bool {
    let Some(wanted) = wanted else { return true };
    record.name.as_ref().is_some_and(|name| matches_reference(wanted, name))
}

/// `--filter`, with the images named in it looked up once.
struct Conditions<'a> {
    filters: &'a [ImageFilter],
    since: Option<i64>,
    before: Option<i64>,
}

impl<'a> Conditions<'a> {
    fn new(engine: &LocalEngine, filters: &'a [ImageFilter]) -> Result<Self> {
        let mut conditions = Self { filters, since: None, before: None };
        for filter in filters {
            match filter {
                ImageFilter::Since(query) => {
                    conditions.since = Some(engine.store().find_image(query)?.created_here)
                }
                ImageFilter::Before(query) => {
                    conditions.before = Some(engine.store().find_image(query)?.created_here)
                }
                _ => {}
            }
        }
        Ok(conditions)
    }

    fn asks_dangling(&self) -> bool {
        self.filters.iter().any(|filter| matches!(filter, ImageFilter::Dangling(true)))
    }

    fn hold(&self, engine: &LocalEngine, record: &ImageRecord) -> Result<bool> {
        let references: Vec<&String> = self
            .filters
            .iter()
            .filter_map(|filter| match filter {
                ImageFilter::Reference(pattern) => Some(pattern),
                _ => None,
            })
            .collect();
        if !references.is_empty() {
            let name = record.name.as_ref();
            if !name.is_some_and(|name| references.iter().any(|pattern| matches_reference(pattern, name))) {
                return Ok(false);
            }
        }
        for filter in self.filters {
            let holds = match filter {
                ImageFilter::Dangling(dangling) => record.name.is_none() == *dangling,
                ImageFilter::Since(_) => self.since.is_none_or(|since| record.created_here > since),
                ImageFilter::Before(_) => self.before.is_none_or(|before| record.created_here < before),
                ImageFilter::Until(time) => record.created_here < time.0,
                ImageFilter::Label(key, value) => has_label(engine, record, key, value.as_deref())?,
                ImageFilter::NotLabel(key, value) => !has_label(engine, record, key, value.as_deref())?,
                ImageFilter::Reference(_) => true,
            };
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn has_label(engine: &LocalEngine, record: &ImageRecord, key: &str, value: Option<&str>) -> Result<bool> {
    let images = engine.platforms(&record.target.digest)?;
    Ok(images.iter().any(|image| {
        let found = image.config.config.labels.get(key);
        found.is_some_and(|found| value.is_none_or(|value| found == value))
    }))
}

/// `image inspect`.
pub(crate) fn inspect(engine: &LocalEngine, query: &str) -> Result<ImageDetails> {
    let record = engine.store().find_image(query)?;
    let image = engine.platform_image(&record, None)?;
    let layers = engine.layer_records(&image.layers)?;
    let names = engine.store().image_names(&record.target.digest)?;
    let digests = |name: &Reference| format!("{}@{}", name.familiar_name(), record.target.digest);
    let repo_digests: std::collections::BTreeSet<String> = names.iter().map(digests).collect();
    let comment = image.config.history().last().map(|entry| entry.comment.clone()).unwrap_or_default();
    Ok(ImageDetails {
        id: record.image_id.0.clone(),
        repo_tags: names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect(),
        repo_digests: repo_digests.into_iter().collect(),
        parent: String::new(),
        comment,
        created: image.config.created.clone().unwrap_or_else(|| "0001-01-01T00:00:00Z".to_owned()),
        docker_version: String::new(),
        author: image.config.author.clone().unwrap_or_default(),
        config: image.config.config.clone(),
        architecture: image.config.architecture.clone(),
        variant: image.config.variant.clone().unwrap_or_default(),
        os: image.config.os.clone(),
        size: layers.iter().map(|layer| layer.content_bytes).sum(),
        graph_driver: graph_driver(engine, &image.layers),
        root_fs: RootFsDetails {
            kind: "layers".to_owned(),
            layers: image.config.diff_ids().iter().map(ToString::to_string).collect(),
        },
        metadata: ImageMetadata { last_tag_time: rfc3339(record.created_here) },
        descriptor: serde_json::to_value(&record.target).unwrap_or_default(),
    })
}

/// docker's overlay2 keys, with mica's directories: topmost layer first in `LowerDir`.
fn graph_driver(engine: &LocalEngine, layers: &[LayerId]) -> GraphDriver {
    let state = engine.store().state();
    let mut paths: Vec<String> =
        layers.iter().rev().map(|id| state.layer_fs(*id).display().to_string()).collect();
    let mut data = BTreeMap::new();
    if !paths.is_empty() {
        data.insert("UpperDir".to_owned(), paths.remove(0));
        if !paths.is_empty() {
            data.insert("LowerDir".to_owned(), paths.join(":"));
        }
    }
    GraphDriver { data, name: engine.store().flavour().driver.to_string() }
}

/// `history`.
pub(crate) fn history(engine: &LocalEngine, query: &str) -> Result<Vec<HistoryEntry>> {
    let record = engine.store().find_image(query)?;
    let image = engine.platform_image(&record, None)?;
    let mut layers = engine.layer_records(&image.layers)?.into_iter();
    let mut entries: Vec<HistoryEntry> = image
        .config
        .history()
        .iter()
        .map(|entry| HistoryEntry {
            id: None,
            created: entry.created.clone(),
            created_by: entry.created_by.clone(),
            size_bytes: match entry.empty_layer {
                true => 0,
                false => layers.next().map_or(0, |layer| layer.content_bytes),
            },
            comment: entry.comment.clone(),
        })
        .collect();
    // layers that the history does not explain
    entries.extend(layers.map(|layer| HistoryEntry {
        id: None,
        created: None,
        created_by: String::new(),
        size_bytes: layer.content_bytes,
        comment: String::new(),
    }));
    entries.reverse();
    if let Some(top) = entries.first_mut() {
        top.id = Some(record.image_id.0);
    }
    Ok(entries)
}

/// `tag`.
pub(crate) fn tag(engine: &LocalEngine, source: &str, target: &str) -> Result<()> {
    let record = engine.store().find_image(source)?;
    let name: Reference = target.parse().map_err(|error| {
        Error::new(Class::Invalid, format!("{target:?} is not a valid repository/tag: {error}"))
    })?;
    if name.digest().is_some() {
        return Err(Error::new(Class::Invalid, "refusing to create a tag with a digest reference"));
    }
    engine.store().tag(&record.target.digest, &name.or_latest())?;
    Ok(())
}

/// `rmi` of one query: by name only that name goes, by ID all of them.
pub(crate) fn remove(engine: &LocalEngine, request: &RemoveImage) -> Result<Vec<RemovedImage>> {
    let store = engine.store();
    let removal = if request.force { Removal::Forced } else { Removal::Careful };
    let record = store.find_image(&request.query)?;
    let removed = match &record.name {
        Some(name) => store.untag(name, removal)?,
        None => store.remove_image(&record.target.digest, removal)?,
    };
    let lines = removed_lines(removed);
    // what the image alone needed goes now: rmi is expected to free space
    engine.collect_unreferenced()?;
    Ok(lines)
}

fn removed_lines(removed: Removed) -> Vec<RemovedImage> {
    lines_of(&removed.untagged, removed.deleted.map(|deleted| (deleted.image_id, deleted.layers)))
}

/// What docker prints of an image that lost names, and perhaps itself: names, then ID and layers.
pub(crate) fn lines_of(untagged: &[Reference], deleted: Option<(ImageId, Vec<DiffId>)>) -> Vec<RemovedImage> {
    let mut lines: Vec<RemovedImage> =
        untagged.iter().map(|name| RemovedImage::Untagged(name.familiar())).collect();
    if let Some((image_id, layers)) = deleted {
        lines.push(RemovedImage::Deleted(image_id.0));
        lines.extend(layers.into_iter().map(|layer| RemovedImage::Deleted(layer.0)));
    }
    lines
}

/// `image prune`.
pub(crate) fn prune(
    engine: &LocalEngine,
    request: &PruneImages,
    cancel: &Cancel,
    events: &dyn EventSink,
) -> Result<PruneReport> {
    let conditions = Conditions::new(engine, &request.filters)?;
    let mut chosen = BTreeSet::new();
    for record in engine.store().images()? {
        cancel.check()?;
        match conditions.hold(engine, &record) {
            Ok(true) => drop(chosen.insert(record.target.digest)),
            Ok(false) => {}
            // Somebody else has just removed it.
            Err(error) if error.class == Class::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    // One transaction that decides again: a name or a container that came meanwhile keeps its image.
    let images = if request.all { UnneededImages::Unused } else { UnneededImages::Dangling };
    let collection = GcRequest { images, only_images: Some(chosen), ..GcRequest::default() };
    Ok(prune_report(engine.collect_in_turn(&collection, cancel, events)?, &[]))
}
