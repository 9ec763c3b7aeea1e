//! Room set aside, so that a full disk can be cleaned up.
//!
//! Removing needs room before it makes any: SQLite appends to its log, and what is forgotten is moved to the trash.
//! The file `reserve` takes blocks that no command gets, and is given up when something is to be removed on a full
//! disk. The next collection that finds enough room makes it anew.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};

use rustix::fs::FallocateFlags;

use crate::{Store, files};

/// What is set aside: a log of some dozens of pages, and directory entries.
const RESERVE_BYTES: u64 = 512 << 10;
/// With less than this the disk counts as full.
const FULL_BYTES: u64 = RESERVE_BYTES;
/// With less than this nothing is set aside.
const AMPLE_BYTES: u64 = 8 * RESERVE_BYTES;

impl Store {
    /// Gives the reserve up if the disk is full. To be called before something is removed.
    pub(crate) fn give_up_reserve(&self) {
        if self.space().is_ok_and(|space| space.free_bytes < FULL_BYTES) {
            // Without room removing will fail, and say so.
            let _ = files::remove_file(&self.state().reserve());
        }
    }

    /// Sets the reserve aside if it is missing and there is room.
    pub(crate) fn set_reserve_aside(&self) {
        let path = self.state().reserve();
        // A copy of a store may have a file without blocks.
        let is_there = std::fs::metadata(&path).is_ok_and(|found| found.blocks() * 512 >= RESERVE_BYTES);
        if is_there || self.space().is_ok_and(|space| space.free_bytes < AMPLE_BYTES) {
            return;
        }
        let made = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .and_then(|file| allocate(&file));
        if made.is_err() {
            // Some file systems cannot set blocks aside: then a full disk has to be helped from outside.
            let _ = files::remove_file(&path);
        }
    }
}

fn allocate(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::empty(), 0, RESERVE_BYTES)?)
}
