//! The root file system that a file operation writes: making, owning and dating what is in it.
//!
//! # Invariants
//! 1. Every path handed to a writing function was resolved first ([`Destination::resolve`]): links of the image are
//!    followed inside the root, then no further (security.md row 37). The [`Root`] enforces it once more.
//! 2. Writing into a directory changes its time. The time it is to have is noted, and set when the action is over:
//!    the source's for a copied directory, the action's own for one that was only written into. The root keeps its own.
//! 3. What may be written past the mount is ([`Beneath`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use mica_archive::{Directories, Entry, OwnerLedger, OwnerPolicy, SharedFiles, Timestamp, path};
use mica_sys::root::Root;
use rustix::fs::{FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::beneath::Beneath;
use super::{FileOpError, shown};
use crate::select::components;

/// Links followed in one look-up before it is taken for a loop.
const MAX_LINKS: u32 = 255;

/// User and group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Owner, mode, time and attributes that something is to get.
pub(super) struct Attributes<'a> {
    pub(super) ids: Ids,
    /// `None` for links, which have no mode.
    pub(super) mode: Option<u32>,
    pub(super) mtime: Timestamp,
    pub(super) xattrs: Option<&'a BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// A root being written.
pub(super) struct Destination<'a> {
    root: &'a Root,
    beneath: Option<Beneath<'a>>,
    owners: OwnerPolicy,
    written: Written,
    root_mtime: Timestamp,
    /// Times that directories get when the action is over.
    times: BTreeMap<Vec<u8>, Timestamp>,
    /// What directories made on the way get.
    created: Timestamp,
    parent_mode: u32,
    parent_ids: Ids,
}

/// What was written, as far as the disk does not tell.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) ledger: OwnerLedger,
    pub(super) skipped_devices: u64,
    pub(super) shared: SharedFiles,
}

impl<'a> Destination<'a> {
    pub(super) fn new(
        root: &'a Root,
        beneath: Option<&'a Root>,
        owners: OwnerPolicy,
    ) -> Result<Self, FileOpError> {
        let stat = root.stat(b"").map_err(FileOpError::io("stat", b""))?;
        Ok(Self {
            root,
            beneath: beneath.map(Beneath::new),
            owners,
            written: Written::default(),
            root_mtime: crate::context::Identity::of(&stat).mtime,
            times: BTreeMap::new(),
            created: Timestamp::default(),
            parent_mode: 0o755,
            parent_ids: Ids { uid: 0, gid: 0 },
        })
    }

    /// The root itself, for somebody who writes anything anywhere: from now on everything goes through the mount.
    pub(super) fn open_to_others(&mut self) -> &'a Root {
        self.beneath = None;
        self.root
    }

    /// Where to write a path.
    fn at(&self, path: &[u8]) -> &'a Root {
        self.beneath.as_ref().and_then(|beneath| beneath.root_for(path)).unwrap_or(self.root)
    }

    /// Where owners are kept.
    pub(super) fn owners(&self) -> OwnerPolicy {
        self.owners
    }

    /// Takes over owners of paths below a directory.
    pub(super) fn record(&mut self, directory: &[u8], owners: OwnerLedger) {
        let below = owners.into_iter().map(|(path, owner)| (path::join(directory, &path), owner));
        self.written.ledger.extend(below);
    }

    /// Counts devices that were left out.
    pub(super) fn skip_devices(&mut self, count: u64) {
        self.written.skipped_devices += count;
    }

    /// Starts an action: what directories made on the way will get (C6).
    pub(super) fn begin(&mut self, created: Timestamp, parent_mode: u32, parent_ids: Option<Ids>) {
        self.created = created;
        self.parent_mode = parent_mode;
        self.parent_ids = parent_ids.unwrap_or(Ids { uid: 0, gid: 0 });
    }

    /// Ends an action: sets the times of directories.
    pub(super) fn settle(&mut self) -> Result<(), FileOpError> {
        for (directory, time) in std::mem::take(&mut self.times) {
            match self.at(&directory).set_times(&directory, time) {
                // An archive has put something else in its place.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(FileOpError::io("utime", &directory))?,
            }
        }
        Ok(())
    }

    /// Ends the operation; returns what is not on the disk.
    pub(super) fn finish(self) -> Result<Written, FileOpError> {
        self.root.set_times(b"", self.root_mtime).map_err(FileOpError::io("utime", b""))?;
        Ok(self.written)
    }

    /// Follows the links of a path inside the root; what is missing is kept as written.
    pub(super) fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, FileOpError> {
        let mut todo: Vec<Vec<u8>> = components(path).rev().map(<[u8]>::to_vec).collect();
        let mut real = Vec::new();
        let mut links = 0;
        while let Some(component) = todo.pop() {
            if component == b".." {
                real.truncate(path::parent(&real).map_or(0, <[u8]>::len));
                continue;
            }
            let next = path::join(&real, &component);
            match self.lstat(&next)? {
                Some(stat) if file_type(&stat) == FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        let error = rustix::io::Errno::LOOP.into();
                        return Err(FileOpError::Io { action: "lstat", path: shown(path), error });
                    }
                    let target =
                        self.at(&next).read_link(&next).map_err(FileOpError::io("readlink", &next))?;
                    if target.starts_with(b"/") {
                        real.clear();
                    }
                    todo.extend(components(&target).rev().map(<[u8]>::to_vec));
                }
                _ => real = next,
            }
        }
        Ok(real)
    }

    /// Returns what is at a resolved path.
    pub(super) fn lstat(&self, path: &[u8]) -> Result<Option<Stat>, FileOpError> {
        match self.at(path).lstat(path) {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(FileOpError::Io { action: "lstat", path: shown(path), error }),
        }
    }

    /// Whether a directory is at a resolved path.
    pub(super) fn is_directory(&self, path: &[u8]) -> Result<bool, FileOpError> {
        Ok(self.lstat(path)?.is_some_and(|stat| file_type(&stat) == FileType::Directory))
    }

    /// Makes a directory and those above it unless it exists; `mkdir X: not a directory` where something else is.
    pub(super) fn ensure_directory(&mut self, path: &[u8]) -> Result<(), FileOpError> {
        match self.lstat(path)? {
            Some(stat) if file_type(&stat) == FileType::Directory => return Ok(()),
            Some(_) => {
                let error = rustix::io::Errno::NOTDIR.into();
                return Err(FileOpError::Io { action: "mkdir", path: shown(path), error });
            }
            None => {}
        }
        self.ensure_directory(path::parent(path).unwrap_or_default())?;
        self.make_directory(path, self.parent_mode)?;
        self.own(path, self.parent_ids)
    }

    /// Makes one directory; its parent exists.
    pub(super) fn make_directory(&mut self, path: &[u8], mode: u32) -> Result<(), FileOpError> {
        self.at(path).create_dir(path, mode).map_err(FileOpError::io("mkdir", path))?;
        if let Some(beneath) = &mut self.beneath {
            beneath.note(path);
        }
        self.touch_parent(path);
        self.set_directory_time(path, self.created);
        Ok(())
    }

    /// Returns where a file named by a destination goes: below it if it is a directory (C3). Its directory is made.
    pub(super) fn place(&mut self, destination: &[u8], name: Option<&[u8]>) -> Result<Vec<u8>, FileOpError> {
        if destination.ends_with(b"/") {
            let directory = self.resolve(destination)?;
            self.ensure_directory(&directory)?;
        }
        let mut path = self.resolve(destination)?;
        if let Some(name) = name
            && self.is_directory(&path)?
        {
            path = path::join(&path, name);
        }
        if let Some(parent) = path::parent(&path) {
            self.ensure_directory(parent)?;
        }
        Ok(path)
    }

    /// Removes what is in the way of a file (C9): writing never goes through a link, nor into a shared inode.
    pub(super) fn clear(&mut self, path: &[u8]) -> Result<(), FileOpError> {
        match self.lstat(path)? {
            None => Ok(()),
            Some(stat) if file_type(&stat) == FileType::Directory => {
                Err(FileOpError::IsADirectory(shown(path)))
            }
            Some(_) => {
                self.written.shared.remove(path);
                self.at(path).remove(path).map_err(FileOpError::io("remove", path))
            }
        }
    }

    /// Makes something with `make`, after removing what is in its place.
    pub(super) fn replace<T>(
        &mut self,
        path: &[u8],
        action: &'static str,
        make: impl Fn(&Root) -> io::Result<T>,
    ) -> Result<T, FileOpError> {
        let root = self.at(path);
        let made = match make(root) {
            // Most paths are free, so looking first would be a wasted call per file.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                self.clear(path)?;
                make(root)
            }
            other => other,
        };
        self.touch_parent(path);
        made.map_err(FileOpError::io(action, path))
    }

    /// Makes an empty file. Its mode is to be set; it may have got it already.
    pub(super) fn create_file(&mut self, path: &[u8], mode: u32) -> Result<File, FileOpError> {
        if let Some(beneath) = self.beneath.as_mut().filter(|beneath| beneath.covers(path))
            && let Ok(file) = beneath.create_file(path, mode)
        {
            self.touch_parent(path);
            return Ok(file);
        }
        self.replace(path, "open", |root| root.create_file(path, 0o600))
    }

    /// Makes a file a hard link to the one at this path of another layer; says whether that was possible.
    pub(super) fn share(&mut self, path: &[u8], file: &Entry, layer: &mut Directories<'_>) -> bool {
        let Some(beneath) = self.beneath.as_mut().filter(|beneath| beneath.covers(path)) else {
            return false;
        };
        // Something is in the way, the layer was collected, the file has too many names: a copy does as well.
        if beneath.link(layer, path).is_err() {
            return false;
        }
        self.touch_parent(path);
        self.own_name(path, Ids { uid: file.uid, gid: file.gid });
        self.written.shared.insert(path.to_vec(), file.clone());
        true
    }

    /// Gives a file that is there one more name.
    pub(super) fn hard_link(&mut self, existing: &[u8], path: &[u8]) -> Result<(), FileOpError> {
        let root = self.at(existing);
        if std::ptr::eq(root, self.at(path)) {
            return self.replace(path, "link", |root| root.hard_link(existing, path));
        }
        let mounted = self.root;
        self.replace(path, "link", |_| mounted.hard_link(existing, path))
    }

    /// Makes a device node, or counts it if this process may not.
    pub(super) fn make_device(
        &mut self,
        path: &[u8],
        kind: FileType,
        (major, minor): (u32, u32),
    ) -> Result<bool, FileOpError> {
        let made = self.replace(path, "mknod", |root| root.mknod(path, kind, 0o600, major, minor));
        match made {
            Err(FileOpError::Io { error, .. }) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.written.skipped_devices += 1;
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    /// Notes that an entry of a directory was written.
    fn touch_parent(&mut self, path: &[u8]) {
        if let Some(parent) = path::parent(path) {
            self.touch(parent);
        }
    }

    /// Notes that a directory was written into, which changes its time, whatever it was set to before.
    pub(super) fn touch(&mut self, directory: &[u8]) {
        match self.times.get_mut(directory) {
            Some(time) => *time = self.created,
            None => self.set_directory_time(directory, self.created),
        }
    }

    /// Sets the time that a directory gets when the action is over.
    pub(super) fn set_directory_time(&mut self, path: &[u8], time: Timestamp) {
        if !path.is_empty() {
            self.times.insert(path.to_vec(), time);
        }
    }

    /// Sets the time of something that is no directory.
    pub(super) fn set_time(&mut self, path: &[u8], time: Timestamp) -> Result<(), FileOpError> {
        self.at(path).set_times(path, time).map_err(FileOpError::io("utime", path))
    }

    pub(super) fn set_mode(&mut self, path: &[u8], mode: u32) -> Result<(), FileOpError> {
        self.at(path).set_mode(path, mode).map_err(FileOpError::io("chmod", path))
    }

    /// Sets the owner of something, on the disk or in the ledger.
    pub(super) fn own(&mut self, path: &[u8], ids: Ids) -> Result<(), FileOpError> {
        match self.owners {
            OwnerPolicy::Exact => {
                self.at(path).set_owner(path, ids.uid, ids.gid).map_err(FileOpError::io("chown", path))
            }
            OwnerPolicy::Ledger => {
                self.written.ledger.insert(path.to_vec(), (ids.uid, ids.gid));
                Ok(())
            }
        }
    }

    /// Notes the owner of one more name of a file that has its owner: `chown` would clear its capabilities.
    pub(super) fn own_name(&mut self, path: &[u8], ids: Ids) {
        if self.owners == OwnerPolicy::Ledger {
            self.written.ledger.insert(path.to_vec(), (ids.uid, ids.gid));
        }
    }

    /// Gives an entry its attributes. Order matters: `chown` clears set-user-id bits and capabilities.
    pub(super) fn dress(&mut self, path: &[u8], attributes: &Attributes<'_>) -> Result<(), FileOpError> {
        self.own(path, attributes.ids)?;
        if let Some(mode) = attributes.mode {
            self.set_mode(path, mode)?;
        }
        for (name, value) in attributes.xattrs.into_iter().flatten() {
            // Kept where possible (C7): the file system, or our privileges, may not allow this one.
            let _ = self.at(path).set_xattr(path, name, value);
        }
        Ok(())
    }

    /// As [`Destination::dress`] with the time, for an open regular file: by descriptor, without look-ups.
    pub(super) fn dress_file(
        &mut self,
        path: &[u8],
        file: &File,
        attributes: &Attributes<'_>,
    ) -> Result<(), FileOpError> {
        let Ids { uid, gid } = attributes.ids;
        let failed = |action| move |error: Errno| FileOpError::io(action, path)(error.into());
        let now = rustix::fs::fstat(file).map_err(failed("stat"))?;
        let is_owned = (now.st_uid, now.st_gid) == (uid, gid);
        if self.owners == OwnerPolicy::Ledger || uid == u32::MAX || gid == u32::MAX {
            self.own(path, attributes.ids)?;
        } else if !is_owned {
            let owned = rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            owned.map_err(failed("chown"))?;
        }
        let mode = attributes.mode.unwrap_or(0o644);
        // Both calls cost as much as a write, and a new file mostly has what they would set.
        if !is_owned || now.st_mode & 0o7777 != mode {
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode)).map_err(failed("chmod"))?;
        }
        for (name, value) in attributes.xattrs.into_iter().flatten() {
            // As above: kept where possible.
            let _ = rustix::fs::fsetxattr(file, name.as_slice(), value, rustix::fs::XattrFlags::empty());
        }
        let Timestamp { seconds, nanoseconds } = attributes.mtime;
        let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(file, &times).map_err(failed("utime"))
    }
}

/// The type in a `stat`.
pub(super) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}
