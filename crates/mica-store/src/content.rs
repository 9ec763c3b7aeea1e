//! Content store: immutable blobs, found by digest, and blobs being written.
//!
//! A blob is complete when the metadata has a row for it. Its file is moved into place and the row is written in one
//! write transaction, because the collector removes files of forgotten blobs under the same lock: a digest that comes
//! back while its old file is on the way to the trash keeps the new file.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mica_oci::{Algorithm, Descriptor, Digest, Hasher};
use rusqlite::{OptionalExtension as _, params};

use crate::db::{Strength, Write as Transaction};
use crate::error::{CommitError, IoContext as _, StoreError};
use crate::{Lease, Store, files};

/// The mode of a blob: nobody changes it, not even its owner by accident.
pub(crate) const BLOB_MODE: u32 = 0o444;

impl Store {
    /// Returns the size of a blob, `None` if it is not here.
    pub fn blob(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let text = digest.to_string();
        self.database().read(|sql| {
            let select = "SELECT size FROM blobs WHERE digest = ?1 AND (unsynced IS NULL OR unsynced = ?2)";
            sql.prepare_cached(select)?
                .query_row(params![text, self.boot().as_str()], |row| row.get::<_, i64>(0))
                .optional()
                .map(|size| size.map(i64::cast_unsigned))
        })
    }

    /// Opens a blob; its size is checked here, its digest by whoever reads it (or use [`Store::verified_blob`]).
    pub fn open_blob(&self, digest: &Digest) -> Result<File, StoreError> {
        let size = self.blob(digest)?.ok_or_else(|| StoreError::BlobGone(digest.clone()))?;
        let path = self.state().blob(digest);
        let damaged = |problem: String| StoreError::Damaged { path: path.clone(), problem };
        let file = match OpenOptions::new().read(true).custom_flags(libc_nofollow_nonblock()).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("the file is missing".into()));
            }
            Err(error) => return Err(error).context("open", &path),
        };
        let metadata = file.metadata().context("inspect", &path)?;
        if !metadata.is_file() {
            return Err(damaged("it is not a file".into()));
        }
        if metadata.len() != size {
            return Err(damaged(format!("it has {} bytes instead of {size}", metadata.len())));
        }
        Ok(file)
    }

    /// Opens a blob for reading to its end, which fails if the bytes are not those of the digest.
    pub fn verified_blob(&self, digest: &Digest) -> Result<VerifiedBlob, StoreError> {
        let file = self.open_blob(digest)?;
        let hasher = Some(Hasher::new(digest.algorithm()));
        Ok(VerifiedBlob { file, hasher, digest: digest.clone(), path: self.state().blob(digest) })
    }

    /// Reads a whole blob of at most `limit_bytes` and checks its digest.
    pub fn read_blob(&self, digest: &Digest, limit_bytes: u64) -> Result<Vec<u8>, StoreError> {
        let path = self.state().blob(digest);
        let mut bytes = Vec::new();
        self.verified_blob(digest)?.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(
            |source| match source.kind() {
                io::ErrorKind::InvalidData => {
                    StoreError::Damaged { path: path.clone(), problem: source.to_string() }
                }
                _ => StoreError::Io { action: "read", path: path.clone(), source },
            },
        )?;
        if bytes.len() as u64 > limit_bytes {
            let source =
                io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit_bytes} bytes"));
            return Err(StoreError::Io { action: "read", path, source });
        }
        Ok(bytes)
    }

    /// Adds a small blob.
    pub fn put_blob(&self, bytes: &[u8], lease: &Lease) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let mut ingest = self.ingest(lease, None)?;
        let path = ingest.path.clone();
        ingest.write_all(bytes).context("write", &path)?;
        match ingest.commit() {
            Ok(_) => Ok(digest),
            Err(CommitError::Store(error)) => Err(error),
            Err(mismatch) => unreachable!("nothing was expected of the bytes: {mismatch}"),
        }
    }

    /// Starts a blob whose bytes are written to the returned [`Ingest`].
    ///
    /// With `expected`, writing fails one byte after the announced size, and committing demands size and digest.
    pub fn ingest<'a>(
        &self,
        lease: &'a Lease,
        expected: Option<&Descriptor>,
    ) -> Result<Ingest<'a>, StoreError> {
        self.database().refuse_read_only()?;
        let path = self.state().ingests().join(lease.scratch_name());
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .context("create", &path)?;
        let algorithm = expected.map_or(Algorithm::Sha256, |descriptor| descriptor.digest.algorithm());
        let expected = expected.map(|descriptor| (descriptor.digest.clone(), descriptor.size));
        Ok(Ingest {
            store: self.clone(),
            lease,
            file,
            path,
            hasher: Hasher::new(algorithm),
            received_bytes: 0,
            expected,
        })
    }
}

/// A blob being written; dropped without [`Ingest::commit`], it is removed.
#[derive(Debug)]
pub struct Ingest<'a> {
    store: Store,
    lease: &'a Lease,
    file: File,
    path: PathBuf,
    hasher: Hasher,
    received_bytes: u64,
    expected: Option<(Digest, u64)>,
}

impl Ingest<'_> {
    /// Bytes written so far.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// Checks the blob and makes it visible, protected by the lease it was started with.
    ///
    /// It is durable once something is published (see module `durable`).
    ///
    /// # Errors
    /// A mismatch of size or digest; nothing of the bytes is kept, so that the next, honest attempt starts afresh.
    pub fn commit(mut self) -> Result<Digest, CommitError> {
        let digest = std::mem::replace(&mut self.hasher, Hasher::new(Algorithm::Sha256)).finish();
        if let Some((expected, expected_bytes)) = &self.expected {
            if self.received_bytes != *expected_bytes {
                return Err(self.size_mismatch());
            }
            if digest != *expected {
                let (expected, received_bytes) = (expected.clone(), self.received_bytes);
                return Err(CommitError::DigestMismatch { expected, actual: digest, received_bytes });
            }
        }
        self.file
            .set_permissions(Permissions::from_mode(BLOB_MODE))
            .context("change the mode of", &self.path)?;
        self.store.database().write(Strength::Normal, |write| self.publish(write, &digest))?;
        Ok(digest)
    }

    /// Moves the file into place and names it, in one write transaction (see the module).
    fn publish(&self, write: &Transaction<'_>, digest: &Digest) -> Result<(), StoreError> {
        name_blob_file(&self.store, write, (&self.path, &self.file), digest, self.received_bytes)?;
        self.lease.name_blob(write, digest)
    }

    fn size_mismatch(&self) -> CommitError {
        let (digest, expected_bytes) = self.expected.clone().expect("only asked when a size was announced");
        CommitError::SizeMismatch { digest, expected_bytes, received_bytes: self.received_bytes }
    }
}

impl Write for Ingest<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.received_bytes += written as u64;
        match &self.expected {
            Some((_, expected)) if self.received_bytes > *expected => {
                self.received_bytes = *expected + 1;
                Err(io::Error::new(io::ErrorKind::InvalidData, self.size_mismatch()))
            }
            _ => Ok(written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Ingest<'_> {
    fn drop(&mut self) {
        // Gone already after a commit. A failure leaves the file to the collector, which knows the lease by its name.
        let _ = files::remove_file(&self.path);
    }
}

/// Moves a verified file to where its blob belongs and writes the row (see the module).
pub(crate) fn name_blob_file(
    store: &Store,
    write: &Transaction<'_>,
    (from, file): (&Path, &File),
    digest: &Digest,
    size_bytes: u64,
) -> Result<(), StoreError> {
    let text = digest.to_string();
    let boot = store.boot().as_str();
    let known = write.sql(|sql| {
        let select = "SELECT 1 FROM blobs WHERE digest = ?1 AND (unsynced IS NULL OR unsynced = ?2)";
        sql.prepare_cached(select)?.query_row(params![text, boot], |_| Ok(())).optional()
    })?;
    let path = store.state().blob(digest);
    if known.is_some() {
        let intact = std::fs::symlink_metadata(&path).is_ok_and(|found| found.len() == size_bytes);
        if !intact {
            // The row promises a file that was lost or cut: here it is again, and it keeps the promise.
            file.sync_all().context("sync", from)?;
            std::fs::rename(from, &path).context("rename to", &path)?;
        }
        return Ok(());
    }
    std::fs::rename(from, &path).context("rename to", &path)?;
    write.sql(|sql| {
        // A row of an earlier boot must not lend its old number to the new file (see `durable`).
        sql.prepare_cached("DELETE FROM blobs WHERE digest = ?1")?.execute([&text])?;
        let insert = "INSERT INTO blobs(digest, size, unsynced) VALUES (?1, ?2, ?3)";
        sql.prepare_cached(insert)?.execute(params![text, size_bytes.cast_signed(), boot])
    })?;
    Ok(())
}

/// A blob that is hashed while it is read; its last read fails if it is damaged.
#[derive(Debug)]
pub struct VerifiedBlob {
    file: File,
    /// `None` after the end was checked.
    hasher: Option<Hasher>,
    digest: Digest,
    path: PathBuf,
}

impl Read for VerifiedBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        if count > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&buffer[..count]);
            }
        } else if !buffer.is_empty()
            && let Some(hasher) = self.hasher.take()
        {
            let actual = hasher.finish();
            if actual != self.digest {
                let text = format!("the store is damaged: {}: its digest is {actual}", self.path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
        }
        Ok(count)
    }
}

/// `O_NOFOLLOW|O_NONBLOCK`: a blob replaced by a link or a FIFO must neither lead away nor block.
fn libc_nofollow_nonblock() -> i32 {
    (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed()
}
