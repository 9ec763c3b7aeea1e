//! Blobs on their way from elsewhere: kept by digest, so that an interrupted transfer goes on where it stopped.
//!
//! One process at a time writes a partial blob, proved by a flock on its file; others wait and then find the blob
//! complete. What a dead process left is hashed again before anything is appended to it (security.md row 19), and bytes
//! that turn out to be wrong are removed, so that the next, honest transfer starts afresh.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use mica_oci::{Descriptor, Digest, Hasher};

use crate::content::{BLOB_MODE, name_blob_file};
use crate::db::Strength;
use crate::error::{CommitError, IoContext as _, StoreError};
use crate::{Lease, Store, files, lock};

/// How much of a left file is hashed at once.
const PIECE_BYTES: usize = 256 << 10;

/// A blob being received. Dropped without [`Partial::commit`], its bytes stay for the next attempt.
#[derive(Debug)]
pub struct Partial<'a> {
    store: Store,
    lease: &'a Lease,
    /// Also holds the flock.
    file: File,
    path: PathBuf,
    digest: Digest,
    size_bytes: u64,
    hasher: Hasher,
    received_bytes: u64,
    /// Bytes of an earlier process.
    inherited_bytes: u64,
    feed: Option<Arc<Feed>>,
}

impl Store {
    /// Continues, or starts, receiving a blob; waits while another process does. `None`: the blob is complete here, and
    /// protected by the lease.
    ///
    /// # Errors
    /// The disk, or `is_cancelled` while waiting.
    pub fn partial<'a>(
        &self,
        blob: &Descriptor,
        lease: &'a Lease,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Option<Partial<'a>>, StoreError> {
        self.database().refuse_read_only()?;
        let directory = self.state().partials();
        files::ensure_directory(&directory).context("create", &directory)?;
        let path = self.state().partial(&blob.digest);
        lock::poll(is_cancelled, || {
            match lease.protect_blobs(std::slice::from_ref(&blob.digest)) {
                Ok(()) => return Ok(Some(None)),
                Err(StoreError::BlobGone(_)) => {}
                Err(error) => return Err(error),
            }
            let Some(file) = lock::try_lock(&path, lock::Mode::Exclusive)? else { return Ok(None) };
            if self.blob(&blob.digest)?.is_some() {
                // it became complete between our look and our lock
                files::remove_file(&path).context("remove", &path)?;
                return Ok(None);
            }
            let mut partial = Partial {
                store: self.clone(),
                lease,
                file,
                path: path.clone(),
                digest: blob.digest.clone(),
                size_bytes: blob.size,
                hasher: Hasher::new(blob.digest.algorithm()),
                received_bytes: 0,
                inherited_bytes: 0,
                feed: None,
            };
            partial.take_over()?;
            Ok(Some(Some(partial)))
        })
    }
}

impl Partial<'_> {
    /// Hashes what an earlier process left.
    fn take_over(&mut self) -> Result<(), StoreError> {
        let left = self.file.metadata().context("inspect", &self.path)?.len();
        if left > self.size_bytes {
            return self.restart();
        }
        let mut piece = vec![0; PIECE_BYTES];
        while self.received_bytes < left {
            let count = self.file.read_at(&mut piece, self.received_bytes).context("read", &self.path)?;
            if count == 0 {
                break;
            }
            self.hasher.update(&piece[..count]);
            self.received_bytes += count as u64;
        }
        self.inherited_bytes = self.received_bytes;
        Ok(())
    }

    /// Bytes that are here.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Whether some of the bytes are an earlier process's.
    pub fn is_inherited(&self) -> bool {
        self.inherited_bytes > 0
    }

    /// Lets a reader follow what is written.
    ///
    /// # Errors
    /// The file cannot be opened again.
    pub fn feed(&mut self, feed: &Arc<Feed>) -> Result<(), StoreError> {
        let options = OpenOptions::new().read(true).open(&self.path);
        feed.begin(options.context("open", &self.path)?, self.received_bytes);
        self.feed = Some(feed.clone());
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The disk; more bytes than were announced.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.received_bytes + bytes.len() as u64 > self.size_bytes {
            let text = format!("more than the announced {} bytes", self.size_bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.file.write_all_at(bytes, self.received_bytes)?;
        self.hasher.update(bytes);
        self.received_bytes += bytes.len() as u64;
        if let Some(feed) = &self.feed {
            feed.available(self.received_bytes);
        }
        Ok(())
    }

    /// Forgets what was received.
    ///
    /// # Errors
    /// The disk.
    pub fn restart(&mut self) -> Result<(), StoreError> {
        self.file.set_len(0).context("truncate", &self.path)?;
        self.hasher = Hasher::new(self.digest.algorithm());
        (self.received_bytes, self.inherited_bytes) = (0, 0);
        if let Some(feed) = &self.feed {
            feed.available(0);
        }
        Ok(())
    }

    /// Checks the blob and makes it visible, protected by the lease.
    ///
    /// # Errors
    /// A mismatch of size or digest; the bytes are removed then.
    pub fn commit(mut self) -> Result<(), CommitError> {
        let (digest, received_bytes) = (self.digest.clone(), self.received_bytes);
        if received_bytes != self.size_bytes {
            let expected_bytes = self.size_bytes;
            return Err(CommitError::SizeMismatch { digest, expected_bytes, received_bytes });
        }
        let actual = std::mem::replace(&mut self.hasher, Hasher::new(digest.algorithm())).finish();
        if actual != digest {
            files::remove_file(&self.path).context("remove", &self.path)?;
            return Err(CommitError::DigestMismatch { expected: digest, actual, received_bytes });
        }
        let mode = Permissions::from_mode(BLOB_MODE);
        self.file.set_permissions(mode).context("change the mode of", &self.path)?;
        self.store.database().write(Strength::Normal, |write| {
            name_blob_file(&self.store, write, (&self.path, &self.file), &digest, received_bytes)?;
            self.lease.name_blob(write, &digest)
        })?;
        if let Some(feed) = self.feed.take() {
            feed.end(true);
        }
        Ok(())
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if let Some(feed) = &self.feed {
            feed.end(false);
        }
        if self.received_bytes == 0 {
            // nothing to go on from; one that was renamed is not there under this name
            let _ = files::remove_file(&self.path);
        }
    }
}

/// A blob that can be read while it is received.
#[derive(Debug, Default)]
pub struct Feed {
    state: Mutex<FeedState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct FeedState {
    file: Option<Arc<File>>,
    available_bytes: u64,
    /// Whether it ended well.
    ended: Option<bool>,
}

impl Feed {
    /// Announces a file of which some bytes are there.
    pub fn begin(&self, file: File, available_bytes: u64) {
        let mut state = self.lock();
        (state.file, state.available_bytes) = (Some(Arc::new(file)), available_bytes);
        self.changed.notify_all();
    }

    /// Nothing follows: all is there, or nothing more comes.
    pub fn end(&self, complete: bool) {
        let mut state = self.lock();
        // the first end counts: a file may be committed and then dropped
        state.ended.get_or_insert(complete);
        self.changed.notify_all();
    }

    fn available(&self, bytes: u64) {
        self.lock().available_bytes = bytes;
        self.changed.notify_all();
    }

    /// A reader from the beginning; waits for bytes that are still to come.
    pub fn reader(self: &Arc<Self>) -> FeedReader {
        FeedReader { feed: self.clone(), at: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, FeedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a [`Feed`].
#[derive(Debug)]
pub struct FeedReader {
    feed: Arc<Feed>,
    at: u64,
}

impl Read for FeedReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (file, available_bytes) = {
            let is_dry = |state: &mut FeedState| state.available_bytes <= self.at && state.ended.is_none();
            let waited = self.feed.changed.wait_while(self.feed.lock(), is_dry);
            let state = waited.unwrap_or_else(PoisonError::into_inner);
            if state.ended == Some(false) {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the transfer did not end"));
            }
            let Some(file) = state.file.clone() else { return Ok(0) };
            (file, state.available_bytes)
        };
        let left = usize::try_from(available_bytes.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let part = left.min(buffer.len());
        let count = file.read_at(&mut buffer[..part], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
