//! An OCI layout as a directory (`-o type=oci,tar=false`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use mica_oci::Digest;

use super::{ArchiveBlob, ArchiveError, ArchiveImage, ArchiveKind, BlobBody, top_level_files};

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
        for (digest, blob) in blobs {
            let folder = directory.join("blobs").join(digest.algorithm().name());
            fs::create_dir_all(&folder)?;
            put(&folder, digest.hex(), |file| match &blob.body {
                BlobBody::Bytes(bytes) => file.write_all(bytes),
                BlobBody::Produce(produce) => produce(file),
            })?;
        }
        let mut files = top_level_files(ArchiveKind::Oci, images);
        files.sort_by_key(|(name, _, _)| *name == "index.json");
        for (name, _, bytes) in files {
            put(directory, name, |file| file.write_all(&bytes))?;
        }
        Ok(())
    };
    write().map_err(ArchiveError::Write)
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
