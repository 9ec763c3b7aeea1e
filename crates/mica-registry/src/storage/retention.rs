//! Manifests that nobody can find any more.

use std::time::Duration;

use mica_oci::{Digest, Repository};

use super::Storage;
use super::changes::{Grace, delete_manifest};
use super::writer::{Batch, ChangeError};

/// Manifests that one transaction removes.
const STEP: usize = 200;

impl Storage {
    /// Removes manifests that have had no tag for `age`, are in no index, and refer to nothing that is here. Blocks.
    ///
    /// # Errors
    /// The metadata cannot be changed.
    pub(crate) fn expire_untagged(&self, age: Duration) -> Result<usize, ChangeError> {
        let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX / 2);
        let grace = self.grace;
        let mut total = 0;
        loop {
            let removed = self.writer.commit_blocking(move |batch| step(batch, age, grace))?;
            total += removed;
            // What an index named has only now become nobody's, so a pass may make work for the next.
            if removed == 0 {
                return Ok(total);
            }
        }
    }
}

fn step(batch: &mut Batch<'_>, age: i64, grace: Grace) -> Result<usize, ChangeError> {
    const SQL: &str = "SELECT r.name, m.digest FROM manifests AS m JOIN repositories AS r ON r.id = m.repository \
         WHERE m.touched <= ?1 \
         AND NOT EXISTS (SELECT 1 FROM tags WHERE tags.repository = m.repository AND tags.digest = m.digest) \
         AND NOT EXISTS (SELECT 1 FROM needs WHERE needs.repository = m.repository AND needs.digest = m.digest) \
         AND (m.subject IS NULL OR NOT EXISTS (SELECT 1 FROM manifests AS s \
              WHERE s.repository = m.repository AND s.digest = m.subject)) LIMIT ?2";
    let found: Vec<(String, String)> = batch
        .sql
        .prepare_cached(SQL)?
        .query_map((batch.now - age, STEP), |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let mut removed = 0;
    for (name, digest) in &found {
        // Both were parsed when they were stored.
        if let (Ok(name), Ok(digest)) = (name.parse::<Repository>(), digest.parse::<Digest>()) {
            delete_manifest(batch, &name, &digest, grace)?;
            removed += 1;
        }
    }
    Ok(removed)
}
