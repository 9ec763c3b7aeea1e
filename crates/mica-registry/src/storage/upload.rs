//! Uploads: bytes that have no name yet.
//!
//! An upload is one file, named after a hash of its id, repository and owner: whoever knows the id but comes with
//! another repository finds nothing. Its length is how far the upload is, so that a registry that was killed goes on
//! with every upload where its file ends. The hash of what is in the file is kept in memory between requests, and is
//! computed again from the file after a restart.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use mica_oci::{Algorithm, Digest, Hasher, Repository};

use super::layout::Layout;
use crate::route::UploadId;

/// Read at once when a file is hashed.
const READ_BYTES: usize = 256 << 10;

/// The file name of an upload: 32 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct UploadKey(String);

/// Every upload that is under way.
pub(crate) struct Uploads {
    layout: Layout,
    open: Mutex<HashMap<UploadKey, Shared>>,
}

/// An upload that one request at a time works on.
pub(crate) type Shared = Arc<tokio::sync::Mutex<Upload>>;

/// The bytes of a blob so far.
#[derive(Debug)]
pub(crate) struct Upload {
    key: UploadKey,
    path: PathBuf,
    length: u64,
    /// Of the first `length` bytes; `None` if that is not known.
    hasher: Option<Hasher>,
    /// Set when the upload has become a blob or was given up while somebody waited for it.
    is_over: bool,
}

impl UploadKey {
    /// The upload that `owner` began in a repository.
    pub(crate) fn new(id: &UploadId, repository: &Repository, owner: &str) -> Self {
        let digest = Digest::of(format!("{}\0{repository}\0{owner}", id.as_str()).as_bytes());
        Self(digest.hex()[..32].to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Uploads {
    pub(super) fn new(layout: Layout) -> Self {
        Self { layout, open: Mutex::default() }
    }

    /// Begins an upload.
    pub(crate) fn create(&self, key: &UploadKey) -> io::Result<Shared> {
        let path = self.layout.upload(key);
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let hasher = Some(Hasher::new(Algorithm::Sha256));
        let upload = Upload { key: key.clone(), path, length: 0, hasher, is_over: false };
        let shared = Arc::new(tokio::sync::Mutex::new(upload));
        self.lock().insert(key.clone(), Arc::clone(&shared));
        Ok(shared)
    }

    /// An upload that was begun before, perhaps by a process that was killed.
    pub(crate) fn find(&self, key: &UploadKey) -> io::Result<Option<Shared>> {
        let mut open = self.lock();
        if let Some(shared) = open.get(key) {
            return Ok(Some(Arc::clone(shared)));
        }
        let path = self.layout.upload(key);
        let length = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let upload = Upload { key: key.clone(), path, length, hasher: None, is_over: false };
        let shared = Arc::new(tokio::sync::Mutex::new(upload));
        open.insert(key.clone(), Arc::clone(&shared));
        Ok(Some(shared))
    }

    /// Forgets an upload whose file was renamed or is not wanted any more.
    pub(crate) fn end(&self, upload: &mut Upload) {
        upload.is_over = true;
        // Renamed already, when it has become a blob.
        let _renamed = std::fs::remove_file(&upload.path);
        self.lock().remove(&upload.key);
    }

    /// Removes uploads that got no byte for `age`; returns how many.
    pub(crate) fn purge(&self, age: Duration) -> io::Result<usize> {
        let mut purged = 0;
        for entry in std::fs::read_dir(self.layout.uploads())? {
            let entry = entry?;
            let key = UploadKey(entry.file_name().to_string_lossy().into_owned());
            let mut open = self.lock();
            // In use: somebody has a handle beside the table's.
            if open.get(&key).is_some_and(|shared| Arc::strong_count(shared) > 1) {
                continue;
            }
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let idle = modified.ok().and_then(|time| SystemTime::now().duration_since(time).ok());
            if idle.is_some_and(|idle| idle >= age) {
                open.remove(&key);
                std::fs::remove_file(entry.path())?;
                purged += 1;
            }
        }
        Ok(purged)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UploadKey, Shared>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Upload {
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    /// Opens the end of the file for writing. Blocks.
    pub(crate) fn appender(&mut self) -> io::Result<Appender<'_>> {
        let file = OpenOptions::new().read(true).append(true).open(&self.path)?;
        if file.metadata()?.len() != self.length {
            // A write that failed half-way: what was counted is what counts.
            file.set_len(self.length)?;
        }
        if self.hasher.is_none() {
            self.hasher = Some(hash_file(&file, Algorithm::Sha256)?);
        }
        Ok(Appender { file, upload: self })
    }

    /// Cuts the file to an earlier length.
    pub(crate) fn truncate(&mut self, length: u64) -> io::Result<()> {
        OpenOptions::new().write(true).open(&self.path)?.set_len(length)?;
        self.length = length;
        self.hasher = None;
        Ok(())
    }

    /// Makes the file durable and returns its digest. Blocks.
    pub(crate) fn seal(&mut self, algorithm: Algorithm) -> io::Result<Digest> {
        let file = File::open(&self.path)?;
        file.sync_data()?;
        match (&self.hasher, algorithm) {
            (Some(hasher), Algorithm::Sha256) => Ok(hasher.clone().finish()),
            _ => Ok(hash_file(&file, algorithm)?.finish()),
        }
    }
}

/// Writes to the end of an upload.
pub(crate) struct Appender<'a> {
    file: File,
    upload: &'a mut Upload,
}

impl Appender<'_> {
    /// Asks for room, so that a disk that is too small is noticed before the bytes travel.
    pub(crate) fn reserve(&self, bytes: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.upload.length, bytes) {
            Ok(()) => Ok(()),
            Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(errno.into()),
            // File systems that cannot tell in advance tell later.
            Err(_) => Ok(()),
        }
    }

    /// Adds bytes; on failure those that are counted stay.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        if let Some(hasher) = &mut self.upload.hasher {
            hasher.update(bytes);
        }
        self.upload.length += bytes.len() as u64;
        Ok(())
    }
}

fn hash_file(mut file: &File, algorithm: Algorithm) -> io::Result<Hasher> {
    io::Seek::rewind(&mut file)?;
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher),
            length => hasher.update(&buffer[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uploads() -> (tempfile::TempDir, Uploads) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(folder.path().to_owned());
        std::fs::create_dir(layout.uploads()).unwrap();
        (folder, Uploads::new(layout))
    }

    fn key(repository: &str) -> UploadKey {
        let id = UploadId::parse(&"ab".repeat(16)).unwrap();
        UploadKey::new(&id, &repository.parse().unwrap(), "")
    }

    #[test]
    fn an_upload_goes_on_after_a_restart_and_has_the_digest_of_all_its_bytes() {
        let (folder, uploads) = uploads();
        let shared = uploads.create(&key("a")).unwrap();
        shared.try_lock().unwrap().appender().unwrap().append(b"hello ").unwrap();
        let after = Uploads::new(Layout::new(folder.path().to_owned()));
        let shared = after.find(&key("a")).unwrap().unwrap();
        let mut upload = shared.try_lock().unwrap();
        assert_eq!(upload.length(), 6);
        upload.appender().unwrap().append(b"world").unwrap();
        assert_eq!(upload.seal(Algorithm::Sha256).unwrap(), Digest::of(b"hello world"));
        assert_eq!(upload.seal(Algorithm::Sha512).unwrap().algorithm(), Algorithm::Sha512);
    }

    #[test]
    fn the_id_of_another_repository_or_owner_leads_nowhere() {
        let (_folder, uploads) = uploads();
        uploads.create(&key("a")).unwrap();
        assert!(uploads.find(&key("b")).unwrap().is_none());
    }

    #[test]
    fn old_uploads_are_purged_and_those_in_use_are_not() {
        let (_folder, uploads) = uploads();
        let held = uploads.create(&key("a")).unwrap();
        uploads.create(&key("b")).unwrap();
        assert_eq!(uploads.purge(Duration::ZERO).unwrap(), 1);
        assert!(uploads.find(&key("a")).unwrap().is_some());
        assert!(uploads.find(&key("b")).unwrap().is_none());
        drop(held);
        assert_eq!(uploads.purge(Duration::ZERO).unwrap(), 1);
    }

    #[test]
    fn truncated_bytes_do_not_count() {
        let (_folder, uploads) = uploads();
        let shared = uploads.create(&key("a")).unwrap();
        let mut upload = shared.try_lock().unwrap();
        upload.appender().unwrap().append(b"abcdef").unwrap();
        upload.truncate(3).unwrap();
        upload.appender().unwrap().append(b"x").unwrap();
        assert_eq!(upload.seal(Algorithm::Sha256).unwrap(), Digest::of(b"abcx"));
    }
}
