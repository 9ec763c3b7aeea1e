//! Check: is every file of the store what was written, and which images suffer if not.
//!
//! Files are compared with what the metadata and the layer tables say; the metadata with itself. What can be put
//! right without new bytes (a mode, a missing empty directory) is; everything else that is damaged goes, with the
//! images that need it, so that no other command ever works with wrong bytes. Containers are never removed.

mod directories;
mod layer;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use mica_oci::{Digest, Hasher};

use crate::content::BLOB_MODE;
use crate::db::{Strength, Write};
use crate::error::{IoContext as _, StoreError};
use crate::image::{SELECT_IMAGE, image_record, names_of};
use crate::image_find::delete_image;
use crate::layer::{forget_layer, parsed};
use crate::{LayerId, Store};

/// Whether damage is only reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckMode {
    /// Look, change nothing.
    Report,
    /// Put right what can be, remove what cannot.
    Repair,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: Problem,
    /// The images that need it: their names, or IDs if they have none.
    pub images: Vec<String>,
    /// What was done about it.
    pub outcome: Outcome,
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// It is not there.
    Missing,
    /// It has another content than was written.
    Altered(String),
    /// It has other permissions than were given.
    Mode {
        /// What it has.
        found: u32,
        /// What it should have.
        expected: u32,
    },
    /// mica did not put it there.
    Foreign,
    /// The metadata contradict themselves.
    Metadata(String),
}

/// What was done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: not asked to.
    Reported,
    /// It is as it was written again.
    Restored,
    /// It is gone, with everything that needs it.
    Removed,
    /// Nothing: a container needs it, or the whole metadata would have to go.
    Kept,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("it is missing"),
            Self::Altered(text) => f.write_str(text),
            Self::Mode { found, expected } => write!(f, "its mode is {found:04o} instead of {expected:04o}"),
            Self::Foreign => f.write_str("mica did not put it there"),
            Self::Metadata(text) => write!(f, "the metadata are inconsistent: {text}"),
        }
    }
}

/// What a check saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Blobs looked at.
    pub blobs: u64,
    /// Layers looked at.
    pub layers: u64,
    /// Everything found.
    pub findings: Vec<Finding>,
}

impl CheckReport {
    /// Whether nothing damaged is left.
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|f| matches!(f.outcome, Outcome::Restored | Outcome::Removed))
    }
}

/// One run of a check.
struct Check<'a> {
    store: &'a Store,
    mode: CheckMode,
    on_finding: &'a mut dyn FnMut(&Finding),
    report: CheckReport,
}

impl Store {
    /// Checks every file of the store. Reads everything, so it takes as long as the disk needs.
    ///
    /// A store whose metadata cannot be opened at all needs [`crate::repair_unopenable`].
    pub fn check(
        &self,
        mode: CheckMode,
        on_finding: &mut dyn FnMut(&Finding),
    ) -> Result<CheckReport, StoreError> {
        if mode == CheckMode::Repair {
            self.database().refuse_read_only()?;
        }
        let mut check = Check { store: self, mode, on_finding, report: CheckReport::default() };
        check.metadata()?;
        check.blobs()?;
        check.layers()?;
        check.directories()?;
        Ok(check.report)
    }
}

impl Check<'_> {
    fn found(&mut self, path: &Path, problem: Problem, images: Vec<String>, outcome: Outcome) {
        let finding = Finding { path: path.to_owned(), problem, images, outcome };
        (self.on_finding)(&finding);
        self.report.findings.push(finding);
    }

    fn repairs(&self) -> bool {
        self.mode == CheckMode::Repair
    }

    /// The outcome of a repair that always works, if it was asked for.
    fn outcome(&self, repaired: Outcome) -> Outcome {
        if self.repairs() { repaired } else { Outcome::Reported }
    }

    fn metadata(&mut self) -> Result<(), StoreError> {
        for line in self.store.database().integrity()? {
            let outcome = self.outcome(Outcome::Kept);
            self.found(&self.store.state().database(), Problem::Metadata(line), Vec::new(), outcome);
        }
        let copy = self.store.database().store_file()?;
        if copy != *self.store.file() {
            if self.repairs() {
                copy.save(self.store.state()).context("write", &self.store.state().store_json())?;
            }
            let problem = Problem::Altered("it differs from its copy in the metadata".into());
            let outcome = self.outcome(Outcome::Restored);
            self.found(&self.store.state().store_json(), problem, Vec::new(), outcome);
        }
        Ok(())
    }

    fn blobs(&mut self) -> Result<(), StoreError> {
        let boot = self.store.boot().as_str();
        let rows: Vec<(Digest, u64)> = self.store.database().read(|sql| {
            sql.prepare("SELECT digest, size FROM blobs WHERE unsynced IS NULL OR unsynced = ?1")?
                .query_map([boot], |row| Ok((parsed(row, 0)?, row.get::<_, i64>(1)?.cast_unsigned())))?
                .collect()
        })?;
        for (digest, size) in rows {
            self.report.blobs += 1;
            let path = self.store.state().blob(&digest);
            self.mode_of(&path, BLOB_MODE)?;
            let Some(problem) = blob_problem(&path, &digest, size)? else { continue };
            // Rows go before their files: what was collected while it was looked at has none any more.
            if self.store.blob(&digest)?.is_none() {
                continue;
            }
            let images = self.images_with("image_blobs", "digest", digest.to_string())?;
            let mut outcome = Outcome::Reported;
            if self.repairs() {
                self.remove_images(&images)?;
                self.forget_blob(&digest)?;
                self.store.discard(&path)?;
                outcome = Outcome::Removed;
            }
            let names = images.into_iter().map(|image| image.1).collect();
            self.found(&path, problem, names, outcome);
        }
        Ok(())
    }

    fn forget_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        self.store.database().write(Strength::Full, |write| {
            write.sql(|sql| sql.execute("DELETE FROM blobs WHERE digest = ?1", [digest.to_string()]))?;
            Ok(())
        })
    }

    fn layers(&mut self) -> Result<(), StoreError> {
        let boot = self.store.boot().as_str();
        let ids: Vec<LayerId> = self.store.database().read(|sql| {
            sql.prepare("SELECT id FROM layers WHERE unsynced IS NULL OR unsynced = ?1")?
                .query_map([boot], |row| row.get(0))?
                .collect()
        })?;
        for id in ids {
            // Collected meanwhile.
            let Some(record) = self.store.layer(id)? else { continue };
            self.report.layers += 1;
            let problems = layer::check(self.store, &record);
            if !matches!(&problems, Ok(found) if found.is_empty()) && self.store.layer(id)?.is_none() {
                continue;
            }
            self.layer_problems(id, problems?)?;
        }
        Ok(())
    }

    fn layer_problems(&mut self, id: LayerId, problems: Vec<layer::Found>) -> Result<(), StoreError> {
        if problems.is_empty() {
            return Ok(());
        }
        let images = self.images_with("image_layers", "layer", id)?;
        let names: Vec<String> = images.iter().map(|image| image.1.clone()).collect();
        let is_lost = problems.iter().any(|found| found.restore.is_none());
        let mut removal = self.outcome(Outcome::Kept);
        if is_lost && self.repairs() && self.remove_layer(id, &images)? {
            removal = Outcome::Removed;
        }
        for found in problems {
            let outcome = match (&found.restore, removal) {
                (Some(restore), Outcome::Kept) => {
                    restore(self.store)?;
                    Outcome::Restored
                }
                _ => removal,
            };
            self.found(&found.path, found.problem, names.clone(), outcome);
        }
        Ok(())
    }

    /// Removes a layer with the images and cache records that need it; `false` if a container needs it.
    fn remove_layer(&self, id: LayerId, images: &[(Digest, String)]) -> Result<bool, StoreError> {
        let in_use = self.store.database().read(|sql| {
            sql.prepare_cached("SELECT 1 FROM container_layers WHERE layer = ?1")?.exists([id])
        })?;
        if in_use {
            return Ok(false);
        }
        self.remove_images(images)?;
        self.store.database().write(Strength::Full, |write| forget_layer(write, id))?;
        self.store.discard(&self.store.state().layer(id))?;
        Ok(true)
    }

    fn remove_images(&self, images: &[(Digest, String)]) -> Result<(), StoreError> {
        self.store.database().write(Strength::Full, |write| {
            images.iter().try_for_each(|(target, _)| remove_image(write, target))
        })
    }

    /// The images that need something, each with what to call it.
    fn images_with(
        &self,
        table: &str,
        column: &str,
        value: impl rusqlite::ToSql,
    ) -> Result<Vec<(Digest, String)>, StoreError> {
        self.store.database().read(|sql| {
            let select = format!(
                "SELECT DISTINCT images.digest, image_id FROM images
                 JOIN {table} ON {table}.image = images.digest WHERE {table}.{column} = ?1"
            );
            let rows: Vec<(Digest, String)> = sql
                .prepare(&select)?
                .query_map([&value], |row| Ok((parsed(row, 0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let called = rows.into_iter().map(|(target, id)| {
                let names: BTreeSet<String> = names_of(sql, &target)?.iter().map(|n| n.familiar()).collect();
                let names: Vec<String> = names.into_iter().collect();
                Ok((target, if names.is_empty() { id } else { names.join(", ") }))
            });
            called.collect()
        })
    }

    /// Compares the mode of a file of the store; restores it if asked to.
    fn mode_of(&mut self, path: &Path, expected: u32) -> Result<(), StoreError> {
        // That it is missing is somebody else's finding.
        let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
        let found = metadata.permissions().mode() & 0o7777;
        if found == expected || metadata.is_symlink() {
            return Ok(());
        }
        if self.repairs() {
            fs::set_permissions(path, Permissions::from_mode(expected))
                .context("change the mode of", path)?;
        }
        let outcome = self.outcome(Outcome::Restored);
        self.found(path, Problem::Mode { found, expected }, Vec::new(), outcome);
        Ok(())
    }
}

fn remove_image(write: &Write<'_>, target: &Digest) -> Result<(), StoreError> {
    let digest = target.to_string();
    let select = format!("{SELECT_IMAGE} WHERE digest = ?1");
    let image = write.sql(|sql| sql.query_row(&select, [&digest], image_record))?;
    write.sql(|sql| sql.execute("DELETE FROM names WHERE image = ?1", [&digest]))?;
    delete_image(write, image).map(drop)
}

fn blob_problem(path: &Path, digest: &Digest, size: u64) -> Result<Option<Problem>, StoreError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Problem::Missing)),
        Err(error) => return Err(error).context("inspect", path),
    };
    if !metadata.is_file() {
        return Ok(Some(Problem::Altered("it is not a file".into())));
    }
    if metadata.len() != size {
        let text = format!("it has {} bytes instead of {size}", metadata.len());
        return Ok(Some(Problem::Altered(text)));
    }
    let mut hasher = Hasher::new(digest.algorithm());
    let mut file = fs::File::open(path).context("open", path)?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            // The disk refuses to give the bytes back: as damaged as other bytes.
            Err(error) => return Ok(Some(Problem::Altered(format!("it cannot be read: {error}")))),
        }
    }
    let actual = hasher.finish();
    Ok((actual != *digest).then(|| Problem::Altered(format!("its digest is {actual}"))))
}
