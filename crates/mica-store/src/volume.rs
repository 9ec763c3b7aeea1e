//! Volumes: named directories that outlive containers.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;

use rusqlite::{OptionalExtension as _, Row, params};

use crate::db::Strength;
use crate::error::{IoContext as _, StoreError};
use crate::layout::names;
use crate::{ContainerId, Store, VolumeId, files, now};

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Its name; unique.
    pub name: String,
    /// Where it lies: [`crate::layout::StateDir::volume_data`].
    pub id: VolumeId,
    /// Driver options and labels: JSON of the layers above.
    pub options_json: String,
    /// Whether mica made up the name.
    pub anonymous: bool,
    /// When it was created, nanoseconds since 1970.
    pub created: i64,
}

/// Why a volume could not be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// Nothing has this name.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// Containers mount it.
    #[error("remove {name}: volume is in use - [{}]", containers.iter().map(ContainerId::as_str).collect::<Vec<_>>().join(", "))]
    InUse {
        /// Its name.
        name: String,
        /// Who mounts it.
        containers: Vec<ContainerId>,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const SELECT: &str = "SELECT name, id, options, anonymous, created FROM volumes";

impl Store {
    /// Returns a volume, making it if there is none of that name. Durable when it returns.
    pub fn ensure_volume(
        &self,
        name: &str,
        options_json: &str,
        anonymous: bool,
    ) -> Result<VolumeRecord, StoreError> {
        if let Some(volume) = self.volume(name)? {
            return Ok(volume);
        }
        self.database().write(Strength::Full, |write| {
            let select = format!("{SELECT} WHERE name = ?1");
            let known = write.sql(|sql| sql.prepare_cached(&select)?.query_row([name], record).optional())?;
            if let Some(known) = known {
                return Ok(known);
            }
            let id = VolumeId::random();
            let directory = self.state().volume(id);
            let make = |path| fs::DirBuilder::new().mode(0o755).create(path);
            fs::DirBuilder::new().mode(0o700).create(&directory).context("create", &directory)?;
            make(directory.join(names::VOLUME_DATA)).context("create", &directory)?;
            // Two directories: cheaper to sync here than to sync the file system.
            files::sync_directory(&directory).context("sync", &directory)?;
            files::sync_directory(&self.state().volumes()).context("sync", &directory)?;
            let created = now();
            write.sql(|sql| {
                let insert = "INSERT INTO volumes(name, id, options, anonymous, created)
                    VALUES (?1, ?2, ?3, ?4, ?5)";
                sql.prepare_cached(insert)?.execute(params![name, id, options_json, anonymous, created])
            })?;
            let options_json = options_json.to_owned();
            Ok(VolumeRecord { name: name.to_owned(), id, options_json, anonymous, created })
        })
    }

    /// Returns the volume of this name.
    pub fn volume(&self, name: &str) -> Result<Option<VolumeRecord>, StoreError> {
        self.database().read(|sql| {
            sql.prepare_cached(&format!("{SELECT} WHERE name = ?1"))?.query_row([name], record).optional()
        })
    }

    /// Returns all volumes by name.
    pub fn volumes(&self) -> Result<Vec<VolumeRecord>, StoreError> {
        self.database().read(|sql| {
            sql.prepare_cached(&format!("{SELECT} ORDER BY name"))?.query_map([], record)?.collect()
        })
    }

    /// Removes a volume and its files. Durable when it returns.
    pub fn remove_volume(&self, name: &str) -> Result<(), VolumeError> {
        let volume = self.database().write(Strength::Full, |write| {
            let select = format!("{SELECT} WHERE name = ?1");
            let volume = write
                .sql(|sql| sql.prepare_cached(&select)?.query_row([name], record).optional())?
                .ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
            let containers: Vec<ContainerId> = write.sql(|sql| {
                sql.prepare_cached("SELECT container FROM container_volumes WHERE volume = ?1")?
                    .query_map([name], |row| row.get(0))?
                    .collect()
            })?;
            if !containers.is_empty() {
                return Err(VolumeError::InUse { name: name.to_owned(), containers });
            }
            write.sql(|sql| sql.prepare_cached("DELETE FROM volumes WHERE name = ?1")?.execute([name]))?;
            Ok(volume)
        })?;
        Ok(self.discard(&self.state().volume(volume.id))?)
    }
}

pub(crate) fn record(row: &Row<'_>) -> rusqlite::Result<VolumeRecord> {
    Ok(VolumeRecord {
        name: row.get(0)?,
        id: row.get(1)?,
        options_json: row.get(2)?,
        anonymous: row.get(3)?,
        created: row.get(4)?,
    })
}
