//! Archives: save, load, import.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;

use mica_api::{
    Cancel, Class, Error, Event, EventSink, ImportImage, LoadImages, LoadedImage, Result, SaveImages,
};
use mica_archive::compress::Decompressor;
use mica_build::{
    Exported, archive_images, bring_in, bring_in_layer, local_manifest, publish_index, publish_manifest,
    write_manifest,
};
use mica_distribution::{ArchiveImage, FoundImage, ImageFiles, TarFile, read_images};
use mica_oci::{Descriptor, Digest, History, ImageConfig, Platform, Reference};
use mica_store::{ImageRecord, LayerId, Lease};

use crate::LocalEngine;
use crate::images::{CONFIG_LIMIT_BYTES, PlatformImage};
use crate::times::rfc3339;

/// `save`.
pub(crate) fn save(engine: &LocalEngine, request: SaveImages, cancel: &Cancel) -> Result<()> {
    let lease = engine.store().lease()?;
    let mut exported: Vec<Exported> = Vec::new();
    for query in &request.images {
        cancel.check()?;
        let record = engine.store().find_image(query)?;
        let contents = engine.store().image_contents(&record.target.digest)?;
        if let Some(contents) = contents {
            lease.protect_blobs(&contents.blobs)?;
            for manifest in &contents.manifests {
                lease.protect_layers(&manifest.layers)?;
            }
        }
        let known = exported.iter_mut().find(|image| image.image.target.digest == record.target.digest);
        match known {
            Some(known) => known.image.names.extend(record.name),
            None => exported.push(export_image(engine, record, request.platform.as_ref(), &lease)?),
        }
    }
    archive_images(&engine.workshop, &exported, &request.destination, cancel)
}

fn export_image(
    engine: &LocalEngine,
    record: ImageRecord,
    platform: Option<&Platform>,
    lease: &Lease,
) -> Result<Exported> {
    let shown = engine.platform_image(&record, platform)?;
    let mut images = engine.platforms(&record.target.digest)?;
    if platform.is_some() {
        images.retain(|image| image.digest == shown.digest);
    }
    let content =
        images.iter().map(|image| saved_layers(engine, image)).collect::<Result<Option<Vec<_>>>>()?;
    let (target, manifest, stored, layers) = match content {
        Some(content) => {
            let mut target = record.target.clone();
            if platform.is_some() {
                let bytes = engine.store().blob(&shown.digest)?.unwrap_or_default();
                target = Descriptor::new(shown.manifest.media_type.clone(), shown.digest.clone(), bytes);
            }
            let mut stored = vec![target.digest.clone()];
            let mut layers: Vec<LayerId> = Vec::new();
            for (image, content) in images.iter().zip(content) {
                stored.extend([image.digest.clone(), image.manifest.config.digest.clone()]);
                stored.extend(content.blobs);
                layers.extend(content.layers);
            }
            (target, shown.manifest.clone(), stored, layers)
        }
        None => {
            // the form it came in is not here any more: it leaves in ours
            let bytes = engine.store().read_blob(&shown.manifest.config.digest, CONFIG_LIMIT_BYTES)?;
            let records = engine.layer_records(&shown.layers)?;
            let platform = shown.config.platform();
            let (manifest, target) = local_manifest(&engine.workshop, &bytes, &platform, &records, lease)?;
            let stored = vec![target.digest.clone(), manifest.config.digest.clone()];
            (target, manifest, stored, shown.layers.clone())
        }
    };
    let mut target = target;
    if images.len() == 1 {
        target.platform = Some(shown.config.platform());
    }
    let image = ArchiveImage {
        names: record.name.into_iter().collect(),
        target,
        docker: Some((manifest.config.digest.clone(), manifest.layers)),
        created: shown.config.created.clone(),
    };
    Ok(Exported { image, stored, layers })
}

/// The layers of a manifest as it names them.
struct SavedLayers {
    /// Kept in the form they came in.
    blobs: Vec<Digest>,
    /// Uncompressed, made of their files.
    layers: Vec<LayerId>,
}

/// `None` if a layer is not here in the form that the manifest names.
fn saved_layers(engine: &LocalEngine, image: &PlatformImage) -> Result<Option<SavedLayers>> {
    let mut saved = SavedLayers { blobs: Vec::new(), layers: Vec::new() };
    for (descriptor, record) in image.manifest.layers.iter().zip(engine.layer_records(&image.layers)?) {
        if descriptor.digest == record.diff_id.0 {
            saved.layers.push(record.id);
        } else if engine.store().blob(&descriptor.digest)?.is_some() {
            saved.blobs.push(descriptor.digest.clone());
        } else {
            return Ok(None);
        }
    }
    Ok(Some(saved))
}

/// `load`.
pub(crate) fn load(
    engine: &LocalEngine,
    request: LoadImages,
    cancel: &Cancel,
    events: &dyn EventSink,
) -> Result<Vec<LoadedImage>> {
    let lease = engine.store().lease()?;
    let archive = seekable_tar(request.input, &lease)?;
    let files = TarFile::index(archive)
        .map_err(|error| Error::new(Class::Corrupt, "cannot read the image archive").why(chain(&error)))?;
    let found = read_images(&files, request.platform.as_ref())?;
    let mut loaded = Vec::new();
    for image in found {
        cancel.check()?;
        loaded.extend(load_image(engine, &files, &image, &lease, cancel, events)?);
    }
    Ok(loaded)
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// An uncompressed tar in a file: the input itself, or a copy in scratch space.
fn seekable_tar(input: OwnedFd, lease: &Lease) -> Result<File> {
    let failed = |error: io::Error| {
        Error::new(Class::of_io(&error), "cannot read the image archive").why(error.to_string())
    };
    let mut file = File::from(input);
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if is_file && !is_compressed(&mut file).map_err(failed)? {
        return Ok(file);
    }
    let mut tar = Decompressor::detect(file).map_err(failed)?;
    let path = lease.scratch()?.join("archive");
    let mut spool = File::options().read(true).write(true).create_new(true).open(path).map_err(failed)?;
    io::copy(&mut tar, &mut spool).map_err(failed)?;
    spool.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(spool)
}

fn is_compressed(file: &mut File) -> io::Result<bool> {
    use std::os::unix::fs::FileExt as _;
    let start = file.stream_position()?;
    let mut magic = [0; 6];
    let count = file.read_at(&mut magic, start)?;
    let format = mica_archive::compress::Format::of(&magic[..count]);
    Ok(format != mica_archive::compress::Format::Plain || start != 0)
}

fn load_image(
    engine: &LocalEngine,
    files: &dyn ImageFiles,
    image: &FoundImage,
    lease: &Lease,
    cancel: &Cancel,
    events: &dyn EventSink,
) -> Result<Vec<LoadedImage>> {
    let mut platforms = Vec::new();
    for found in &image.manifests {
        let tell = |index: usize, bytes: u64, known: bool| {
            let state = if known { "already there" } else { "loaded" };
            events.event(Event::Notice(format!("layer {}: {bytes} bytes, {state}", index + 1)));
        };
        platforms.push(bring_in(&engine.workshop, files, found, lease, cancel, Some(&tell))?);
    }
    let Some(first) = platforms.first() else { return Ok(Vec::new()) };
    let names = &image.names;
    let published = if platforms.len() == 1 {
        let stack = first.layers.clone();
        let draft = mica_build::ImageDraft {
            descriptor: first.descriptor.clone(),
            manifest: first.manifest.clone(),
            config: first.config.clone(),
            layers: engine.layer_records(&stack)?,
        };
        publish_manifest(&engine.workshop, &draft, names, lease)?
    } else {
        let rows: Vec<_> = platforms
            .iter()
            .map(|local| {
                (local.descriptor.clone(), local.manifest.config.digest.clone(), local.layers.clone())
            })
            .collect();
        publish_index(&engine.workshop, &rows, names, lease)?
    };
    if names.is_empty() {
        return Ok(vec![LoadedImage::Unnamed(published.image_id.to_string())]);
    }
    let replaced = |name: &Reference| {
        let moved = published.published.moved.iter().find(|(moved, _)| moved == name);
        moved.map(|(_, old)| old.to_string())
    };
    Ok(names
        .iter()
        .map(|name| LoadedImage::Named { name: name.familiar(), replaced: replaced(name) })
        .collect())
}

/// `import`: a root file system tar as an image of one layer.
pub(crate) fn import(engine: &LocalEngine, request: ImportImage, cancel: &Cancel) -> Result<String> {
    let workshop = &engine.workshop;
    let lease = engine.store().lease()?;
    let mut tar = Decompressor::detect(File::from(request.input)).map_err(|error| {
        Error::new(Class::of_io(&error), "cannot read the root file system archive").why(error.to_string())
    })?;
    let layer = bring_in_layer(workshop, &mut tar, None, None, &lease, cancel)?;
    let platform = request.platform.unwrap_or_else(Platform::host);
    let mut config = ImageConfig::default();
    config.set_platform(&platform);
    mica_frontend::change_configs(&mut config, request.changes.iter().map(String::as_str))
        .map_err(|error| Error::new(Class::Invalid, error.to_string()))?;
    let now = rfc3339(mica_api::Timestamp::now().0);
    config.created = Some(now.clone());
    config.history =
        Some(vec![History { created: Some(now), comment: request.message, ..History::default() }]);
    let draft = write_manifest(workshop, config, &[layer.id], &lease)?;
    let names: Vec<Reference> = request.name.into_iter().map(Reference::or_latest).collect();
    let published = publish_manifest(workshop, &draft, &names, &lease)?;
    Ok(published.image_id.to_string())
}
