//! Removing entries and whole trees by directory descriptor.
//!
//! A tree is removed without recursion and without ever building its path, so neither its depth nor
//! `PATH_MAX` is a limit; links are removed, never followed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::{Root, c_path, list};

/// Levels of a tree whose descriptors stay open; deeper ones are reached again through `..`.
const OPEN_LEVELS: usize = 64;

/// How often a directory is read again because somebody put something into it meanwhile.
const REFILL_RETRIES: u32 = 16;

impl Root {
    /// Removes one entry: a file, a link, a node or an empty directory.
    pub fn remove(&self, rel: &[u8]) -> io::Result<()> {
        let (parent, name) = self.parent_of(rel)?;
        Ok(unlink_any(parent.as_fd(), &name)?)
    }

    /// Removes an entry and everything below it; that it is absent is no error.
    ///
    /// Directories without write or search permission are given them first, so that an owner without
    /// privileges can remove what an image laid down.
    pub fn remove_all(&self, rel: &[u8]) -> io::Result<()> {
        let removed =
            self.parent_of(rel).and_then(|(parent, name)| match unlink_any(parent.as_fd(), &name) {
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => remove_tree(parent, name),
                other => Ok(other?),
            });
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

fn unlink_any(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    let name = c_path(name).map_err(|_| Errno::INVAL)?;
    match rustix::fs::unlinkat(parent, &*name, AtFlags::empty()) {
        Err(Errno::ISDIR) => rustix::fs::unlinkat(parent, &*name, AtFlags::REMOVEDIR),
        other => other,
    }
}

/// A directory being emptied.
struct Level {
    /// `None` when it is too deep to stay open.
    directory: Option<OwnedFd>,
    /// Device and inode: what `..` of a child must be.
    identity: (u64, u64),
    /// Its name in its parent.
    name: Vec<u8>,
    /// Subdirectories still to be removed.
    todo: Vec<Vec<u8>>,
    refills: u32,
}

fn identity(directory: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn remove_tree(parent: OwnedFd, name: Vec<u8>) -> io::Result<()> {
    let mut levels = vec![Level {
        identity: identity(parent.as_fd())?,
        directory: Some(parent),
        name: Vec::new(),
        todo: vec![name],
        refills: 0,
    }];
    // The deepest directory; its descriptor is always open.
    let mut current = take_directory(&mut levels)?;
    loop {
        let depth = levels.len();
        let level = levels.last_mut().expect("the level of the parent is left only by returning");
        if let Some(name) = level.todo.pop() {
            let child = open_child(current.as_fd(), &name)?;
            let Some(child) = child else { continue };
            let todo = empty(child.as_fd())?;
            let above = std::mem::replace(&mut current, child);
            if depth <= OPEN_LEVELS {
                level.directory = Some(above);
            }
            let identity = identity(current.as_fd())?;
            levels.push(Level { directory: None, identity, name, todo, refills: 0 });
            continue;
        }
        if depth == 1 {
            return Ok(());
        }
        let done = levels.pop().expect("the depth is at least two");
        let above = reopen(&mut levels, current.as_fd())?;
        match rustix::fs::unlinkat(&above, &*c_path(&done.name)?, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) if done.refills < REFILL_RETRIES => {
                let todo = empty(current.as_fd())?;
                keep_open(&mut levels, above);
                levels.push(Level { todo, refills: done.refills + 1, ..done });
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        current = above;
    }
}

fn take_directory(levels: &mut [Level]) -> io::Result<OwnedFd> {
    let level = levels.last_mut().expect("there is a level");
    level.directory.take().ok_or_else(|| Errno::BADF.into())
}

fn keep_open(levels: &mut [Level], directory: OwnedFd) {
    if levels.len() <= OPEN_LEVELS {
        levels.last_mut().expect("there is a level").directory = Some(directory);
    }
}

/// Returns the directory above `current`: the one kept open, else `..` if that still is the same one.
fn reopen(levels: &mut [Level], current: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let level = levels.last_mut().expect("the parent's level is always there");
    if let Some(directory) = level.directory.take() {
        return Ok(directory);
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let above = rustix::fs::openat(current, c"..", flags, Mode::empty())?;
    if identity(above.as_fd())? != level.identity {
        return Err(io::Error::other("the tree was moved while it was being removed"));
    }
    Ok(above)
}

/// Opens a subdirectory to empty it; `None` if it is gone or is no directory any more (then removed).
fn open_child(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let c_name = c_path(name)?;
    for attempt in 0..2 {
        match rustix::fs::openat(parent, &*c_name, flags, Mode::empty()) {
            Ok(child) => return Ok(Some(child)),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::ACCESS) if attempt == 0 => {
                super::metadata::chmod_entry(parent, &c_name, 0o700)?;
            }
            Err(Errno::NOTDIR | Errno::LOOP) => {
                unlink_any(parent, name)?;
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::ACCESS.into())
}

/// Removes all entries but the directories that are not empty; returns those.
fn empty(directory: BorrowedFd<'_>) -> io::Result<Vec<Vec<u8>>> {
    let mut full = Vec::new();
    let mut writable = false;
    for item in list(directory)? {
        loop {
            match unlink_any(directory, &item.name) {
                Ok(()) | Err(Errno::NOENT) => break,
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    full.push(item.name);
                    break;
                }
                Err(Errno::ACCESS) if !writable => {
                    rustix::fs::fchmod(directory, Mode::RWXU)?;
                    writable = true;
                }
                // An empty-looking directory whose content we may not even list.
                Err(Errno::ACCESS) if item.file_type == FileType::Directory => {
                    full.push(item.name);
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(full)
}
