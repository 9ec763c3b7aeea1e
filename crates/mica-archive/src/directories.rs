//! Keeps the descriptors of the directories on the way to the current path, so that a sorted walk opens each
//! directory once.
//!
//! Every step is one `openat2(RESOLVE_NO_SYMLINKS)` from a descriptor already held: paths given here are real paths, and
//! a link on the way means that somebody changed the directory meanwhile. Nothing is ever followed.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mica_sys::root::Root;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::path;

/// Descriptors held at most; of more the outermost are closed.
const HELD: usize = 64;

/// A cache of open directories below one root.
pub struct Directories<'a> {
    root: &'a Root,
    /// Path of the directory the deepest descriptor is for.
    path: Vec<u8>,
    /// Open directories on `path`, outermost first: length of the prefix, descriptor.
    held: Vec<(usize, OwnedFd)>,
}

impl<'a> Directories<'a> {
    /// Holds nothing open yet.
    pub fn new(root: &'a Root) -> Self {
        Self { root, path: Vec::new(), held: Vec::new() }
    }

    pub(crate) fn root(&self) -> &'a Root {
        self.root
    }

    /// Forgets a directory and everything below it; needed after it was removed or replaced.
    pub(crate) fn forget(&mut self, gone: &[u8]) {
        while let Some((length, _)) = self.held.last() {
            let held = &self.path[..*length];
            if held != gone && !path::is_below(held, gone) {
                break;
            }
            self.held.pop();
        }
    }

    /// Returns the descriptor of a directory (`O_PATH`).
    pub(crate) fn get(&mut self, directory: &[u8]) -> io::Result<BorrowedFd<'_>> {
        while let Some((length, _)) = self.held.last() {
            let held = &self.path[..*length];
            if held == directory || path::is_below(directory, held) {
                break;
            }
            self.held.pop();
        }
        let done = self.held.last().map_or(0, |(length, _)| *length);
        let rest = directory[done..].strip_prefix(b"/").unwrap_or(&directory[done..]);
        if !rest.is_empty() {
            let next = open_below(self.deepest(), rest)?;
            if self.held.len() == HELD {
                self.held.remove(0);
            }
            self.held.push((directory.len(), next));
            self.path.clear();
            self.path.extend_from_slice(directory);
        }
        Ok(self.deepest())
    }

    /// Returns the descriptor of the directory a path is in, and its last component for the kernel.
    ///
    /// # Errors
    /// When a directory on the way is missing, or is a link.
    pub fn parent<'p>(&mut self, path: &'p [u8]) -> io::Result<(BorrowedFd<'_>, &'p [u8])> {
        let parent = path::parent(path).ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.get(parent)?, path::file_name(path)))
    }

    /// Opens a regular file for reading; returns it with its size. Never blocks.
    pub(crate) fn open_file(&mut self, path: &[u8]) -> io::Result<(File, u64)> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = rustix::fs::openat(parent, c_name(name)?.as_c_str(), flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok((File::from(file), stat.st_size.cast_unsigned()))
    }

    fn deepest(&self) -> BorrowedFd<'_> {
        self.held.last().map_or_else(|| self.root.as_fd(), |(_, fd)| fd.as_fd())
    }
}

/// Opens a directory several components down (`O_PATH`), none of which may be a link.
fn open_below(parent: BorrowedFd<'_>, rest: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(parent, c_name(rest)?.as_c_str(), flags, Mode::empty(), resolve) {
        // Linux before 5.6, a seccomp profile that does not know the call, or a rename elsewhere meanwhile.
        Err(Errno::NOSYS | Errno::PERM | Errno::AGAIN) => {}
        other => return Ok(other?),
    }
    let mut names = path::components(rest);
    let first = names.next().ok_or(io::ErrorKind::InvalidInput)?;
    let mut directory = open_directory(parent, first, OFlags::PATH)?;
    for name in names {
        directory = open_directory(directory.as_fd(), name, OFlags::PATH)?;
    }
    Ok(directory)
}

/// Opens a directory that must be one and no link to one.
pub(crate) fn open_directory(parent: BorrowedFd<'_>, name: &[u8], mode: OFlags) -> io::Result<OwnedFd> {
    let flags = mode | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, c_name(name)?.as_c_str(), flags, Mode::empty())?)
}

/// A component for the kernel.
pub(crate) fn c_name(name: &[u8]) -> io::Result<CString> {
    CString::new(name).map_err(|_| io::ErrorKind::InvalidInput.into())
}
