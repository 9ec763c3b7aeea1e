//! What is known of context files that were read before, by identity: digest, and whether there are extended attributes.
//!
//! # On disk (`contexts/<hash>.stat`, format 2)
//! ```text
//! "mica-stat\0" format:u8 reserved:5  count:u64  blake3 of the records:32
//! record = device inode size mtime.s mtime.ns:u32 ctime.s ctime.ns:u32 digest:32 has_xattrs:u8     sorted
//! ```
//! Little-endian. Only a cache: a file that is damaged, newer or missing is an empty one. Replaced by rename, never
//! written in place, so that concurrent builds read a whole one.

use std::io::{self, Write};
use std::path::Path;

use mica_archive::{ContentDigest, Timestamp};

use super::Identity;

const MAGIC: &[u8; 16] = b"mica-stat\0\x02\0\0\0\0\0";
const HEADER_BYTES: usize = 16 + 8 + 32;
const RECORD_BYTES: usize = 8 * 5 + 4 * 2 + 32 + 1;

/// What is known of a file in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) identity: Identity,
    pub(super) digest: ContentDigest,
    /// Whether it has extended attributes that belong into a layer; if so they are read each time.
    pub(super) has_xattrs: bool,
}

/// The records of one context, sorted by identity. Kept as bytes: loading parses nothing.
#[derive(Debug, Default)]
pub(super) struct StatCache {
    records: Vec<u8>,
}

impl StatCache {
    /// Reads a file; anything unexpected is an empty cache.
    pub(super) fn load(file: &Path) -> Self {
        std::fs::read(file).ok().and_then(Self::decode).unwrap_or_default()
    }

    fn decode(mut bytes: Vec<u8>) -> Option<Self> {
        let records = bytes.get(HEADER_BYTES..)?;
        let count = u64::from_le_bytes(bytes[16..24].try_into().ok()?);
        let whole = u64::try_from(records.len()).ok() == count.checked_mul(RECORD_BYTES as u64);
        if &bytes[..16] != MAGIC || !whole || bytes[24..HEADER_BYTES] != *blake3::hash(records).as_bytes() {
            return None;
        }
        bytes.drain(..HEADER_BYTES);
        Some(Self { records: bytes })
    }

    /// Returns what is known of the file with this identity.
    pub(super) fn get(&self, identity: &Identity) -> Option<Record> {
        let records = self.records.as_chunks::<RECORD_BYTES>().0;
        // The inode nearly always decides; the rest is parsed for the one record it leads to.
        let key = (identity.device, identity.inode);
        let first = records.partition_point(|record| (word(record, 0), word(record, 8)) < key);
        let same = records[first..].iter().take_while(|record| (word(record, 0), word(record, 8)) == key);
        same.map(decode).find(|record| record.identity == *identity)
    }

    /// All records.
    pub(super) fn iter(&self) -> impl Iterator<Item = Record> {
        self.records.as_chunks::<RECORD_BYTES>().0.iter().map(decode)
    }

    /// Replaces a file by these records.
    ///
    /// Not synced: after a crash the checksum tells a torn file, and a lost one costs only time.
    pub(super) fn save(file: &Path, mut records: Vec<Record>) -> io::Result<()> {
        records.sort_unstable_by_key(|record| record.identity);
        records.dedup_by_key(|record| record.identity);
        let mut body = Vec::with_capacity(records.len() * RECORD_BYTES);
        for record in &records {
            encode(&mut body, record);
        }
        let temporary = file.with_extension(format!("{}.tmp", std::process::id()));
        let written = std::fs::File::create(&temporary).and_then(|mut output| {
            output.write_all(MAGIC)?;
            output.write_all(&(records.len() as u64).to_le_bytes())?;
            output.write_all(blake3::hash(&body).as_bytes())?;
            output.write_all(&body)
        });
        let replaced = written.and_then(|()| std::fs::rename(&temporary, file));
        if replaced.is_err() {
            // The error that matters is the one before.
            let _ = std::fs::remove_file(&temporary);
        }
        replaced
    }
}

fn encode(bytes: &mut Vec<u8>, record: &Record) {
    let identity = &record.identity;
    for number in [identity.device, identity.inode, identity.size_bytes] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for time in [identity.mtime, identity.ctime] {
        bytes.extend_from_slice(&time.seconds.to_le_bytes());
        bytes.extend_from_slice(&time.nanoseconds.to_le_bytes());
    }
    bytes.extend_from_slice(&record.digest.0);
    bytes.push(record.has_xattrs.into());
}

fn decode(record: &[u8; RECORD_BYTES]) -> Record {
    let half = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes"));
    let time = |at| Timestamp { seconds: word(record, at).cast_signed(), nanoseconds: half(at + 8) };
    let identity = Identity {
        device: word(record, 0),
        inode: word(record, 8),
        size_bytes: word(record, 16),
        mtime: time(24),
        ctime: time(36),
    };
    Record {
        identity,
        digest: ContentDigest(record[48..80].try_into().expect("32 bytes")),
        has_xattrs: record[80] != 0,
    }
}

fn word(record: &[u8; RECORD_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(record[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(inode: u64) -> Record {
        let time = Timestamp { seconds: -5, nanoseconds: 7 };
        let identity = Identity { device: 1, inode, size_bytes: 3, mtime: time, ctime: time };
        Record { identity, digest: ContentDigest([inode as u8; 32]), has_xattrs: inode % 2 == 1 }
    }

    #[test]
    fn records_come_back_by_identity() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.stat");
        StatCache::save(&file, (0..100).rev().map(record).collect()).unwrap();
        let cache = StatCache::load(&file);
        assert_eq!(cache.iter().count(), 100);
        assert_eq!(cache.get(&record(42).identity), Some(record(42)));
        assert_eq!(cache.get(&record(43).identity), Some(record(43)));
        assert_eq!(cache.get(&Identity { size_bytes: 4, ..record(42).identity }), None);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_damaged_file_is_an_empty_cache() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.stat");
        StatCache::save(&file, vec![record(1)]).unwrap();
        let good = std::fs::read(&file).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(StatCache::decode(bad).is_none(), "byte {at}");
            assert!(StatCache::decode(good[..at].to_vec()).is_none(), "cut at {at}");
        }
        assert_eq!(StatCache::load(&directory.path().join("absent")).iter().count(), 0);
    }
}
