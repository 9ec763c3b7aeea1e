//! Older stores: brought to the newest schema by the first process that opens them for writing.
//!
//! `store.json` keeps older programs away from what they do not know, so it is written last: between the two, an
//! older program still refuses because it asks the database too.

use crate::StoreError;
use crate::db::{Database, Strength};
use crate::error::OpenError;
use crate::flavour::{SCHEMA, StoreFile};
use crate::layout::StateDir;
use crate::lock::Lock;

/// What leads from schema n (position n - 1) to n + 1.
const STEPS: [&str; SCHEMA as usize - 1] = [
    // 2: conditional requests
    "CREATE TABLE fetched(url TEXT PRIMARY KEY, etag TEXT, last_modified TEXT, content BLOB NOT NULL) WITHOUT ROWID;",
    // 3: types of cache records
    "ALTER TABLE cache_records ADD COLUMN kind TEXT NOT NULL DEFAULT 'regular';",
];

/// Brings a store to the newest schema; nothing happens to one that is there, or that cannot be written.
///
/// # Errors
/// The store cannot be written although it should be.
pub(crate) fn migrate(state: &StateDir, database: &Database, file: &mut StoreFile) -> Result<(), OpenError> {
    if database.is_read_only() || (database.schema()? == SCHEMA && file.schema == SCHEMA) {
        return Ok(());
    }
    // Takes milliseconds, as creation does; a living process never holds this lock for longer.
    let _held = Lock::at(state.locks().join("create")).wait(&|| false)?;
    database.write(Strength::Full, |write| {
        write.sql(|sql| {
            let found: u32 = sql.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            for step in STEPS.iter().skip(found.saturating_sub(1) as usize) {
                sql.execute_batch(step)?;
            }
            sql.pragma_update(None, "user_version", SCHEMA)
        })?;
        Ok::<_, StoreError>(())
    })?;
    file.schema = SCHEMA;
    file.save(state).map_err(|source| OpenError::Create { root: state.root().to_owned(), source })
}
