//! The collector: frees what no manifest needs, while everything else goes on.
//!
//! Nothing is marked and nothing is walked to find out what is needed: each link says until when it is held, and only
//! the writer's thread, which also stores manifests and blobs, looks and removes. So a blob cannot be lost between a
//! look and a removal, and a collection is as large as what it frees.

use mica_oci::Digest;

use super::Storage;
use super::changes::forget_blob_without_links;
use super::layout::Layout;
use super::writer::{Batch, ChangeError};

/// Links that one transaction removes, so that requests do not wait for a large collection.
const STEP: usize = 200;

/// What a collection has freed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs that are gone.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Storage {
    /// Frees everything whose time is over. Blocks.
    ///
    /// # Errors
    /// The metadata cannot be changed.
    pub(crate) fn collect(&self) -> Result<Collected, ChangeError> {
        let mut total = Collected::default();
        loop {
            let (links, freed) = self.writer.commit_blocking(step)?;
            total.blobs += freed.blobs;
            total.bytes += freed.bytes;
            if links < STEP {
                return Ok(total);
            }
        }
    }

    /// Removes files of `blobs/` that have no row: a crash between a rename and its commit leaves them. Blocks.
    ///
    /// # Errors
    /// A folder cannot be read, or the metadata cannot be changed.
    pub(crate) fn sweep(&self) -> Result<u64, ChangeError> {
        let mut removed = 0;
        for digest in files(&self.layout)? {
            // Nearly all of them are known: the writer is only asked about the others.
            if self.meta.knows_blob(&digest)? {
                continue;
            }
            removed += u64::from(self.writer.commit_blocking(move |batch| remove_if_stray(batch, &digest))?);
        }
        Ok(removed)
    }
}

/// One transaction: links whose time is over, and blobs that lose their last link by it.
fn step(batch: &mut Batch<'_>) -> Result<(usize, Collected), ChangeError> {
    const SQL: &str = "DELETE FROM links WHERE (repository, digest) IN \
         (SELECT repository, digest FROM links WHERE expires IS NOT NULL AND expires <= ?1 LIMIT ?2) \
         RETURNING digest";
    let digests: Vec<String> = batch
        .sql
        .prepare_cached(SQL)?
        .query_map((batch.now, STEP), |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut freed = Collected::default();
    for digest in digests.iter().filter_map(|text| text.parse::<Digest>().ok()) {
        if let Some(bytes) = forget_blob_without_links(batch, &digest)? {
            freed.blobs += 1;
            freed.bytes += bytes;
        }
    }
    Ok((digests.len(), freed))
}

/// Every file that is named like a blob.
fn files(layout: &Layout) -> std::io::Result<Vec<Digest>> {
    let mut digests = Vec::new();
    for algorithm in std::fs::read_dir(layout.blobs())? {
        let algorithm = algorithm?;
        for shelf in std::fs::read_dir(algorithm.path())? {
            for file in std::fs::read_dir(shelf?.path())? {
                let name = format!(
                    "{}:{}",
                    algorithm.file_name().to_string_lossy(),
                    file?.file_name().to_string_lossy()
                );
                digests.extend(name.parse::<Digest>());
            }
        }
    }
    Ok(digests)
}

fn remove_if_stray(batch: &mut Batch<'_>, digest: &Digest) -> Result<bool, ChangeError> {
    let known =
        batch.sql.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1")?.exists([digest.to_string()])?;
    if known || batch.removals.contains(digest) {
        // A row that goes with this very transaction takes its file along when that is committed.
        return Ok(false);
    }
    // In the writer's thread, where files appear: none can get its row between the question and this.
    std::fs::remove_file(batch.layout.blob(digest))?;
    Ok(true)
}
