//! Bringing images of archives and layouts into the store: layers are unpacked and verified, the config is kept byte for
//! byte, and a local manifest over uncompressed layers names them.

use mica_api::{Cancel, Class, Fault};
use mica_archive::{View, compress};
use mica_distribution::{FilesError, FoundLayer, FoundManifest, ImageFiles};
use mica_oci::{Descriptor, DiffId, Digest, Hasher, ImageConfig, Manifest};
use mica_store::{LayerId, LayerRecord, Lease, StagedLayer, StoreError};
use std::io::{self, Read};
use std::sync::Arc;

use crate::Workshop;
use crate::publish::{ManifestForm, store_manifest};

/// An image of one platform as the store has it.
#[derive(Debug, Clone)]
pub struct LocalManifest {
    /// Names the local manifest; carries the platform.
    pub descriptor: Descriptor,
    /// The local manifest, over uncompressed layers.
    pub manifest: Manifest,
    /// The config.
    pub config: ImageConfig,
    /// The layers, lowest first.
    pub layers: Vec<LayerId>,
}

/// Why an image could not be brought in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IntakeError {
    /// A layer's file is not in the archive.
    #[error("invalid archive: {0} is missing")]
    Missing(String),
    /// The archive cannot be read.
    #[error("cannot read the archive")]
    Files(#[from] FilesError),
    /// A layer's bytes have another digest than announced.
    #[error("layer {index}: blob {expected} arrived as {actual}")]
    Digest {
        /// Position, lowest is 0.
        index: usize,
        /// Announced.
        expected: Digest,
        /// Found.
        actual: Digest,
    },
    /// The uncompressed tar has another digest than the config says.
    #[error("invalid diffID for layer {index}: expected {expected}, got {actual}")]
    DiffId {
        /// Position, lowest is 0.
        index: usize,
        /// What the config says.
        expected: DiffId,
        /// What the tar hashes to.
        actual: DiffId,
    },
    /// A layer cannot be unpacked.
    #[error("cannot unpack layer {index}")]
    Unpack {
        /// Position, lowest is 0.
        index: usize,
        /// Why.
        source: mica_snapshot::SnapshotError,
    },
    /// A layer cannot be read or decompressed.
    #[error("cannot read layer {index}")]
    Read {
        /// Position, lowest is 0.
        index: usize,
        /// Why.
        source: io::Error,
    },
    /// The file system refused.
    #[error("cannot write a layer")]
    Write(#[source] io::Error),
    /// The store refused.
    #[error("the store refused a layer")]
    Store(#[from] StoreError),
}

impl Fault for IntakeError {
    fn class(&self) -> Class {
        match self {
            Self::Read { source, .. } | Self::Write(source) => Class::of_io(source),
            Self::Store(error) => error.class(),
            Self::Unpack { source, .. } => source.class(),
            _ => Class::Corrupt,
        }
    }
}

/// Called when a layer is there: position, bytes of its tar, and whether it was there before.
pub(crate) type OnLayer<'a> = &'a dyn Fn(usize, u64, bool);

/// Brings the image of one platform in. Layers known by diff ID are not read again.
///
/// # Errors
/// [`IntakeError`]; what was unpacked until then belongs to the lease and goes with it.
pub fn bring_in(
    workshop: &Workshop,
    files: &dyn ImageFiles,
    found: &FoundManifest,
    lease: &Lease,
    cancel: &Cancel,
    on_layer: Option<OnLayer<'_>>,
) -> Result<LocalManifest, IntakeError> {
    let layers = bring_in_stack(workshop, files, &found.layers, lease, cancel, on_layer)?;
    Ok(local_manifest(workshop, found, layers, lease)?)
}

/// Brings layers in that stand on each other, lowest first. Layers known by diff ID are not read again.
///
/// # Errors
/// As [`bring_in`].
pub(crate) fn bring_in_stack(
    workshop: &Workshop,
    files: &dyn ImageFiles,
    found: &[FoundLayer],
    lease: &Lease,
    cancel: &Cancel,
    on_layer: Option<OnLayer<'_>>,
) -> Result<Vec<LayerRecord>, IntakeError> {
    let mut layers = Vec::with_capacity(found.len());
    let mut below = View::empty();
    for (index, layer) in found.iter().enumerate() {
        let known = known_layer(workshop, &layer.diff_id, lease)?;
        let was_known = known.is_some();
        let record = match known {
            Some(record) => record,
            None => unpack(workshop, files, (index, layer), &below, lease, cancel)?,
        };
        if let Some(tell) = on_layer {
            tell(index, record.tar_bytes, was_known);
        }
        below.push(workshop.store.table(record.id)?);
        layers.push(record);
    }
    Ok(layers)
}

/// A layer that is here already, protected; one that a collector takes meanwhile counts as absent.
pub(crate) fn known_layer(
    workshop: &Workshop,
    diff_id: &DiffId,
    lease: &Lease,
) -> Result<Option<LayerRecord>, StoreError> {
    let Some(record) = workshop.store.layer_by_diff_id(diff_id)? else { return Ok(None) };
    match lease.protect_layers(&[record.id]) {
        Ok(()) => Ok(Some(record)),
        Err(StoreError::LayerGone(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn unpack(
    workshop: &Workshop,
    files: &dyn ImageFiles,
    (index, layer): (usize, &FoundLayer),
    below: &View,
    lease: &Lease,
    cancel: &Cancel,
) -> Result<LayerRecord, IntakeError> {
    let Some((reader, size)) = files.open(&layer.file)? else {
        return Err(IntakeError::Missing(layer.file.clone()));
    };
    if let (Some(expected), Some(announced)) = (&layer.digest, layer.size_bytes)
        && announced != size
    {
        let read = |source| IntakeError::Read { index, source };
        return Err(read(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("blob {expected} has {size} bytes instead of {announced}"),
        )));
    }
    let algorithm = layer.digest.as_ref().map_or(mica_oci::Algorithm::Sha256, Digest::algorithm);
    let hashed = std::sync::Arc::new(std::sync::Mutex::new(Hasher::new(algorithm)));
    let tee = Tee { reader, hashed: hashed.clone() };
    let mut tar =
        compress::Decompressor::detect(tee).map_err(|source| IntakeError::Read { index, source })?;
    let record =
        bring_in_layer(workshop, &mut tar, Some(below), Some((index, &layer.diff_id)), lease, cancel)?;
    // what follows the compressed stream is part of the blob's digest too
    drop(tar);
    if let Some(expected) = &layer.digest {
        let hasher = hashed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let actual = hasher.finish();
        if actual != *expected {
            return Err(IntakeError::Digest { index, expected: expected.clone(), actual });
        }
    }
    Ok(record)
}

/// Unpacks one uncompressed tar stream into a new layer, and checks its diff ID if one is expected.
///
/// # Errors
/// [`IntakeError`].
pub fn bring_in_layer(
    workshop: &Workshop,
    tar: &mut (dyn Read + Send),
    below: Option<&View>,
    expected: Option<(usize, &DiffId)>,
    lease: &Lease,
    cancel: &Cancel,
) -> Result<LayerRecord, IntakeError> {
    let index = expected.map_or(0, |(index, _)| index);
    let directory = lease.workspace()?;
    let applied = mica_snapshot::unpack(&*workshop.driver, tar, &directory, below, &|| cancel.is_cancelled())
        .map_err(|source| IntakeError::Unpack { index, source })?;
    if let Some((index, expected)) = expected
        && applied.diff_id != *expected
    {
        return Err(IntakeError::DiffId { index, expected: expected.clone(), actual: applied.diff_id });
    }
    if let Some(recipe) = &applied.recipe {
        write_recipe(&directory.join("recipe"), &recipe.encode()).map_err(IntakeError::Write)?;
    }
    let staged = StagedLayer {
        directory: &directory,
        id: LayerId::random(),
        diff_id: applied.diff_id,
        tar_bytes: applied.tar_bytes,
        table: Arc::new(applied.table),
    };
    Ok(workshop.store.adopt_layer(staged, lease)?)
}

/// Writes a file that only the store's owner may read, as all of the store's own are.
fn write_recipe(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

/// Writes config and local manifest as blobs.
fn local_manifest(
    workshop: &Workshop,
    found: &FoundManifest,
    layers: Vec<LayerRecord>,
    lease: &Lease,
) -> Result<LocalManifest, StoreError> {
    let (manifest, descriptor) = store_manifest(
        workshop,
        &found.config_bytes,
        &found.config.platform(),
        &layers,
        &ManifestForm::default(),
        lease,
    )?;
    let layers = layers.into_iter().map(|layer| layer.id).collect();
    Ok(LocalManifest { descriptor, manifest, config: found.config.clone(), layers })
}

/// Hashes what is read.
struct Tee<R> {
    reader: R,
    hashed: std::sync::Arc<std::sync::Mutex<Hasher>>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hashed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).update(&buffer[..count]);
        Ok(count)
    }
}
