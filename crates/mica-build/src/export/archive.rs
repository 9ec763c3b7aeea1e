//! Images as archives: layers compressed as asked, once each, and written with their manifests.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;

use mica_api::{Cancel, Class, Compression, Destination, Error, ImageLayout};
use mica_archive::compress;
use mica_archive::compress::Compression as Compressor;
use mica_distribution::{ArchiveBlob, ArchiveImage, ArchiveKind, BlobBody, write_archive, write_layout};
use mica_oci::{Algorithm, Descriptor, Digest, Hasher, Manifest, media_type};
use mica_store::{LayerId, LayerRecord, Lease, StoreError};

use super::{Archive, OutputFile};
use crate::Workshop;
use crate::publish::ImageDraft;

/// An image ready to be written.
#[derive(Debug, Clone)]
pub struct Exported {
    /// How the archive lists it.
    pub image: ArchiveImage,
    /// Stored blobs it needs: index, manifests, configs.
    pub stored: Vec<Digest>,
    /// Layers it needs, uncompressed.
    pub layers: Vec<LayerId>,
}

type Blobs<'a> = BTreeMap<Digest, ArchiveBlob<'a>>;

/// Writes images as they are in the store, layers uncompressed: what `save` does.
///
/// # Errors
/// When a layer or blob is damaged (the digest is checked while writing), or the output refuses.
pub fn archive_images(
    workshop: &Workshop,
    images: &[Exported],
    destination: &Destination,
    cancel: &Cancel,
) -> Result<(), Error> {
    let mut blobs = Blobs::new();
    for image in images {
        for digest in &image.stored {
            blobs.insert(digest.clone(), stored_blob(workshop, digest)?);
        }
        for layer in &image.layers {
            let record = workshop.store.layer(*layer)?.ok_or(StoreError::LayerGone(*layer))?;
            let size_bytes = record.tar_bytes;
            let digest = record.diff_id.0.clone();
            let body =
                BlobBody::Produce(Box::new(move |output| write_layer(workshop, &record, output, cancel)));
            blobs.insert(digest, ArchiveBlob { size_bytes, body });
        }
    }
    let listed: Vec<ArchiveImage> = images.iter().map(|exported| exported.image.clone()).collect();
    let mut output = OutputFile::open(destination)?;
    write_archive(&mut output, ArchiveKind::Save, &listed, &blobs)?;
    output.commit()
}

/// Writes the result of a build.
pub(super) fn build_archive(
    workshop: &Workshop,
    request: &Archive<'_>,
    draft: &ImageDraft,
    lease: &Lease,
    cancel: &Cancel,
) -> Result<Descriptor, Error> {
    let media = layer_media_type(request.compression, !request.form.docker_media_types);
    let scratch = lease.scratch()?;
    let mut blobs = Blobs::new();
    let mut layers = Vec::with_capacity(draft.layers.len());
    for (index, record) in draft.layers.iter().enumerate() {
        let (descriptor, blob) = layer_blob(workshop, record, request.compression, media, &scratch, cancel)?;
        layers.push(request.form.noted(index, descriptor.clone()));
        blobs.insert(descriptor.digest, blob);
    }
    let config = draft.config.to_bytes();
    let manifest = Manifest { layers: layers.clone(), ..draft.manifest.clone() };
    let manifest_bytes = manifest.to_bytes();
    let mut target = Descriptor::of(&manifest.media_type, &manifest_bytes);
    target.platform = Some(draft.config.platform());
    target.annotations.clone_from(&request.descriptor_annotations);
    let image = ArchiveImage {
        names: request.names.clone(),
        target: target.clone(),
        docker: Some((Digest::of(&config), layers)),
        created: draft.config.created.clone(),
    };
    let in_memory =
        |bytes: Vec<u8>| ArchiveBlob { size_bytes: bytes.len() as u64, body: BlobBody::Bytes(bytes) };
    blobs.insert(Digest::of(&config), in_memory(config));
    blobs.insert(target.digest.clone(), in_memory(manifest_bytes));
    write(request, &image, &blobs)?;
    Ok(target)
}

fn write(request: &Archive<'_>, image: &ArchiveImage, blobs: &Blobs<'_>) -> Result<(), Error> {
    let images = std::slice::from_ref(image);
    if let Destination::Directory(path) = request.destination {
        std::fs::create_dir_all(path)
            .map_err(|error| Error::new(Class::of_io(&error), format!("cannot create {}", path.display())))?;
        return Ok(write_layout(path, images, blobs)?);
    }
    let kind = match request.layout {
        ImageLayout::Oci => ArchiveKind::Oci,
        ImageLayout::Docker => ArchiveKind::Docker,
    };
    let mut output = OutputFile::open(request.destination)?;
    write_archive(&mut output, kind, images, blobs)?;
    output.commit()
}

/// A layer as a blob of this form.
///
/// # Errors
/// It is damaged, or there is no room for its compressed form.
pub(crate) fn layer_blob<'a>(
    workshop: &'a Workshop,
    record: &'a LayerRecord,
    compression: Compression,
    media: &str,
    scratch: &Path,
    cancel: &'a Cancel,
) -> Result<(Descriptor, ArchiveBlob<'a>), Error> {
    match compressor(compression) {
        Compressor::None => Ok(plain_layer(workshop, record, media, cancel)),
        compressor => compressed_layer(workshop, record, (compressor, media), scratch, cancel),
    }
}

/// The media type of a layer in this form (G15).
pub(crate) fn layer_media_type(compression: Compression, oci: bool) -> &'static str {
    match (compression, oci) {
        (Compression::Uncompressed, true) => media_type::OCI_LAYER,
        (Compression::Uncompressed, false) => media_type::DOCKER_LAYER,
        (Compression::Default | Compression::Gzip(_), true) => media_type::OCI_LAYER_GZIP,
        (Compression::Default | Compression::Gzip(_), false) => media_type::DOCKER_LAYER_GZIP,
        (Compression::Zstd(_), true) => media_type::OCI_LAYER_ZSTD,
        (Compression::Zstd(_), false) => media_type::DOCKER_LAYER_ZSTD,
    }
}

fn compressor(asked: Compression) -> Compressor {
    let level = |level: Option<u32>, default: i32| {
        level.map_or(default, |level| i32::try_from(level).unwrap_or(i32::MAX))
    };
    match asked {
        Compression::Uncompressed => Compressor::None,
        Compression::Default => Compressor::Gzip { level: compress::GZIP_LEVEL },
        Compression::Gzip(asked) => Compressor::Gzip { level: level(asked, compress::GZIP_LEVEL) },
        Compression::Zstd(asked) => Compressor::Zstd { level: level(asked, compress::ZSTD_LEVEL) },
    }
}

fn stored_blob<'a>(workshop: &'a Workshop, digest: &Digest) -> Result<ArchiveBlob<'a>, Error> {
    let size_bytes = workshop.store.blob(digest)?.ok_or_else(|| StoreError::BlobGone(digest.clone()))?;
    let digest = digest.clone();
    let body = BlobBody::reader(move || workshop.store.verified_blob(&digest).map_err(io::Error::other));
    Ok(ArchiveBlob { size_bytes, body })
}

fn plain_layer<'a>(
    workshop: &'a Workshop,
    record: &'a LayerRecord,
    media: &str,
    cancel: &'a Cancel,
) -> (Descriptor, ArchiveBlob<'a>) {
    let descriptor = Descriptor::new(media, record.diff_id.0.clone(), record.tar_bytes);
    let body = BlobBody::Produce(Box::new(move |output| write_layer(workshop, record, output, cancel)));
    (descriptor, ArchiveBlob { size_bytes: record.tar_bytes, body })
}

/// Compresses a layer into scratch space: its digest must be known before the archive names it.
fn compressed_layer(
    workshop: &Workshop,
    record: &LayerRecord,
    (compressor, media): (Compressor, &str),
    scratch: &Path,
    cancel: &Cancel,
) -> Result<(Descriptor, ArchiveBlob<'static>), Error> {
    let (descriptor, path) = layer_file(workshop, record, (compressor, media), scratch, cancel)?;
    let size_bytes = descriptor.size;
    let body = BlobBody::reader(move || File::open(&path));
    Ok((descriptor, ArchiveBlob { size_bytes, body }))
}

/// A layer in this form as a file of scratch space.
///
/// # Errors
/// It is damaged, or there is no room for it.
pub(crate) fn packed_layer(
    workshop: &Workshop,
    record: &LayerRecord,
    (compression, media): (Compression, &str),
    scratch: &Path,
    cancel: &Cancel,
) -> Result<(Descriptor, PathBuf), Error> {
    layer_file(workshop, record, (compressor(compression), media), scratch, cancel)
}

fn layer_file(
    workshop: &Workshop,
    record: &LayerRecord,
    (compressor, media): (Compressor, &str),
    scratch: &Path,
    cancel: &Cancel,
) -> Result<(Descriptor, PathBuf), Error> {
    let path = scratch.join(record.id.to_string());
    let failed = |error: io::Error| {
        Error::new(Class::of_io(&error), format!("cannot compress layer {}", record.diff_id))
            .why(error.to_string())
    };
    let file = File::create(&path).map_err(failed)?;
    if compressor == Compressor::None {
        let mut output = io::BufWriter::with_capacity(256 << 10, file);
        write_layer(workshop, record, &mut output, cancel).and_then(|()| output.flush()).map_err(failed)?;
        return Ok((Descriptor::new(media, record.diff_id.0.clone(), record.tar_bytes), path));
    }
    let mut output = Hashed { file, hasher: Hasher::new(Algorithm::Sha256) };
    let size_bytes = compress_layer(workshop, record, compressor, &mut output, cancel).map_err(failed)?;
    Ok((Descriptor::new(media, output.hasher.finish(), size_bytes), path))
}

fn compress_layer(
    workshop: &Workshop,
    record: &LayerRecord,
    compressor: Compressor,
    output: &mut dyn Write,
    cancel: &Cancel,
) -> io::Result<u64> {
    let (reader, writer) = io::pipe()?;
    // 1 MiB lets the tar writer run ahead of the compressor; smaller pipes only cost time
    let _ = rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20);
    thread::scope(|scope| {
        let produce = thread::Builder::new().spawn_scoped(scope, move || {
            let mut writer = io::BufWriter::with_capacity(256 << 10, writer);
            write_layer(workshop, record, &mut writer, cancel)?;
            writer.flush()
        })?;
        let mut reader: Box<dyn Read + Send> = Box::new(reader);
        let threads = thread::available_parallelism().map_or(2, usize::from);
        let written = compress::compress(&mut reader, output, compressor, threads);
        drop(reader);
        let produced = produce.join().map_err(|_| io::Error::other("the tar writer panicked"))?;
        match (written, produced) {
            (Ok(written), Ok(())) => Ok(written),
            (Err(error), Ok(())) | (_, Err(error)) => Err(error),
        }
    })
}

/// Writes a layer's uncompressed tar, and checks that it is still the one it was.
pub(super) fn write_layer(
    workshop: &Workshop,
    record: &LayerRecord,
    output: &mut dyn Write,
    cancel: &Cancel,
) -> io::Result<()> {
    let state = workshop.store.state();
    let fs_path: PathBuf = state.layer_fs(record.id);
    let root = mica_sys::root::Root::open(&fs_path)?;
    let mut hashed = Tee { output, hasher: Hasher::new(Algorithm::Sha256) };
    if record.has_recipe() {
        let recipe = std::fs::read(state.layer_recipe(record.id))?;
        let recipe = mica_archive::Recipe::decode(&recipe).map_err(io::Error::other)?;
        mica_archive::rebuild(&recipe, &root, &mut hashed, &|| cancel.is_cancelled())
            .map_err(io::Error::other)?;
    } else {
        let table = workshop.store.table(record.id).map_err(io::Error::other)?;
        mica_archive::write_tar(&table, &root, &mut hashed, mica_archive::TarFormat::V1, &|| {
            cancel.is_cancelled()
        })
        .map_err(io::Error::other)?;
    }
    let actual = hashed.hasher.finish();
    if actual == record.diff_id.0 {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "layer {} is damaged: its tar hashes to {actual}; `mica system check` says more",
            record.diff_id
        ),
    ))
}

struct Tee<'a> {
    output: &'a mut dyn Write,
    hasher: Hasher,
}

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.output.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

struct Hashed {
    file: File,
    hasher: Hasher,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
