//! From a stack of layers and a config to an image with names: blobs, manifest, one durable publish.

use std::collections::BTreeMap;

use mica_api::Error;
use mica_oci::{Descriptor, Digest, ImageConfig, ImageId, Index, Manifest, Platform, Reference, media_type};
use mica_store::{ImageContents, LayerId, LayerRecord, Lease, ManifestLayers, Published, StoreError};

use crate::Workshop;

/// The annotation of layers whose times were rewritten.
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

/// An image whose manifest is written, but that has no name yet and is not durable.
#[derive(Debug, Clone)]
pub struct ImageDraft {
    /// Names the manifest; carries the platform.
    pub descriptor: Descriptor,
    /// The manifest.
    pub manifest: Manifest,
    /// The config, diff IDs filled in.
    pub config: ImageConfig,
    /// Its layers, lowest first.
    pub layers: Vec<LayerRecord>,
}

/// An image in the store.
#[derive(Debug, Clone)]
pub struct PublishedImage {
    /// What docker prints.
    pub image_id: ImageId,
    /// What the names point at.
    pub target: Descriptor,
    /// What the publish changed.
    pub published: Published,
}

/// Writes config and manifest of an image over uncompressed layers.
///
/// # Errors
/// When the store refuses, or a layer is gone.
pub fn write_manifest(
    workshop: &Workshop,
    config: ImageConfig,
    stack: &[LayerId],
    lease: &Lease,
) -> Result<ImageDraft, Error> {
    write_image(workshop, config, stack, &ManifestForm::default(), lease)
}

/// What a manifest says besides config and layers.
#[derive(Debug, Clone, Default)]
pub(crate) struct ManifestForm {
    /// Docker's media types instead of those of OCI.
    pub(crate) docker_media_types: bool,
    /// The manifest's own annotations.
    pub(crate) annotations: BTreeMap<String, String>,
    /// The layers from this one on were rewritten to be no younger than this time, in seconds.
    pub(crate) rewritten: Option<(usize, i64)>,
}

/// As [`write_manifest`], in a form of the caller's choice.
///
/// # Errors
/// As [`write_manifest`].
pub(crate) fn write_image(
    workshop: &Workshop,
    mut config: ImageConfig,
    stack: &[LayerId],
    form: &ManifestForm,
    lease: &Lease,
) -> Result<ImageDraft, Error> {
    let store = &workshop.store;
    let layers = stack
        .iter()
        .map(|id| store.layer(*id)?.ok_or(StoreError::LayerGone(*id)))
        .collect::<Result<Vec<LayerRecord>, StoreError>>()?;
    if !layers.is_empty() {
        config.rootfs.diff_ids = Some(layers.iter().map(|layer| layer.diff_id.clone()).collect());
    }
    let (manifest, descriptor) =
        store_manifest(workshop, &config.to_bytes(), &config.platform(), &layers, form, lease)?;
    Ok(ImageDraft { descriptor, manifest, config, layers })
}

impl ManifestForm {
    /// The descriptor of a layer with what is known about it (G12).
    pub(crate) fn noted(&self, index: usize, mut layer: Descriptor) -> Descriptor {
        if let Some((_, epoch)) = self.rewritten.filter(|(first, _)| index >= *first) {
            layer.annotations.insert(REWRITTEN.to_owned(), epoch.to_string());
        }
        layer
    }
}

/// Stores a config, byte for byte, and a manifest over uncompressed layers for it.
///
/// # Errors
/// When the store refuses.
pub fn local_manifest(
    workshop: &Workshop,
    config_bytes: &[u8],
    platform: &Platform,
    layers: &[LayerRecord],
    lease: &Lease,
) -> Result<(Manifest, Descriptor), Error> {
    Ok(store_manifest(workshop, config_bytes, platform, layers, &ManifestForm::default(), lease)?)
}

/// Stores a config, byte for byte, and the manifest that names it over uncompressed layers.
pub(crate) fn store_manifest(
    workshop: &Workshop,
    config_bytes: &[u8],
    platform: &Platform,
    layers: &[LayerRecord],
    form: &ManifestForm,
    lease: &Lease,
) -> Result<(Manifest, Descriptor), StoreError> {
    let store = &workshop.store;
    store.put_blob(config_bytes, lease)?;
    let (kind, config_kind, layer_kind) = if form.docker_media_types {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG, media_type::DOCKER_LAYER)
    } else {
        (media_type::OCI_MANIFEST, media_type::OCI_CONFIG, media_type::OCI_LAYER)
    };
    let descriptors = layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let plain = Descriptor::new(layer_kind, layer.diff_id.0.clone(), layer.tar_bytes);
            form.noted(index, plain)
        })
        .collect();
    let mut manifest = Manifest::image(Descriptor::of(config_kind, config_bytes), descriptors);
    manifest.media_type = kind.to_owned();
    manifest.annotations.clone_from(&form.annotations);
    let bytes = manifest.to_bytes();
    store.put_blob(&bytes, lease)?;
    let mut descriptor = Descriptor::of(kind, &bytes);
    descriptor.platform = Some(platform.clone());
    Ok((manifest, descriptor))
}

/// Gives an image of one platform its names. Durable when it returns.
///
/// # Errors
/// When the store refuses.
pub fn publish_manifest(
    workshop: &Workshop,
    draft: &ImageDraft,
    names: &[Reference],
    lease: &Lease,
) -> Result<PublishedImage, Error> {
    let image_id = ImageId(draft.manifest.config.digest.clone());
    let mut target = draft.descriptor.clone();
    target.platform = None;
    let contents = ImageContents {
        image_id: image_id.clone(),
        blobs: vec![target.digest.clone(), image_id.0.clone()],
        manifests: vec![ManifestLayers {
            manifest: target.digest.clone(),
            layers: draft.layers.iter().map(|layer| layer.id).collect(),
        }],
    };
    let published = workshop.store.publish(names, &target, &contents, lease)?;
    Ok(PublishedImage { image_id, target, published })
}

/// Gives an index over several platforms its names: manifest descriptor, config digest and layers of each.
///
/// # Errors
/// When the store refuses.
pub fn publish_index(
    workshop: &Workshop,
    platforms: &[(Descriptor, Digest, Vec<LayerId>)],
    names: &[Reference],
    lease: &Lease,
) -> Result<PublishedImage, Error> {
    let index = Index::new(platforms.iter().map(|(descriptor, _, _)| descriptor.clone()).collect());
    let bytes = index.to_bytes();
    workshop.store.put_blob(&bytes, lease)?;
    let target = Descriptor::of(media_type::OCI_INDEX, &bytes);
    let image_id = ImageId(target.digest.clone());
    let mut blobs = vec![target.digest.clone()];
    let mut manifests = Vec::new();
    for (descriptor, config, layers) in platforms {
        blobs.extend([descriptor.digest.clone(), config.clone()]);
        manifests.push(ManifestLayers { manifest: descriptor.digest.clone(), layers: layers.clone() });
    }
    let contents = ImageContents { image_id: image_id.clone(), blobs, manifests };
    let published = workshop.store.publish(names, &target, &contents, lease)?;
    Ok(PublishedImage { image_id, target, published })
}
