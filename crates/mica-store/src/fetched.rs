//! What URLs answered, so that the next request is a conditional one (build.md A3).

use rusqlite::{OptionalExtension as _, params};

use crate::db::Strength;
use crate::{Store, StoreError};

/// The last answer of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its `ETag`, as sent.
    pub etag: Option<String>,
    /// Its `Last-Modified`, as sent.
    pub last_modified: Option<String>,
    /// The content key of the cache record that has the body.
    pub content: [u8; 32],
}

impl Store {
    /// What a URL answered last. The record it names may be gone meanwhile.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn fetched(&self, url: &str) -> Result<Option<Fetched>, StoreError> {
        self.database().read(|sql| {
            sql.prepare_cached("SELECT etag, last_modified, content FROM fetched WHERE url = ?1")?
                .query_row([url], |row| {
                    Ok(Fetched { etag: row.get(0)?, last_modified: row.get(1)?, content: row.get(2)? })
                })
                .optional()
        })
    }

    /// Remembers what a URL answered.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn note_fetched(&self, url: &str, fetched: &Fetched) -> Result<(), StoreError> {
        self.database().write(Strength::Normal, |write| {
            write.sql(|sql| {
                let insert = "INSERT OR REPLACE INTO fetched(url, etag, last_modified, content) VALUES (?1, ?2, ?3, ?4)";
                let Fetched { etag, last_modified, content } = fetched;
                sql.prepare_cached(insert)?.execute(params![url, etag, last_modified, &content[..]]).map(drop)
            })
        })
    }
}
