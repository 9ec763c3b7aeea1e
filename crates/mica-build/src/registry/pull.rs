//! `pull`: from a reference to an image in the store, with the registry's own manifests.

use mica_api::{Class, Error, TransferState};
use mica_distribution::{ManifestName, Repository};
use mica_oci::{
    Descriptor, Digest, Document, ImageConfig, ImageId, Index, Manifest, Platform, Reference, media_type,
};
use mica_store::{ImageContents, ImageRecord, LayerId, ManifestLayers, StoreError};
use std::io::Write as _;

use super::layers::{self, Stack};
use super::{Transfers, short};

/// The most bytes an image config may have (security.md section 5).
const CONFIG_LIMIT_BYTES: u64 = 8 << 20;
/// How deep indexes may nest.
const INDEX_DEPTH: usize = 4;
/// How many layers an image may have.
const LAYER_LIMIT: usize = 500;

/// Which image of an index is meant.
#[derive(Debug, Clone, Copy)]
pub enum WantedPlatform<'a> {
    /// One that this machine runs. An image that is no index is taken whatever it is for.
    Machine,
    /// The one for this platform. An image that is no index is taken whatever it is for.
    OfIndex(&'a Platform),
    /// The one for this platform, or none.
    Exactly(&'a Platform),
}

impl<'a> WantedPlatform<'a> {
    /// What a user asks for with or without `--platform`.
    pub fn asked(platform: Option<&'a Platform>) -> Self {
        platform.map_or(Self::Machine, Self::Exactly)
    }
}

/// What to fetch.
#[derive(Debug, Clone, Copy)]
pub struct PullOrder<'a> {
    /// Which image, with tag or digest.
    pub reference: &'a Reference,
    /// For which platform.
    pub platform: WantedPlatform<'a>,
    /// Whether a name that is here keeps pointing at what it points at: another platform of that is fetched.
    pub pinned: bool,
}

/// What is here now.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// What the name points at: a manifest, or an index.
    pub target: Descriptor,
    /// Whether the name pointed elsewhere before, or was not here.
    pub is_newer: bool,
}

/// A manifest or index with its bytes.
struct Found {
    descriptor: Descriptor,
    document: Document,
}

/// Brings an image into the store under its name. What is here already is not fetched again.
///
/// # Errors
/// There is no such image, or none for the platform; bytes that are not what they were announced as; the network.
pub fn pull(transfers: Transfers<'_>, order: PullOrder<'_>) -> Result<Pulled, Error> {
    let workshop = transfers.workshop;
    let reference = match order.reference.digest() {
        // a tag beside a digest says nothing that the digest does not
        Some(digest) => order.reference.with_digest(digest.clone()),
        None => order.reference.clone().or_latest(),
    };
    let repository = workshop.registries.repository(&reference)?;
    let puller = Puller { transfers, repository: &repository, reference: &reference };
    let known = workshop.store.image_by_name(&reference)?;
    let target = match known.as_ref().filter(|_| order.pinned) {
        Some(known) => puller.document(&known.target.digest)?,
        None => puller.target(known.as_ref())?,
    };
    let shown = match repository.named() {
        ManifestName::Tag(tag) => tag.to_string(),
        ManifestName::Digest(digest) => digest.to_string(),
    };
    let from = TransferState::PullingFrom(reference.repository().to_owned());
    transfers.tell(&shown, from);
    let (manifest, manifest_digest) = puller.manifest(&target, order.platform)?;
    let is_newer = known.is_none_or(|known| known.target.digest != target.descriptor.digest);
    if !is_newer && puller.is_complete(&target.descriptor.digest, &manifest_digest)? {
        return Ok(Pulled { target: target.descriptor, is_newer });
    }
    let image = puller.bring(&manifest, order.platform)?;
    puller.publish(&target, manifest_digest, &manifest, image)?;
    Ok(Pulled { target: target.descriptor, is_newer })
}

/// Fetches from one repository.
struct Puller<'a> {
    transfers: Transfers<'a>,
    repository: &'a Repository<'a>,
    reference: &'a Reference,
}

impl Puller<'_> {
    /// What the reference names. If something is here under that name, asking for its digest is cheaper than fetching.
    fn target(&self, known: Option<&ImageRecord>) -> Result<Found, Error> {
        let named = self.repository.named();
        if let ManifestName::Digest(digest) = &named {
            return self.document(digest);
        }
        if known.is_some()
            && let Some(descriptor) = self.repository.resolve(&named, self.transfers.cancel)?
        {
            return self.document(&descriptor.digest);
        }
        self.fetch(&named)
    }

    /// A manifest or index by digest: from the store if it is there, for its bytes cannot be others.
    fn document(&self, digest: &Digest) -> Result<Found, Error> {
        let store = &self.transfers.workshop.store;
        match self.transfers.lease.protect_blobs(std::slice::from_ref(digest)) {
            Ok(()) => {
                let bytes = store.read_blob(digest, Document::LIMIT_BYTES as u64)?;
                if let Ok(document) = Document::parse(&bytes, "") {
                    let kind = kind_of(&document).to_owned();
                    let descriptor = Descriptor::new(kind, digest.clone(), bytes.len() as u64);
                    return Ok(Found { descriptor, document });
                }
            }
            Err(StoreError::BlobGone(_)) => {}
            Err(error) => return Err(error.into()),
        }
        self.fetch(&ManifestName::Digest(digest.clone()))
    }

    fn fetch(&self, name: &ManifestName) -> Result<Found, Error> {
        let fetched = self.repository.manifest(name, self.transfers.cancel)?;
        self.keep(&fetched.descriptor, &fetched.bytes)?;
        Ok(Found { descriptor: fetched.descriptor, document: fetched.document })
    }

    fn keep(&self, descriptor: &Descriptor, bytes: &[u8]) -> Result<(), Error> {
        let mut ingest = self.transfers.workshop.store.ingest(self.transfers.lease, Some(descriptor))?;
        ingest.write_all(bytes).map_err(|error| {
            Error::new(Class::of_io(&error), format!("cannot write {}", descriptor.digest))
                .why(error.to_string())
        })?;
        ingest.commit()?;
        Ok(())
    }

    /// The manifest for a platform, through as many indexes as it takes.
    fn manifest(&self, target: &Found, wanted: WantedPlatform<'_>) -> Result<(Manifest, Digest), Error> {
        let mut digest = target.descriptor.digest.clone();
        let mut document = target.document.clone();
        for _ in 0..INDEX_DEPTH {
            let index = match document {
                Document::Manifest(manifest) => return Ok((manifest, digest)),
                Document::Index(index) => index,
            };
            let entry = self.choose(&index, wanted)?;
            digest = entry.digest.clone();
            document = self.document(&digest)?.document;
        }
        Err(Error::new(Class::Corrupt, format!("cannot pull {}", self.reference.familiar()))
            .why(format!("indexes are nested more than {INDEX_DEPTH} deep")))
    }

    fn choose<'i>(&self, index: &'i Index, wanted: WantedPlatform<'_>) -> Result<&'i Descriptor, Error> {
        let host = Platform::host();
        let platform = match wanted {
            WantedPlatform::Machine => &host,
            WantedPlatform::OfIndex(platform) | WantedPlatform::Exactly(platform) => platform,
        };
        let entries: Vec<&Descriptor> =
            index.manifests.iter().filter(|entry| !entry.is_attestation()).collect();
        let of = |entry: &&&Descriptor, fits: &dyn Fn(&Platform) -> bool| {
            entry.platform.as_ref().is_some_and(fits)
        };
        let same = entries.iter().find(|entry| of(entry, &|found| found.matches(platform)));
        let near = || {
            let runs = |entry: &&&Descriptor| of(entry, &|found| host.runs(found));
            entries.iter().find(|entry| matches!(wanted, WantedPlatform::Machine) && runs(entry))
        };
        let nested = || {
            entries.iter().find(|entry| entry.platform.is_none() && media_type::is_index(&entry.media_type))
        };
        let found = same.or_else(near).or_else(nested);
        found.copied().ok_or_else(|| {
            let has: Vec<String> =
                entries.iter().filter_map(|entry| entry.platform.as_ref()).map(Platform::to_string).collect();
            let name = self.reference.familiar();
            let text = format!(
                "cannot pull {name}: no matching manifest for {platform} in the manifest list entries"
            );
            let error = Error::new(Class::NotFound, text);
            match has.first() {
                Some(first) => {
                    error.why(format!("the index has {}", has.join(", "))).hint(format!("--platform {first}"))
                }
                None => error.why("the index names no platform"),
            }
        })
    }

    /// Whether an image has all of a manifest.
    fn is_complete(&self, image: &Digest, manifest: &Digest) -> Result<bool, StoreError> {
        let contents = self.transfers.workshop.store.image_contents(image)?;
        let Some(contents) = contents else { return Ok(false) };
        let found = contents.manifests.iter().find(|entry| entry.manifest == *manifest);
        let Some(found) = found else { return Ok(false) };
        match self.transfers.lease.protect_layers(&found.layers) {
            Ok(()) => Ok(true),
            Err(StoreError::LayerGone(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Config and layers.
    fn bring(&self, manifest: &Manifest, wanted: WantedPlatform<'_>) -> Result<Stack, Error> {
        let name = self.reference.familiar();
        let refused = |why: String| Error::new(Class::Corrupt, format!("cannot pull {name}")).why(why);
        let kind = &manifest.config.media_type;
        let is_image = [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG, ""].contains(&kind.as_str());
        if !is_image || manifest.artifact_type.is_some() {
            let kind = manifest.artifact_type.as_ref().unwrap_or(kind);
            return Err(Error::new(Class::Invalid, format!("cannot pull {name}: it is no image"))
                .why(format!("it is an artifact of the type {kind}")));
        }
        let config = self.config(manifest)?;
        if let WantedPlatform::Exactly(wanted) = wanted
            && !wanted.matches(&config.platform())
        {
            let text = format!(
                "image with reference {name} was found but does not provide the specified platform ({wanted})"
            );
            let actual = config.platform();
            return Err(Error::new(Class::NotFound, text)
                .why(format!("it is for {actual} alone"))
                .hint(format!("--platform {actual}")));
        }
        let (layers, diff_ids) = (manifest.layers.len(), config.diff_ids().len());
        if layers != diff_ids {
            return Err(refused(format!(
                "invalid manifest, layers length mismatch: expected {diff_ids}, got {layers}"
            )));
        }
        if layers > LAYER_LIMIT {
            return Err(refused(format!("it has {layers} layers, the limit is {LAYER_LIMIT}")));
        }
        layers::bring(self.transfers, self.repository, &manifest.layers, config.diff_ids()).map_err(|error| {
            if error.class == Class::Cancelled { error } else { error.context(format!("cannot pull {name}")) }
        })
    }

    fn config(&self, manifest: &Manifest) -> Result<ImageConfig, Error> {
        let descriptor = &manifest.config;
        let store = &self.transfers.workshop.store;
        let bytes = match self.transfers.lease.protect_blobs(std::slice::from_ref(&descriptor.digest)) {
            Ok(()) => store.read_blob(&descriptor.digest, CONFIG_LIMIT_BYTES)?,
            Err(StoreError::BlobGone(_)) => {
                let limit = usize::try_from(descriptor.size.min(CONFIG_LIMIT_BYTES)).unwrap_or(usize::MAX);
                let bytes = self.repository.blob(descriptor, limit, self.transfers.cancel)?;
                self.keep(descriptor, &bytes)?;
                bytes
            }
            Err(error) => return Err(error.into()),
        };
        mica_oci::strict::from_slice::<ImageConfig>(&bytes).map_err(|error| {
            let name = self.reference.familiar();
            Error::new(
                Class::Corrupt,
                format!("cannot pull {name}: its config {} is refused", descriptor.digest),
            )
            .why(error.to_string())
        })
    }

    fn publish(
        &self,
        target: &Found,
        digest: Digest,
        manifest: &Manifest,
        stack: Stack,
    ) -> Result<(), Error> {
        let mut blobs = vec![target.descriptor.digest.clone()];
        blobs.extend([digest.clone(), manifest.config.digest.clone()]);
        blobs.extend(stack.blobs);
        blobs.sort();
        blobs.dedup();
        let image_id = match target.document {
            Document::Index(_) => target.descriptor.digest.clone(),
            Document::Manifest(_) => manifest.config.digest.clone(),
        };
        let layers: Vec<LayerId> = stack.layers.iter().map(|layer| layer.id).collect();
        let contents = ImageContents {
            image_id: ImageId(image_id),
            blobs,
            manifests: vec![ManifestLayers { manifest: digest, layers }],
        };
        let names = std::slice::from_ref(self.reference);
        self.transfers.workshop.store.publish(names, &target.descriptor, &contents, self.transfers.lease)?;
        Ok(())
    }
}

fn kind_of(document: &Document) -> &str {
    let (own, default) = match document {
        Document::Manifest(manifest) => (&manifest.media_type, media_type::OCI_MANIFEST),
        Document::Index(index) => (&index.media_type, media_type::OCI_INDEX),
    };
    if own.is_empty() { default } else { own }
}

/// How docker shows a layer.
pub(super) fn shown(layer: &Descriptor) -> String {
    short(&layer.digest)
}
