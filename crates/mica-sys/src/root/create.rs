//! Making entries: always by the descriptor of the parent, never through a link, never over
//! something that exists.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::walk::{Missing, Observer, Walk};
use super::{Root, c_path, trim};

/// What a mountpoint is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountpointKind {
    /// A file is mounted there.
    File,
    /// A directory is mounted there.
    Directory,
}

impl Root {
    /// Makes a directory with exactly this mode; its parent must exist.
    pub fn create_dir(&self, rel: &[u8], mode: u32) -> io::Result<()> {
        let (parent, name) = self.parent_of(rel)?;
        make_directory(parent.as_fd(), &name, mode).map(drop)
    }

    /// Makes a directory and the missing ones above it, following links inside the root (also one
    /// that points to nothing yet). Returns the real paths of those made, outermost first.
    pub fn create_dirs(&self, rel: &[u8], mode: u32) -> io::Result<Vec<Vec<u8>>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open_at(rel, flags, Mode::empty()) {
            Ok(_) => return Ok(Vec::new()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let mut walk = Walk::new(self.as_fd(), trim(rel))?;
        walk.finish(Missing::CreateDirectory(mode))?;
        Ok(walk.created)
    }

    /// Makes what is missing of a mountpoint: directories (0755) and, for a file, an empty one (0644) at
    /// the end. Links are followed inside the root, also those to nothing. `observer` learns of each
    /// entry before it is made: its parent, its name and its real path.
    pub fn create_mountpoint(
        &self,
        rel: &[u8],
        kind: MountpointKind,
        observer: Observer<'_>,
    ) -> io::Result<OwnedFd> {
        let mut walk = Walk::new(self.as_fd(), trim(rel))?;
        walk.file_at_end = kind == MountpointKind::File;
        walk.observer = Some(observer);
        walk.finish(Missing::CreateDirectory(0o755))?;
        let real = walk.path();
        self.open_at(&real, OFlags::PATH, Mode::empty())
    }

    /// Makes an empty file with exactly this mode and opens it for reading and writing.
    pub fn create_file(&self, rel: &[u8], mode: u32) -> io::Result<File> {
        let (parent, name) = self.parent_of(rel)?;
        make_file(parent.as_fd(), &name, mode).map(File::from)
    }

    /// Makes a symbolic link; the target is stored as given.
    pub fn symlink(&self, target: &[u8], rel: &[u8]) -> io::Result<()> {
        let (parent, name) = self.parent_of(rel)?;
        let target = CString::new(target).map_err(|_| io::Error::from(Errno::INVAL))?;
        Ok(rustix::fs::symlinkat(&*target, &parent, &*c_path(&name)?)?)
    }

    /// Gives an existing entry a second name; if it is a link, the link itself.
    pub fn hard_link(&self, existing: &[u8], rel: &[u8]) -> io::Result<()> {
        let (old_parent, old_name) = self.parent_of(existing)?;
        let (parent, name) = self.parent_of(rel)?;
        let (old_name, name) = (c_path(&old_name)?, c_path(&name)?);
        Ok(rustix::fs::linkat(&old_parent, &*old_name, &parent, &*name, AtFlags::empty())?)
    }

    /// Makes a device, FIFO or socket node with exactly this mode.
    pub fn mknod(&self, rel: &[u8], kind: FileType, mode: u32, major: u32, minor: u32) -> io::Result<()> {
        let (parent, name) = self.parent_of(rel)?;
        let name = c_path(&name)?;
        let device = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(&parent, &*name, kind, Mode::from_raw_mode(mode), device)?;
        super::metadata::chmod_entry(parent.as_fd(), &name, mode)
    }
}

/// Makes a directory and opens it. The mode is set by `fchmod`, so the caller's umask has no say.
pub(super) fn make_directory(parent: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<OwnedFd> {
    let name = c_path(name)?;
    rustix::fs::mkdirat(parent, &*name, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(parent, &*name, flags, Mode::empty())?;
    if mode != 0o700 {
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode))?;
    }
    Ok(directory)
}

/// Makes an empty file and opens it.
pub(super) fn make_file(parent: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, &*c_path(name)?, flags, Mode::RUSR | Mode::WUSR)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    Ok(file)
}
