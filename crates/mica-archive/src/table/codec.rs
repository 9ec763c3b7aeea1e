//! The layer table as bytes.
//!
//! # Format 1
//! ```text
//! "micatbl\0"  u32 le format  varint count  count x entry  32 bytes BLAKE3 of everything before
//! entry: varint shared  bytes rest      the path: `shared` bytes of the previous path, then `rest`
//!        u8 kind  varint mode uid gid   kind bit 7: extended attributes follow at the end
//!        zigzag seconds  varint nanoseconds
//!        by kind: file size u8 has-digest [32 bytes] | symlink, hardlink bytes | device varint major minor
//!        [varint count, count x (bytes name, bytes value)]
//! bytes: varint length, then the bytes
//! ```
//! The checksum finds damage before anything is believed; the checks of [`Table`] run all the same.

use std::collections::BTreeMap;

use super::{Table, TableError};
use crate::entry::{ContentDigest, Entry, Kind, Timestamp};
use crate::varint::{self, Cursor};

const MAGIC: &[u8; 8] = b"micatbl\0";
pub(super) const FORMAT: u32 = 1;
const CHECKSUM_BYTES: usize = 32;
const HAS_XATTRS: u8 = 0x80;

impl Table {
    /// Returns the table as bytes; equal tables give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.entries.len() * 72);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        varint::put(&mut out, self.entries.len() as u64);
        let mut previous: &[u8] = b"";
        for entry in &self.entries {
            put_entry(&mut out, previous, entry);
            previous = &entry.path;
        }
        let checksum = blake3::hash(&out);
        out.extend_from_slice(checksum.as_bytes());
        out
    }

    /// Reads what [`Table::encode`] wrote.
    ///
    /// # Errors
    /// [`TableError`] for anything else; no input panics, and memory stays proportional to the input.
    pub fn decode(bytes: &[u8]) -> Result<Self, TableError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(TableError::Magic)?;
        let (format, _) = rest.split_first_chunk::<4>().ok_or(TableError::Damaged)?;
        let format = u32::from_le_bytes(*format);
        if format != FORMAT {
            return Err(TableError::Format(format));
        }
        let end = bytes.len().checked_sub(CHECKSUM_BYTES).ok_or(TableError::Damaged)?;
        let body = bytes.get(MAGIC.len() + 4..end).ok_or(TableError::Damaged)?;
        if blake3::hash(&bytes[..end]).as_bytes() != &bytes[end..] {
            return Err(TableError::Damaged);
        }
        let table = Self { entries: take_entries(body).ok_or(TableError::Damaged)? };
        table.check()?;
        Ok(table)
    }
}

fn put_entry(out: &mut Vec<u8>, previous: &[u8], entry: &Entry) {
    let shared = crate::path::common_prefix(previous, &entry.path);
    varint::put(out, shared as u64);
    varint::put_bytes(out, &entry.path[shared..]);
    let flag = if entry.xattrs.is_empty() { 0 } else { HAS_XATTRS };
    out.push(kind_code(&entry.kind) | flag);
    for number in [entry.mode, entry.uid, entry.gid] {
        varint::put(out, u64::from(number));
    }
    varint::put_signed(out, entry.mtime.seconds);
    varint::put(out, u64::from(entry.mtime.nanoseconds));
    put_kind(out, &entry.kind);
    if !entry.xattrs.is_empty() {
        varint::put(out, entry.xattrs.len() as u64);
        for (name, value) in &entry.xattrs {
            varint::put_bytes(out, name);
            varint::put_bytes(out, value);
        }
    }
}

fn kind_code(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => 0,
        Kind::Directory { opaque: false } => 1,
        Kind::Directory { opaque: true } => 2,
        Kind::Symlink { .. } => 3,
        Kind::Hardlink { .. } => 4,
        Kind::CharDevice { .. } => 5,
        Kind::BlockDevice { .. } => 6,
        Kind::Fifo => 7,
        Kind::Whiteout => 8,
    }
}

fn put_kind(out: &mut Vec<u8>, kind: &Kind) {
    match kind {
        Kind::File { size, digest } => {
            varint::put(out, *size);
            out.push(u8::from(digest.is_some()));
            if let Some(ContentDigest(bytes)) = digest {
                out.extend_from_slice(bytes);
            }
        }
        Kind::Symlink { target } | Kind::Hardlink { target } => varint::put_bytes(out, target),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            varint::put(out, u64::from(*major));
            varint::put(out, u64::from(*minor));
        }
        Kind::Directory { .. } | Kind::Fifo | Kind::Whiteout => {}
    }
}

fn take_entries(body: &[u8]) -> Option<Vec<Entry>> {
    let mut cursor = Cursor::new(body);
    let count = cursor.number()?;
    // An entry has at least eight bytes: a count that lies cannot reserve more than the input justifies.
    let mut entries: Vec<Entry> = Vec::with_capacity(usize::try_from(count).ok()?.min(body.len() / 8));
    for _ in 0..count {
        let entry = take_entry(&mut cursor, entries.last().map_or(&[], |last| &last.path))?;
        entries.push(entry);
    }
    cursor.is_empty().then_some(entries)
}

fn take_entry(cursor: &mut Cursor<'_>, previous: &[u8]) -> Option<Entry> {
    let shared = usize::try_from(cursor.number()?).ok()?;
    let rest = cursor.bytes()?;
    let head = previous.get(..shared)?;
    if head.len() + rest.len() > crate::path::MAX_PATH_BYTES {
        return None;
    }
    let path = [head, rest].concat();
    let code = cursor.byte()?;
    let [mode, uid, gid] = [cursor.number32()?, cursor.number32()?, cursor.number32()?];
    let mtime = Timestamp { seconds: cursor.signed()?, nanoseconds: cursor.number32()? };
    let kind = take_kind(cursor, code & !HAS_XATTRS)?;
    let mut xattrs = BTreeMap::new();
    if code & HAS_XATTRS != 0 {
        for _ in 0..cursor.number()? {
            let name = cursor.bytes()?.to_vec();
            xattrs.insert(name, cursor.bytes()?.to_vec());
        }
    }
    Some(Entry { path, kind, mode, uid, gid, mtime, xattrs })
}

fn take_kind(cursor: &mut Cursor<'_>, code: u8) -> Option<Kind> {
    Some(match code {
        0 => {
            let size = cursor.number()?;
            let digest = match cursor.byte()? {
                0 => None,
                1 => Some(ContentDigest(*cursor.take(32)?.first_chunk()?)),
                _ => return None,
            };
            Kind::File { size, digest }
        }
        1 => Kind::Directory { opaque: false },
        2 => Kind::Directory { opaque: true },
        3 => Kind::Symlink { target: cursor.bytes()?.to_vec() },
        4 => Kind::Hardlink { target: cursor.bytes()?.to_vec() },
        5 => Kind::CharDevice { major: cursor.number32()?, minor: cursor.number32()? },
        6 => Kind::BlockDevice { major: cursor.number32()?, minor: cursor.number32()? },
        7 => Kind::Fifo,
        8 => Kind::Whiteout,
        _ => return None,
    })
}
