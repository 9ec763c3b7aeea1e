//! An OCI layout as a directory (`-o type=oci,tar=false`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use mica_oci::{Descriptor, Digest, Index, annotation};

use super::{ArchiveBlob, ArchiveError, ArchiveImage, ArchiveKind, BlobBody, OCI_LAYOUT, top_level_files};

/// Writes blobs and then `index.json` into `directory`, each by a temporary name and a rename, so that a reader never
/// sees an index whose blobs are missing.
///
/// # Errors
/// [`ArchiveError::Write`].
pub fn write_layout(
    directory: &Path,
    images: &[ArchiveImage],
    blobs: &BTreeMap<Digest, ArchiveBlob<'_>>,
) -> Result<(), ArchiveError> {
    let write = || -> io::Result<()> {
        put_blobs(directory, blobs)?;
        let mut files = top_level_files(ArchiveKind::Oci, images);
        files.sort_by_key(|(name, _, _)| *name == "index.json");
        for (name, _, bytes) in files {
            put(directory, name, |file| file.write_all(&bytes))?;
        }
        Ok(())
    };
    write().map_err(ArchiveError::Write)
}

/// Adds blobs to a layout, making it if there is none, and then an entry to its `index.json`, which replaces the one
/// with the same `ref.name`. A reader sees the old entry or the new one with all its blobs.
///
/// # Errors
/// [`ArchiveError::Write`]; the entries that were there still are.
pub fn add_to_layout(
    directory: &Path,
    entry: Descriptor,
    reset: bool,
    blobs: &BTreeMap<Digest, ArchiveBlob<'_>>,
) -> Result<(), ArchiveError> {
    let write = || -> io::Result<()> {
        fs::create_dir_all(directory)?;
        put_blobs(directory, blobs)?;
        // whoever adds at the same time waits: both entries are kept
        let locked = File::open(directory)?;
        locked.lock()?;
        let index = match fs::read(directory.join("index.json")) {
            Ok(bytes) if !reset => serde_json::from_slice::<Index>(&bytes)?.manifests,
            Ok(_) => Vec::new(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let name = entry.annotations.get(annotation::REF_NAME);
        let is_other = |other: &Descriptor| other.annotations.get(annotation::REF_NAME) != name;
        let entries = index.into_iter().filter(is_other).chain([entry.clone()]).collect();
        let bytes = serde_json::to_vec(&Index::new(entries))?;
        put(directory, "oci-layout", |file| file.write_all(OCI_LAYOUT))?;
        put(directory, "index.json", |file| file.write_all(&bytes))?;
        locked.sync_all()
    };
    write().map_err(ArchiveError::Write)
}

fn put_blobs(directory: &Path, blobs: &BTreeMap<Digest, ArchiveBlob<'_>>) -> io::Result<()> {
    for (digest, blob) in blobs {
        let folder = directory.join("blobs").join(digest.algorithm().name());
        fs::create_dir_all(&folder)?;
        put(&folder, digest.hex(), |file| match &blob.body {
            BlobBody::Bytes(bytes) => file.write_all(bytes),
            BlobBody::Produce(produce) => produce(file),
        })?;
    }
    Ok(())
}

fn put(folder: &Path, name: &str, fill: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let temporary = folder.join(format!(".{name}.{}", std::process::id()));
    let mut file = File::create(&temporary)?;
    let done = fill(&mut file)
        .and_then(|()| file.sync_data())
        .and_then(|()| fs::rename(&temporary, folder.join(name)));
    if done.is_err() {
        // the first error counts; a leftover temporary file is only untidy
        let _ = fs::remove_file(&temporary);
    }
    done
}
