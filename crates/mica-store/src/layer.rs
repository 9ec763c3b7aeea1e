//! Layers: change sets as directories, each with the table that says what it is.
//!
//! Two layers with equal diff IDs are one. A layer is adopted from a lease's workspace by one rename inside the
//! transaction that writes its row, so a directory in `layers/` without a row is always a leftover of a dead process.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use mica_archive::{Kind, Table};
use mica_oci::DiffId;
use rusqlite::types::Type;
use rusqlite::{OptionalExtension as _, Row, params};

use crate::db::{Strength, Write};
use crate::error::{IoContext as _, StoreError};
use crate::layout::names;
use crate::{LayerId, Lease, Store, files, now};

/// What the metadata knows about a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRecord {
    /// Its identity in this store.
    pub id: LayerId,
    /// Digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// Length of its uncompressed tar.
    pub tar_bytes: u64,
    /// Bytes of its files: what `docker history` shows.
    pub content_bytes: u64,
    /// What it takes on disk, see [`layer_disk_bytes`]; what removing it frees.
    pub disk_bytes: u64,
    /// BLAKE3 of the recipe that its tar needs to be rebuilt, if it needs one.
    pub recipe: Option<[u8; 32]>,
    /// When it was adopted, nanoseconds since 1970.
    pub created: i64,
}

impl LayerRecord {
    /// Whether its tar can only be rebuilt with its recipe.
    pub fn has_recipe(&self) -> bool {
        self.recipe.is_some()
    }
}

/// A finished layer that is still in a lease's workspace.
#[derive(Debug)]
pub struct StagedLayer<'a> {
    /// Directory on the store's file system that holds `fs` and, for foreign tars, `recipe`. It is used up.
    pub directory: &'a Path,
    /// The identity it gets if it is new.
    pub id: LayerId,
    /// Digest of its uncompressed tar.
    pub diff_id: DiffId,
    /// Length of its uncompressed tar.
    pub tar_bytes: u64,
    /// What it contains.
    pub table: Arc<Table>,
}

/// What a layer takes on disk: every file and directory in whole blocks of 4 KiB, a hard-linked file once, links and
/// nodes nothing; plus its table and recipe, its own directory and the root of its files.
///
/// Computed from the table and not asked of the file system, so that `system df` and the prune that follows agree on
/// every file system, with or without compression and reflinks.
pub fn layer_disk_bytes(table: &Table, table_bytes: u64, recipe_bytes: u64) -> u64 {
    let entries = table.entries().iter().map(|entry| match entry.kind {
        Kind::File { size, .. } => files::disk_bytes(size),
        Kind::Directory { .. } => files::disk_bytes(1),
        _ => 0,
    });
    let directories = 2 * files::disk_bytes(1);
    let own = directories + files::disk_bytes(table_bytes) + files::disk_bytes(recipe_bytes);
    entries.fold(own, u64::saturating_add)
}

const SELECT: &str = "SELECT id, diff_id, tar_bytes, content_bytes, disk_bytes, recipe, created FROM layers";

impl Store {
    /// Returns the layer with this diff ID, `None` if it is not here.
    pub fn layer_by_diff_id(&self, diff_id: &DiffId) -> Result<Option<LayerRecord>, StoreError> {
        let text = diff_id.to_string();
        self.database().read(|sql| {
            let select = format!("{SELECT} WHERE diff_id = ?1 AND (unsynced IS NULL OR unsynced = ?2)");
            sql.prepare_cached(&select)?
                .query_row(params![text, self.boot().as_str()], layer_record)
                .optional()
        })
    }

    /// Returns a layer, `None` if it is not here.
    pub fn layer(&self, id: LayerId) -> Result<Option<LayerRecord>, StoreError> {
        self.database().read(|sql| {
            let select = format!("{SELECT} WHERE id = ?1 AND (unsynced IS NULL OR unsynced = ?2)");
            sql.prepare_cached(&select)?.query_row(params![id, self.boot().as_str()], layer_record).optional()
        })
    }

    /// Returns the table of a layer; read once per open store.
    pub fn table(&self, id: LayerId) -> Result<Arc<Table>, StoreError> {
        let cached = self.tables().lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some(table) = cached {
            return Ok(table);
        }
        let table = Arc::new(self.read_table(id)?);
        self.remember_table(id, &table);
        Ok(table)
    }

    /// Reads and checks the table of a layer.
    pub(crate) fn read_table(&self, id: LayerId) -> Result<Table, StoreError> {
        let path = self.state().layer_table(id);
        let damaged = |problem: String| StoreError::Damaged { path: path.clone(), problem };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("the file is missing".into()));
            }
            Err(error) => return Err(error).context("read", &path),
        };
        Table::decode(&bytes).map_err(|error| damaged(error.to_string()))
    }

    /// Takes a staged layer into the store, protected by `lease`.
    ///
    /// If the diff ID is known already, the known one is returned, and the staged one goes with the lease. The layer survives
    /// the death of this process at once, a power cut once something was published (see module `durable`).
    pub fn adopt_layer(&self, staged: StagedLayer<'_>, lease: &Lease) -> Result<LayerRecord, StoreError> {
        self.database().refuse_read_only()?;
        let prepared = lease.scratch()?;
        let record = self.prepare_layer(&staged, &prepared)?;
        let adopted = self.database().write(Strength::Normal, |write| {
            let record = self.adopt_prepared(write, record, &prepared)?;
            lease.name_layer(write, record.id)?;
            Ok::<_, StoreError>(record)
        })?;
        if adopted.id == staged.id {
            self.remember_table(adopted.id, &staged.table);
        }
        // The files of a layer that was known already stay until the lease ends: a step of this process may have them
        // mounted.
        self.discard(staged.directory)?;
        Ok(adopted)
    }

    /// Puts exactly what a layer consists of into `prepared`: an active snapshot has more directories.
    fn prepare_layer(&self, staged: &StagedLayer<'_>, prepared: &Path) -> Result<LayerRecord, StoreError> {
        let fs_from = staged.directory.join(names::FS);
        fs::rename(&fs_from, prepared.join(names::FS)).context("rename", &fs_from)?;
        let recipe_from = staged.directory.join(names::RECIPE);
        let recipe = prepared.join(names::RECIPE);
        let has_recipe = files::move_into(&recipe_from, &recipe).context("rename", &recipe_from)?;
        let (recipe_digest, recipe_bytes) = match has_recipe {
            true => {
                let bytes = fs::read(&recipe).context("read", &recipe)?;
                (Some(*blake3::hash(&bytes).as_bytes()), bytes.len() as u64)
            }
            false => (None, 0),
        };
        let bytes = staged.table.encode();
        let table = prepared.join(names::TABLE);
        files::create(&table, &bytes).context("write", &table)?;
        Ok(LayerRecord {
            id: staged.id,
            diff_id: staged.diff_id.clone(),
            tar_bytes: staged.tar_bytes,
            content_bytes: staged.table.content_bytes(),
            disk_bytes: layer_disk_bytes(&staged.table, bytes.len() as u64, recipe_bytes),
            recipe: recipe_digest,
            created: now(),
        })
    }

    fn adopt_prepared(
        &self,
        write: &Write<'_>,
        record: LayerRecord,
        prepared: &Path,
    ) -> Result<LayerRecord, StoreError> {
        let diff_id = record.diff_id.to_string();
        let boot = self.boot().as_str();
        let known = write.sql(|sql| {
            let select = format!("{SELECT} WHERE diff_id = ?1 AND (unsynced IS NULL OR unsynced = ?2)");
            sql.prepare_cached(&select)?.query_row(params![diff_id, boot], layer_record).optional()
        })?;
        if let Some(known) = known {
            return Ok(known);
        }
        let stale = write.sql(|sql| {
            sql.prepare_cached("SELECT id FROM layers WHERE diff_id = ?1")?
                .query_row([&diff_id], |row| row.get::<_, LayerId>(0))
                .optional()
        })?;
        if let Some(stale) = stale {
            forget_layer(write, stale)?;
        }
        let path = self.state().layer(record.id);
        fs::rename(prepared, &path).context("rename to", &path)?;
        write.sql(|sql| {
            let insert = "INSERT INTO layers
                (id, diff_id, tar_bytes, content_bytes, disk_bytes, recipe, created, unsynced)
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
            sql.prepare_cached(insert)?.execute(params![
                record.id,
                diff_id,
                record.tar_bytes.cast_signed(),
                record.content_bytes.cast_signed(),
                record.disk_bytes.cast_signed(),
                record.recipe.as_ref().map(|digest| &digest[..]),
                record.created,
                boot
            ])
        })?;
        Ok(record)
    }

    /// What all layers take on disk: one quick sum, to see whether looking closer at the cache is worth it.
    pub fn layers_bytes(&self) -> Result<u64, StoreError> {
        self.database().read(|sql| {
            let sum = "SELECT coalesce(sum(disk_bytes), 0) FROM layers";
            sql.prepare_cached(sum)?.query_row([], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
        })
    }

    /// Fails with the first of `layers` that is not here.
    pub(crate) fn layers_present(&self, layers: &[LayerId]) -> Result<(), StoreError> {
        layers.iter().try_for_each(|id| match self.layer(*id)? {
            Some(_) => Ok(()),
            None => Err(StoreError::LayerGone(*id)),
        })
    }

    fn remember_table(&self, id: LayerId, table: &Arc<Table>) {
        self.tables().lock().unwrap_or_else(PoisonError::into_inner).insert(id, Arc::clone(table));
    }
}

/// Deletes the row of a layer that no image and no container has, with the cache records that need it.
pub(crate) fn forget_layer(write: &Write<'_>, id: LayerId) -> Result<(), StoreError> {
    write.sql(|sql| {
        let records =
            "DELETE FROM cache_records WHERE seq IN (SELECT record FROM cache_layers WHERE layer = ?1)";
        sql.prepare_cached(records)?.execute([id])?;
        sql.prepare_cached("DELETE FROM layers WHERE id = ?1")?.execute([id])
    })?;
    Ok(())
}

fn layer_record(row: &Row<'_>) -> rusqlite::Result<LayerRecord> {
    Ok(LayerRecord {
        id: row.get(0)?,
        diff_id: parsed(row, 1)?,
        tar_bytes: row.get::<_, i64>(2)?.cast_unsigned(),
        content_bytes: row.get::<_, i64>(3)?.cast_unsigned(),
        disk_bytes: row.get::<_, i64>(4)?.cast_unsigned(),
        recipe: row.get(5)?,
        created: row.get(6)?,
    })
}

/// Parses a text column; anything else than what we wrote means that the database is damaged.
pub(crate) fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse()
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error)))
}
