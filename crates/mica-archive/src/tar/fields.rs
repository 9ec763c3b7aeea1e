//! The fields of a header block, as every dialect of tar writes them.

use mica_sys::root::Timestamp;

use super::header::{self, field};
use super::{BLOCK_BYTES, MemberKind, TarError, pax};

pub(super) fn kind(block: &[u8; BLOCK_BYTES], name: &[u8], link: Vec<u8>) -> Result<MemberKind, TarError> {
    let device = || -> Result<(u32, u32), TarError> {
        let part =
            |slot| u32::try_from(number(&block[slot])?).map_err(|_| TarError::Malformed("device number"));
        Ok((part(field::MAJOR)?, part(field::MINOR)?))
    };
    Ok(match block[field::TYPE] {
        // Before ustar a directory was a file with a slash at the end.
        0 if name.ends_with(b"/") => MemberKind::Directory,
        0 | b'0' | b'7' | b'S' => MemberKind::File,
        b'1' => MemberKind::Hardlink(link),
        b'2' => MemberKind::Symlink(link),
        b'3' => device().map(|(major, minor)| MemberKind::CharDevice(major, minor))?,
        b'4' => device().map(|(major, minor)| MemberKind::BlockDevice(major, minor))?,
        b'5' => MemberKind::Directory,
        b'6' => MemberKind::Fifo,
        other => return Err(TarError::Unsupported(other)),
    })
}

/// The name in the header, with the prefix that ustar and star have.
pub(super) fn header_name(block: &[u8; BLOCK_BYTES]) -> Result<Vec<u8>, TarError> {
    let name = until_nul(&block[field::NAME]);
    let magic = &block[field::MAGIC];
    let prefix = if magic == header::USTAR_MAGIC {
        let is_star = &block[field::STAR_TRAILER] == b"tar\0";
        until_nul(&block[if is_star { field::STAR_PREFIX } else { field::PREFIX }])
    } else if magic.starts_with(b"ustar\0") {
        // Some readers look at the version before they believe the prefix, some do not.
        let prefix = until_nul(&block[field::PREFIX]);
        if prefix.is_empty() { prefix } else { return Err(TarError::Malformed("ustar version")) }
    } else {
        &[]
    };
    Ok(crate::path::join(prefix, name))
}

pub(super) fn header_time(block: &[u8; BLOCK_BYTES]) -> Result<Timestamp, TarError> {
    Ok(Timestamp { seconds: number(&block[field::MTIME])?, nanoseconds: 0 })
}

pub(super) fn size_field(block: &[u8; BLOCK_BYTES]) -> Result<u64, TarError> {
    u64::try_from(number(&block[field::SIZE])?).map_err(|_| TarError::Malformed("size"))
}

pub(super) fn time(value: &[u8]) -> Result<Timestamp, TarError> {
    let (seconds, nanoseconds) = pax::time(value).ok_or(TarError::Malformed("PAX time"))?;
    Ok(Timestamp { seconds, nanoseconds })
}

pub(super) fn text(value: &[u8]) -> Result<Option<Vec<u8>>, TarError> {
    if value.contains(&0) {
        return Err(TarError::Malformed("PAX name"));
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

pub(super) fn until_nul(slot: &[u8]) -> &[u8] {
    &slot[..slot.iter().position(|&byte| byte == 0).unwrap_or(slot.len())]
}

/// The sum as some old tools made it, with signed bytes.
pub(super) fn signed_checksum(block: &[u8; BLOCK_BYTES]) -> i64 {
    let high = |bytes: &[u8]| bytes.iter().filter(|byte| **byte >= 0x80).count() as i64;
    let inside = high(&block[field::CHECKSUM]);
    i64::from(header::checksum(block)) - 256 * (high(block) - inside)
}

/// Reads a numeric field: octal digits, or base 256 with the top bit set.
pub(super) fn number(slot: &[u8]) -> Result<i64, TarError> {
    let bad = || TarError::Malformed("number");
    match slot.first() {
        Some(first) if first & 0x80 != 0 => base256(slot).ok_or_else(bad),
        _ => {
            let blank = |byte: &u8| *byte == b' ' || *byte == 0;
            let start = slot.iter().position(|byte| !blank(byte)).unwrap_or(slot.len());
            let digits = &slot[start..];
            let digits = &digits[..digits.iter().position(blank).unwrap_or(digits.len())];
            let rest = &slot[start + digits.len()..];
            // Behind a NUL old tools leave anything; behind a blank only blanks are a number.
            if !until_nul(rest).iter().all(blank) {
                return Err(bad());
            }
            digits
                .iter()
                .try_fold(0i64, |value, digit| match digit {
                    b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(digit - b'0')),
                    _ => None,
                })
                .ok_or_else(bad)
        }
    }
}

/// Big-endian two's complement with the top bit as mark; the next bit is the sign.
fn base256(slot: &[u8]) -> Option<i64> {
    let negative = slot[0] & 0x40 != 0;
    let mut value: i128 = if negative { -1 } else { 0 };
    for (index, &byte) in slot.iter().enumerate() {
        let byte = if index > 0 {
            byte
        } else if negative {
            byte | 0x80
        } else {
            byte & 0x7f
        };
        value = value.checked_mul(256)? | i128::from(byte);
    }
    i64::try_from(value).ok()
}
