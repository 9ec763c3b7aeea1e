//! Part of a root file system as a tar.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::os::fd::OwnedFd;

use mica_api::{Cancel, Class, Error, Result};
use mica_archive::{
    Cancelled, DiffOptions, Entry, Kind, OwnerLedger, OwnerPolicy, Table, TarFormat, Timestamp, View,
    WriteError, diff_views, keeps_xattr, path, write_tar,
};
use mica_sys::root::Root;
use rustix::fs::{FileType, Mode, OFlags, Stat};

/// What is written: a path without links on the way to it, in a root.
pub(super) struct Subtree<'a> {
    pub(super) root: &'a Root,
    pub(super) path: &'a [u8],
    pub(super) owners: OwnerPolicy,
}

impl Subtree<'_> {
    /// Writes the path as a tar in which it is called by its last name; the root has no name.
    ///
    /// # Errors
    /// Something cannot be read, or the receiver does not want it.
    pub(super) fn write(&self, output: OwnedFd, cancel: &Cancel) -> Result<()> {
        let cancelled = || cancel.is_cancelled();
        let refused = |error: io::Error| {
            let shown = String::from_utf8_lossy(self.path).into_owned();
            Error::new(Class::of_io(&error), format!("cannot read /{shown}")).why(error.to_string())
        };
        let parent = path::parent(self.path).unwrap_or_default();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let parent = self.root.open_at(parent, flags, Mode::empty()).map_err(refused)?;
        let parent = Root::from_fd(parent);
        let table = self.table(&parent, &cancelled).map_err(refused)?;
        let mut out = BufWriter::with_capacity(1 << 16, File::from(output));
        let written = write_tar(&table, &parent, &mut out, TarFormat::V1, &cancelled)
            .and_then(|_| out.flush().map_err(WriteError::Output));
        match written {
            Ok(()) => Ok(()),
            Err(WriteError::Cancelled) => Err(mica_api::Cancelled.into()),
            Err(WriteError::Output(error)) => {
                Err(Error::new(Class::of_io(&error), "cannot write the tar").why(error.to_string()))
            }
            Err(error) => Err(refused(io::Error::other(error))),
        }
    }

    /// Everything at and below the path, by names in its directory.
    fn table(&self, parent: &Root, cancelled: Cancelled<'_>) -> io::Result<Table> {
        let name = path::file_name(self.path);
        let stat = parent.lstat(name)?;
        let mut entries = Vec::new();
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let directory = Root::from_fd(parent.open_at(name, flags, Mode::empty())?);
            let options = DiffOptions { owners: self.owners, cancel: cancelled, shared: None };
            let whole = diff_views(&View::empty(), &directory, &OwnerLedger::new(), &options);
            entries = whole.map_err(io::Error::other)?.table.into_entries();
            entries.retain(|entry| !entry.path.is_empty());
            for entry in &mut entries {
                entry.path = path::join(name, &entry.path);
                if let Kind::Hardlink { target } = &mut entry.kind {
                    *target = path::join(name, target);
                }
            }
        }
        if !name.is_empty() {
            entries.push(self.entry(parent, name, &stat)?);
        }
        Table::from_entries(entries).map_err(io::Error::other)
    }

    fn entry(&self, parent: &Root, name: &[u8], stat: &Stat) -> io::Result<Entry> {
        let device = || (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Directory { opaque: false },
            FileType::RegularFile => Kind::File { size: stat.st_size.cast_unsigned(), digest: None },
            FileType::Symlink => Kind::Symlink { target: parent.read_link(name)? },
            FileType::CharacterDevice => Kind::CharDevice { major: device().0, minor: device().1 },
            FileType::BlockDevice => Kind::BlockDevice { major: device().0, minor: device().1 },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket | FileType::Unknown => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "sockets cannot be copied"));
            }
        };
        let mut entry = Entry::new(name, kind, stat.st_mode & 0o7777);
        entry.mtime =
            Timestamp { seconds: stat.st_mtime, nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) };
        if self.owners == OwnerPolicy::Exact {
            (entry.uid, entry.gid) = (stat.st_uid, stat.st_gid);
        }
        if matches!(entry.kind, Kind::File { .. } | Kind::Directory { .. }) {
            entry.xattrs = parent.xattrs(name)?;
            entry.xattrs.retain(|name, _| keeps_xattr(name));
        }
        Ok(entry)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn tar_of(directory: &std::path::Path, path: &str) -> Vec<String> {
        let root = Root::open(directory).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let subtree = Subtree { root: &root, path: path.as_bytes(), owners: OwnerPolicy::Exact };
        subtree.write(writer.into(), &Cancel::new()).unwrap();
        let mut tar = Vec::new();
        reader.read_to_end(&mut tar).unwrap();
        let unpacked = tempfile::tempdir().unwrap();
        let options = mica_archive::ExtractOptions { owners: OwnerPolicy::Ledger, ..Default::default() };
        let done = mica_archive::extract(
            &tar[..],
            &Root::open(unpacked.path()).unwrap(),
            &options,
            mica_archive::NEVER,
        )
        .unwrap();
        done.owners.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }

    #[test]
    fn members_are_named_from_the_last_name_of_the_path() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("a/b/c")).unwrap();
        std::fs::write(directory.path().join("a/b/file"), "x").unwrap();
        std::fs::hard_link(directory.path().join("a/b/file"), directory.path().join("a/b/link")).unwrap();
        std::os::unix::fs::symlink("nowhere", directory.path().join("a/b/c/s")).unwrap();
        assert_eq!(tar_of(directory.path(), "a/b"), ["b", "b/c", "b/c/s", "b/file", "b/link"]);
        assert_eq!(tar_of(directory.path(), "a/b/file"), ["file"]);
        assert_eq!(tar_of(directory.path(), "")[0], "a");
    }
}
