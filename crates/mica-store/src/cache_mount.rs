//! Cache mounts: directories that `RUN --mount=type=cache` steps share, by the id the Dockerfile gives.
//!
//! Each id has numbered slots. `shared` steps use slot 0 together, `locked` ones in turn, `private` ones take the
//! first slot nobody uses. Who uses a slot holds a flock on the file beside it; not on the directory itself, which
//! the step could lock too.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rusqlite::params;

use crate::db::Strength;
use crate::error::{IoContext as _, StoreError};
use crate::layout::names;
use crate::lock::{self, Mode};
use crate::{Store, files, layout, now};

/// How steps share a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// All at once.
    Shared,
    /// Each has its own.
    Private,
    /// One after the other.
    Locked,
}

/// A slot of a cache mount, held until dropped.
#[derive(Debug)]
pub struct CacheMount {
    data: PathBuf,
    // Held for its flock.
    _lock: File,
    is_new: bool,
}

impl CacheMount {
    /// The directory to mount.
    pub fn path(&self) -> &Path {
        &self.data
    }

    /// Whether the directory was made just now, and wants its mode, owner and initial content.
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

/// A cache mount as `du` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMountRecord {
    /// The id in the Dockerfile.
    pub id: String,
    /// When it was first used, nanoseconds since 1970.
    pub created: i64,
    /// When it was last used, nanoseconds since 1970.
    pub last_used: i64,
    /// The directory of all its slots.
    pub path: PathBuf,
}

impl Store {
    /// Takes a slot of the cache mount `id`, waiting if `sharing` demands it.
    ///
    /// Locked mounts of one step must be taken sorted by id, or two steps can wait for each other.
    ///
    /// # Errors
    /// [`StoreError::Cancelled`] as soon as `is_cancelled` says so; it is asked at least every 50 ms.
    pub fn cache_mount(
        &self,
        id: &str,
        sharing: Sharing,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<CacheMount, StoreError> {
        let directory = self.state().cache_mount(id);
        self.note_use(id)?;
        let mount = match sharing {
            Sharing::Shared => lock::poll(is_cancelled, || take(&directory, 0, Mode::Shared)),
            Sharing::Locked => lock::poll(is_cancelled, || take(&directory, 0, Mode::Exclusive)),
            Sharing::Private => take_any(&directory),
        }?;
        if mount.is_new {
            // A collector that removed the old directory after our first note has forgotten the note too.
            self.note_use(id)?;
        }
        Ok(mount)
    }

    /// Returns all cache mounts, least recently used first.
    pub fn cache_mounts(&self) -> Result<Vec<CacheMountRecord>, StoreError> {
        self.database().read(|sql| {
            sql.prepare_cached("SELECT id, created, last_used FROM cache_mounts ORDER BY last_used")?
                .query_map([], |row| {
                    let id: String = row.get(0)?;
                    let path = self.state().cache_mount(&id);
                    Ok(CacheMountRecord { created: row.get(1)?, last_used: row.get(2)?, path, id })
                })?
                .collect()
        })
    }

    /// Whether a step uses a slot of a cache mount right now.
    ///
    /// Looks by taking each slot's lock for a moment; who wants the slot in this moment looks again, or takes another.
    pub(crate) fn is_cache_mount_used(directory: &Path) -> Result<bool, StoreError> {
        for name in files::list(directory).context("list", directory)? {
            if !name.ends_with(names::LOCK_SUFFIX) {
                continue;
            }
            let path = directory.join(name);
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).context("open", &path),
            };
            if !lock::try_flock(&file, Mode::Exclusive).context("lock", &path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes the slots of a cache mount that nobody uses; returns whether all are gone.
    pub(crate) fn remove_cache_mount(&self, directory: &Path) -> Result<bool, StoreError> {
        let mut is_empty = true;
        for name in files::list(directory).context("list", directory)? {
            let Ok(slot) = name.parse::<u64>() else { continue };
            match lock_slot(directory, slot, Mode::Exclusive)? {
                Some(_held) => {
                    self.discard(&directory.join(&name))?;
                    let path = lock_path(directory, slot);
                    files::remove_file(&path).context("remove", &path)?;
                }
                None => is_empty = false,
            }
        }
        if is_empty {
            // Fails if somebody just made a slot; then it stays.
            let _ = fs::remove_dir(directory);
        }
        Ok(is_empty)
    }

    fn note_use(&self, id: &str) -> Result<(), StoreError> {
        self.database().write(Strength::Normal, |write| {
            write.sql(|sql| {
                let upsert = "INSERT INTO cache_mounts(name, id, created, last_used) VALUES (?1, ?2, ?3, ?3)
                    ON CONFLICT(name) DO UPDATE SET last_used = excluded.last_used";
                sql.prepare_cached(upsert)?.execute(params![layout::hash_name(id.as_bytes()), id, now()])
            })?;
            Ok(())
        })
    }
}

fn take(directory: &Path, slot: u64, mode: Mode) -> Result<Option<CacheMount>, StoreError> {
    files::ensure_directory(directory).context("create", directory)?;
    let Some(held) = lock_slot(directory, slot, mode)? else { return Ok(None) };
    let data = directory.join(slot.to_string());
    let is_new = match fs::DirBuilder::new().mode(0o755).create(&data) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error).context("create", &data),
    };
    Ok(Some(CacheMount { data, _lock: held, is_new }))
}

/// Takes the first slot that nobody uses.
fn take_any(directory: &Path) -> Result<CacheMount, StoreError> {
    for slot in 0_u64.. {
        if let Some(mount) = take(directory, slot, Mode::Exclusive)? {
            return Ok(mount);
        }
    }
    unreachable!("there are more slots than processes")
}

fn lock_slot(directory: &Path, slot: u64, mode: Mode) -> Result<Option<File>, StoreError> {
    lock::try_lock(&lock_path(directory, slot), mode)
}

fn lock_path(directory: &Path, slot: u64) -> PathBuf {
    directory.join(format!("{slot}{}", names::LOCK_SUFFIX))
}
