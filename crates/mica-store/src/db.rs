//! The metadata database: one SQLite file in WAL mode, one connection per open store.
//!
//! Two strengths of transaction. [`Strength::Full`] is for *publish* and *forget*: when it returns, the change is on
//! the disk. [`Strength::Normal`] survives the death of the process but not a power cut, and costs no fsync.
//!
//! # Rows and power cuts
//! A row that names files is written before those files are synced, and says so: its column `unsynced` holds the
//! [`BootToken`] of the boot in which they were written. Such a row is valid while that boot lasts, because the page
//! cache still has the files; after a crash it counts as absent and is collected. A publish syncs the file system
//! once and clears the column of everything written before (see module `durable`).
//!
//! # Locks
//! The connection's mutex is the innermost lock: nobody does anything slow while holding it, in particular no
//! syncfs, no hashing, no network.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use crate::error::StoreError;
use crate::files;
use crate::flavour::StoreFile;
use crate::layout::StateDir;

/// How long a transaction waits for another process before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);
/// A write-ahead log above this size is checkpointed by the process that is about to exit: the next process reads
/// all of it when it is alone.
const IDLE_WAL_BYTES: u64 = 256 * 1024;

/// The tables. Digests are text, layer IDs 16 bytes, times nanoseconds since 1970.
pub(crate) const SCHEMA_SQL: &str = include_str!("schema.sql");

/// The key of the copy of `store.json`.
const STORE_FILE: &str = "store.json";

/// How durable a transaction is when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strength {
    /// Survives `kill -9`.
    Normal,
    /// Survives a power cut.
    Full,
}

/// Identifies a boot of this machine together with the mounted file system.
///
/// The device number is part of it because a disk image can be mounted twice in one boot, the second time without
/// what the page cache of the first mount held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BootToken(String);

impl BootToken {
    /// Returns the token for the file system that `directory` is on.
    ///
    /// Where `/proc` hides the boot id, the token is unique: nothing unsynced of another process is trusted then.
    pub(crate) fn current(directory: impl AsFd) -> Self {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|text| text.trim().to_owned())
            .unwrap_or_else(|_| crate::LeaseId::random().to_string());
        let device = rustix::fs::fstat(directory).map_or(0, |stat| stat.st_dev);
        Self(format!("{boot}:{device}"))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The connection of one open store.
pub(crate) struct Database {
    connection: Mutex<Connection>,
    path: PathBuf,
    wal: PathBuf,
    root: PathBuf,
    read_only: bool,
}

impl Database {
    /// Creates the tables in a new database file, which must not exist. Done once per store, under the creation lock.
    pub(crate) fn create(path: &Path, file: &StoreFile) -> Result<(), StoreError> {
        let copy = serde_json::to_string(file).expect("a struct of numbers and names is JSON");
        let run = || -> rusqlite::Result<()> {
            let connection = Connection::open(path)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.execute_batch(SCHEMA_SQL)?;
            connection
                .execute("INSERT INTO meta(key, value) VALUES (?1, ?2)", [STORE_FILE, copy.as_str()])?;
            connection.pragma_update(None, "user_version", crate::flavour::SCHEMA)?;
            // Closing checkpoints and removes the log, so that one file can be renamed into place.
            connection.close().map_err(|(_, error)| error)
        };
        run().map_err(|source| failure("create", path, source))
    }

    /// Opens the database of a store; never creates it.
    pub(crate) fn open(state: &StateDir) -> Result<Self, StoreError> {
        let path = state.database();
        match Self::connect(state, OpenFlags::SQLITE_OPEN_READ_WRITE, &path) {
            Ok(database) => Ok(database),
            Err(StoreError::Database { source, .. }) if may_be_read_only(&source) => {
                Self::open_read_only(state)
            }
            // The shared index of the log finds no room: what was set aside for a full disk is for this.
            Err(StoreError::Database { source, .. })
                if is_out_of_room(&source) && files::remove_file(&state.reserve()).is_ok() =>
            {
                Self::connect(state, OpenFlags::SQLITE_OPEN_READ_WRITE, &path)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens the database where nothing can be written.
    ///
    /// SQLite reads a log it cannot share through private memory. Without a log it wants to create one; then the file
    /// is complete as it is and may be read as immutable.
    pub(crate) fn open_read_only(state: &StateDir) -> Result<Self, StoreError> {
        let path = state.database();
        let has_log = std::fs::metadata(state.database_wal()).is_ok_and(|metadata| metadata.len() > 0);
        let mut database = if has_log {
            Self::connect(state, OpenFlags::SQLITE_OPEN_READ_ONLY, &path)?
        } else {
            let mut uri = String::from("file:");
            for byte in path.as_os_str().as_encoded_bytes() {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => {
                        uri.push(char::from(*byte))
                    }
                    _ => uri.push_str(&format!("%{byte:02X}")),
                }
            }
            uri.push_str("?immutable=1");
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
            Self::connect(state, flags, Path::new(&uri))?
        };
        database.read_only = true;
        Ok(database)
    }

    fn connect(state: &StateDir, flags: OpenFlags, name: &Path) -> Result<Self, StoreError> {
        let path = state.database();
        let run = || -> rusqlite::Result<(Connection, bool)> {
            let connection = Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.set_prepared_statement_cache_capacity(128);
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
            // Closing must not fsync when nothing changed; `Drop` decides about checkpoints.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.pragma_update(None, "synchronous", "NORMAL")?;
            // The first read is what finds out that a file is not a database, or cannot be shared.
            connection.query_row("PRAGMA user_version", [], |_| Ok(()))?;
            let read_only = connection.is_readonly("main")?;
            Ok((connection, read_only))
        };
        let (connection, read_only) = run().map_err(|source| failure("open", &path, source))?;
        Ok(Self {
            connection: Mutex::new(connection),
            path,
            wal: state.database_wal(),
            root: state.root().to_owned(),
            read_only,
        })
    }

    /// The schema version in the file; 0 if somebody emptied it.
    pub(crate) fn schema(&self) -> Result<u32, StoreError> {
        self.read(|transaction| transaction.query_row("PRAGMA user_version", [], |row| row.get(0)))
    }

    /// The copy of `store.json` that creation left in the database.
    pub(crate) fn store_file(&self) -> Result<StoreFile, StoreError> {
        let text: String = self.read(|sql| {
            sql.query_row("SELECT value FROM meta WHERE key = ?1", [STORE_FILE], |row| row.get(0))
        })?;
        serde_json::from_str(&text)
            .map_err(|error| StoreError::Damaged { path: self.path.clone(), problem: error.to_string() })
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.read_only
    }

    pub(crate) fn refuse_read_only(&self) -> Result<(), StoreError> {
        if self.read_only { Err(StoreError::ReadOnly { root: self.root.clone() }) } else { Ok(()) }
    }

    /// Reads a consistent state.
    pub(crate) fn read<T>(
        &self,
        run: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let connection = self.lock();
        let transaction =
            connection.unchecked_transaction().map_err(|source| failure("read", &self.path, source))?;
        run(&transaction).map_err(|source| failure("read", &self.path, source))
    }

    /// Changes the state; the transaction is rolled back if `run` fails.
    pub(crate) fn write<T, E: From<StoreError>>(
        &self,
        strength: Strength,
        run: impl FnOnce(&Write<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.refuse_read_only()?;
        let mut connection = self.lock();
        let fail = |source| E::from(failure("write", &self.path, source));
        if strength == Strength::Full {
            connection.pragma_update(None, "synchronous", "FULL").map_err(fail)?;
        }
        let result = (|| {
            let transaction =
                connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(fail)?;
            let write = Write { transaction, path: &self.path };
            let value = run(&write)?;
            write.transaction.commit().map_err(fail)?;
            Ok(value)
        })();
        if strength == Strength::Full {
            // Cannot fail outside a transaction, and staying at FULL would only be slower.
            let _ = connection.pragma_update(None, "synchronous", "NORMAL");
        }
        result
    }

    /// SQLite's own verdict about the file: empty if it is sound.
    pub(crate) fn integrity(&self) -> Result<Vec<String>, StoreError> {
        self.read(|transaction| {
            let mut found = Vec::new();
            let mut statement = transaction.prepare("PRAGMA integrity_check")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let line: String = row.get(0)?;
                if line != "ok" {
                    found.push(line);
                }
            }
            let mut statement = transaction.prepare("PRAGMA foreign_key_check")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
                found.push(format!("a row of {table} points at a missing row of {parent}"));
            }
            Ok(found)
        })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic while holding the connection rolled its transaction back: the connection is usable.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let large = std::fs::metadata(&self.wal).is_ok_and(|metadata| metadata.len() > IDLE_WAL_BYTES);
        if large && !self.read_only {
            let connection = self.lock();
            // Best effort: if others use the log, the last of them does this.
            let _ = connection.busy_timeout(Duration::ZERO);
            let _ = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        }
    }
}

/// A write transaction: holds the one write lock that all processes share.
pub(crate) struct Write<'a> {
    transaction: Transaction<'a>,
    path: &'a Path,
}

impl Write<'_> {
    /// Runs statements, naming the database in the error.
    pub(crate) fn sql<T>(
        &self,
        run: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        run(&self.transaction).map_err(|source| failure("write", self.path, source))
    }
}

fn is_out_of_room(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
        || error
            .sqlite_error()
            .is_some_and(|error| error.extended_code == rusqlite::ffi::SQLITE_IOERR_SHMSIZE)
}

fn may_be_read_only(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(
            rusqlite::ErrorCode::ReadOnly
                | rusqlite::ErrorCode::CannotOpen
                | rusqlite::ErrorCode::PermissionDenied
        )
    )
}

/// Tells damage from everything else that SQLite can say.
fn failure(action: &'static str, path: &Path, source: rusqlite::Error) -> StoreError {
    let damaged = matches!(
        source.sqlite_error_code(),
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
    ) || is_missing_table(&source)
        || matches!(
            source,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
        );
    if damaged {
        StoreError::Damaged { path: path.to_owned(), problem: source.to_string() }
    } else {
        StoreError::Database { action, path: path.to_owned(), source }
    }
}

/// A statement of ours names a table or column that is not there: the schema was damaged.
fn is_missing_table(error: &rusqlite::Error) -> bool {
    matches!(error, rusqlite::Error::SqliteFailure(_, Some(text)) if text.starts_with("no such "))
        || matches!(error, rusqlite::Error::SqlInputError { .. })
}
