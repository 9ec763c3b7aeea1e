//! Cache records: results of build steps, under content keys, with aliases from definition keys.
//!
//! A record is a hint: it is used only while all its layers are here, and after a crash only if it was synced.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use rusqlite::{OptionalExtension as _, Transaction, params};

use crate::db::{Database, Strength, Write};
use crate::error::StoreError;
use crate::{LayerId, Lease, Store, now};

/// A record's "last used" is only written when it is older than this: a build without changes writes nothing.
const TOUCH_AGE_NS: i64 = 15 * 60 * 1_000_000_000;

/// A cached result that can be used now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheHit {
    /// The record.
    pub record: i64,
    /// The content key that the record is under.
    pub content: [u8; 32],
    /// The complete result, lowest layer first.
    pub layers: Vec<LayerId>,
    /// When it was made, nanoseconds since 1970.
    pub created: i64,
}

/// What kind of thing a part of the build cache is; the names are docker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheKind {
    /// The result of a step.
    Regular,
    /// A commit of a repository.
    GitCheckout,
    /// What is known of the files of a build context.
    LocalSource,
    /// What `RUN --mount=type=cache` steps share.
    CacheMount,
    /// What nothing needs any more.
    Internal,
}

impl CacheKind {
    /// docker's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::GitCheckout => "source.git.checkout",
            Self::LocalSource => "source.local",
            Self::CacheMount => "exec.cachemount",
            Self::Internal => "internal",
        }
    }

    /// The kind of a record; a name that a newer program wrote is a result like others.
    fn of_record(name: &str) -> Self {
        if name == Self::GitCheckout.as_str() { Self::GitCheckout } else { Self::Regular }
    }
}

/// A record as `du` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheRecord {
    /// The record.
    pub record: i64,
    /// The content key that it is under.
    pub content: [u8; 32],
    /// What kind of thing it is.
    pub kind: CacheKind,
    /// What was done: the text of the step.
    pub description: String,
    /// The complete result, lowest layer first.
    pub layers: Vec<LayerId>,
    /// When it was made, nanoseconds since 1970.
    pub created: i64,
    /// When it was last used, nanoseconds since 1970, give or take a quarter of an hour.
    pub last_used: i64,
    /// How often it was used, its making included; uses within a quarter of an hour count once.
    pub uses: u64,
}

/// A result to record.
#[derive(Debug)]
pub struct NewCacheRecord<'a> {
    /// The content key.
    pub content: &'a [u8; 32],
    /// Definition keys that lead to it.
    pub aliases: &'a [[u8; 32]],
    /// The complete result, lowest layer first.
    pub layers: &'a [LayerId],
    /// What was done: the text of the step.
    pub description: &'a str,
    /// What kind of thing it is.
    pub kind: CacheKind,
}

impl Store {
    /// Returns the usable result under a definition or content key.
    ///
    /// The result is not protected from collection: before using it, pass its layers to
    /// [`Lease::protect_layers`], which finds out whether they are still there.
    pub fn cache_lookup(&self, key: &[u8; 32]) -> Result<Option<CacheHit>, StoreError> {
        let found = self.database().read(|sql| lookup(sql, key, self.boot().as_str()))?;
        Ok(found.map(|(hit, last_used)| {
            self.touch(hit.record, last_used);
            hit
        }))
    }

    /// Returns the usable results under definition or content keys, in their order, protected by `lease` in the same
    /// transaction.
    pub fn cache_lookup_leased(
        &self,
        keys: &[[u8; 32]],
        lease: &Lease,
    ) -> Result<Vec<Option<CacheHit>>, StoreError> {
        if self.is_read_only() {
            return keys.iter().map(|key| self.cache_lookup(key)).collect();
        }
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.database().write(Strength::Normal, |write| {
            let mut leased = BTreeSet::new();
            let mut found = Vec::with_capacity(keys.len());
            for key in keys {
                let hit = write.sql(|sql| lookup(sql, key, self.boot().as_str()))?;
                for layer in hit.iter().flat_map(|(hit, _)| &hit.layers) {
                    // stacks share their lower layers
                    if leased.insert(*layer) {
                        lease.name_layer(write, *layer)?;
                    }
                }
                found.push(hit);
            }
            Ok::<_, StoreError>(found)
        })?;
        let used = |(hit, last_used): (CacheHit, i64)| {
            self.touch(hit.record, last_used);
            hit
        };
        Ok(found.into_iter().map(|hit| hit.map(used)).collect())
    }

    /// Records a result; an older result under the same content key is replaced.
    ///
    /// # Errors
    /// [`StoreError::LayerGone`] if a layer of the result is not here.
    pub fn cache_record(&self, new: &NewCacheRecord<'_>, lease: &Lease) -> Result<i64, StoreError> {
        self.database().write(Strength::Normal, |write| {
            let record = match write.sql(|sql| lookup(sql, new.content, self.boot().as_str()))? {
                Some((hit, _)) if hit.layers == new.layers && hit.content == *new.content => hit.record,
                _ => self.replace_record(write, new)?,
            };
            for alias in new.aliases {
                write.sql(|sql| {
                    sql.prepare_cached(
                        "INSERT OR REPLACE INTO cache_aliases(definition, record) VALUES (?1, ?2)",
                    )?
                    .execute(params![&alias[..], record])
                })?;
            }
            new.layers.iter().try_for_each(|layer| lease.name_layer(write, *layer))?;
            Ok(record)
        })
    }

    /// Returns all usable records, least recently used first.
    pub fn cache_records(&self) -> Result<Vec<CacheRecord>, StoreError> {
        self.flush_touched();
        self.database().read(|sql| records(sql, self.boot().as_str()))
    }

    /// Removes a record, for example because its result turned out to be lost.
    pub fn forget_cache_record(&self, record: i64) -> Result<(), StoreError> {
        self.database().write(Strength::Normal, |write| {
            write.sql(|sql| {
                sql.prepare_cached("DELETE FROM cache_records WHERE seq = ?1")?.execute([record])
            })?;
            Ok(())
        })
    }

    /// The uppermost layer of the latest result with this description: a step like it may have left files to share.
    ///
    /// Nothing protects the layer, so it may be gone any moment.
    pub fn latest_layer_of(&self, description: &str) -> Result<Option<LayerId>, StoreError> {
        let select = "SELECT layer FROM cache_records JOIN cache_layers ON record = cache_records.seq
            JOIN layers ON layers.id = layer
            WHERE description = ?1 AND (layers.unsynced IS NULL OR layers.unsynced = ?2)
            ORDER BY cache_records.seq DESC, position DESC LIMIT 1";
        self.database().read(|sql| {
            sql.prepare_cached(select)?
                .query_row(params![description, self.boot().as_str()], |row| row.get(0))
                .optional()
        })
    }

    fn replace_record(&self, write: &Write<'_>, new: &NewCacheRecord<'_>) -> Result<i64, StoreError> {
        let boot = self.boot().as_str();
        for layer in new.layers {
            let valid = "SELECT 1 FROM layers WHERE id = ?1 AND (unsynced IS NULL OR unsynced = ?2)";
            if !write.sql(|sql| sql.prepare_cached(valid)?.exists(params![layer, boot]))? {
                return Err(StoreError::LayerGone(*layer));
            }
        }
        write.sql(|sql| {
            sql.prepare_cached("DELETE FROM cache_records WHERE content = ?1")?
                .execute([&new.content[..]])?;
            let insert = "INSERT INTO cache_records(content, description, kind, created, last_used, unsynced)
                VALUES (?1, ?2, ?3, ?4, ?4, ?5)";
            let kind = new.kind.as_str();
            sql.prepare_cached(insert)?.execute(params![
                &new.content[..],
                new.description,
                kind,
                now(),
                boot
            ])?;
            let record = sql.last_insert_rowid();
            let insert = "INSERT INTO cache_layers(record, position, layer) VALUES (?1, ?2, ?3)";
            for (position, layer) in new.layers.iter().enumerate() {
                sql.prepare_cached(insert)?.execute(params![record, position as i64, layer])?;
            }
            Ok(record)
        })
    }

    /// Notes that a record was used; written later, with something that is written anyway.
    fn touch(&self, record: i64, last_used: i64) {
        if now().saturating_sub(last_used) > TOUCH_AGE_NS {
            self.touched().lock().unwrap_or_else(PoisonError::into_inner).insert(record);
        }
    }

    /// Writes the collected uses.
    pub(crate) fn flush_touched(&self) {
        write_touched(self.database(), self.touched());
    }
}

/// Writes the collected uses. Losing them would only make a record look older than it is.
pub(crate) fn write_touched(database: &Database, touched: &Mutex<BTreeSet<i64>>) {
    let records = std::mem::take(&mut *touched.lock().unwrap_or_else(PoisonError::into_inner));
    if records.is_empty() || database.is_read_only() {
        return;
    }
    let time = now();
    let _: Result<(), StoreError> = database.write(Strength::Normal, |write| {
        write.sql(|sql| {
            let update = "UPDATE cache_records SET last_used = ?2, uses = uses + 1 WHERE seq = ?1";
            let mut statement = sql.prepare_cached(update)?;
            records.iter().try_for_each(|record| statement.execute(params![record, time]).map(drop))
        })
    });
}

/// The usable record under a key and when it was last used.
fn lookup(sql: &Transaction<'_>, key: &[u8; 32], boot: &str) -> rusqlite::Result<Option<(CacheHit, i64)>> {
    const BY_ALIAS: &str = "SELECT seq, content, created, last_used FROM cache_aliases
        JOIN cache_records ON cache_records.seq = cache_aliases.record
        WHERE definition = ?1 AND (unsynced IS NULL OR unsynced = ?2)";
    const BY_CONTENT: &str = "SELECT seq, content, created, last_used FROM cache_records
        WHERE content = ?1 AND (unsynced IS NULL OR unsynced = ?2)";
    const LOST: &str = "SELECT 1 FROM cache_layers LEFT JOIN layers ON layers.id = cache_layers.layer
        WHERE record = ?1 AND (layers.id IS NULL OR NOT (layers.unsynced IS NULL OR layers.unsynced = ?2))";
    for select in [BY_ALIAS, BY_CONTENT] {
        let found = sql
            .prepare_cached(select)?
            .query_row(params![&key[..], boot], |row| {
                Ok((row.get(0)?, row.get::<_, [u8; 32]>(1)?, row.get(2)?, row.get(3)?))
            })
            .optional()?;
        let Some((record, content, created, last_used)) = found else { continue };
        if !sql.prepare_cached(LOST)?.exists(params![record, boot])? {
            let layers = record_layers(sql, record)?;
            return Ok(Some((CacheHit { record, content, layers, created }, last_used)));
        }
    }
    Ok(None)
}

/// All usable records, least recently used first.
pub(crate) fn records(sql: &Transaction<'_>, boot: &str) -> rusqlite::Result<Vec<CacheRecord>> {
    let select = "SELECT seq, content, kind, description, created, last_used, uses FROM cache_records
        WHERE unsynced IS NULL OR unsynced = ?1 ORDER BY last_used, seq";
    let mut records = sql
        .prepare_cached(select)?
        .query_map([boot], |row| {
            Ok(CacheRecord {
                record: row.get(0)?,
                content: row.get(1)?,
                kind: CacheKind::of_record(&row.get::<_, String>(2)?),
                description: row.get(3)?,
                layers: Vec::new(),
                created: row.get(4)?,
                last_used: row.get(5)?,
                uses: row.get::<_, i64>(6)?.cast_unsigned().saturating_add(1),
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    for record in &mut records {
        record.layers = record_layers(sql, record.record)?;
    }
    Ok(records)
}

fn record_layers(sql: &Transaction<'_>, record: i64) -> rusqlite::Result<Vec<LayerId>> {
    sql.prepare_cached("SELECT layer FROM cache_layers WHERE record = ?1 ORDER BY position")?
        .query_map([record], |row| row.get(0))?
        .collect()
}
