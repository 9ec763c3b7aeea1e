//! What a registry keeps: blobs as files, everything else as rows, and uploads on their way.
//!
//! # On disk (format 1; newer ones are refused)
//! ```text
//! <data>/
//! ├── registry.json             format and version
//! ├── lock                      held by the process that serves
//! ├── token.key                 0600; signs tokens, if there are users
//! ├── blobs/<algorithm>/<2>/<hex>  0600; complete, verified, never changed
//! ├── uploads/<32 hex>          bytes of an upload so far; named after its id, repository and user
//! ├── trash/                    blobs without rows, about to go
//! └── meta/registry.db          everything else (SQLite, write-ahead log)
//! ```
//!
//! # Invariants
//! 1. A file in `blobs/` has the digest it is named after: hashed while written, synced, then renamed.
//! 2. A row in `blobs` comes after its file is durable and goes before the file does.
//! 3. Nothing is answered with 201 or 202 for a deletion before the commit that says so is on the disk.
//!
//! # After a crash
//! Files whose rows are gone (`removals`) are removed, the trash is emptied. Uploads stay, and go on where their file
//! ends. A file that was renamed without getting its row blocks nothing: the next upload of it takes its place, and
//! the collector removes it.

pub(crate) mod cache;
pub(crate) mod changes;
pub(crate) mod collect;
pub(crate) mod events;
pub(crate) mod layout;
pub(crate) mod meta;
pub(crate) mod quota;
pub(crate) mod retention;
pub(crate) mod upload;
pub(crate) mod writer;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use mica_api::{Class, Fault};
use mica_oci::Digest;
use rusqlite::Connection;

use self::cache::ManifestCache;
use self::changes::Grace;
use self::layout::Layout;
use self::meta::Meta;
use self::upload::Uploads;
use self::writer::{ChangeError, Terms, Writer};

/// The format this program writes.
const FORMAT: u64 = 1;
const MARKER: &str = "{\"format\":\"mica-registry\",\"version\":1}\n";
/// The schema inside the database.
const SCHEMA: i64 = 1;
/// Memory for manifests that are asked for often.
const CACHE_BYTES: usize = 32 << 20;

/// Why a data folder cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process serves it.
    #[error("{} is being served by another process{}", path.display(), pid.map(|pid| format!(" ({pid})")).unwrap_or_default())]
    Busy {
        /// The data folder.
        path: PathBuf,
        /// Its process, if it said so.
        pid: Option<u32>,
    },
    /// Not a data folder, or one of a newer version.
    #[error("{} is not a data folder of this registry: {why}", path.display())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// What is there instead.
        why: String,
    },
    /// The database is damaged.
    #[error("cannot open the metadata in {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
}

impl Fault for OpenError {
    fn class(&self) -> Class {
        match self {
            Self::Io { source, .. } => Class::of_io(source),
            Self::Busy { .. } => Class::Conflict,
            Self::Foreign { .. } => Class::Invalid,
            Self::Database { .. } => Class::Corrupt,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Foreign { .. } => Some("choose a folder that is empty or not there yet".to_owned()),
            Self::Io { .. } | Self::Busy { .. } | Self::Database { .. } => None,
        }
    }
}

/// An open data folder.
pub(crate) struct Storage {
    pub(crate) meta: Meta,
    pub(crate) writer: Writer,
    pub(crate) uploads: Uploads,
    pub(crate) layout: Layout,
    pub(crate) grace: Grace,
    writing: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Keeps other processes out.
    _lock: File,
}

impl Storage {
    /// Opens a data folder, making it if need be.
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn open(root: &Path, grace: Grace, terms: Terms) -> Result<Self, OpenError> {
        let layout = Layout::new(root.to_owned());
        make_folder(layout.root())?;
        let is_new = !has_marker(&layout)?;
        let lock = take_lock(&layout)?;
        if is_new {
            let path = layout.marker();
            write_marker(&path).map_err(|source| OpenError::Io { action: "write", path, source })?;
        }
        for folder in [layout.meta(), layout.blobs(), layout.uploads(), layout.trash()] {
            make_folder(&folder)?;
        }
        let database = layout.database();
        let sql = |source| OpenError::Database { path: database.clone(), source };
        let connection = open_database(&database).map_err(sql)?;
        recover(&connection, &layout).map_err(sql)?;
        let cache = Arc::new(ManifestCache::new(CACHE_BYTES));
        let meta = Meta::new(&database, Arc::clone(&cache));
        let (writer, writing) =
            Writer::start(connection, layout.clone(), terms, cache).map_err(|source| OpenError::Io {
                action: "start a thread for",
                path: database.clone(),
                source,
            })?;
        let uploads = Uploads::new(layout.clone());
        Ok(Self { meta, writer, uploads, layout, grace, writing: Mutex::new(Some(writing)), _lock: lock })
    }

    /// Opens the file of a blob.
    pub(crate) fn open_blob(&self, digest: &Digest) -> io::Result<File> {
        File::open(self.layout.blob(digest))
    }

    /// Ends the writer after everything that was asked of it.
    pub(crate) fn close(&self) {
        self.writer.close();
        let thread = self.writing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A writer that panicked has been reported by its panic; everything it answered is on the disk.
            let _panicked = thread.join();
        }
    }
}

fn make_folder(path: &Path) -> Result<(), OpenError> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| OpenError::Io {
        action: "make",
        path: path.to_owned(),
        source,
    })
}

fn take_lock(layout: &Layout) -> Result<File, OpenError> {
    let path = layout.lock();
    let failed = |action, source| OpenError::Io { action, path: path.clone(), source };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|error| failed("open", error))?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let pid = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
            return Err(OpenError::Busy { path: layout.root().to_owned(), pid });
        }
        Err(errno) => return Err(failed("lock", errno.into())),
    }
    file.set_len(0)
        .and_then(|()| io::Write::write_all(&mut &file, std::process::id().to_string().as_bytes()))
        .map_err(|error| failed("write", error))?;
    Ok(file)
}

/// Refuses folders of others, before anything is written to them; `false` for one that is empty.
fn has_marker(layout: &Layout) -> Result<bool, OpenError> {
    let path = layout.marker();
    let foreign = |why: String| OpenError::Foreign { path: layout.root().to_owned(), why };
    match std::fs::read(&path) {
        Ok(bytes) => {
            let marker: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
            if marker["format"] != "mica-registry" {
                return Err(foreign("registry.json is somebody else's".to_owned()));
            }
            match marker["version"].as_u64() {
                Some(FORMAT) => Ok(true),
                other => Err(foreign(format!(
                    "it has format {}, and this program knows {FORMAT}",
                    other.map_or_else(|| "?".to_owned(), |version| version.to_string())
                ))),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let others = std::fs::read_dir(layout.root())
                .map(|entries| entries.filter_map(Result::ok).any(|entry| entry.file_name() != "lock"))
                .unwrap_or_default();
            if others {
                return Err(foreign("it is not empty, and has no registry.json".to_owned()));
            }
            Ok(false)
        }
        Err(source) => Err(OpenError::Io { action: "read", path, source }),
    }
}

fn write_marker(path: &Path) -> io::Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, MARKER)?;
    File::open(&temporary)?.sync_all()?;
    std::fs::rename(&temporary, path)
}

fn open_database(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(30))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "cache_size", -4096)?;
    connection.set_prepared_statement_cache_capacity(64);
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if version == 0 {
        let schema = include_str!("schema.sql");
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {schema} PRAGMA user_version = {SCHEMA}; COMMIT;"))?;
    }
    Ok(connection)
}

/// Finishes the removals that a crash has interrupted.
fn recover(sql: &Connection, layout: &Layout) -> rusqlite::Result<()> {
    let mut statement =
        sql.prepare("SELECT digest FROM removals WHERE digest NOT IN (SELECT digest FROM blobs)")?;
    let digests: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for digest in digests.iter().filter_map(|text| text.parse().ok()) {
        // Mostly gone already; what is left costs space and nothing else.
        let _absent = std::fs::remove_file(layout.blob(&digest));
    }
    sql.execute("DELETE FROM removals", [])?;
    for entry in std::fs::read_dir(layout.trash()).into_iter().flatten().flatten() {
        // The next start tries again.
        let _left = std::fs::remove_file(entry.path());
    }
    Ok(())
}

/// A change that failed, as a request is told.
impl From<ChangeError> for crate::error::Refusal {
    fn from(error: ChangeError) -> Self {
        let full = match &error {
            ChangeError::Commit(source) => is_full(source),
            ChangeError::Io(source) => is_full(source),
            ChangeError::Database(source) => writer::is_full(source),
            ChangeError::Quota(quota) => return quota.into(),
            ChangeError::Closed => false,
        };
        if full { Self::no_space() } else { Self::internal(crate::error::chain(&error)) }
    }
}

/// Whether the disk, or somebody's share of it, is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
