//! Creates what members describe, each through the descriptor of its directory and the last component alone.
//!
//! Nothing here follows a link or opens something that existed: files are created `O_EXCL | O_NOFOLLOW`, metadata goes
//! through the descriptor of the file just created (security.md rows 2 to 4).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use mica_sys::root::Timestamp;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::ApplyError;
use crate::directories::c_name;
use crate::entry::{ContentDigest, Entry, keeps_xattr};
use crate::limits::Cancelled;
use crate::owners::OwnerPolicy;
use crate::tar::TarReader;
use crate::tar::read::Literals;

/// Owner, mode, time and attributes to give to something just created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Timestamp,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The metadata of an entry.
pub(crate) fn metadata(entry: &Entry) -> Metadata {
    let Entry { mode, uid, gid, mtime, .. } = *entry;
    Metadata { mode, uid, gid, mtime, xattrs: entry.xattrs.clone() }
}

/// How metadata is put on disk, and what could not be.
#[derive(Debug)]
pub(crate) struct Applier {
    owners: OwnerPolicy,
    /// New files belong to this owner already, so most need no chown.
    own: (u32, u32),
    /// Attributes left out: not of a kind that layers keep, or refused by the file system.
    pub(crate) skipped_xattrs: u64,
}

impl Applier {
    pub(crate) fn new(owners: OwnerPolicy) -> Self {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { owners, own, skipped_xattrs: 0 }
    }

    /// Drops the attributes that do not belong into a layer.
    pub(crate) fn filter(&mut self, xattrs: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
        let before = xattrs.len();
        xattrs.retain(|name, _| keeps_xattr(name));
        self.skipped_xattrs += (before - xattrs.len()) as u64;
    }

    /// Sets everything on an open file or directory. The order matters: chown clears setuid bits and capabilities.
    ///
    /// `created` says that nobody but us can have set the owner.
    pub(crate) fn set(&mut self, file: BorrowedFd<'_>, metadata: &Metadata, created: bool) -> io::Result<()> {
        let owner = (metadata.uid, metadata.gid);
        if self.owners == OwnerPolicy::Exact && !(created && owner == self.own) {
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(metadata.mode))?;
        for (name, value) in &metadata.xattrs {
            match rustix::fs::fsetxattr(file, c_name(name)?.as_c_str(), value, XattrFlags::empty()) {
                // The table has it all the same; a file system without attributes can still hold the rest.
                Err(Errno::NOTSUP | Errno::PERM | Errno::NOSPC | Errno::TOOBIG) => self.skipped_xattrs += 1,
                other => other?,
            }
        }
        Ok(rustix::fs::futimens(file, &times(metadata.mtime))?)
    }

    /// Sets owner and time of a link, device or pipe; the mode is set where it was created.
    fn set_entry(&self, parent: BorrowedFd<'_>, name: &[u8], metadata: &Metadata) -> io::Result<()> {
        let name = c_name(name)?;
        if self.owners == OwnerPolicy::Exact && (metadata.uid, metadata.gid) != self.own {
            let (uid, gid) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
            rustix::fs::chownat(parent, &*name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        let times = times(metadata.mtime);
        Ok(rustix::fs::utimensat(parent, &*name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    pub(crate) fn symlink(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        target: &[u8],
        metadata: &Metadata,
    ) -> io::Result<()> {
        rustix::fs::symlinkat(c_name(target)?.as_c_str(), parent, c_name(name)?.as_c_str())?;
        self.set_entry(parent, name, metadata)
    }

    /// Makes a device or pipe. It gets its mode by descriptor: the umask takes bits away from mknod(2).
    pub(crate) fn node(
        &self,
        parent: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
        device: (u32, u32),
        metadata: &Metadata,
    ) -> io::Result<()> {
        // A root for one look-up: `set_mode` of an entry that is a link is refused there.
        let directory = mica_sys::root::Root::from_fd(parent.try_clone_to_owned()?);
        directory.mknod(name, kind, 0o600, device.0, device.1)?;
        self.set_entry(parent, name, metadata)?;
        directory.set_mode(name, metadata.mode)
    }
}

/// Access and modification time, both `mtime`: nothing else is known, and "now" would differ each time.
fn times(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Creates a file for writing; it must not exist.
pub(crate) fn create(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, c_name(name)?.as_c_str(), flags, Mode::from_raw_mode(0o600))?;
    Ok(File::from(file))
}

/// Creates a directory that only we may enter until its metadata is set.
pub(crate) fn make_directory(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::mkdirat(parent, c_name(name)?.as_c_str(), Mode::from_raw_mode(0o700))?)
}

/// A stored region that was copied: offset in the file and length.
pub(crate) type Copied = (u64, u64);

/// Copies the data of the current member into `file`, holes as holes; returns the digest of the whole content.
///
/// `copied` hears of each region, in the order of the stream.
pub(crate) fn copy_data<R: BufRead, L: Literals>(
    reader: &mut TarReader<R, L>,
    file: &File,
    size: u64,
    cancel: Cancelled<'_>,
    mut copied: impl FnMut(&mut L, Copied),
) -> Result<ContentDigest, CopyError> {
    let mut hasher = blake3::Hasher::new();
    let mut end = 0;
    let mut region: Option<Copied> = None;
    while let Some(data) = reader.data().map_err(ApplyError::from)? {
        if cancel() {
            return Err(ApplyError::Cancelled.into());
        }
        hash_hole(&mut hasher, data.offset - end, cancel)?;
        hasher.update(data.bytes);
        file.write_all_at(data.bytes, data.offset).map_err(CopyError::Write)?;
        let length = data.bytes.len() as u64;
        let offset = data.offset;
        end = offset + length;
        region = match region {
            Some((start, so_far)) if start + so_far == offset => Some((start, so_far + length)),
            Some(done) => {
                copied(reader.literals(), done);
                Some((offset, length))
            }
            None => Some((offset, length)),
        };
    }
    if let Some(done) = region {
        copied(reader.literals(), done);
    }
    if end < size {
        hash_hole(&mut hasher, size - end, cancel)?;
        rustix::fs::ftruncate(file.as_fd(), size).map_err(|error| CopyError::Write(error.into()))?;
    }
    Ok(ContentDigest(*hasher.finalize().as_bytes()))
}

/// Why data could not be copied: the archive's fault, or the disk's.
#[derive(Debug)]
pub(crate) enum CopyError {
    Archive(ApplyError),
    Write(io::Error),
}

impl From<ApplyError> for CopyError {
    fn from(error: ApplyError) -> Self {
        Self::Archive(error)
    }
}

fn hash_hole(hasher: &mut blake3::Hasher, mut bytes: u64, cancel: Cancelled<'_>) -> Result<(), CopyError> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while bytes > 0 {
        if cancel() {
            return Err(ApplyError::Cancelled.into());
        }
        let length = bytes.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..length as usize]);
        bytes -= length;
    }
    Ok(())
}
