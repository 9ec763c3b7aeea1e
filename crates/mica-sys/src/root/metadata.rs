//! Mode, owner, times and extended attributes of an entry itself: none of these calls follows a link
//! as last component (CVE-2021-32760, CVE-2026-33056).

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::{Root, c_path, split_last, trim};

/// A moment as file systems store it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// Nanoseconds after that second, below 1 000 000 000.
    pub nanoseconds: u32,
}

impl Root {
    /// Sets the permission bits (07777). Links have none: `Unsupported`.
    pub fn set_mode(&self, rel: &[u8], mode: u32) -> io::Result<()> {
        let (parent, name) = self.entry(rel)?;
        chmod_entry(parent.as_fd(), &name, mode)
    }

    /// Sets the owner of an entry; of a link, the link's own.
    pub fn set_owner(&self, rel: &[u8], uid: u32, gid: u32) -> io::Result<()> {
        // -1 would mean "leave as it is" to the kernel, which is not what an owner of 2^32-1 asks for.
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Errno::INVAL.into());
        }
        let (parent, name) = self.entry(rel)?;
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::chownat(&parent, &*name, Some(uid), Some(gid), flags)?)
    }

    /// Sets the modification time, and the access time to the same value.
    pub fn set_times(&self, rel: &[u8], mtime: Timestamp) -> io::Result<()> {
        let (parent, name) = self.entry(rel)?;
        let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::utimensat(&parent, &*name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Returns all extended attributes the caller may see; none where the file system has none.
    pub fn xattrs(&self, rel: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
        let handle = self.proc_path(rel)?;
        let mut found = BTreeMap::new();
        for name in names(&handle.path)?.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let c_name = c_path(name)?;
            // An attribute removed since the list was made is no error.
            if let Some(value) = value(&handle.path, &c_name)? {
                found.insert(name.to_vec(), value);
            }
        }
        Ok(found)
    }

    /// Sets one extended attribute.
    pub fn set_xattr(&self, rel: &[u8], name: &[u8], value: &[u8]) -> io::Result<()> {
        let handle = self.proc_path(rel)?;
        Ok(rustix::fs::lsetxattr(&*handle.path, &*c_path(name)?, value, XattrFlags::empty())?)
    }

    /// Removes one extended attribute.
    pub fn remove_xattr(&self, rel: &[u8], name: &[u8]) -> io::Result<()> {
        let handle = self.proc_path(rel)?;
        Ok(rustix::fs::lremovexattr(&*handle.path, &*c_path(name)?)?)
    }

    /// Returns descriptor and name for calls of the `*at` family; the root is (itself, ".").
    fn entry(&self, rel: &[u8]) -> io::Result<(OwnedFd, CString)> {
        if matches!(trim(rel), b"" | b".") {
            return Ok((self.as_fd().try_clone_to_owned()?, c".".to_owned()));
        }
        let (parent, name) = split_last(rel)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        Ok((self.open_at(parent, flags, Mode::empty())?, c_path(name)?))
    }

    /// Returns a path for the `l*xattr` calls, which exist for paths only (before Linux 6.13).
    ///
    /// `/proc/self/fd/N` leads to the parent we hold open, and the last component is not followed.
    fn proc_path(&self, rel: &[u8]) -> io::Result<ProcPath> {
        let (parent, name) = self.entry(rel)?;
        let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
        path.extend_from_slice(name.to_bytes());
        Ok(ProcPath { path: c_path(&path)?, _parent: parent })
    }
}

/// A path that is valid while the descriptor in it is open.
struct ProcPath {
    path: CString,
    _parent: OwnedFd,
}

/// Returns the attribute names of an entry, each followed by a NUL byte.
fn names(path: &CStr) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1024];
    loop {
        match rustix::fs::llistxattr(path, &mut buffer[..]) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
            Err(Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns the value of one attribute, `None` if there is none (any more).
fn value(path: &CStr, name: &CStr) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 256];
    loop {
        match rustix::fs::lgetxattr(path, name, &mut buffer[..]) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(Some(buffer));
            }
            Err(Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
            Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Not in every libc's list; the number is the same on all architectures.
const SYS_FCHMODAT2: libc::c_long = 452;

/// `fchmodat2(AT_SYMLINK_NOFOLLOW)` (Linux 6.6), or `chmod` of `/proc/self/fd/N` for an `O_PATH` descriptor
/// known not to be a link.
pub(super) fn chmod_entry(parent: BorrowedFd<'_>, name: &CStr, mode: u32) -> io::Result<()> {
    // SAFETY: the name is NUL-terminated and outlives the call; the kernel only reads it. The
    // descriptor is borrowed for the whole call.
    let rc = unsafe {
        libc::syscall(SYS_FCHMODAT2, parent.as_raw_fd(), name.as_ptr(), mode, libc::AT_SYMLINK_NOFOLLOW)
    };
    match crate::check(rc) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
        other => return other.map(drop),
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let entry = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&entry)?.st_mode) == FileType::Symlink {
        return Err(Errno::OPNOTSUPP.into());
    }
    let path = format!("/proc/self/fd/{}", entry.as_raw_fd());
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?)
}
