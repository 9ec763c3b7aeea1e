//! Containers: what was asked for, what is the case, and who may change it.
//!
//! Configuration and state are JSON of the layers above. The store knows what it needs: names are unique, the layers
//! below a container stay, and a change is refused if somebody else changed the container since it was read.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;

use mica_oci::{Digest, ImageId, Reference};
use rusqlite::types::Type;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};

use crate::db::{Strength, Write};
use crate::error::{ContainerError, IoContext as _, StoreError};
use crate::{ContainerId, LayerId, Lease, Store, now};

/// A container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerRecord {
    /// Its identity.
    pub id: ContainerId,
    /// Its name, without docker's leading slash.
    pub name: String,
    /// The image as the user named it.
    pub image_name: Option<Reference>,
    /// The image's manifest or index.
    pub image: Option<Digest>,
    /// The image's ID.
    pub image_id: Option<ImageId>,
    /// What was asked for; never changes.
    pub config_json: String,
    /// What is the case: status, boot id, pid and start time, exit code.
    pub state_json: String,
    /// Counts changes; see [`Store::update_container`].
    pub revision: i64,
    /// When it was created, nanoseconds since 1970.
    pub created: i64,
}

/// A container to create.
#[derive(Debug)]
pub struct NewContainer<'a> {
    /// Its identity.
    pub id: ContainerId,
    /// Its name, without docker's leading slash.
    pub name: &'a str,
    /// The image as the user named it.
    pub image_name: Option<&'a Reference>,
    /// The image's manifest or index.
    pub image: Option<&'a Digest>,
    /// The image's ID.
    pub image_id: Option<&'a ImageId>,
    /// Its root filesystem, lowest layer first.
    pub layers: &'a [LayerId],
    /// Volumes it mounts, by name.
    pub volumes: &'a [String],
    /// What was asked for.
    pub config_json: &'a str,
    /// What is the case.
    pub state_json: &'a str,
}

const SELECT: &str =
    "SELECT id, name, image_name, image, image_id, config, state, revision, created FROM containers";

impl Store {
    /// Creates a container and its directory. Durable when it returns.
    ///
    /// # Errors
    /// [`ContainerError::NameTaken`]; a layer or volume that is not here.
    pub fn create_container(&self, new: &NewContainer<'_>, lease: &Lease) -> Result<(), ContainerError> {
        lease.protect_layers(new.layers)?;
        let synced = self.sync()?;
        let directory = self.state().container(&new.id);
        self.database().write(Strength::Full, |write| {
            self.clear_unsynced(write, synced)?;
            refuse_taken(write, new.name)?;
            insert(write, new)?;
            // Inside the transaction: a directory without a row is a leftover.
            fs::DirBuilder::new().mode(0o700).create(&directory).context("create", &directory)?;
            Ok(())
        })
    }

    /// Replaces a container's state if nobody changed the container since `seen` was read; returns the new revision.
    ///
    /// # Errors
    /// [`ContainerError::Changed`]: read the container again and decide again.
    pub fn update_container(&self, seen: &ContainerRecord, state_json: &str) -> Result<i64, ContainerError> {
        self.database().write(Strength::Normal, |write| {
            let changed = write.sql(|sql| {
                let update = "UPDATE containers SET state = ?3, revision = revision + 1
                    WHERE id = ?1 AND revision = ?2";
                sql.prepare_cached(update)?.execute(params![seen.id, seen.revision, state_json])
            })?;
            if changed == 1 {
                return Ok(seen.revision + 1);
            }
            let exists = write.sql(|sql| {
                sql.prepare_cached("SELECT 1 FROM containers WHERE id = ?1")?.exists([&seen.id])
            })?;
            Err(match exists {
                true => ContainerError::Changed(seen.id.clone()),
                false => ContainerError::NotFound(seen.id.to_string()),
            })
        })
    }

    /// Gives a container another name. Durable when it returns.
    pub fn rename_container(&self, id: &ContainerId, name: &str) -> Result<(), ContainerError> {
        self.database().write(Strength::Full, |write| {
            refuse_taken(write, name)?;
            let changed = write.sql(|sql| {
                let update = "UPDATE containers SET name = ?2, revision = revision + 1 WHERE id = ?1";
                sql.prepare_cached(update)?.execute(params![id, name])
            })?;
            if changed == 1 { Ok(()) } else { Err(ContainerError::NotFound(id.to_string())) }
        })
    }

    /// Removes a container that nobody changed since `seen` was read, with its files. Durable when it returns.
    pub fn remove_container(&self, seen: &ContainerRecord) -> Result<(), ContainerError> {
        self.give_up_reserve();
        self.database().write(Strength::Full, |write| {
            let removed = write.sql(|sql| {
                sql.prepare_cached("DELETE FROM containers WHERE id = ?1 AND revision = ?2")?
                    .execute(params![seen.id, seen.revision])
            })?;
            if removed == 1 { Ok(()) } else { Err(ContainerError::Changed(seen.id.clone())) }
        })?;
        Ok(self.discard(&self.state().container(&seen.id))?)
    }

    /// Returns all containers, newest first.
    pub fn containers(&self) -> Result<Vec<ContainerRecord>, StoreError> {
        self.database().read(|sql| {
            sql.prepare_cached(&format!("{SELECT} ORDER BY created DESC, id"))?
                .query_map([], record)?
                .collect()
        })
    }

    /// Finds a container by full ID, by name, or by a unique ID prefix, in this order.
    pub fn find_container(&self, query: &str) -> Result<ContainerRecord, ContainerError> {
        let mut found = self.database().read(|sql| find(sql, query))?;
        if found.len() > 1 {
            return Err(ContainerError::Ambiguous(query.into()));
        }
        found.pop().ok_or_else(|| ContainerError::NotFound(query.into()))
    }

    /// Returns the layers below a container, lowest first.
    pub fn container_layers(&self, id: &ContainerId) -> Result<Vec<LayerId>, StoreError> {
        self.database().read(|sql| {
            sql.prepare_cached("SELECT layer FROM container_layers WHERE container = ?1 ORDER BY position")?
                .query_map([id], |row| row.get(0))?
                .collect()
        })
    }
}

fn refuse_taken(write: &Write<'_>, name: &str) -> Result<(), ContainerError> {
    let holder = write.sql(|sql| {
        sql.prepare_cached("SELECT id FROM containers WHERE name = ?1")?
            .query_row([name], |row| row.get(0))
            .optional()
    })?;
    match holder {
        Some(holder) => Err(ContainerError::NameTaken { name: format!("/{name}"), holder }),
        None => Ok(()),
    }
}

fn insert(write: &Write<'_>, new: &NewContainer<'_>) -> Result<(), StoreError> {
    write.sql(|sql| {
        let insert = "INSERT INTO containers
            (id, name, image_name, image, image_id, config, state, revision, created)
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8)";
        sql.prepare_cached(insert)?.execute(params![
            new.id,
            new.name,
            new.image_name.map(ToString::to_string),
            new.image.map(ToString::to_string),
            new.image_id.map(ToString::to_string),
            new.config_json,
            new.state_json,
            now()
        ])?;
        let insert = "INSERT INTO container_layers(container, position, layer) VALUES (?1, ?2, ?3)";
        for (position, layer) in new.layers.iter().enumerate() {
            sql.prepare_cached(insert)?.execute(params![new.id, position as i64, layer])?;
        }
        let insert = "INSERT OR IGNORE INTO container_volumes(container, volume) VALUES (?1, ?2)";
        for volume in new.volumes {
            sql.prepare_cached(insert)?.execute(params![new.id, volume])?;
        }
        Ok(())
    })
}

fn find(sql: &Transaction<'_>, query: &str) -> rusqlite::Result<Vec<ContainerRecord>> {
    for column in ["id", "name"] {
        let query = if column == "name" { query.strip_prefix('/').unwrap_or(query) } else { query };
        let select = format!("{SELECT} WHERE {column} = ?1");
        if let Some(found) = sql.prepare_cached(&select)?.query_row([query], record).optional()? {
            return Ok(vec![found]);
        }
    }
    let is_hex = query.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if query.is_empty() || !is_hex {
        return Ok(Vec::new());
    }
    let select = format!("{SELECT} WHERE id GLOB ?1 LIMIT 2");
    sql.prepare_cached(&select)?.query_map([format!("{query}*")], record)?.collect()
}

fn record(row: &Row<'_>) -> rusqlite::Result<ContainerRecord> {
    Ok(ContainerRecord {
        id: row.get(0)?,
        name: row.get(1)?,
        image_name: optional(row, 2)?,
        image: optional(row, 3)?,
        image_id: optional(row, 4)?,
        config_json: row.get(5)?,
        state_json: row.get(6)?,
        revision: row.get(7)?,
        created: row.get(8)?,
    })
}

/// Parses a text column that may be NULL.
fn optional<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse())
        .transpose()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}
