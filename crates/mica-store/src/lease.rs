//! Leases: "do not collect these yet", said by a running process.
//!
//! A lease is a file, a flock on it, and a row, made in this order: a row whose file is not locked is therefore dead,
//! and the collector proves it by taking the lock. Scratch files carry the lease in their name (`<lease>-<n>`), so
//! they need no rows: they die with the lease.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use mica_oci::Digest;
use rusqlite::{OptionalExtension as _, params};

use crate::db::{Strength, Write};
use crate::error::{IoContext as _, StoreError};
use crate::{LayerId, LeaseId, Store, files, lock, now};

/// Protects layers, blobs and directories from collection while it lives.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    id: LeaseId,
    /// Holds the flock; `None` on a read-only store, where nothing can be collected either.
    file: Option<File>,
    next: AtomicU64,
    /// Directories handed out, to be removed with the lease if they are still there.
    scratch: Mutex<Vec<PathBuf>>,
}

impl Store {
    /// Takes a lease that protects nothing yet.
    pub fn lease(&self) -> Result<Lease, StoreError> {
        if self.is_read_only() {
            return Ok(Lease::new(self, LeaseId::random(), None));
        }
        loop {
            let id = LeaseId::random();
            let path = self.state().leases().join(id.to_string());
            // Taken by a collector between our open and our lock: it is about to remove the file.
            let Some(file) = lock::try_lock(&path, lock::Mode::Exclusive)? else { continue };
            let lease = Lease::new(self, id, Some(file));
            self.database().write(Strength::Normal, |write| {
                write.sql(|sql| {
                    let insert = "INSERT INTO leases(id, pid, created) VALUES (?1, ?2, ?3)";
                    sql.prepare_cached(insert)?.execute(params![id, std::process::id(), now()])
                })
            })?;
            return Ok(lease);
        }
    }

    /// Continues a lease that another process of ours took and passed on by inheritance.
    ///
    /// `file` is what [`Lease::into_inherited`] returned there: the flock belongs to the open file, not to a process.
    pub fn inherited_lease(&self, id: LeaseId, file: OwnedFd) -> Lease {
        Lease::new(self, id, Some(File::from(file)))
    }
}

impl Lease {
    fn new(store: &Store, id: LeaseId, file: Option<File>) -> Self {
        Self { store: store.clone(), id, file, next: AtomicU64::new(0), scratch: Mutex::new(Vec::new()) }
    }

    /// The identity, which is part of the names of everything scratch.
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// Protects layers from collection.
    ///
    /// # Errors
    /// [`StoreError::LayerGone`] if one is no longer there: look-up and lease are one transaction.
    pub fn protect_layers(&self, layers: &[LayerId]) -> Result<(), StoreError> {
        let boot = self.store.boot();
        if self.store.is_read_only() {
            return self.store.layers_present(layers);
        }
        self.store.database().write(Strength::Normal, |write| {
            layers.iter().try_for_each(|layer| {
                let valid = "SELECT 1 FROM layers WHERE id = ?1 AND (unsynced IS NULL OR unsynced = ?2)";
                let found = write.sql(|sql| {
                    sql.prepare_cached(valid)?.query_row(params![layer, boot.as_str()], |_| Ok(())).optional()
                })?;
                found.ok_or(StoreError::LayerGone(*layer))?;
                self.name_layer(write, *layer)
            })
        })
    }

    /// Protects blobs from collection.
    ///
    /// # Errors
    /// [`StoreError::BlobGone`] if one is not there.
    pub fn protect_blobs(&self, blobs: &[Digest]) -> Result<(), StoreError> {
        if self.store.is_read_only() {
            return blobs.iter().try_for_each(|digest| match self.store.blob(digest)? {
                Some(_) => Ok(()),
                None => Err(StoreError::BlobGone(digest.clone())),
            });
        }
        let boot = self.store.boot();
        self.store.database().write(Strength::Normal, |write| {
            blobs.iter().try_for_each(|digest| {
                let text = digest.to_string();
                let valid = "SELECT 1 FROM blobs WHERE digest = ?1 AND (unsynced IS NULL OR unsynced = ?2)";
                let found = write.sql(|sql| {
                    sql.prepare_cached(valid)?.query_row(params![text, boot.as_str()], |_| Ok(())).optional()
                })?;
                found.ok_or_else(|| StoreError::BlobGone(digest.clone()))?;
                self.name_blob(write, digest)
            })
        })
    }

    /// Makes an empty directory for a writable snapshot, removed with the lease unless it was moved away.
    pub fn workspace(&self) -> Result<PathBuf, StoreError> {
        self.directory(&self.store.state().actives())
    }

    /// Makes an empty scratch directory, removed with the lease.
    pub fn scratch(&self) -> Result<PathBuf, StoreError> {
        self.directory(&self.store.state().tmp())
    }

    /// Gives up the lease in this process without releasing it; a child that inherits the file continues it with
    /// [`Store::inherited_lease`]. `None` on a read-only store.
    pub fn into_inherited(mut self) -> Option<(LeaseId, OwnedFd)> {
        let file = self.file.take()?;
        self.scratch.get_mut().unwrap_or_else(PoisonError::into_inner).clear();
        Some((self.id, file.into()))
    }

    /// Notes in a running transaction that a layer is needed.
    pub(crate) fn name_layer(&self, write: &Write<'_>, layer: LayerId) -> Result<(), StoreError> {
        write.sql(|sql| {
            let insert = "INSERT OR IGNORE INTO lease_layers(lease, layer) VALUES (?1, ?2)";
            sql.prepare_cached(insert)?.execute(params![self.id, layer])
        })?;
        Ok(())
    }

    /// Notes in a running transaction that a blob is needed.
    pub(crate) fn name_blob(&self, write: &Write<'_>, digest: &Digest) -> Result<(), StoreError> {
        write.sql(|sql| {
            let insert = "INSERT OR IGNORE INTO lease_blobs(lease, digest) VALUES (?1, ?2)";
            sql.prepare_cached(insert)?.execute(params![self.id, digest.to_string()])
        })?;
        Ok(())
    }

    /// A name that nobody else uses and that dies with the lease.
    pub(crate) fn scratch_name(&self) -> String {
        format!("{}-{}", self.id, self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn directory(&self, parent: &Path) -> Result<PathBuf, StoreError> {
        let path = parent.join(self.scratch_name());
        std::fs::create_dir(&path).context("create", &path)?;
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).push(path.clone());
        Ok(path)
    }
}

/// The lease that a scratch name belongs to; `None` if the name is none of ours.
pub(crate) fn owner_of(name: &str) -> Option<LeaseId> {
    let (lease, number) = name.split_once('-')?;
    number.parse::<u64>().ok()?;
    lease.parse().ok()
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.file.is_none() {
            return;
        }
        for path in self.scratch.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Whatever stays behind is collected once the lock below is gone.
            let _ = self.store.discard(&path);
        }
        // The reverse of the order of creation; a failure leaves a dead lease, which the collector removes.
        let deleted: Result<(), StoreError> = self.store.database().write(Strength::Normal, |write| {
            write.sql(|sql| sql.prepare_cached("DELETE FROM leases WHERE id = ?1")?.execute([self.id]))?;
            Ok(())
        });
        if deleted.is_ok() {
            let _ = files::remove_file(&self.store.state().leases().join(self.id.to_string()));
        }
    }
}
