//! `push`: an image of the store in the form in which it leaves, and the manifests that name it there.
//!
//! What came from a registry leaves as it came, with the same digest. What was built here is compressed; how it looked
//! then is remembered, so that pushing it again asks one question and sends nothing.

use mica_api::{Class, Compression, Error, RegistryPush, TransferState};
use mica_distribution::{BlobBytes, ManifestName, Repository};
use mica_oci::{Descriptor, Digest, Document, Index, Manifest, Platform, Reference, media_type};
use mica_store::{ImageRecord, LayerRecord, RemoteForm, StoreError};

use super::send::{self, Outgoing, Plan};
use super::{Transfers, short};
use crate::export::layer_media_type;
use crate::publish::ImageDraft;

/// The most bytes an image config may have (security.md section 5).
const CONFIG_LIMIT_BYTES: u64 = 8 << 20;

/// What to send where.
#[derive(Debug, Clone, Copy)]
pub struct PushOrder<'a> {
    /// The image here.
    pub image: &'a ImageRecord,
    /// Where to, and under which tag.
    pub to: &'a Reference,
    /// Only this platform of an index.
    pub platform: Option<&'a Platform>,
}

/// What is in the registry now.
#[derive(Debug, Clone)]
pub struct PushedImage {
    /// The manifest or index under the tag.
    pub target: Descriptor,
    /// Whether it is another thing than the image here: one platform of an index, for what is not here cannot be sent.
    pub is_part: bool,
}

/// The form in which layers leave that have none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PushForm {
    pub(crate) compression: Compression,
    /// Whether layers that have a form get this one all the same.
    pub(crate) force: bool,
}

impl PushForm {
    /// What `push` does.
    pub(crate) const DEFAULT: Self = Self { compression: Compression::Default, force: false };

    /// Its name in the store. The number changes when the compressors do.
    pub(super) fn key(self, docker: bool) -> String {
        format!("registry 1 {:?} {} {}", self.compression, self.force, if docker { "docker" } else { "oci" })
    }
}

/// The image of one platform, ready to leave.
pub(crate) struct Leaving {
    pub(crate) manifest: Manifest,
    /// The manifest's bytes here.
    pub(crate) bytes: Vec<u8>,
    pub(crate) config: Vec<u8>,
    /// Lowest first.
    pub(crate) layers: Vec<LayerRecord>,
    pub(crate) platform: Option<Platform>,
}

/// Sends an image of the store.
///
/// # Errors
/// Nothing of it is here, the registry refuses it, the network.
pub fn push(transfers: Transfers<'_>, order: PushOrder<'_>) -> Result<PushedImage, Error> {
    let store = &transfers.workshop.store;
    let to = order.to.clone().or_latest();
    let repository = transfers.workshop.registries.repository(&to)?;
    let pusher = Pusher { transfers, repository: &repository, to: &to };
    let target = &order.image.target;
    let contents =
        store.image_contents(&target.digest)?.ok_or_else(|| StoreError::BlobGone(target.digest.clone()))?;
    transfers.lease.protect_blobs(&contents.blobs)?;
    let bytes = store.read_blob(&target.digest, Document::LIMIT_BYTES as u64)?;
    let document = Document::parse(&bytes, "").map_err(|error| {
        Error::new(Class::Corrupt, format!("{} is damaged", target.digest)).why(error.to_string())
    })?;
    match document {
        Document::Manifest(_) => {
            let leaving = pusher.leaving(&target.digest, &contents)?;
            let found = leaving.platform.as_ref();
            if let Some(wanted) =
                order.platform.filter(|wanted| !found.is_some_and(|found| found.matches(wanted)))
            {
                let has = found.map_or_else(|| "another one".to_owned(), Platform::to_string);
                return Err(Error::new(Class::NotFound, format!("cannot push {}", to.familiar()))
                    .why(format!("the image is for {has}, not {wanted}")));
            }
            let target = pusher.push_manifest(&leaving, PushForm::DEFAULT, &repository.named())?;
            Ok(PushedImage { target, is_part: false })
        }
        Document::Index(index) => pusher.push_index(&index, (target, &bytes), &contents, order.platform),
    }
}

/// Sends the image of a build result under a tag, or without one; returns its manifest there.
///
/// # Errors
/// The registry refuses it, the network.
pub(crate) fn push_draft(
    transfers: Transfers<'_>,
    draft: &ImageDraft,
    (to, by_digest): (&Reference, bool),
    push: &RegistryPush,
) -> Result<Descriptor, Error> {
    let repository = transfers.workshop.registries.repository(to)?;
    let pusher = Pusher { transfers, repository: &repository, to };
    let leaving = Leaving {
        bytes: draft.manifest.to_bytes(),
        manifest: draft.manifest.clone(),
        config: draft.config.to_bytes(),
        layers: draft.layers.clone(),
        platform: Some(draft.config.platform()),
    };
    let form = PushForm { compression: push.compression, force: push.force_compression };
    let name = match by_digest {
        true => ManifestName::Digest(Digest::of(&leaving.bytes)),
        false => repository.named(),
    };
    pusher.push_manifest(&leaving, form, &name)
}

/// Sends layers that belong to no image, then what `finish` makes of their descriptors: a config and a manifest of some
/// type.
///
/// # Errors
/// The registry refuses them, the network.
pub(crate) fn push_cache(
    transfers: Transfers<'_>,
    (to, layers): (&Reference, &[LayerRecord]),
    (compression, media): (Compression, &str),
    finish: &dyn Fn(Vec<Descriptor>) -> CacheDocuments,
) -> Result<(), Error> {
    let repository = transfers.workshop.registries.repository(to)?;
    let pusher = Pusher { transfers, repository: &repository, to };
    let form = PushForm { compression, force: false };
    let plans = layers.iter().map(|layer| {
        let like = Descriptor::new(media, layer.diff_id.0.clone(), layer.tar_bytes);
        Ok(match send::known_form(&pusher, layer, form)? {
            Some(descriptor) => Plan::Known { descriptor, source: send::source(&pusher, layer)? },
            None => Plan::New { like },
        })
    });
    let plans = plans.collect::<Result<Vec<Plan>, Error>>()?;
    let sent = send::send(&pusher, layers, Outgoing { form, media, plans, config: None })?;
    let documents = finish(sent);
    send::small(&pusher, &documents.config_type, documents.config, transfers.cancel)?;
    let name = repository.named();
    repository.put_manifest(&name, &documents.manifest_type, &documents.manifest, transfers.cancel)?;
    Ok(())
}

/// What names the layers of a cache.
pub(crate) struct CacheDocuments {
    pub(crate) config_type: String,
    pub(crate) config: Vec<u8>,
    pub(crate) manifest_type: String,
    pub(crate) manifest: Vec<u8>,
}

/// Sends to one repository.
pub(crate) struct Pusher<'a> {
    pub(crate) transfers: Transfers<'a>,
    pub(crate) repository: &'a Repository<'a>,
    pub(crate) to: &'a Reference,
}

impl Pusher<'_> {
    fn leaving(&self, digest: &Digest, contents: &mica_store::ImageContents) -> Result<Leaving, Error> {
        let store = &self.transfers.workshop.store;
        let bytes = store.read_blob(digest, Document::LIMIT_BYTES as u64)?;
        let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, "") else {
            return Err(Error::new(Class::Corrupt, format!("manifest {digest} is damaged")));
        };
        let ids = contents.manifests.iter().find(|entry| entry.manifest == *digest);
        let ids = ids.map(|entry| entry.layers.clone()).unwrap_or_default();
        if ids.len() != manifest.layers.len() {
            return Err(Error::new(Class::NotFound, format!("the layers of {digest} are not here")));
        }
        self.transfers.lease.protect_layers(&ids)?;
        let layers = ids.iter().map(|id| store.layer(*id)?.ok_or(StoreError::LayerGone(*id)));
        let layers = layers.collect::<Result<Vec<LayerRecord>, StoreError>>()?;
        let config = store.read_blob(&manifest.config.digest, CONFIG_LIMIT_BYTES)?;
        let platform =
            serde_json::from_slice::<mica_oci::ImageConfig>(&config).ok().map(|config| config.platform());
        Ok(Leaving { manifest, bytes, config, layers, platform })
    }

    /// An index with all that is here of it; as it is, if that is everything.
    fn push_index(
        &self,
        index: &Index,
        (target, bytes): (&Descriptor, &[u8]),
        contents: &mica_store::ImageContents,
        platform: Option<&Platform>,
    ) -> Result<PushedImage, Error> {
        let mut here = Vec::new();
        for entry in &index.manifests {
            let is_here = contents.manifests.iter().any(|found| found.manifest == entry.digest);
            if is_here
                && platform.is_none_or(|wanted| entry.platform.as_ref().is_some_and(|p| p.matches(wanted)))
            {
                here.push((entry, self.leaving(&entry.digest, contents)?));
            }
        }
        let is_whole = here.len() == index.manifests.len();
        if let (false, [(_, only)]) = (is_whole, &here[..]) {
            let target = self.push_manifest(only, PushForm::DEFAULT, &self.repository.named())?;
            return Ok(PushedImage { target, is_part: true });
        }
        if here.is_empty() {
            let wanted = platform.map_or_else(|| "any platform".to_owned(), Platform::to_string);
            return Err(Error::new(Class::NotFound, format!("cannot push {}", self.to.familiar()))
                .why(format!("the store has no content of it for {wanted}")));
        }
        let mut entries = Vec::new();
        for (entry, leaving) in &here {
            let sent =
                self.push_manifest(leaving, PushForm::DEFAULT, &ManifestName::Digest(entry.digest.clone()))?;
            entries.push(Descriptor {
                platform: entry.platform.clone(),
                annotations: entry.annotations.clone(),
                ..sent
            });
        }
        let same =
            is_whole && entries.iter().zip(&index.manifests).all(|(sent, entry)| sent.digest == entry.digest);
        let (bytes, kind) = match same {
            true => (bytes.to_vec(), target.media_type.clone()),
            false => {
                let index = Index { manifests: entries, ..index.clone() };
                let kind =
                    if index.media_type.is_empty() { media_type::OCI_INDEX } else { &index.media_type };
                (index.to_bytes(), kind.to_owned())
            }
        };
        self.repository.put_manifest(&self.repository.named(), &kind, &bytes, self.transfers.cancel)?;
        Ok(PushedImage { target: Descriptor::of(kind, &bytes), is_part: !same })
    }

    /// Sends what the registry has not got of an image, then the manifest. `name` by digest means "without a tag".
    pub(crate) fn push_manifest(
        &self,
        leaving: &Leaving,
        form: PushForm,
        name: &ManifestName,
    ) -> Result<Descriptor, Error> {
        let Transfers { workshop, cancel, .. } = self.transfers;
        for layer in &leaving.layers {
            self.transfers.tell(&short(&layer.diff_id.0), TransferState::Preparing);
        }
        let docker = leaving.manifest.media_type == media_type::DOCKER_MANIFEST;
        let (key, local) = (form.key(docker), Digest::of(&leaving.bytes));
        let remembered = workshop.store.form(&local, &key)?;
        let plans = self.plans(leaving, form, remembered.as_ref())?;
        let expected = match &remembered {
            Some(remembered) => Some(remembered.manifest.digest.clone()),
            None => plans.iter().all(Plan::is_original).then(|| local.clone()),
        };
        if let Some(expected) = &expected {
            let asked = match name {
                ManifestName::Digest(_) => ManifestName::Digest(expected.clone()),
                ManifestName::Tag(_) => name.clone(),
            };
            if self.repository.current(&asked, cancel)?.as_ref() == Some(expected) {
                for layer in &leaving.layers {
                    self.transfers.tell(&short(&layer.diff_id.0), TransferState::AlreadyThere);
                }
                let size =
                    remembered.map_or(leaving.bytes.len() as u64, |remembered| remembered.manifest.size);
                return Ok(Descriptor::new(kind_of(&leaving.manifest), expected.clone(), size));
            }
        }
        let media = layer_media_type(form.compression, !docker);
        let outgoing = Outgoing { form, media, plans, config: Some(self.config(leaving)) };
        let layers = send::send(self, &leaving.layers, outgoing)?;
        let bytes = if layers == leaving.manifest.layers {
            leaving.bytes.clone()
        } else {
            Manifest { layers: layers.clone(), ..leaving.manifest.clone() }.to_bytes()
        };
        let sent = Descriptor::of(kind_of(&leaving.manifest), &bytes);
        let name = match name {
            ManifestName::Digest(_) => &ManifestName::Digest(sent.digest.clone()),
            ManifestName::Tag(_) => name,
        };
        self.repository.put_manifest(name, &sent.media_type, &bytes, cancel)?;
        if sent.digest != local {
            workshop.store.remember_form(&local, &key, &RemoteForm { manifest: sent.clone(), layers })?;
        }
        Ok(sent)
    }

    fn config(&self, leaving: &Leaving) -> (Descriptor, BlobBytes) {
        (leaving.manifest.config.clone(), BlobBytes::Memory(leaving.config.clone().into()))
    }

    /// What is known of each layer's form before anything is compressed.
    fn plans(
        &self,
        leaving: &Leaving,
        form: PushForm,
        remembered: Option<&RemoteForm>,
    ) -> Result<Vec<Plan>, Error> {
        let pairs = leaving.layers.iter().zip(&leaving.manifest.layers).enumerate();
        pairs
            .map(|(index, (layer, descriptor))| {
                let is_local =
                    descriptor.digest == layer.diff_id.0 && form.compression != Compression::Uncompressed;
                let source = send::source(self, layer)?;
                if !is_local && !form.force {
                    return Ok(Plan::Original { descriptor: descriptor.clone(), source });
                }
                let known = remembered.and_then(|remembered| remembered.layers.get(index).cloned());
                let found = match known {
                    Some(known) => Some(known),
                    None if form.force => None,
                    None => send::known_form(self, layer, form)?,
                };
                Ok(match found {
                    Some(found) => {
                        let descriptor = Descriptor { annotations: descriptor.annotations.clone(), ..found };
                        Plan::Known { descriptor, source }
                    }
                    None => Plan::New { like: descriptor.clone() },
                })
            })
            .collect()
    }
}

fn kind_of(manifest: &Manifest) -> String {
    if manifest.media_type.is_empty() {
        media_type::OCI_MANIFEST.to_owned()
    } else {
        manifest.media_type.clone()
    }
}
