//! Unpacks a tar that is a user's file and no layer (`ADD x.tar`, build.md A1) into a root filesystem that exists.
//!
//! Unlike [`crate::apply`], the destination is full of things: names are looked up on disk, inside the destination
//! directory, which is the root of every absolute link and of every `..` while unpacking, as docker has it. Whiteouts
//! are files like any other. What is in the way is replaced; a directory onto a directory merges.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mica_sys::root::{Root, Timestamp};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::apply::{Applier, ApplyError, CopyError, Metadata, clean_rooted, copy_data, create};
use crate::compress::decompress;
use crate::directories::{c_name, open_directory};
use crate::limits::{Cancelled, LimitExceeded, Limits};
use crate::owners::{OwnerLedger, OwnerPolicy};
use crate::path;
use crate::table::is_link_target;
use crate::tar::{BUFFER_BYTES, Member, MemberKind, TarError, TarReader};

/// How to unpack.
#[derive(Debug, Clone, Default)]
pub struct ExtractOptions {
    /// How much the archive may ask for.
    pub limits: Limits,
    /// Owner of everything, instead of what the archive says (`--chown`).
    pub chown: Option<(u32, u32)>,
    /// Whether owners go to disk.
    pub owners: OwnerPolicy,
    /// Whether device nodes are made.
    pub devices: bool,
    /// Gives what is at or below the first path (in the archive) the second one; an empty one is the destination.
    pub rename: Option<(Vec<u8>, Vec<u8>)>,
    /// Refuse to put a directory in the place of something else, or something else in that of a directory.
    pub keep_kinds: bool,
}

/// What was unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Owners of everything created or changed, by path in the destination directory; for disks that cannot hold them.
    pub owners: OwnerLedger,
    /// Devices left out.
    pub skipped_devices: u64,
    /// Extended attributes left out.
    pub skipped_xattrs: u64,
}

/// Whether a file is a tar, compressed or not: decided by its first member and not by its name.
///
/// # Errors
/// Those of `file`; bytes that cannot be decompressed are no error, they are no tar.
pub fn is_tar(file: impl Read + Send) -> io::Result<bool> {
    let limits = Limits::default();
    let Ok((_, plain)) = decompress(file, &limits) else { return Ok(false) };
    let mut reader = TarReader::new(BufReader::with_capacity(BUFFER_BYTES, plain), limits);
    match reader.next_member() {
        Ok(member) => Ok(member.is_some()),
        // A decoder's complaint has no system error number; a disk's has.
        Err(TarError::Io(error)) if error.raw_os_error().is_some() => Err(error),
        Err(_) => Ok(false),
    }
}

/// Unpacks an archive (compressed or not) into `destination`.
///
/// # Errors
/// [`ApplyError`]; what was unpacked so far stays.
pub fn extract(
    archive: impl Read + Send,
    destination: &Root,
    options: &ExtractOptions,
    cancel: Cancelled<'_>,
) -> Result<Extracted, ApplyError> {
    let (_, plain) = decompress(archive, &options.limits).map_err(TarError::from)?;
    let reader = TarReader::new(BufReader::with_capacity(BUFFER_BYTES, plain), options.limits.clone());
    let mut unpacking = Unpacking {
        root: destination,
        reader,
        applier: Applier::new(options.owners),
        options,
        cancel,
        parent: None,
        times: BTreeMap::new(),
        done: Extracted::default(),
    };
    unpacking.run()?;
    unpacking.done.skipped_xattrs = unpacking.applier.skipped_xattrs;
    Ok(unpacking.done)
}

struct Unpacking<'a, R> {
    root: &'a Root,
    reader: TarReader<R>,
    applier: Applier,
    options: &'a ExtractOptions,
    cancel: Cancelled<'a>,
    /// Directory of the last member: name in the archive, real path, descriptor.
    parent: Option<(Vec<u8>, Vec<u8>, OwnedFd)>,
    /// Times of directories by real path, set when nothing is put into them any more.
    times: BTreeMap<Vec<u8>, Timestamp>,
    done: Extracted,
}

impl<R: io::BufRead> Unpacking<'_, R> {
    fn run(&mut self) -> Result<(), ApplyError> {
        while let Some(mut member) = self.reader.next_member()? {
            if (self.cancel)() {
                return Err(ApplyError::Cancelled);
            }
            let path = self.renamed(clean_rooted(&member.name, &self.options.limits)?);
            LimitExceeded::check("length of a path", path.len() as u64, self.options.limits.path_bytes)
                .map_err(TarError::from)?;
            if let Some((uid, gid)) = self.options.chown {
                (member.uid, member.gid) = (uid, gid);
            }
            self.applier.filter(&mut member.xattrs);
            self.member(&path, member)?;
        }
        for (path, mtime) in self.times.iter().rev() {
            match self.root.set_times(path, *mtime) {
                // A later member may have replaced it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other.map_err(|error| refused(path, error))?,
            }
        }
        Ok(())
    }

    fn member(&mut self, path: &[u8], member: Member) -> Result<(), ApplyError> {
        let failed = |error| refused(path, error);
        if path.is_empty() {
            // `./`: the destination exists and keeps its own metadata, as docker has it.
            let why = "the root can only be a directory";
            let bad = || ApplyError::Name { name: path::show(&member.name), why };
            return if member.kind == MemberKind::Directory { Ok(()) } else { Err(bad()) };
        }
        self.enter(path::parent(path).unwrap_or_default())?;
        let name = path::file_name(path);
        let real = path::join(self.parent_path(), name);
        let metadata = Metadata {
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            mtime: member.mtime,
            xattrs: member.xattrs,
        };
        let existing = self.existing(name).map_err(failed)?;
        self.check_kind(existing, &member.kind, path)?;
        if member.kind != MemberKind::Directory || existing.is_some_and(|kind| kind != FileType::Directory) {
            if let MemberKind::Hardlink(target) = &member.kind {
                return self.hard_link(target, path, name);
            }
            self.make_room(existing, &real).map_err(failed)?;
        }
        match &member.kind {
            MemberKind::File => self.file(path, name, member.size, &metadata)?,
            MemberKind::Directory => {
                self.directory(name, existing.is_none_or(|kind| kind != FileType::Directory), &metadata)
                    .map_err(failed)?;
                self.times.insert(real.clone(), metadata.mtime);
            }
            MemberKind::Symlink(target) if !is_link_target(target) => {
                return Err(ApplyError::Link {
                    path: path::show(path),
                    why: "its target is empty or too long",
                });
            }
            MemberKind::Symlink(target) => {
                self.applier.symlink(self.parent_fd(), name, target, &metadata).map_err(failed)?;
            }
            MemberKind::CharDevice(major, minor) => {
                self.device(FileType::CharacterDevice, (*major, *minor), name, &metadata).map_err(failed)?;
            }
            MemberKind::BlockDevice(major, minor) => {
                self.device(FileType::BlockDevice, (*major, *minor), name, &metadata).map_err(failed)?;
            }
            MemberKind::Fifo => {
                self.applier
                    .node(self.parent_fd(), name, FileType::Fifo, (0, 0), &metadata)
                    .map_err(failed)?;
            }
            // Handled above, because its target has to be found before anything is removed.
            MemberKind::Hardlink(_) => {}
        }
        self.done.owners.insert(real, (metadata.uid, metadata.gid));
        Ok(())
    }

    fn renamed(&self, path: Vec<u8>) -> Vec<u8> {
        let Some((from, to)) = &self.options.rename else { return path };
        if path == *from {
            return to.clone();
        }
        if from.is_empty() || !path::is_below(&path, from) {
            return path;
        }
        path::join(to, &path[from.len() + 1..])
    }

    fn check_kind(
        &self,
        existing: Option<FileType>,
        new: &MemberKind,
        path: &[u8],
    ) -> Result<(), ApplyError> {
        let Some(existing) = existing.filter(|_| self.options.keep_kinds) else { return Ok(()) };
        let (was, is) = (existing == FileType::Directory, *new == MemberKind::Directory);
        if was == is {
            return Ok(());
        }
        let word = |directory| if directory { "directory" } else { "non-directory" };
        Err(ApplyError::Occupied { path: path::show(path), existing: word(was), new: word(is) })
    }

    /// Opens the directory of a member, making what is missing; links are followed inside the destination.
    fn enter(&mut self, directory: &[u8]) -> Result<(), ApplyError> {
        if self.parent.as_ref().is_some_and(|(name, ..)| name == directory) {
            return Ok(());
        }
        let failed = |error| refused(directory, error);
        let owner = self.options.chown.unwrap_or((0, 0));
        for made in self.root.create_dirs(directory, 0o755).map_err(failed)? {
            if self.options.owners == OwnerPolicy::Exact {
                self.root.set_owner(&made, owner.0, owner.1).map_err(failed)?;
            }
            self.done.owners.insert(made, owner);
        }
        let real = self.root.resolve(directory).map_err(failed)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = self.root.open_at(&real, flags, Mode::empty()).map_err(failed)?;
        self.parent = Some((directory.to_vec(), real, fd));
        Ok(())
    }

    fn parent_fd(&self) -> BorrowedFd<'_> {
        self.parent.as_ref().map_or_else(|| self.root.as_fd(), |(_, _, fd)| fd.as_fd())
    }

    fn parent_path(&self) -> &[u8] {
        self.parent.as_ref().map_or(&[], |(_, real, _)| real)
    }

    fn existing(&self, name: &[u8]) -> io::Result<Option<FileType>> {
        match rustix::fs::statat(self.parent_fd(), c_name(name)?.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn make_room(&mut self, existing: Option<FileType>, real: &[u8]) -> io::Result<()> {
        match existing {
            None => return Ok(()),
            // The directory of the next member may have been this link, or inside this directory.
            Some(FileType::Symlink | FileType::Directory) => {
                let (parent, name) = (self.parent_fd().try_clone_to_owned()?, path::file_name(real).to_vec());
                self.parent = None;
                return Root::from_fd(parent).remove_all(&name).and_then(|()| self.reenter(real));
            }
            Some(_) => {}
        }
        let name = c_name(path::file_name(real))?;
        Ok(rustix::fs::unlinkat(self.parent_fd(), &*name, AtFlags::empty())?)
    }

    /// Opens the directory of a real path again, after the cache was dropped.
    fn reenter(&mut self, real: &[u8]) -> io::Result<()> {
        let parent = path::parent(real).unwrap_or_default();
        let fd = self.root.open_at(parent, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
        self.parent = Some((parent.to_vec(), parent.to_vec(), fd));
        Ok(())
    }

    fn file(&mut self, path: &[u8], name: &[u8], size: u64, metadata: &Metadata) -> Result<(), ApplyError> {
        let failed = |error| refused(path, error);
        let file = create(self.parent_fd(), name).map_err(failed)?;
        copy_data(&mut self.reader, &file, size, self.cancel, |(), _| {}).map_err(|error| match error {
            CopyError::Archive(error) => error,
            CopyError::Write(error) => failed(error),
        })?;
        // The directory may be setgid, so the group is not known to be ours.
        self.applier.set(file.as_fd(), metadata, false).map_err(failed)
    }

    fn directory(&mut self, name: &[u8], new: bool, metadata: &Metadata) -> io::Result<()> {
        if new {
            rustix::fs::mkdirat(self.parent_fd(), c_name(name)?.as_c_str(), Mode::from_raw_mode(0o700))?;
        }
        let directory = open_directory(self.parent_fd(), name, OFlags::RDONLY)?;
        self.applier.set(directory.as_fd(), metadata, false)
    }

    fn device(
        &mut self,
        kind: FileType,
        device: (u32, u32),
        name: &[u8],
        metadata: &Metadata,
    ) -> io::Result<()> {
        // A 0:0 character device would be a whiteout to overlayfs (security.md row 8).
        let hides = kind == FileType::CharacterDevice && device == (0, 0);
        if hides || !self.options.devices {
            self.done.skipped_devices += 1;
            return Ok(());
        }
        match self.applier.node(self.parent_fd(), name, kind, device, metadata) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.done.skipped_devices += 1;
                Ok(())
            }
            other => other,
        }
    }

    /// Links to a file inside the destination; the target is opened before anything is removed.
    fn hard_link(&mut self, target: &[u8], path: &[u8], name: &[u8]) -> Result<(), ApplyError> {
        let bad = |why| ApplyError::Link { path: path::show(path), why };
        let failed = |error| refused(path, error);
        let target = self.renamed(clean_rooted(target, &self.options.limits)?);
        let (from, from_name) = match self.root.parent_of(&target) {
            Ok(found) => found,
            Err(_) => return Err(bad("its target does not exist")),
        };
        let from_name = c_name(&from_name).map_err(failed)?;
        let stat = rustix::fs::statat(&from, &*from_name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|_| bad("its target does not exist"))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return Err(bad("its target is a directory"));
        }
        let here = rustix::fs::statat(
            self.parent_fd(),
            c_name(name).map_err(failed)?.as_c_str(),
            AtFlags::SYMLINK_NOFOLLOW,
        );
        if here.is_ok_and(|here| (here.st_dev, here.st_ino) == (stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        let real = path::join(self.parent_path(), name);
        let existing = self.existing(name).map_err(failed)?;
        self.make_room(existing, &real).map_err(failed)?;
        let name = c_name(name).map_err(failed)?;
        rustix::fs::linkat(&from, &*from_name, self.parent_fd(), &*name, AtFlags::empty())
            .map_err(|error| failed(error.into()))?;
        // The link has the owner its file was given, in the archive or before.
        let target_real = self.root.resolve(path::parent(&target).unwrap_or_default()).map_err(failed)?;
        let target_real = path::join(&target_real, path::file_name(&target));
        let owner = self.done.owners.get(&target_real).copied().unwrap_or((stat.st_uid, stat.st_gid));
        self.done.owners.insert(real, owner);
        Ok(())
    }
}

fn refused(path: &[u8], source: io::Error) -> ApplyError {
    ApplyError::Write { path: path::show(path), source }
}

#[cfg(test)]
mod tests;
