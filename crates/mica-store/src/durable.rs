//! When data is on the disk: one sync for everything written since the last one.
//!
//! Layers and blobs are renamed into place and named by rows that say "unsynced in this boot". They survive
//! `kill -9`, because the page cache does. A publish (a name, a container, a volume appears) then
//! 1. reads how far the rows go,
//! 2. calls syncfs(2) once, which writes every file and directory that those rows name,
//! 3. runs one transaction with `synchronous=FULL` that clears their `unsynced` and makes the name appear.
//!
//! So a build of thirty layers ends with one syncfs and one fsync instead of thirty of each, and exit 0 means that
//! the image is on the disk. After a crash rows of another boot that are still unsynced count as absent.
//!
//! # When syncing fails
//! The kernel reports a write-back error once. Rows that were to be synced are forgotten then, because a second
//! syncfs would succeed over lost data.

use rusqlite::{Row, params};

use crate::Store;
use crate::db::{Strength, Write};
use crate::error::{IoContext as _, StoreError};

/// How far the unsynced rows of this boot go; they were all written before the sync that follows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Watermark {
    layers: Option<i64>,
    blobs: Option<i64>,
    cache_records: Option<i64>,
}

impl Watermark {
    fn is_empty(self) -> bool {
        self == Self::default()
    }
}

impl Store {
    /// Makes everything adopted, ingested and recorded so far survive a power cut.
    ///
    /// For work that ends without publishing a name, such as a build that only fills the cache. Free if nothing
    /// changed.
    pub fn make_durable(&self) -> Result<(), StoreError> {
        if self.is_read_only() {
            return Ok(());
        }
        let synced = self.sync()?;
        if synced.is_empty() {
            return Ok(());
        }
        self.database().write(Strength::Full, |write| self.clear_unsynced(write, synced))
    }

    /// Steps 1 and 2 of the module; no lock is held while the disk works.
    pub(crate) fn sync(&self) -> Result<Watermark, StoreError> {
        let boot = self.boot().as_str();
        let watermark = self.database().read(|sql| {
            let select = "SELECT
                (SELECT max(seq) FROM layers WHERE unsynced = ?1),
                (SELECT max(seq) FROM blobs WHERE unsynced = ?1),
                (SELECT max(seq) FROM cache_records WHERE unsynced = ?1)";
            sql.prepare_cached(select)?.query_row([boot], |row: &Row<'_>| {
                Ok(Watermark { layers: row.get(0)?, blobs: row.get(1)?, cache_records: row.get(2)? })
            })
        })?;
        if watermark.is_empty() {
            return Ok(watermark);
        }
        if let Err(error) = rustix::fs::syncfs(self.root_directory()) {
            // If even this fails, the rows stay unsynced: not worse than before.
            let _ = self.database().write(Strength::Full, |write| self.forget_unsynced(write, watermark));
            return Err(error).context("sync", self.state().root());
        }
        Ok(watermark)
    }

    /// Step 3 of the module, inside the transaction of the publish.
    pub(crate) fn clear_unsynced(&self, write: &Write<'_>, synced: Watermark) -> Result<(), StoreError> {
        for (table, mark) in synced.tables() {
            let Some(mark) = mark else { continue };
            let update = format!("UPDATE {table} SET unsynced = NULL WHERE unsynced = ?1 AND seq <= ?2");
            write.sql(|sql| sql.prepare_cached(&update)?.execute(params![self.boot().as_str(), mark]))?;
        }
        Ok(())
    }

    fn forget_unsynced(&self, write: &Write<'_>, lost: Watermark) -> Result<(), StoreError> {
        let boot = self.boot().as_str();
        write.sql(|sql| {
            let records = "DELETE FROM cache_records WHERE seq IN (SELECT record FROM cache_layers
                JOIN layers ON layers.id = cache_layers.layer
                WHERE layers.unsynced = ?1 AND layers.seq <= ?2)";
            sql.execute(records, params![boot, lost.layers])?;
            for (table, mark) in lost.tables() {
                sql.execute(
                    &format!("DELETE FROM {table} WHERE unsynced = ?1 AND seq <= ?2"),
                    params![boot, mark],
                )?;
            }
            Ok(())
        })
    }
}

impl Watermark {
    /// Cache records first: they refer to layers.
    fn tables(self) -> [(&'static str, Option<i64>); 3] {
        [("cache_records", self.cache_records), ("layers", self.layers), ("blobs", self.blobs)]
    }
}
