//! A database with damaged pages that can still be opened: what can be read goes into a new one.
//!
//! Half of a result is worse than none, so tables that belong together come along together or not at all. Without the
//! images' own tables there is nothing to save, and the caller begins anew.

use rusqlite::{Connection, OpenFlags, params_from_iter, types::Value};

use crate::db::Database;
use crate::error::{IoContext as _, StoreError};
use crate::flavour::StoreFile;
use crate::layout::StateDir;
use crate::{LeaseId, files};

/// What images are made of.
const IMAGES: [&str; 5] = ["blobs", "layers", "images", "image_blobs", "image_layers"];
/// What else there is: groups that make sense only whole. Leases are of processes that are not there.
const OTHERS: [&[&str]; 6] = [
    &["cache_records", "cache_aliases", "cache_layers"],
    &["containers", "container_layers", "container_volumes"],
    &["volumes"],
    &["forms"],
    &["cache_mounts"],
    &["fetched"],
];
/// Rows that name what did not come along.
const DANGLING: [&str; 4] = [
    "DELETE FROM names WHERE image NOT IN (SELECT digest FROM images)",
    "DELETE FROM cache_records WHERE seq IN (SELECT record FROM cache_layers WHERE layer NOT IN (SELECT id FROM layers))",
    "DELETE FROM cache_aliases WHERE record NOT IN (SELECT seq FROM cache_records)",
    "DELETE FROM cache_layers WHERE record NOT IN (SELECT seq FROM cache_records)",
];

/// Whether SQLite finds the database sound.
pub(crate) fn is_sound(database: &Database) -> bool {
    database.integrity().is_ok_and(|lines| lines.is_empty())
}

/// Replaces the database by one with everything of it that can be read; `false` if that is not enough to be a store,
/// or if another process uses it: then its tables are as they were.
///
/// # Errors
/// The new file cannot be written.
pub(crate) fn salvage(state: &StateDir, file: &StoreFile) -> Result<bool, StoreError> {
    let (path, building) = (state.database(), state.tmp().join("mica.db.salvaged"));
    files::remove_file(&building).context("remove", &building)?;
    Database::create(&building, file)?;
    let copied = copy(&path, &building).unwrap_or(false);
    if !copied {
        files::remove_file(&building).context("remove", &building)?;
        return Ok(false);
    }
    for old in [state.database_wal(), state.database_shm(), path.clone()] {
        let target = state.trash().join(LeaseId::random().to_string());
        files::move_into(&old, &target).context("move to the trash", &old)?;
    }
    std::fs::rename(&building, &path).context("rename", &path)?;
    files::sync_directory(state.root()).context("sync", state.root())?;
    Ok(true)
}

fn copy(from: &std::path::Path, to: &std::path::Path) -> rusqlite::Result<bool> {
    let old = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Leaving WAL works for the only user of a database, and puts the log into the file.
    let mode: String = old.query_row("PRAGMA journal_mode = DELETE", [], |row| row.get(0))?;
    if mode != "delete" {
        return Ok(false);
    }
    // Indexes may be what is damaged, and there is no other way to keep SQLite from reading them instead of tables.
    old.pragma_update(None, "writable_schema", true)?;
    old.execute("DELETE FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL", [])?;
    drop(old);
    let old = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut new = Connection::open(to)?;
    let transaction = new.transaction()?;
    if !IMAGES.iter().all(|table| copy_table(&old, &transaction, table).is_ok()) {
        return Ok(false);
    }
    // Names that were read count, even if others are lost.
    let _ = copy_table(&old, &transaction, "names");
    for group in OTHERS {
        if !group.iter().all(|table| copy_table(&old, &transaction, table).is_ok()) {
            for table in group {
                transaction.execute(&format!("DELETE FROM {table}"), [])?;
            }
        }
    }
    DANGLING.iter().try_for_each(|delete| transaction.execute(delete, []).map(drop))?;
    transaction.commit()?;
    let mut sound = new.prepare("PRAGMA foreign_key_check")?;
    let dangling = sound.exists([])?;
    Ok(!dangling)
}

fn copy_table(old: &Connection, new: &Connection, table: &str) -> rusqlite::Result<()> {
    let names: Vec<String> = new
        .prepare(&format!("SELECT name FROM pragma_table_info('{table}') ORDER BY cid"))?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let columns = names.join(", ");
    let marks = vec!["?"; names.len()].join(", ");
    let mut insert = new.prepare(&format!("INSERT INTO {table}({columns}) VALUES ({marks})"))?;
    let mut select = old.prepare(&format!("SELECT {columns} FROM {table}"))?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let values = (0..names.len()).map(|index| row.get::<_, Value>(index));
        let values = values.collect::<rusqlite::Result<Vec<Value>>>()?;
        insert.execute(params_from_iter(values))?;
    }
    Ok(())
}
