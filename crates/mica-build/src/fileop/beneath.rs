//! Writing past a mount, into the directory that it writes to.
//!
//! Below a directory that the operation made itself, nothing shows through: what is there is what it put there. Going
//! through overlayfs would cost as much again as the file itself, and a file cannot be linked into a mount from outside.
//!
//! # Invariants
//! 1. Only what is strictly below a directory made through the mount is written past it, and then everything is: the
//!    mount never learns a name (or its absence) before it is there.

use std::collections::HashSet;
use std::fs::File;
use std::io;

use mica_archive::{Directories, path};
use mica_sys::root::Root;
use rustix::fs::{AtFlags, Mode, OFlags};

/// The directory that a mount writes to.
pub(super) struct Beneath<'a> {
    root: &'a Root,
    directories: Directories<'a>,
    /// Directories made through the mount.
    made: HashSet<Vec<u8>>,
}

impl<'a> Beneath<'a> {
    pub(super) fn new(root: &'a Root) -> Self {
        Self { root, directories: Directories::new(root), made: HashSet::new() }
    }

    /// The directory, for a path that may be written here.
    pub(super) fn root_for(&self, path: &[u8]) -> Option<&'a Root> {
        self.covers(path).then_some(self.root)
    }

    /// Whether a path is below a directory that was made.
    pub(super) fn covers(&self, path: &[u8]) -> bool {
        let mut above = path::parent(path);
        while let Some(directory) = above.filter(|_| !self.made.is_empty()) {
            if self.made.contains(directory) {
                return true;
            }
            above = path::parent(directory);
        }
        false
    }

    /// Notes that a directory was made.
    pub(super) fn note(&mut self, directory: &[u8]) {
        if !self.covers(directory) {
            self.made.insert(directory.to_vec());
        }
    }

    /// Makes an empty file, with these permissions less the umask.
    pub(super) fn create_file(&mut self, path: &[u8], mode: u32) -> io::Result<File> {
        let (parent, name) = self.directories.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(mode & 0o777))?))
    }

    /// Makes a file another name of one at the same path in another directory.
    pub(super) fn link(&mut self, from: &mut Directories<'_>, path: &[u8]) -> io::Result<()> {
        let (old_parent, name) = from.parent(path)?;
        let (parent, _) = self.directories.parent(path)?;
        Ok(rustix::fs::linkat(old_parent, name, parent, name, AtFlags::empty())?)
    }
}
