//! The one writer: group commit of everything that changes.
//!
//! Changes arrive from any number of requests and are applied by one thread, in the order of their arrival. All that
//! wait when a commit begins go into the same transaction, so that they share its fsyncs. A change that fails is
//! undone alone. Whoever asked hears of it when the change is on the disk, not before.
//!
//! Because files appear in and vanish from `blobs/` here and nowhere else, a blob cannot be collected between the
//! moment an upload finds it present and the moment its row is written.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use mica_oci::Digest;
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::cache::ManifestCache;
use super::layout::Layout;
use super::quota::{Quota, QuotaError};

/// Why a change did not happen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ChangeError {
    #[error("the metadata cannot be changed")]
    Database(#[from] rusqlite::Error),
    #[error("the metadata cannot be made durable")]
    Commit(#[source] Arc<io::Error>),
    #[error("the storage cannot be changed")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Quota(QuotaError),
    #[error("the registry is shutting down")]
    Closed,
}

/// The most changes in one transaction: bounds how long the first of them waits.
const BATCH_MAX: usize = 256;

type Settle = Box<dyn FnOnce(Result<(), Arc<io::Error>>) + Send>;
type Job = Box<dyn FnOnce(&mut Batch<'_>) -> Settle + Send>;

enum Message {
    Job(Job),
    /// Nothing that comes after this is done.
    Close,
}

/// What the owner has said about changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    pub(crate) quota: Quota,
    /// Somebody wants to be told of changes.
    pub(crate) records_events: bool,
}

/// What a change works with: the open transaction, and what has to happen around its commit.
pub(crate) struct Batch<'a> {
    pub(crate) sql: &'a Connection,
    pub(crate) layout: &'a Layout,
    pub(crate) terms: &'a Terms,
    /// Seconds since 1970, the same for the whole batch.
    pub(crate) now: i64,
    /// Folders with new names, synced before the commit.
    pub(crate) shelves: BTreeSet<PathBuf>,
    /// Files that have no row yet; removed if they do not get one.
    pub(crate) placed: Vec<PathBuf>,
    /// Files whose row goes; removed after the commit.
    pub(crate) removals: Vec<Digest>,
    /// Cached manifests that are no longer true.
    pub(crate) stale: Vec<String>,
}

/// Hands changes to the writing thread.
#[derive(Clone)]
pub(crate) struct Writer {
    jobs: Sender<Message>,
}

impl Writer {
    /// Starts the thread; it ends after [`Writer::close`], when everything asked for before is done.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(
        connection: Connection,
        layout: Layout,
        terms: Terms,
        cache: Arc<ManifestCache>,
    ) -> io::Result<(Self, std::thread::JoinHandle<()>)> {
        let (jobs, queue) = channel();
        let (trash, rubbish) = channel();
        std::thread::Builder::new().name("registry-trash".to_owned()).spawn(move || burn(&rubbish))?;
        let mut thread = Thread { connection, layout, terms, cache, removed: Vec::new(), trash };
        let handle = std::thread::Builder::new()
            .name("registry-writer".to_owned())
            .spawn(move || thread.run(&queue))?;
        Ok((Self { jobs }, handle))
    }

    /// Makes a change durable and returns what it returned.
    ///
    /// # Errors
    /// Those of the change, and of the commit.
    pub(crate) async fn commit<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Batch<'_>) -> Result<T, ChangeError> + Send + 'static,
    ) -> Result<T, ChangeError> {
        self.submit(change).await.unwrap_or(Err(ChangeError::Closed))
    }

    /// The same for a thread that may block.
    ///
    /// # Errors
    /// Those of [`Writer::commit`].
    pub(crate) fn commit_blocking<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Batch<'_>) -> Result<T, ChangeError> + Send + 'static,
    ) -> Result<T, ChangeError> {
        self.submit(change).blocking_recv().unwrap_or(Err(ChangeError::Closed))
    }

    /// Hands over a change without waiting for it: several that are submitted before the first is waited for share a
    /// commit.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Batch<'_>) -> Result<T, ChangeError> + Send + 'static,
    ) -> oneshot::Receiver<Result<T, ChangeError>> {
        let (answer, waiting) = oneshot::channel();
        let job: Job = Box::new(move |batch| {
            let result = alone(batch, change);
            Box::new(move |committed| {
                let result = match committed {
                    Ok(()) => result,
                    Err(error) => result.and(Err(ChangeError::Commit(error))),
                };
                // Who asked may have gone away meanwhile; the change stays.
                let _unheard = answer.send(result);
            })
        });
        // A closed queue drops the job and with it `answer`: the receiver says so.
        let _closed = self.jobs.send(Message::Job(job));
        waiting
    }

    /// Ends the thread; what is asked for from now on fails.
    pub(crate) fn close(&self) {
        // It has ended already.
        let _closed = self.jobs.send(Message::Close);
    }
}

/// Applies one change so that its failure undoes it and nothing else.
fn alone<T>(
    batch: &mut Batch<'_>,
    change: impl FnOnce(&mut Batch<'_>) -> Result<T, ChangeError>,
) -> Result<T, ChangeError> {
    if batch.sql.is_autocommit() {
        // SQLite has given up the whole transaction: nothing may begin another one inside this batch.
        return Err(io::Error::from(io::ErrorKind::StorageFull).into());
    }
    batch.sql.prepare_cached("SAVEPOINT change")?.execute([])?;
    let result = change(batch);
    if batch.sql.is_autocommit() {
        return result.and_then(|_| Err(io::Error::from(io::ErrorKind::StorageFull).into()));
    }
    if result.is_err() {
        batch.sql.prepare_cached("ROLLBACK TO change")?.execute([])?;
    }
    batch.sql.prepare_cached("RELEASE change")?.execute([])?;
    result
}

struct Thread {
    connection: Connection,
    layout: Layout,
    terms: Terms,
    cache: Arc<ManifestCache>,
    /// Removals that are done; their rows go with the next transaction.
    removed: Vec<Digest>,
    trash: Sender<PathBuf>,
}

impl Thread {
    fn run(&mut self, queue: &Receiver<Message>) {
        let mut open = true;
        while open && let Ok(first) = queue.recv() {
            let waiting = std::iter::once(first).chain(queue.try_iter().take(BATCH_MAX - 1));
            let mut jobs = Vec::new();
            for message in waiting {
                match message {
                    Message::Job(job) => jobs.push(job),
                    Message::Close => {
                        open = false;
                        break;
                    }
                }
            }
            if !jobs.is_empty() {
                self.batch(jobs);
            }
        }
    }

    fn batch(&mut self, jobs: Vec<Job>) {
        let mut batch = Batch {
            sql: &self.connection,
            layout: &self.layout,
            terms: &self.terms,
            now: now(),
            shelves: BTreeSet::new(),
            placed: Vec::new(),
            removals: Vec::new(),
            stale: Vec::new(),
        };
        let mut settle = Vec::with_capacity(jobs.len());
        let outcome = begin(&self.connection, &self.removed).and_then(|()| {
            settle.extend(jobs.into_iter().map(|job| job(&mut batch)));
            commit(&batch)
        });
        let Batch { placed, removals, stale, .. } = batch;
        let outcome = outcome.map_err(Arc::new);
        match &outcome {
            Ok(()) => {
                self.removed = removals;
                self.cache.forget(&stale);
                self.discard();
            }
            Err(_) => {
                // Nothing of the batch is true: neither rows nor the files they would have named.
                let _none_open = self.connection.execute_batch("ROLLBACK");
                for path in placed {
                    // What cannot be removed is found by the check.
                    let _left = std::fs::remove_file(path);
                }
            }
        }
        for settle in settle {
            settle(outcome.clone());
        }
    }

    /// Takes files without rows out of sight; another thread gives their space back.
    fn discard(&self) {
        for digest in &self.removed {
            let trash = self.layout.trash().join(digest.hex());
            if std::fs::rename(self.layout.blob(digest), &trash).is_ok() {
                let _thread_gone = self.trash.send(trash);
            }
        }
    }
}

fn begin(sql: &Connection, removed: &[Digest]) -> io::Result<()> {
    let run = || -> rusqlite::Result<()> {
        sql.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        for digest in removed {
            sql.prepare_cached("DELETE FROM removals WHERE digest = ?1")?.execute([digest.to_string()])?;
        }
        Ok(())
    };
    run().map_err(to_io)
}

/// Names first, then the rows that rely on them.
fn commit(batch: &Batch<'_>) -> io::Result<()> {
    for shelf in &batch.shelves {
        std::fs::File::open(shelf)?.sync_all()?;
    }
    batch.sql.prepare_cached("COMMIT").and_then(|mut statement| statement.execute([])).map_err(to_io)?;
    Ok(())
}

/// A full disk stays recognisable.
fn to_io(error: rusqlite::Error) -> io::Error {
    if is_full(&error) { io::Error::new(io::ErrorKind::StorageFull, error) } else { io::Error::other(error) }
}

/// Whether the database found no room.
pub(crate) fn is_full(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DiskFull))
}

fn burn(rubbish: &Receiver<PathBuf>) {
    while let Ok(path) = rubbish.recv() {
        // The next start empties the trash.
        let _left = std::fs::remove_file(path);
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
