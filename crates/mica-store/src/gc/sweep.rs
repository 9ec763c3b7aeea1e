//! Steps 1 and 3 of a collection: what lies in the directories, and unlinking what belongs to nobody.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use mica_oci::{Algorithm, Digest};
use rusqlite::Transaction;

use super::{CacheItem, GcReport, GcRequest, PrunedCache};
use crate::db::Strength;
use crate::error::{IoContext as _, StoreError};
use crate::lock::{self, Mode};
use crate::{LeaseId, Store, files, lease};

/// Blobs renamed per write lock, so that others get their turn.
const BLOBS_PER_TURN: usize = 64;
/// A stat cache that no build used for this long goes; it only saves time.
const STAT_CACHE_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// An interrupted transfer that nobody takes up again for this long is forgotten.
const PARTIAL_AGE: Duration = Duration::from_secs(24 * 3600);

/// The names in the directories, read before the transaction.
pub(super) struct Listing {
    layers: Vec<String>,
    containers: Vec<String>,
    volumes: Vec<String>,
    blobs: Vec<Digest>,
    /// Directory and names of what carries a lease in its name.
    scratch: Vec<(PathBuf, Vec<String>)>,
    leases: Vec<String>,
    state: crate::layout::StateDir,
}

/// What has no row any more.
#[derive(Default)]
pub(super) struct Forgotten {
    pub(super) directories: Vec<PathBuf>,
    pub(super) blobs: Vec<Digest>,
    /// Dead leases with the lock that proves it, if there was a file.
    pub(super) leases: Vec<(LeaseId, Option<File>)>,
    /// Parts of the build cache; those that are no layers are still there.
    pub(super) cache: Vec<PrunedCache>,
}

/// Whether somebody holds a lease.
pub(super) enum Life {
    Alive,
    /// The lock we got, `None` if there is no file.
    Dead(Option<File>),
}

/// Finds out whether a lease is alive.
pub(super) fn life(store: &Store, id: LeaseId) -> Result<Life, StoreError> {
    let path = store.state().leases().join(id.to_string());
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Life::Dead(None)),
        Err(error) => return Err(error).context("open", &path),
    };
    match lock::try_flock(&file, Mode::Exclusive).context("lock", &path)? {
        true => Ok(Life::Dead(Some(file))),
        false => Ok(Life::Alive),
    }
}

impl Listing {
    pub(super) fn read(store: &Store) -> Result<Self, StoreError> {
        let state = store.state();
        let list = |path: PathBuf| files::list(&path).context("list", &path);
        let mut blobs = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let names = list(state.blobs(algorithm))?;
            blobs.extend(names.iter().filter_map(|hex| format!("{}:{hex}", algorithm.name()).parse().ok()));
        }
        let scratch = [state.actives(), state.tmp(), state.ingests()];
        Ok(Self {
            layers: list(state.layers())?,
            containers: list(state.containers())?,
            volumes: list(state.volumes())?,
            blobs,
            scratch: scratch
                .into_iter()
                .map(|path| Ok((path.clone(), list(path)?)))
                .collect::<Result<_, StoreError>>()?,
            leases: list(state.leases())?,
            state: state.clone(),
        })
    }

    /// Returns what was listed and has no row. Names that are not ours at all are left to `check`.
    pub(super) fn without_rows(&self, sql: &Transaction<'_>) -> rusqlite::Result<Forgotten> {
        let mut forgotten = Forgotten::default();
        let known = |select: &str, column: &dyn Fn(&rusqlite::Row<'_>) -> rusqlite::Result<String>| {
            sql.prepare_cached(select)?.query_map([], column)?.collect::<rusqlite::Result<BTreeSet<String>>>()
        };
        let layers = known("SELECT id FROM layers", &|row| Ok(row.get::<_, crate::LayerId>(0)?.to_string()))?;
        let volumes =
            known("SELECT id FROM volumes", &|row| Ok(row.get::<_, crate::VolumeId>(0)?.to_string()))?;
        let containers = known("SELECT id FROM containers", &|row| row.get(0))?;
        let blobs = known("SELECT digest FROM blobs", &|row| row.get(0))?;
        let leases = known("SELECT id FROM leases", &|row| Ok(row.get::<_, LeaseId>(0)?.to_string()))?;
        for (parent, listed, rows) in [
            (self.state.layers(), &self.layers, &layers),
            (self.state.containers(), &self.containers, &containers),
            (self.state.volumes(), &self.volumes, &volumes),
        ] {
            let orphans = listed.iter().filter(|name| !rows.contains(*name));
            forgotten.directories.extend(orphans.map(|name| parent.join(name)));
        }
        for (parent, listed) in &self.scratch {
            let is_owned = |name: &&String| {
                lease::owner_of(name).is_some_and(|owner| leases.contains(&owner.to_string()))
            };
            let orphans = listed.iter().filter(|name| !is_owned(name));
            forgotten.directories.extend(orphans.map(|name| parent.join(name)));
        }
        forgotten.blobs =
            self.blobs.iter().filter(|blob| !blobs.contains(&blob.to_string())).cloned().collect();
        Ok(forgotten)
    }
}

/// Unlinks what was forgotten, and leftovers of dead processes. Problems are collected, nothing stops it.
pub(super) fn run(
    store: &Store,
    listing: &Listing,
    forgotten: Forgotten,
    request: &GcRequest,
    report: &mut GcReport,
) {
    let mut problem = |result: Result<(), StoreError>| report.problems.extend(result.err());
    for path in &forgotten.directories {
        problem(store.trash(path).map(drop));
    }
    for blobs in forgotten.blobs.chunks(BLOBS_PER_TURN) {
        problem(trash_blobs(store, blobs));
    }
    for (id, lock) in forgotten.leases {
        let path = store.state().leases().join(id.to_string());
        problem(files::remove_file(&path).context("remove", &path));
        drop(lock);
    }
    for name in &listing.leases {
        problem(remove_unnamed_lease(store, name));
    }
    problem(remove_free_locks(store));
    problem(remove_old_stat_caches(store));
    problem(remove_old_partials(store));
    for pruned in forgotten.cache {
        match remove_loose(store, &pruned) {
            Ok(Some(freed_bytes)) => {
                if !matches!(pruned.item, CacheItem::Record(_)) {
                    report.freed_bytes += freed_bytes;
                }
                report.cache.push(PrunedCache { freed_bytes, ..pruned });
            }
            Ok(None) => {}
            Err(error) => report.problems.push(error),
        }
    }
    empty_trash(store, request.deadline, report);
}

/// Renames files of blobs that are still forgotten; nobody can bring one back while we hold the write lock.
fn trash_blobs(store: &Store, blobs: &[Digest]) -> Result<(), StoreError> {
    store.database().write(Strength::Normal, |write| {
        for digest in blobs {
            let is_back = write.sql(|sql| {
                sql.prepare_cached("SELECT 1 FROM blobs WHERE digest = ?1")?.exists([digest.to_string()])
            })?;
            if !is_back {
                store.trash(&store.state().blob(digest))?;
            }
        }
        Ok(())
    })
}

/// Removes a lease file whose process died before, or while, the lease had a row.
fn remove_unnamed_lease(store: &Store, name: &str) -> Result<(), StoreError> {
    let Ok(id) = name.parse::<LeaseId>() else { return Ok(()) };
    let Life::Dead(Some(_held)) = life(store, id)? else { return Ok(()) };
    let has_row = store
        .database()
        .read(|sql| sql.prepare_cached("SELECT 1 FROM leases WHERE id = ?1")?.exists([id]))?;
    if has_row {
        return Ok(());
    }
    let path = store.state().leases().join(name);
    files::remove_file(&path).context("remove", &path)
}

/// Removes lock files that nobody holds: their holders were killed.
fn remove_free_locks(store: &Store) -> Result<(), StoreError> {
    let directory = store.state().locks();
    for name in files::list(&directory).context("list", &directory)? {
        let path = directory.join(name);
        if let Some(_held) = lock::try_lock(&path, Mode::Exclusive)? {
            files::remove_file(&path).context("remove", &path)?;
        }
    }
    Ok(())
}

/// Removes what is left of transfers that nobody took up again.
fn remove_old_partials(store: &Store) -> Result<(), StoreError> {
    let directory = store.state().partials();
    if !directory.exists() {
        return Ok(());
    }
    for name in files::list(&directory).context("list", &directory)? {
        let path = directory.join(name);
        if !is_older(&path, PARTIAL_AGE) {
            continue;
        }
        if let Some(_held) = lock::try_lock(&path, Mode::Exclusive)? {
            files::remove_file(&path).context("remove", &path)?;
        }
    }
    Ok(())
}

/// Whether nobody wrote a file for so long.
fn is_older(path: &Path, limit: Duration) -> bool {
    let modified = std::fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
    age.is_some_and(|age| age > limit)
}

fn remove_old_stat_caches(store: &Store) -> Result<(), StoreError> {
    let directory = store.state().contexts();
    for name in files::list(&directory).context("list", &directory)? {
        let path = directory.join(name);
        if is_older(&path, STAT_CACHE_AGE) {
            files::remove_file(&path).context("remove", &path)?;
        }
    }
    Ok(())
}

/// Removes the files of a part of the cache; returns what that freed, `None` if it is in use by now.
fn remove_loose(store: &Store, pruned: &PrunedCache) -> Result<Option<u64>, StoreError> {
    match &pruned.item {
        CacheItem::Record(_) => Ok(Some(pruned.freed_bytes)),
        CacheItem::Context(name) => {
            let path = store.state().contexts().join(name);
            files::remove_file(&path).context("remove", &path)?;
            Ok(Some(pruned.freed_bytes))
        }
        CacheItem::Mount(id) => {
            let is_gone = store.remove_cache_mount(&store.state().cache_mount(id))?;
            if is_gone {
                forget_cache_mount(store, id)?;
            }
            Ok(is_gone.then_some(pruned.freed_bytes))
        }
    }
}

/// Deletes the row of a cache mount, unless somebody has begun to use it again and made its directory.
fn forget_cache_mount(store: &Store, id: &str) -> Result<(), StoreError> {
    let path = store.state().cache_mount(id);
    store.database().write(Strength::Normal, |write| {
        if !path.exists() {
            write.sql(|sql| sql.prepare_cached("DELETE FROM cache_mounts WHERE id = ?1")?.execute([id]))?;
        }
        Ok(())
    })
}

fn empty_trash(store: &Store, deadline: Option<Instant>, report: &mut GcReport) {
    let directory = store.state().trash();
    let names = match files::list(&directory).context("list", &directory) {
        Ok(names) => names,
        Err(error) => return report.problems.push(error),
    };
    for name in names {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return;
        }
        report.problems.extend(store.empty_trash(&name).err());
    }
}
