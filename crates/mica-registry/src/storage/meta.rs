//! Reading the metadata: which repository has what.
//!
//! Every question takes a connection of its own from a pool and sees the last commit; nobody waits for the writer.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use mica_oci::{Digest, Repository};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row};

use super::cache::{ManifestCache, Stored};
use crate::route::ManifestName;

/// How many idle connections are kept; each has a cache of its own.
const IDLE_MAX: usize = 4;
/// Pages a connection keeps, as SQLite counts them: negative is KiB.
const PAGES_KIB: i64 = -512;

/// The readers' side of the metadata.
pub(crate) struct Meta {
    path: std::path::PathBuf,
    idle: Mutex<Vec<Connection>>,
    cache: Arc<ManifestCache>,
}

/// A blob as a repository has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlobEntry {
    pub(crate) size: u64,
    /// When the collector may take it, in seconds since 1970; `None` while a manifest needs it.
    pub(crate) expires: Option<i64>,
}

/// A manifest that refers to another one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Referrer {
    pub(crate) digest: String,
    pub(crate) media_type: String,
    pub(crate) size: u64,
    pub(crate) artifact_type: Option<String>,
    /// JSON, as it was in the manifest.
    pub(crate) annotations: Option<String>,
}

/// What one repository holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holding {
    pub(crate) repository: String,
    pub(crate) tags: u64,
    pub(crate) manifests: u64,
    /// Bytes of the blobs that can be pulled from it; shared ones count in each repository.
    pub(crate) bytes: u64,
}

/// A tag with what it points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tagged {
    pub(crate) tag: String,
    pub(crate) digest: String,
    pub(crate) media_type: String,
    pub(crate) artifact_type: Option<String>,
    /// Seconds since 1970.
    pub(crate) moved: i64,
    /// Of its blobs, and of those of the manifests it names.
    pub(crate) bytes: u64,
}

type Result<T> = rusqlite::Result<T>;

impl Meta {
    pub(crate) fn new(path: &Path, cache: Arc<ManifestCache>) -> Self {
        Self { path: path.to_owned(), idle: Mutex::default(), cache }
    }

    fn read<T>(&self, question: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open_reader(&self.path)?,
        };
        let answer = question(&connection);
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
        answer
    }

    /// A blob, if it can be pulled from this repository.
    pub(crate) fn blob(&self, repository: &Repository, digest: &Digest) -> Result<Option<BlobEntry>> {
        const SQL: &str = "SELECT blobs.size, links.expires FROM repositories \
             JOIN links ON links.repository = repositories.id AND links.digest = ?2 \
             JOIN blobs ON blobs.digest = links.digest WHERE repositories.name = ?1";
        let digest = digest.to_string();
        self.read(|sql| {
            let row = |row: &Row<'_>| Ok(BlobEntry { size: row.get(0)?, expires: row.get(1)? });
            sql.prepare_cached(SQL)?.query_row((repository.as_str(), &digest), row).optional()
        })
    }

    /// Whether the blob's file belongs to anything.
    pub(crate) fn knows_blob(&self, digest: &Digest) -> Result<bool> {
        self.read(|sql| {
            sql.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1")?.exists([digest.to_string()])
        })
    }

    /// What is to be told to the webhook, oldest first, at most `limit`.
    pub(crate) fn events(&self, limit: usize) -> Result<Vec<(i64, String)>> {
        const SQL: &str = "SELECT id, body FROM events ORDER BY id LIMIT ?1";
        self.read(|sql| {
            sql.prepare_cached(SQL)?.query_map([limit], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
    }

    /// Repositories that a blob can be pulled from, at most `limit`.
    pub(crate) fn holders(&self, digest: &Digest, limit: usize) -> Result<Vec<Repository>> {
        const SQL: &str = "SELECT repositories.name FROM links JOIN repositories \
             ON repositories.id = links.repository WHERE links.digest = ?1 LIMIT ?2";
        let digest = digest.to_string();
        let names: Vec<String> = self
            .read(|sql| sql.prepare_cached(SQL)?.query_map((&digest, limit), |row| row.get(0))?.collect())?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// A manifest by tag or digest.
    pub(crate) fn manifest(
        &self,
        repository: &Repository,
        name: &ManifestName,
    ) -> Result<Option<Arc<Stored>>> {
        let key = ManifestCache::key(repository, name);
        let moment = match self.cache.get(&key) {
            Ok(stored) => return Ok(Some(stored)),
            Err(moment) => moment,
        };
        let found = self.read(|sql| stored_manifest(sql, repository, name))?;
        let found = found.map(Arc::new);
        if let Some(stored) = &found {
            self.cache.put(key, stored, moment);
        }
        Ok(found)
    }

    /// Whether anything was ever pushed to this repository and is still there.
    pub(crate) fn has_repository(&self, repository: &Repository) -> Result<bool> {
        const SQL: &str = "SELECT 1 FROM repositories WHERE name = ?1";
        self.read(|sql| sql.prepare_cached(SQL)?.exists([repository.as_str()]))
    }

    /// Tags after `after`, in order, at most `limit`.
    pub(crate) fn tags(&self, repository: &Repository, after: &str, limit: usize) -> Result<Vec<String>> {
        const SQL: &str = "SELECT tags.name FROM tags WHERE repository = \
             (SELECT id FROM repositories WHERE name = ?1) AND tags.name > ?2 ORDER BY tags.name LIMIT ?3";
        self.read(|sql| {
            sql.prepare_cached(SQL)?
                .query_map((repository.as_str(), after, limit), |row| row.get(0))?
                .collect()
        })
    }

    /// Repositories with a tag or a manifest after `after`, in order, at most `limit`.
    pub(crate) fn repositories(&self, after: &str, limit: usize) -> Result<Vec<String>> {
        const SQL: &str = "SELECT name FROM repositories WHERE name > ?1 AND EXISTS \
             (SELECT 1 FROM manifests WHERE repository = repositories.id) ORDER BY name LIMIT ?2";
        self.read(|sql| sql.prepare_cached(SQL)?.query_map((after, limit), |row| row.get(0))?.collect())
    }

    /// Manifests that refer to `subject`, after the digest `after`, at most `limit`.
    pub(crate) fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<Referrer>> {
        const SQL: &str = "SELECT digest, media_type, size, artifact_type, annotations FROM manifests \
             WHERE repository = (SELECT id FROM repositories WHERE name = ?1) AND subject = ?2 \
             AND digest > ?4 AND (?3 IS NULL OR artifact_type = ?3) ORDER BY digest LIMIT ?5";
        let subject = subject.to_string();
        self.read(|sql| {
            let row = |row: &Row<'_>| {
                Ok(Referrer {
                    digest: row.get(0)?,
                    media_type: row.get(1)?,
                    size: row.get(2)?,
                    artifact_type: row.get(3)?,
                    annotations: row.get(4)?,
                })
            };
            sql.prepare_cached(SQL)?
                .query_map((repository.as_str(), &subject, artifact_type, after, limit), row)?
                .collect()
        })
    }

    /// What repositories hold, by name, after `after`, at most `limit`.
    pub(crate) fn holdings(&self, after: &str, limit: usize) -> Result<Vec<Holding>> {
        const SQL: &str = "SELECT name, \
             (SELECT count(*) FROM tags WHERE repository = r.id), \
             (SELECT count(*) FROM manifests WHERE repository = r.id) AS held, \
             (SELECT coalesce(sum(blobs.size), 0) FROM links JOIN blobs USING (digest) WHERE repository = r.id) \
             FROM repositories AS r WHERE name > ?1 AND held > 0 ORDER BY name LIMIT ?2";
        self.read(|sql| {
            let row = |row: &Row<'_>| {
                Ok(Holding {
                    repository: row.get(0)?,
                    tags: row.get(1)?,
                    manifests: row.get(2)?,
                    bytes: row.get(3)?,
                })
            };
            sql.prepare_cached(SQL)?.query_map((after, limit), row)?.collect()
        })
    }

    /// Tags with what they point at, after `after`, in order, at most `limit`.
    pub(crate) fn tagged(&self, repository: &Repository, after: &str, limit: usize) -> Result<Vec<Tagged>> {
        const SQL: &str = "SELECT tags.name, tags.digest, media_type, artifact_type, moved, \
             (WITH RECURSIVE parts (digest) AS (SELECT tags.digest UNION SELECT needs.digest FROM parts \
              JOIN needs ON needs.repository = tags.repository AND needs.manifest = parts.digest) \
              SELECT coalesce(sum(blobs.size), 0) FROM parts JOIN blobs ON blobs.digest = parts.digest) \
             FROM tags JOIN manifests ON manifests.repository = tags.repository AND manifests.digest = tags.digest \
             WHERE tags.repository = (SELECT id FROM repositories WHERE name = ?1) AND tags.name > ?2 \
             ORDER BY tags.name LIMIT ?3";
        self.read(|sql| {
            let row = |row: &Row<'_>| {
                Ok(Tagged {
                    tag: row.get(0)?,
                    digest: row.get(1)?,
                    media_type: row.get(2)?,
                    artifact_type: row.get(3)?,
                    moved: row.get(4)?,
                    bytes: row.get(5)?,
                })
            };
            sql.prepare_cached(SQL)?.query_map((repository.as_str(), after, limit), row)?.collect()
        })
    }

    /// Number and bytes of all blobs.
    pub(crate) fn totals(&self) -> Result<(u64, u64)> {
        const SQL: &str = "SELECT blobs, bytes FROM totals";
        self.read(|sql| sql.prepare_cached(SQL)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
    }
}

fn stored_manifest(sql: &Connection, repository: &Repository, name: &ManifestName) -> Result<Option<Stored>> {
    const BY_DIGEST: &str = "SELECT manifests.digest, media_type, bytes FROM manifests \
         JOIN documents ON documents.digest = manifests.digest \
         WHERE repository = (SELECT id FROM repositories WHERE name = ?1) AND manifests.digest = ?2";
    const BY_TAG: &str = "SELECT manifests.digest, media_type, bytes FROM tags \
         JOIN manifests ON manifests.repository = tags.repository AND manifests.digest = tags.digest \
         JOIN documents ON documents.digest = manifests.digest \
         WHERE tags.repository = (SELECT id FROM repositories WHERE name = ?1) AND tags.name = ?2";
    let query = match name {
        ManifestName::Digest(_) => BY_DIGEST,
        ManifestName::Tag(_) => BY_TAG,
    };
    let row = |row: &Row<'_>| {
        let digest: String = row.get(0)?;
        let digest = digest.parse().map_err(|error: mica_oci::DigestError| {
            rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
        })?;
        let bytes: Vec<u8> = row.get(2)?;
        Ok(Stored { digest, media_type: row.get(1)?, bytes: Bytes::from(bytes) })
    };
    sql.prepare_cached(query)?.query_row((repository.as_str(), name.to_string()), row).optional()
}

fn open_reader(path: &Path) -> Result<Connection> {
    // Not read-only: a reader of a write-ahead log has to write its shared index.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", PAGES_KIB)?;
    connection.busy_timeout(std::time::Duration::from_secs(30))?;
    Ok(connection)
}
