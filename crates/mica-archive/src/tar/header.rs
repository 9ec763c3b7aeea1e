//! One entry of a table as the header blocks of tar format 1.

use super::{BLOCK_BYTES, OPAQUE_MARKER, WHITEOUT_PREFIX, ZERO_BLOCK, padding, pax};
use crate::entry::{Entry, Kind};
use crate::path;

/// Fields of a ustar header: offset and length.
pub(crate) mod field {
    use std::ops::Range;

    pub(crate) const NAME: Range<usize> = 0..100;
    pub(crate) const MODE: Range<usize> = 100..108;
    pub(crate) const UID: Range<usize> = 108..116;
    pub(crate) const GID: Range<usize> = 116..124;
    pub(crate) const SIZE: Range<usize> = 124..136;
    pub(crate) const MTIME: Range<usize> = 136..148;
    pub(crate) const CHECKSUM: Range<usize> = 148..156;
    pub(crate) const TYPE: usize = 156;
    pub(crate) const LINK: Range<usize> = 157..257;
    pub(crate) const MAGIC: Range<usize> = 257..265;
    pub(crate) const MAJOR: Range<usize> = 329..337;
    pub(crate) const MINOR: Range<usize> = 337..345;
    pub(crate) const PREFIX: Range<usize> = 345..500;
    pub(crate) const STAR_PREFIX: Range<usize> = 345..476;
    pub(crate) const STAR_TRAILER: Range<usize> = 508..512;
}

pub(crate) const USTAR_MAGIC: &[u8; 8] = b"ustar\x0000";
pub(crate) const GNU_MAGIC: &[u8; 8] = b"ustar  \0";

/// What a header block says, before it is written.
struct Fields<'a> {
    name: &'a [u8],
    prefix: &'a [u8],
    link: &'a [u8],
    type_flag: u8,
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    mtime: i64,
    device: (u32, u32),
}

/// Appends the header blocks of an entry, and of the opaque marker after an opaque directory.
pub(crate) fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    let name = tar_name(entry);
    if entry.kind == Kind::Whiteout {
        put_marker(out, &name);
        return;
    }
    let (type_flag, size, link, device) = match &entry.kind {
        Kind::File { size, .. } => (b'0', *size, &[][..], (0, 0)),
        Kind::Hardlink { target } => (b'1', 0, &target[..], (0, 0)),
        Kind::Symlink { target } => (b'2', 0, &target[..], (0, 0)),
        Kind::CharDevice { major, minor } => (b'3', 0, &[][..], (*major, *minor)),
        Kind::BlockDevice { major, minor } => (b'4', 0, &[][..], (*major, *minor)),
        Kind::Directory { .. } => (b'5', 0, &[][..], (0, 0)),
        Kind::Fifo => (b'6', 0, &[][..], (0, 0)),
        Kind::Whiteout => unreachable!("handled above"),
    };
    let mut fields = Fields {
        name: &name,
        prefix: b"",
        link,
        type_flag,
        mode: entry.mode,
        uid: entry.uid.into(),
        gid: entry.gid.into(),
        size,
        mtime: entry.mtime.seconds,
        device,
    };
    let records = pax_records(&mut fields, entry);
    if !records.is_empty() {
        put_pax(out, path::file_name(&entry.path), &records);
    }
    put_block(out, &fields);
    if entry.kind == (Kind::Directory { opaque: true }) {
        put_marker(out, &path::join(&entry.path, OPAQUE_MARKER));
    }
}

/// The name an entry has in the tar.
fn tar_name(entry: &Entry) -> Vec<u8> {
    match &entry.kind {
        Kind::Directory { .. } if entry.path.is_empty() => b"./".to_vec(),
        Kind::Directory { .. } => [&entry.path[..], b"/"].concat(),
        Kind::Whiteout => {
            let name = [WHITEOUT_PREFIX, entry.name()].concat();
            path::join(path::parent(&entry.path).unwrap_or_default(), &name)
        }
        _ => entry.path.clone(),
    }
}

/// Returns the records that ustar has no room for, and fits the name into the fields.
fn pax_records(fields: &mut Fields<'_>, entry: &Entry) -> Vec<u8> {
    let mut records = pax::Records::default();
    if fields.name.len() > field::NAME.len() {
        match split_name(fields.name) {
            Some((prefix, name)) => (fields.prefix, fields.name) = (prefix, name),
            None => {
                records.add(b"path", fields.name);
                fields.name = &fields.name[..field::NAME.len()];
            }
        }
    }
    if fields.link.len() > field::LINK.len() {
        records.add(b"linkpath", fields.link);
        fields.link = &fields.link[..field::LINK.len()];
    }
    let numbers: [(&[u8], u64, usize); 3] =
        [(b"uid", fields.uid, 7), (b"gid", fields.gid, 7), (b"size", fields.size, 11)];
    for (keyword, value, digits) in numbers {
        if !fits_octal(value, digits) {
            records.add(keyword, value.to_string().as_bytes());
        }
    }
    if !u64::try_from(fields.mtime).is_ok_and(|seconds| fits_octal(seconds, 11)) {
        records.add(b"mtime", fields.mtime.to_string().as_bytes());
    }
    if !matches!(entry.kind, Kind::Hardlink { .. }) {
        for (name, value) in &entry.xattrs {
            records.add(&[pax::XATTR_PREFIX, name].concat(), value);
        }
    }
    records.finish()
}

/// Splits a long name at the last slash that leaves both parts short enough, as every ustar writer does.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let reach = match name.len() {
        length if length > field::PREFIX.len() + 1 => field::PREFIX.len() + 1,
        length if name.ends_with(b"/") => length - 1,
        length => length,
    };
    let slash = name[..reach].iter().rposition(|&byte| byte == b'/')?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    let fits = !prefix.is_empty() && !rest.is_empty() && rest.len() <= field::NAME.len();
    fits.then_some((prefix, rest))
}

/// Appends an extended header with `records`.
fn put_pax(out: &mut Vec<u8>, name: &[u8], records: &[u8]) {
    let name = [b"PaxHeaders.0/", name].concat();
    put_block(
        out,
        &Fields {
            name: &name[..name.len().min(field::NAME.len())],
            prefix: b"",
            link: b"",
            type_flag: b'x',
            mode: 0,
            uid: 0,
            gid: 0,
            size: records.len() as u64,
            mtime: 0,
            device: (0, 0),
        },
    );
    out.extend_from_slice(records);
    out.extend_from_slice(&ZERO_BLOCK[..padding(records.len() as u64)]);
}

/// Appends an empty file with mode, owner and time 0, through a PAX header if its name is long.
fn put_marker(out: &mut Vec<u8>, name: &[u8]) {
    let entry = Entry::new(name, Kind::File { size: 0, digest: None }, 0);
    put_entry(out, &entry);
}

fn put_block(out: &mut Vec<u8>, fields: &Fields<'_>) {
    let mut block = ZERO_BLOCK;
    put_text(&mut block[field::NAME], fields.name);
    put_number(&mut block[field::MODE], fields.mode.into());
    put_number(&mut block[field::UID], fields.uid);
    put_number(&mut block[field::GID], fields.gid);
    put_number(&mut block[field::SIZE], fields.size);
    put_signed(&mut block[field::MTIME], fields.mtime);
    block[field::TYPE] = fields.type_flag;
    put_text(&mut block[field::LINK], fields.link);
    block[field::MAGIC].copy_from_slice(USTAR_MAGIC);
    put_number(&mut block[field::MAJOR], fields.device.0.into());
    put_number(&mut block[field::MINOR], fields.device.1.into());
    put_text(&mut block[field::PREFIX], fields.prefix);
    let sum = checksum(&block);
    let text = format!("{sum:06o}\0 ");
    block[field::CHECKSUM].copy_from_slice(text.as_bytes());
    out.extend_from_slice(&block);
}

/// The sum of all bytes of a header with the checksum field read as blanks.
pub(crate) fn checksum(block: &[u8; BLOCK_BYTES]) -> u32 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    sum(&block[..field::CHECKSUM.start]) + 8 * u32::from(b' ') + sum(&block[field::CHECKSUM.end..])
}

fn put_text(slot: &mut [u8], text: &[u8]) {
    slot[..text.len()].copy_from_slice(text);
}

fn fits_octal(value: u64, digits: usize) -> bool {
    value >> (3 * digits) == 0
}

/// Writes octal digits and a NUL, or base 256 (big-endian, top bit set) if they do not fit.
fn put_number(slot: &mut [u8], value: u64) {
    let digits = slot.len() - 1;
    if fits_octal(value, digits) {
        for (place, byte) in slot[..digits].iter_mut().rev().enumerate() {
            *byte = b'0' + (value >> (3 * place) & 7) as u8;
        }
    } else {
        put_base256(slot, i128::from(value));
    }
}

fn put_signed(slot: &mut [u8], value: i64) {
    match u64::try_from(value) {
        Ok(value) => put_number(slot, value),
        Err(_) => put_base256(slot, value.into()),
    }
}

fn put_base256(slot: &mut [u8], value: i128) {
    let bytes = value.to_be_bytes();
    slot.copy_from_slice(&bytes[bytes.len() - slot.len()..]);
    slot[0] |= 0x80;
}
