//! Locks between processes: flock on files of the store root, so that two processes can never lock different files.
//!
//! The kernel drops a flock when its holder dies, however it dies; nothing has to be repaired. A lock file is removed
//! by its holder, so whoever gets a lock checks that the file it locked is still the one of that name.
//! Nobody blocks in flock(2): waiting is polling, because a waiter must notice that the user cancelled.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::Store;
use crate::error::{IoContext as _, StoreError};
use crate::{files, layout};

/// The first pause between two attempts; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// How a file is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

/// Tries to lock the file at `path`, which is created if it is missing.
///
/// `None` if somebody else holds it. The file returned is the one that `path` names while the lock is held.
pub(crate) fn try_lock(path: &Path, mode: Mode) -> Result<Option<File>, StoreError> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .context("open the lock file", path)?;
        if !try_flock(&file, mode).context("lock", path)? {
            return Ok(None);
        }
        if still_named(&file, path).context("inspect the lock file", path)? {
            return Ok(Some(file));
        }
    }
}

/// Locks an open file if nobody else does.
pub(crate) fn try_flock(file: &File, mode: Mode) -> io::Result<bool> {
    let operation = match mode {
        Mode::Shared => FlockOperation::NonBlockingLockShared,
        Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match flock(file, operation) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether `path` still names `file`: its last holder may have removed it between our open and our lock.
pub(crate) fn still_named(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Repeats `attempt` with growing pauses until it has a result or `is_cancelled`.
pub(crate) fn poll<T>(
    is_cancelled: &dyn Fn() -> bool,
    mut attempt: impl FnMut() -> Result<Option<T>, StoreError>,
) -> Result<T, StoreError> {
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        if is_cancelled() {
            return Err(StoreError::Cancelled);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A name that at most one process can hold: a content key being built, the collector, a context mirror.
#[derive(Debug, Clone)]
pub struct Lock {
    path: PathBuf,
}

/// How waiting for a lock ended.
#[derive(Debug)]
pub enum Waited {
    /// We hold it.
    Acquired(LockFile),
    /// The holder we waited for left this note; nobody holds the lock through us.
    Note(Vec<u8>),
}

/// A held [`Lock`]; dropped, or its process dead, means released.
#[derive(Debug)]
pub struct LockFile {
    /// Held for its flock.
    file: File,
    path: PathBuf,
}

impl Store {
    /// Names a lock; takes nothing yet.
    ///
    /// Names of hex digits, letters, `-` and `_` are used as they are, others are hashed.
    pub fn lock(&self, name: &str) -> Lock {
        let plain = !name.is_empty()
            && name.len() <= 128
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        let file = if plain { name.to_owned() } else { layout::hash_name(name.as_bytes()) };
        Lock::at(self.state().locks().join(file))
    }
}

impl Lock {
    /// A lock on a file of the layout.
    pub(crate) fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Takes the lock if nobody holds it.
    pub fn try_acquire(&self) -> Result<Option<LockFile>, StoreError> {
        let Some(mut file) = try_lock(&self.path, Mode::Exclusive)? else { return Ok(None) };
        let write = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        // The pid inside is for people; on a full disk the lock works without it.
        drop(write);
        Ok(Some(LockFile { file, path: self.path.clone() }))
    }

    /// Waits for the lock.
    ///
    /// # Errors
    /// [`StoreError::Cancelled`] as soon as `is_cancelled` says so; it is asked at least every 50 ms.
    pub fn wait(&self, is_cancelled: &dyn Fn() -> bool) -> Result<LockFile, StoreError> {
        poll(is_cancelled, || self.try_acquire())
    }

    /// Waits for the lock, or for the note that its holder leaves when it gives up.
    ///
    /// Only a holder that was there when the waiting began is heard: who comes later tries again.
    pub fn wait_or_note(&self, is_cancelled: &dyn Fn() -> bool) -> Result<Waited, StoreError> {
        let mut watched: Option<File> = None;
        poll(is_cancelled, || {
            if let Some(held) = self.try_acquire()? {
                // The note outlives the name of the file for those who have the file open.
                let note = watched.take().map(|file| read_note(&file)).unwrap_or_default();
                return Ok(Some(if note.is_empty() { Waited::Acquired(held) } else { Waited::Note(note) }));
            }
            if watched.is_none() {
                watched = File::open(&self.path).ok();
            }
            Ok(None)
        })
    }

    /// The process that holds the lock, for a message; `None` if nobody does or the file does not say.
    pub fn holder(&self) -> Option<u32> {
        let mut text = String::new();
        File::open(&self.path).ok()?.take(NOTE_OFFSET).read_to_string(&mut text).ok()?;
        text.trim_matches(['\0', ' ', '\n']).parse().ok()
    }
}

impl LockFile {
    /// Leaves a note that those who are waiting can read, for example why the work failed.
    ///
    /// The note dies with the file: only processes that have it open already, that is who waits now, see it.
    pub fn leave_note(&self, note: &[u8]) -> io::Result<()> {
        self.file.write_all_at(note, NOTE_OFFSET)
    }
}

/// Where a note starts in a lock file: after the pid.
const NOTE_OFFSET: u64 = 16;
/// The longest note that is read.
const NOTE_BYTES: u64 = 64 * 1024;

fn read_note(file: &File) -> Vec<u8> {
    let mut note = Vec::new();
    let mut rest = file;
    // A note that cannot be read is no note: the waiter does the work itself.
    let read = std::io::Seek::seek(&mut rest, io::SeekFrom::Start(NOTE_OFFSET))
        .and_then(|_| rest.take(NOTE_BYTES).read_to_end(&mut note));
    if read.is_ok() { note } else { Vec::new() }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // Removed while still locked, so that nobody can hold the lock on a file that is about to vanish. If it
        // cannot be removed it stays behind unlocked, and the collector removes it.
        let _ = files::remove_file(&self.path);
    }
}
