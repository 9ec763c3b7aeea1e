//! What an archive or layout contains: images with their names, configs and layers, in every form that tools write.
//!
//! OCI layouts (`index.json`) and docker archives (`manifest.json`, also the old form with `<id>/layer.tar`) become the
//! same [`FoundImage`]. Nothing is believed that can be checked: digests, sizes, counts, document kinds.

use std::io::Read as _;

use mica_oci::{
    Descriptor, DiffId, Digest, Document, DocumentError, ImageConfig, Index, Manifest, Platform, Reference,
    annotation, media_type, strict,
};
use serde::Deserialize;

use crate::{FilesError, ImageFiles};

/// The most bytes an image config may have (security.md section 5).
const CONFIG_LIMIT_BYTES: u64 = 8 << 20;
/// How deep indexes may nest.
const INDEX_DEPTH: usize = 4;
/// How many layers an image may have.
const LAYER_LIMIT: usize = 500;

/// One image of an archive.
#[derive(Debug, Clone)]
pub struct FoundImage {
    /// Its names.
    pub names: Vec<Reference>,
    /// The tag alone, when the archive says no more (`org.opencontainers.image.ref.name`).
    pub tag: Option<String>,
    /// What the names point at in the archive; `None` for docker archives, which have no manifest.
    pub target: Option<Descriptor>,
    /// One per platform whose content is there.
    pub manifests: Vec<FoundManifest>,
    /// Platforms that the index names but whose content is not there.
    pub absent: Vec<Platform>,
}

/// The image of one platform.
#[derive(Debug, Clone)]
pub struct FoundManifest {
    /// The manifest's descriptor and bytes, when there is one.
    pub original: Option<(Descriptor, Vec<u8>)>,
    /// Bytes of the config, as found.
    pub config_bytes: Vec<u8>,
    /// The config read.
    pub config: ImageConfig,
    /// Lowest first; as many as the config has diff IDs.
    pub layers: Vec<FoundLayer>,
}

/// One layer of an archive.
#[derive(Debug, Clone)]
pub struct FoundLayer {
    /// Where its bytes are in the archive.
    pub file: String,
    /// What they must hash to, when known.
    pub digest: Option<Digest>,
    /// How many there must be, when known.
    pub size_bytes: Option<u64>,
    /// What the uncompressed tar must hash to.
    pub diff_id: DiffId,
}

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Neither kind of archive.
    #[error("invalid archive: does not contain a manifest.json")]
    NoManifest,
    /// The tar or directory itself.
    #[error("cannot read the image archive")]
    Files(#[from] FilesError),
    /// A file of it cannot be read.
    #[error("cannot read {file} of the image archive")]
    Io {
        /// Which.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file that another one names is missing.
    #[error("invalid archive: {0} is missing")]
    Missing(String),
    /// Larger than the limit.
    #[error("invalid archive: {file} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// Which.
        file: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// Bytes with another digest than their name.
    #[error("invalid archive: {file} has digest {actual}")]
    Digest {
        /// Which.
        file: String,
        /// What it hashes to.
        actual: Digest,
    },
    /// Another number of bytes than announced.
    #[error("invalid archive: {file} has {actual_bytes} bytes instead of {expected_bytes}")]
    Size {
        /// Which.
        file: String,
        /// What its descriptor says.
        expected_bytes: u64,
        /// How many there are.
        actual_bytes: u64,
    },
    /// A name that no image can have.
    #[error("invalid archive: {name:?} is no name of an image")]
    Name {
        /// What it says.
        name: String,
        /// Why not.
        source: mica_oci::ReferenceError,
    },
    /// JSON of another shape.
    #[error("invalid archive: {file} is not valid")]
    Json {
        /// Which.
        file: String,
        /// Why.
        source: serde_json::Error,
    },
    /// A manifest or index that is refused.
    #[error("invalid archive: {file} is refused")]
    Document {
        /// Which.
        file: String,
        /// Why.
        source: DocumentError,
    },
    /// Layers and diff IDs do not pair up.
    #[error("invalid manifest, layers length mismatch: expected {expected}, got {actual}")]
    LayerCount {
        /// Diff IDs of the config.
        expected: usize,
        /// Layers of the manifest.
        actual: usize,
    },
    /// Indexes in indexes in indexes.
    #[error("invalid archive: indexes are nested more than {INDEX_DEPTH} deep")]
    TooDeep,
    /// An absurd number of layers.
    #[error("invalid archive: {0} layers, the limit is {LAYER_LIMIT}")]
    TooManyLayers(usize),
    /// No image for the platform asked for.
    #[error("image has no content for {wanted}: it has {has}")]
    NoPlatform {
        /// Asked for.
        wanted: String,
        /// What is there.
        has: String,
    },
}

impl mica_api::Fault for ReadError {
    fn class(&self) -> mica_api::Class {
        match self {
            Self::Io { source, .. } => mica_api::Class::of_io(source),
            Self::NoPlatform { .. } => mica_api::Class::NotFound,
            _ => mica_api::Class::Corrupt,
        }
    }
}

/// Reads what an archive contains; of indexes only `platform`, if given.
///
/// # Errors
/// [`ReadError`] for the first thing that is wrong; nothing of a damaged archive is returned.
pub fn read_images(
    files: &dyn ImageFiles,
    platform: Option<&Platform>,
) -> Result<Vec<FoundImage>, ReadError> {
    let reader = Reader { files, platform };
    // docker's own archives carry both; their manifest.json has the names that docker shows
    if files.open("index.json")?.is_some() && files.open("oci-layout")?.is_some() {
        return reader.layout();
    }
    if files.open("manifest.json")?.is_some() {
        return reader.docker_archive();
    }
    Err(ReadError::NoManifest)
}

/// A blob of a layout: a manifest, an index, a config; the digest is verified.
///
/// # Errors
/// [`ReadError`]: it is missing, too large, or something else.
pub fn read_blob(
    files: &dyn ImageFiles,
    descriptor: &Descriptor,
    limit_bytes: u64,
) -> Result<Vec<u8>, ReadError> {
    Reader { files, platform: None }.blob(descriptor, limit_bytes)
}

/// The `index.json` of a layout.
///
/// # Errors
/// [`ReadError`]: it is missing or no index.
pub fn read_index(files: &dyn ImageFiles) -> Result<Index, ReadError> {
    Reader { files, platform: None }.json("index.json")
}

struct Reader<'a> {
    files: &'a dyn ImageFiles,
    platform: Option<&'a Platform>,
}

/// One entry of docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Reader<'_> {
    fn bytes(&self, file: &str, limit_bytes: u64) -> Result<Vec<u8>, ReadError> {
        let Some((reader, size)) = self.files.open(file)? else {
            return Err(ReadError::Missing(file.to_owned()));
        };
        if size > limit_bytes {
            return Err(ReadError::TooLarge { file: file.to_owned(), limit_bytes });
        }
        let mut bytes = Vec::new();
        let read = reader.take(limit_bytes + 1).read_to_end(&mut bytes);
        read.map_err(|source| ReadError::Io { file: file.to_owned(), source })?;
        Ok(bytes)
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, file: &str) -> Result<T, ReadError> {
        let bytes = self.bytes(file, Document::LIMIT_BYTES as u64)?;
        strict::from_slice(&bytes).map_err(|source| ReadError::Json { file: file.to_owned(), source })
    }

    fn blob(&self, descriptor: &Descriptor, limit_bytes: u64) -> Result<Vec<u8>, ReadError> {
        let file = blob_file(&descriptor.digest);
        let bytes = self.bytes(&file, limit_bytes)?;
        let actual_bytes = bytes.len() as u64;
        if actual_bytes != descriptor.size {
            return Err(ReadError::Size { file, expected_bytes: descriptor.size, actual_bytes });
        }
        check_digest(&file, &bytes, &descriptor.digest)?;
        Ok(bytes)
    }

    /// `index.json`, which is an index and nothing else.
    fn index(&self) -> Result<Index, ReadError> {
        let file = "index.json".to_owned();
        let bytes = self.bytes(&file, Document::LIMIT_BYTES as u64)?;
        match Document::parse(&bytes, "") {
            Ok(Document::Index(index)) => Ok(index),
            Ok(Document::Manifest(_)) => {
                let (found, announced) = ("an image manifest".to_owned(), "an index".to_owned());
                Err(ReadError::Document { file, source: DocumentError::WrongType { found, announced } })
            }
            Err(source) => Err(ReadError::Document { file, source }),
        }
    }

    fn layout(&self) -> Result<Vec<FoundImage>, ReadError> {
        let index = self.index()?;
        let mut images: Vec<FoundImage> = Vec::new();
        for descriptor in index.manifests {
            let (name, tag) = names_of(&descriptor);
            let known = images
                .iter_mut()
                .find(|image| image.target.as_ref().is_some_and(|target| target.digest == descriptor.digest));
            if let Some(known) = known {
                known.names.extend(name);
                continue;
            }
            let mut image = FoundImage {
                names: name.into_iter().collect(),
                tag,
                target: Some(descriptor.clone()),
                manifests: Vec::new(),
                absent: Vec::new(),
            };
            self.collect(&descriptor, 0, &mut image)?;
            self.require_platform(&image)?;
            images.push(image);
        }
        Ok(images)
    }

    fn require_platform(&self, image: &FoundImage) -> Result<(), ReadError> {
        let Some(wanted) = self.platform else { return Ok(()) };
        if !image.manifests.is_empty() {
            return Ok(());
        }
        let has: Vec<String> = image.absent.iter().map(Platform::to_string).collect();
        Err(ReadError::NoPlatform { wanted: wanted.to_string(), has: has.join(", ") })
    }

    /// Walks a manifest or index into `image`. Entries of an index without content here are noted, not refused.
    fn collect(
        &self,
        descriptor: &Descriptor,
        depth: usize,
        image: &mut FoundImage,
    ) -> Result<(), ReadError> {
        if depth > INDEX_DEPTH {
            return Err(ReadError::TooDeep);
        }
        let file = blob_file(&descriptor.digest);
        let bytes = self.blob(descriptor, Document::LIMIT_BYTES as u64)?;
        let document = Document::parse(&bytes, &descriptor.media_type);
        match document.map_err(|source| ReadError::Document { file: file.clone(), source })? {
            Document::Manifest(manifest) => self.collect_manifest(descriptor, bytes, manifest, image),
            Document::Index(index) => {
                for entry in index.manifests.iter().filter(|entry| !entry.is_attestation()) {
                    let is_there = self.files.open(&blob_file(&entry.digest))?.is_some();
                    let skipped = entry.platform.as_ref().is_some_and(|platform| !self.wants(platform));
                    if is_there && !skipped {
                        self.collect(entry, depth + 1, image)?;
                    } else if let Some(platform) = &entry.platform {
                        image.absent.push(platform.clone());
                    }
                }
                Ok(())
            }
        }
    }

    fn wants(&self, platform: &Platform) -> bool {
        self.platform.is_none_or(|wanted| wanted.matches(platform))
    }

    fn collect_manifest(
        &self,
        descriptor: &Descriptor,
        bytes: Vec<u8>,
        manifest: Manifest,
        image: &mut FoundImage,
    ) -> Result<(), ReadError> {
        if !manifest.layers.iter().all(|layer| media_type::is_layer(&layer.media_type)) {
            // an artifact: signatures, SBOMs; nothing to run
            return Ok(());
        }
        let config_bytes = self.blob(&manifest.config, CONFIG_LIMIT_BYTES)?;
        let config = parse_config(&blob_file(&manifest.config.digest), &config_bytes)?;
        if !self.wants(&config.platform()) {
            image.absent.push(config.platform());
            return Ok(());
        }
        check_count(&config, manifest.layers.len())?;
        let mut layers = Vec::with_capacity(manifest.layers.len());
        for (layer, diff_id) in manifest.layers.iter().zip(config.diff_ids()) {
            let file = blob_file(&layer.digest);
            if self.files.open(&file)?.is_none() {
                image.absent.push(config.platform());
                return if image.target.as_ref().is_some_and(|target| target.digest == descriptor.digest) {
                    Err(ReadError::Missing(file))
                } else {
                    Ok(())
                };
            }
            layers.push(FoundLayer {
                file,
                digest: Some(layer.digest.clone()),
                size_bytes: Some(layer.size),
                diff_id: diff_id.clone(),
            });
        }
        let original = Some((descriptor.clone(), bytes));
        image.manifests.push(FoundManifest { original, config_bytes, config, layers });
        Ok(())
    }

    fn docker_archive(&self) -> Result<Vec<FoundImage>, ReadError> {
        let entries: Vec<DockerEntry> = self.json("manifest.json")?;
        entries.into_iter().map(|entry| self.docker_image(entry)).collect()
    }

    fn docker_image(&self, entry: DockerEntry) -> Result<FoundImage, ReadError> {
        let config_bytes = self.bytes(&entry.config, CONFIG_LIMIT_BYTES)?;
        if let Some(digest) = digest_of_file(&entry.config) {
            check_digest(&entry.config, &config_bytes, &digest)?;
        }
        let config = parse_config(&entry.config, &config_bytes)?;
        let files = entry.layers.unwrap_or_default();
        check_count(&config, files.len())?;
        let layers = files
            .into_iter()
            .zip(config.diff_ids())
            .map(|(file, diff_id)| FoundLayer {
                file,
                digest: None,
                size_bytes: None,
                diff_id: diff_id.clone(),
            })
            .collect();
        let names = entry.repo_tags.unwrap_or_default().into_iter().map(|name| match name.parse() {
            Ok(reference) => Ok(reference),
            Err(source) => Err(ReadError::Name { name, source }),
        });
        let mut image = FoundImage {
            names: names.collect::<Result<_, _>>()?,
            tag: None,
            target: None,
            manifests: Vec::new(),
            absent: Vec::new(),
        };
        if self.wants(&config.platform()) {
            image.manifests.push(FoundManifest { original: None, config_bytes, config, layers });
        } else {
            image.absent.push(config.platform());
            self.require_platform(&image)?;
        }
        Ok(image)
    }
}

fn parse_config(file: &str, bytes: &[u8]) -> Result<ImageConfig, ReadError> {
    strict::from_slice(bytes).map_err(|source| ReadError::Json { file: file.to_owned(), source })
}

fn check_count(config: &ImageConfig, actual: usize) -> Result<(), ReadError> {
    let expected = config.diff_ids().len();
    if expected != actual {
        return Err(ReadError::LayerCount { expected, actual });
    }
    if actual > LAYER_LIMIT {
        return Err(ReadError::TooManyLayers(actual));
    }
    Ok(())
}

fn check_digest(file: &str, bytes: &[u8], expected: &Digest) -> Result<(), ReadError> {
    let mut hasher = mica_oci::Hasher::new(expected.algorithm());
    hasher.update(bytes);
    let actual = hasher.finish();
    if actual == *expected { Ok(()) } else { Err(ReadError::Digest { file: file.to_owned(), actual }) }
}

/// Where a layout has a blob.
pub fn blob_file(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// The digest that a config's file name claims: `blobs/sha256/<hex>` or `<hex>.json`.
fn digest_of_file(file: &str) -> Option<Digest> {
    let hex = file.strip_prefix("blobs/sha256/").or_else(|| file.strip_suffix(".json"))?;
    format!("sha256:{hex}").parse().ok()
}

/// The name of an entry of `index.json`: containerd's annotation, or a `ref.name` that is a whole reference.
fn names_of(descriptor: &Descriptor) -> (Option<Reference>, Option<String>) {
    let full =
        descriptor.annotations.get(annotation::IMAGE_NAME).and_then(|name| name.parse::<Reference>().ok());
    let short = descriptor.annotations.get(annotation::REF_NAME).cloned();
    // skopeo and podman write whole references into ref.name; buildx and docker write the tag alone
    let whole = short.as_deref().filter(|name| name.contains([':', '/'])).and_then(|name| name.parse().ok());
    (full.or(whole).map(Reference::or_latest), short)
}
