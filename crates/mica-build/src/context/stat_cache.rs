//! Digests of context files that were read before, by identity.
//!
//! # On disk (`contexts/<hash>.stat`, format 1)
//! ```text
//! "mica-stat\0" format:u8 reserved:5  count:u64  blake3 of the records:32
//! record = device inode size mtime.s mtime.ns:u32 ctime.s ctime.ns:u32 digest:32     sorted
//! ```
//! Little-endian. Only a cache: a file that is damaged, newer or missing is an empty one. Replaced by rename, never
//! written in place, so that concurrent builds read a whole one.

use std::io::{self, Write};
use std::path::Path;

use mica_archive::{ContentDigest, Timestamp};

use super::Identity;

const MAGIC: &[u8; 16] = b"mica-stat\0\x01\0\0\0\0\0";
const HEADER_BYTES: usize = 16 + 8 + 32;
const RECORD_BYTES: usize = 8 * 5 + 4 * 2 + 32;

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

    /// Returns the digest of the file with this identity.
    pub(super) fn get(&self, identity: &Identity) -> Option<ContentDigest> {
        let records = self.records.as_chunks::<RECORD_BYTES>().0;
        // The inode nearly always decides; the rest is parsed for the one record it leads to.
        let key = (identity.device, identity.inode);
        let first = records.partition_point(|record| (word(record, 0), word(record, 8)) < key);
        let same = records[first..].iter().take_while(|record| (word(record, 0), word(record, 8)) == key);
        same.map(decode).find(|(known, _)| known == identity).map(|(_, digest)| digest)
    }

    /// The number of records.
    pub(super) fn len(&self) -> usize {
        self.records.len() / RECORD_BYTES
    }

    /// All records.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Identity, ContentDigest)> {
        self.records.as_chunks::<RECORD_BYTES>().0.iter().map(decode)
    }

    /// Replaces a file by these records.
    ///
    /// Not synced: after a crash the checksum tells a torn file, and a lost one costs only time.
    pub(super) fn save(file: &Path, mut records: Vec<(Identity, ContentDigest)>) -> io::Result<()> {
        records.sort_unstable();
        records.dedup_by_key(|record| record.0);
        let mut body = Vec::with_capacity(records.len() * RECORD_BYTES);
        for (identity, digest) in &records {
            encode(&mut body, identity, *digest);
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

fn encode(bytes: &mut Vec<u8>, identity: &Identity, digest: ContentDigest) {
    for number in [identity.device, identity.inode, identity.size_bytes] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for time in [identity.mtime, identity.ctime] {
        bytes.extend_from_slice(&time.seconds.to_le_bytes());
        bytes.extend_from_slice(&time.nanoseconds.to_le_bytes());
    }
    bytes.extend_from_slice(&digest.0);
}

fn decode(record: &[u8; RECORD_BYTES]) -> (Identity, ContentDigest) {
    let half = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes"));
    let time = |at| Timestamp { seconds: word(record, at).cast_signed(), nanoseconds: half(at + 8) };
    let identity = Identity {
        device: word(record, 0),
        inode: word(record, 8),
        size_bytes: word(record, 16),
        mtime: time(24),
        ctime: time(36),
    };
    (identity, ContentDigest(record[48..].try_into().expect("32 bytes")))
}

fn word(record: &[u8; RECORD_BYTES], at: usize) -> u64 {
    u64::from_le_bytes(record[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(inode: u64) -> Identity {
        let time = Timestamp { seconds: -5, nanoseconds: 7 };
        Identity { device: 1, inode, size_bytes: 3, mtime: time, ctime: time }
    }

    #[test]
    fn records_come_back_by_identity() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.stat");
        let records = (0..100).rev().map(|n| (identity(n), ContentDigest([n as u8; 32]))).collect();
        StatCache::save(&file, records).unwrap();
        let cache = StatCache::load(&file);
        assert_eq!(cache.len(), 100);
        assert_eq!(cache.get(&identity(42)), Some(ContentDigest([42; 32])));
        assert_eq!(cache.get(&Identity { size_bytes: 4, ..identity(42) }), None);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_damaged_file_is_an_empty_cache() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("x.stat");
        StatCache::save(&file, vec![(identity(1), ContentDigest([1; 32]))]).unwrap();
        let good = std::fs::read(&file).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(StatCache::decode(bad).is_none(), "byte {at}");
            assert!(StatCache::decode(good[..at].to_vec()).is_none(), "cut at {at}");
        }
        assert_eq!(StatCache::load(&directory.path().join("absent")).len(), 0);
    }
}
