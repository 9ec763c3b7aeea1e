//! What tells one state of a file from another without reading it.

use mica_archive::Timestamp;
use rustix::fs::{Stat, Statx};

/// Device, inode, size and times of a file: while they stay the same, so do the bytes.
///
/// The change time cannot be set by a program, so even a file written with its old size and modification time has
/// another identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Length.
    pub size_bytes: u64,
    /// Time of the last write.
    pub mtime: Timestamp,
    /// Time of the last change of anything.
    pub ctime: Timestamp,
}

impl Identity {
    /// Takes the identity from `fstat(2)`.
    pub fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size_bytes: stat.st_size.cast_unsigned(),
            mtime: timestamp(stat.st_mtime, stat.st_mtime_nsec as u32),
            ctime: timestamp(stat.st_ctime, stat.st_ctime_nsec as u32),
        }
    }

    pub(crate) fn of_statx(stat: &Statx) -> Self {
        Self {
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            size_bytes: stat.stx_size,
            mtime: timestamp(stat.stx_mtime.tv_sec, stat.stx_mtime.tv_nsec),
            ctime: timestamp(stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec),
        }
    }

    /// Whether the file had been left alone for `seconds` at the time `now`. Until then a further write could leave
    /// no trace: times are as coarse as the file system's.
    pub(crate) fn is_settled(&self, now: Timestamp, seconds: i64) -> bool {
        let limit = Timestamp { seconds: now.seconds - seconds, ..now };
        self.mtime < limit && self.ctime < limit
    }
}

fn timestamp(seconds: i64, nanoseconds: u32) -> Timestamp {
    Timestamp { seconds, nanoseconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_changed_a_moment_ago_is_not_settled() {
        let at = |seconds| Timestamp { seconds, nanoseconds: 5 };
        let mut identity = Identity { device: 1, inode: 2, size_bytes: 3, mtime: at(90), ctime: at(90) };
        assert!(identity.is_settled(at(93), 2));
        identity.ctime = at(92);
        assert!(!identity.is_settled(at(93), 2));
        identity.ctime = at(200);
        assert!(!identity.is_settled(at(93), 2), "a time in the future proves nothing");
    }
}
