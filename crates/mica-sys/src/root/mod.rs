//! Look-ups inside a root file system whose content nobody vouches for.
//!
//! Every path is bytes with `/` between components; leading and trailing slashes mean nothing, and
//! neither `..` nor any symbolic link leads out of the root. Nothing here joins strings to a host
//! path: a look-up is one `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)`, and what follows works on
//! the descriptor it gave, so that a component exchanged meanwhile changes nothing.
//!
//! Kernels before 5.6, and seccomp profiles that do not know `openat2`, get the component walk of
//! [`walk`] instead; it gives the same answers.

mod create;
mod metadata;
mod remove;
mod walk;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

pub use create::MountpointKind;
pub use metadata::Timestamp;
pub use walk::Observer;

/// How often a look-up is repeated when the kernel says that a rename or mount raced with it.
const RACE_RETRIES: u32 = 128;

/// A directory that is the root of untrusted paths.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirItem {
    /// Name without any slash.
    pub name: Vec<u8>,
    /// Type of the entry itself (a link is a link).
    pub file_type: FileType,
}

impl Root {
    /// Opens a directory of the host as a root. The host path is trusted and its links are followed.
    pub fn open(host: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(host, flags, Mode::empty())?))
    }

    /// Makes a root of an open directory (for instance the descriptor of a detached mount).
    pub fn from_fd(directory: OwnedFd) -> Self {
        Self(directory)
    }

    /// Returns the descriptor of the root directory.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Returns a second handle to the same root.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self(self.0.try_clone()?))
    }

    /// Opens what a path names, following links inside the root; `O_CLOEXEC` is added.
    pub fn open_at(&self, rel: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let rel = trim(rel);
        let flags = flags | OFlags::CLOEXEC;
        if !openat2_works(self.as_fd()) {
            return walk::open(self.as_fd(), rel, flags, mode);
        }
        let path = c_path(rel)?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RACE_RETRIES {
            match rustix::fs::openat2(&self.0, &*path, flags, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Returns the directory an entry is in (links on the way followed) and the entry's own name.
    ///
    /// # Errors
    /// `InvalidInput` if the path has no last component of its own (`""`, `.`, `..`).
    pub fn parent_of(&self, rel: &[u8]) -> io::Result<(OwnedFd, Vec<u8>)> {
        let (parent, name) = split_last(rel)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        Ok((self.open_at(parent, flags, Mode::empty())?, name.to_vec()))
    }

    /// Returns the metadata of what a path names, links followed.
    pub fn stat(&self, rel: &[u8]) -> io::Result<Stat> {
        let file = self.open_at(rel, OFlags::PATH, Mode::empty())?;
        Ok(rustix::fs::fstat(&file)?)
    }

    /// Returns the metadata of an entry itself.
    pub fn lstat(&self, rel: &[u8]) -> io::Result<Stat> {
        let file = self.open_at(rel, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(rustix::fs::fstat(&file)?)
    }

    /// Returns the path without links and dots that names the same entry; `""` is the root.
    pub fn resolve(&self, rel: &[u8]) -> io::Result<Vec<u8>> {
        walk::resolve(self.as_fd(), trim(rel))
    }

    /// Reads a regular file whole.
    ///
    /// # Errors
    /// `InvalidData` if it is larger than `limit_bytes`, `InvalidInput` if it is not a regular file.
    pub fn read(&self, rel: &[u8], limit_bytes: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.open_file(rel)?;
        file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit_bytes {
            let text = format!("file is larger than {limit_bytes} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        Ok(bytes)
    }

    /// Opens a regular file for reading, links followed; never blocks on a FIFO or a device.
    pub fn open_file(&self, rel: &[u8]) -> io::Result<File> {
        self.open_regular(rel, OFlags::empty())
    }

    /// Opens a regular file for reading; a link as last component is refused with `ELOOP`.
    pub fn open_file_nofollow(&self, rel: &[u8]) -> io::Result<File> {
        self.open_regular(rel, OFlags::NOFOLLOW)
    }

    fn open_regular(&self, rel: &[u8], extra: OFlags) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | extra;
        let file = self.open_at(rel, flags, Mode::empty())?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode);
        if kind != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(File::from(file))
    }

    /// Returns the target of a symbolic link, unread.
    pub fn read_link(&self, rel: &[u8]) -> io::Result<Vec<u8>> {
        let link = self.open_at(rel, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty())?;
        Ok(rustix::fs::readlinkat(&link, c"", Vec::new())?.into_bytes())
    }

    /// Returns the entries of a directory, sorted by name.
    pub fn read_dir(&self, rel: &[u8]) -> io::Result<Vec<DirItem>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let mut items = list(self.open_at(rel, flags, Mode::empty())?.as_fd())?;
        items.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        Ok(items)
    }
}

/// Reads a directory that is already open, in the kernel's order.
fn list(directory: BorrowedFd<'_>) -> io::Result<Vec<DirItem>> {
    let mut items = Vec::new();
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut reader = rustix::fs::RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = reader.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let mut file_type = entry.file_type();
        if file_type == FileType::Unknown {
            let stat = rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            file_type = FileType::from_raw_mode(stat.st_mode);
        }
        items.push(DirItem { name: name.to_bytes().to_vec(), file_type });
    }
    Ok(items)
}

/// Strips the slashes around a path: `O_NOFOLLOW` means nothing on `link/` (CVE-2026-39822).
fn trim(rel: &[u8]) -> &[u8] {
    let start = rel.iter().position(|&byte| byte != b'/').unwrap_or(rel.len());
    let end = rel.iter().rposition(|&byte| byte != b'/').map_or(start, |last| last + 1);
    &rel[start..end]
}

/// Splits a path into the path of its directory and its last component.
fn split_last(rel: &[u8]) -> io::Result<(&[u8], &[u8])> {
    let rel = trim(rel);
    let (parent, name) = match rel.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&rel[..slash], &rel[slash + 1..]),
        None => (&rel[..0], rel),
    };
    if matches!(name, b"" | b"." | b"..") {
        let text = "the path does not name an entry of a directory";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok((parent, name))
}

/// Returns a path for the kernel; the empty path is the root itself.
fn c_path(rel: &[u8]) -> io::Result<CString> {
    let bytes = if rel.is_empty() { b"." } else { rel };
    CString::new(bytes).map_err(|_| io::Error::from(Errno::INVAL))
}

/// Asks the kernel once per process whether `openat2` may be used.
///
/// A seccomp profile that does not know the call answers `ENOSYS` or `EPERM`; opening `.` of a directory
/// that is open already cannot be refused otherwise.
fn openat2_works(directory: BorrowedFd<'_>) -> bool {
    static STATE: AtomicU8 = AtomicU8::new(0);
    match STATE.load(Ordering::Relaxed) {
        1 => return true,
        2 => return false,
        _ => {}
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let probe = rustix::fs::openat2(directory, c".", flags, Mode::empty(), ResolveFlags::IN_ROOT);
    let works = !matches!(probe, Err(Errno::NOSYS | Errno::PERM));
    STATE.store(if works { 1 } else { 2 }, Ordering::Relaxed);
    works
}

#[cfg(test)]
mod tests;
