//! Mountpoints that exist only to be mounted on, and their removal (build.md R7).
//!
//! What is made is remembered by the descriptor of its parent, and removed through it: a path would be
//! looked up again in a tree the container has had in its hands. Something is removed only if it still is the
//! entry that was made and still empty, and the modification time of its parent is put back.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mica_sys::root::{MountpointKind, Root};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

/// The mountpoints made for one run.
#[derive(Debug, Default)]
pub struct Stubs(Vec<Stub>);

#[derive(Debug)]
struct Stub {
    parent: OwnedFd,
    name: Vec<u8>,
    path: Vec<u8>,
    /// Modification time of the parent before.
    before: Time,
    /// Modification time of the parent, and identity of the entry, right after.
    after: Option<(Time, (u64, u64))>,
}

type Time = (i64, u64);

fn modified(stat: &Stat) -> Time {
    (stat.st_mtime, stat.st_mtime_nsec)
}

impl Stubs {
    /// Opens a mountpoint (`O_PATH`, links followed inside the root), making what is missing.
    pub fn ensure(&mut self, root: &Root, target: &[u8], kind: MountpointKind) -> io::Result<OwnedFd> {
        match root.open_at(target, OFlags::PATH, Mode::empty()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let known = self.0.len();
        let opened = root.create_mountpoint(target, kind, &mut |parent, name, path| {
            let before = modified(&rustix::fs::fstat(parent)?);
            let parent = parent.try_clone_to_owned()?;
            self.0.push(Stub { parent, name: name.to_vec(), path: path.to_vec(), before, after: None });
            Ok(())
        });
        for stub in &mut self.0[known..] {
            stub.after = stub.observe().ok();
        }
        opened
    }

    /// Returns the paths made so far, outermost first.
    pub fn paths(&self) -> Vec<Vec<u8>> {
        self.0.iter().map(|stub| stub.path.clone()).collect()
    }

    /// Removes all that are still empty, innermost first; returns what went wrong and goes on.
    ///
    /// Nothing may be mounted on them any more in the caller's mount namespace.
    pub fn remove(&mut self) -> Vec<io::Error> {
        let removed = self.0.drain(..).rev().map(|stub| stub.remove());
        removed.filter_map(Result::err).collect()
    }
}

impl Stub {
    fn stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::statat(&self.parent, self.name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn observe(&self) -> io::Result<(Time, (u64, u64))> {
        let entry = self.stat()?;
        let parent = rustix::fs::fstat(&self.parent)?;
        Ok((modified(&parent), (entry.st_dev, entry.st_ino)))
    }

    fn remove(self) -> io::Result<()> {
        // Not made after all, or not to be recognised: leave alone.
        let Some((parent_after, identity)) = self.after else { return Ok(()) };
        let entry = match self.stat() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let directory = FileType::from_raw_mode(entry.st_mode) == FileType::Directory;
        if (entry.st_dev, entry.st_ino) != identity || (!directory && entry.st_size != 0) {
            return Ok(());
        }
        let now = modified(&rustix::fs::fstat(&self.parent)?);
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match rustix::fs::unlinkat(&self.parent, self.name.as_slice(), flags) {
            Ok(()) => {}
            // The process has put something into it.
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
        // If the process has changed the parent too, the time of that change is the right one.
        let time = if now == parent_after { self.before } else { now };
        set_modified(self.parent.as_fd(), time)
    }
}

fn set_modified(directory: BorrowedFd<'_>, (seconds, nanoseconds): Time) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.cast_signed() },
    };
    Ok(rustix::fs::utimensat(directory, c".", &times, AtFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn root() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        std::fs::create_dir(directory.path().join("run")).unwrap();
        let root = Root::open(directory.path()).unwrap();
        root.set_times(b"etc", mica_sys::root::Timestamp { seconds: 1000, nanoseconds: 5 }).unwrap();
        (directory, root)
    }

    fn time(root: &Root, path: &[u8]) -> Time {
        modified(&root.stat(path).unwrap())
    }

    #[test]
    fn what_was_made_is_gone_and_the_parents_time_is_back() {
        let (_directory, root) = root();
        let mut stubs = Stubs::default();
        stubs.ensure(&root, b"/etc/hosts", MountpointKind::File).unwrap();
        stubs.ensure(&root, b"/etc/resolv.conf", MountpointKind::File).unwrap();
        stubs.ensure(&root, b"/etc/a/b/", MountpointKind::Directory).unwrap();
        stubs.ensure(&root, b"run", MountpointKind::Directory).unwrap();
        assert_eq!(stubs.paths(), [&b"etc/hosts"[..], b"etc/resolv.conf", b"etc/a", b"etc/a/b"]);
        assert!(stubs.remove().is_empty());
        assert!(root.read_dir(b"etc").unwrap().is_empty());
        assert_eq!(time(&root, b"etc"), (1000, 5));
    }

    #[test]
    fn what_the_process_used_stays() {
        let (_directory, root) = root();
        let mut stubs = Stubs::default();
        stubs.ensure(&root, b"etc/a/b", MountpointKind::Directory).unwrap();
        stubs.ensure(&root, b"etc/hosts", MountpointKind::File).unwrap();
        root.create_file(b"etc/a/kept", 0o644).unwrap();
        root.remove(b"etc/hosts").unwrap();
        root.create_file(b"etc/hosts", 0o644).unwrap();
        root.set_times(b"etc", mica_sys::root::Timestamp { seconds: 2000, nanoseconds: 0 }).unwrap();
        assert!(stubs.remove().is_empty());
        assert!(root.lstat(b"etc/a/kept").is_ok() && root.lstat(b"etc/a/b").is_err());
        assert_eq!(time(&root, b"etc"), (2000, 0));
    }

    #[test]
    fn a_link_to_nothing_is_followed_inside_the_root() {
        let (directory, root) = root();
        symlink("../../../run/resolve/stub.conf", directory.path().join("etc/resolv.conf")).unwrap();
        let mut stubs = Stubs::default();
        stubs.ensure(&root, b"etc/resolv.conf", MountpointKind::File).unwrap();
        assert_eq!(stubs.paths(), [&b"run/resolve"[..], b"run/resolve/stub.conf"]);
        assert!(stubs.remove().is_empty());
        assert!(root.read_dir(b"run").unwrap().is_empty());
    }
}
