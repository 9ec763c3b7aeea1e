//! Journals: one file of events per build, written by one process and read by any.
//!
//! The store only knows where they are and which may go; what is inside belongs to the build.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::error::{IoContext as _, StoreError};
use crate::lock::{self, Mode};
use crate::{Store, files};

/// A journal on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalRecord {
    /// The id it was created with.
    pub id: String,
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub size_bytes: u64,
    /// When it was last written to.
    pub modified: SystemTime,
}

impl Store {
    /// Creates a journal, open for appending. Its writer holds a shared flock on it, so that it is not removed.
    ///
    /// `id` is hex digits, letters, `-` and `_`; it must be new.
    pub fn create_journal(&self, id: &str) -> Result<File, StoreError> {
        let path = self.journal_path(id);
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .context("create", &path)?;
        lock::try_flock(&file, Mode::Shared).context("lock", &path)?;
        Ok(file)
    }

    /// Where the journal `id` is; ids that are no plain words are hashed.
    pub fn journal_path(&self, id: &str) -> PathBuf {
        let plain = !id.is_empty()
            && id.len() <= 128
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        let name = if plain { id.to_owned() } else { crate::layout::hash_name(id.as_bytes()) };
        self.state().journals().join(name)
    }

    /// Returns all journals, oldest first. Scans a directory: not for the default path.
    pub fn journals(&self) -> Result<Vec<JournalRecord>, StoreError> {
        let directory = self.state().journals();
        let mut journals = Vec::new();
        for id in files::list(&directory).context("list", &directory)? {
            let path = directory.join(&id);
            // Removed between the listing and here: not a journal any more.
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            journals.push(JournalRecord { id, path, size_bytes: metadata.len(), modified });
        }
        journals.sort_by_key(|journal| journal.modified);
        Ok(journals)
    }

    /// How many journals there are.
    pub fn journal_count(&self) -> Result<usize, StoreError> {
        let directory = self.state().journals();
        Ok(files::list(&directory).context("list", &directory)?.len())
    }

    /// Removes a journal; `false` if its build is still running.
    pub fn remove_journal(&self, id: &str) -> Result<bool, StoreError> {
        let path = self.journal_path(id);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(error).context("open", &path),
        };
        if !lock::try_flock(&file, Mode::Exclusive).context("lock", &path)? {
            return Ok(false);
        }
        files::remove_file(&path).context("remove", &path)?;
        Ok(true)
    }
}
