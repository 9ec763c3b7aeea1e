//! `/etc/ld.so.cache`: the index of libraries that ldconfig writes and glibc's loader reads.

use std::collections::BTreeMap;

use crate::bytes::{Endian, Fields};

/// Far above any real cache (a desktop has 150 KB).
pub(crate) const CACHE_BYTES: usize = 16 * 1024 * 1024;

const OLD_MAGIC: &[u8] = b"ld.so-1.7.0\0";
const OLD_HEADER_BYTES: usize = 16;
const OLD_ENTRY_BYTES: usize = 12;
const NEW_MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const NEW_HEADER_BYTES: usize = 48;
const NEW_ENTRY_BYTES: usize = 24;

/// From the name of a library to where it is.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    paths: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
}

impl Cache {
    /// Reads a cache: the format of glibc 2.2 and later, alone or behind the older one.
    ///
    /// glibc `sysdeps/generic/dl-cache.h`. Libraries built for special processors (`hwcap`) are left out:
    /// the loader only prefers them, it never needs them. A damaged cache yields what is readable.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        Self { paths: Self::entries(bytes).unwrap_or_default() }
    }

    /// Where the libraries of that name are, in the loader's order; other machines' among them.
    pub(crate) fn find(&self, name: &[u8]) -> &[Vec<u8>] {
        self.paths.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    fn entries(bytes: &[u8]) -> Option<BTreeMap<Vec<u8>, Vec<Vec<u8>>>> {
        let bytes = skip_old_format(bytes)?;
        if !bytes.starts_with(NEW_MAGIC) {
            return None;
        }
        let fields = Fields { bytes, endian: byte_order(*bytes.get(28)?) };
        let count = usize::try_from(fields.u32(20)?).ok()?;
        let mut paths: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
        let table = bytes.get(NEW_HEADER_BYTES..)?;
        for entry in table.chunks_exact(NEW_ENTRY_BYTES).take(count) {
            let entry = Fields { bytes: entry, endian: fields.endian };
            let string = |at| fields.string(usize::try_from(entry.u32(at)?).ok()?);
            let (Some(name), Some(path)) = (string(4), string(8)) else { continue };
            if entry.u64(16) == Some(0) && path.starts_with(b"/") {
                paths.entry(name.to_vec()).or_default().push(path.to_vec());
            }
        }
        Some(paths)
    }
}

/// ldconfig can put the format of libc5 in front, for loaders of the last century.
fn skip_old_format(bytes: &[u8]) -> Option<&[u8]> {
    if !bytes.starts_with(OLD_MAGIC) {
        return Some(bytes);
    }
    // Written in the byte order of the machine, unmarked: the order that leads to the new magic is right.
    [Endian::Little, Endian::Big].into_iter().find_map(|endian| {
        let count = usize::try_from(Fields { bytes, endian }.u32(12)?).ok()?;
        let end = count.checked_mul(OLD_ENTRY_BYTES)?.checked_add(OLD_HEADER_BYTES)?;
        let new = bytes.get(end.checked_next_multiple_of(8)?..)?;
        new.starts_with(NEW_MAGIC).then_some(new)
    })
}

/// The low bits of the header's flags; caches from before 2.33 leave them 0, and then are little-endian
/// on every machine that is still common.
fn byte_order(flags: u8) -> Endian {
    if flags & 3 == 3 { Endian::Big } else { Endian::Little }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::cache_file;

    #[test]
    fn names_lead_to_their_paths_in_order() {
        let bytes = cache_file(&[
            ("libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6", 0),
            ("libz.so.1", "/opt/v3/libz.so.1", 1 << 62),
            ("libz.so.1", "/usr/lib/libz.so.1", 0),
            ("libz.so.1", "/usr/lib32/libz.so.1", 0),
        ]);
        let cache = Cache::parse(&bytes);
        assert_eq!(cache.find(b"libc.so.6"), [b"/lib/x86_64-linux-gnu/libc.so.6".to_vec()]);
        assert_eq!(
            cache.find(b"libz.so.1"),
            [b"/usr/lib/libz.so.1".to_vec(), b"/usr/lib32/libz.so.1".to_vec()]
        );
        assert!(cache.find(b"libm.so.6").is_empty());
    }

    #[test]
    fn the_old_format_in_front_is_skipped() {
        let new = cache_file(&[("libc.so.6", "/lib/libc.so.6", 0)]);
        let mut bytes = [OLD_MAGIC, &1u32.to_le_bytes(), &[0; OLD_ENTRY_BYTES]].concat();
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(new);
        assert_eq!(Cache::parse(&bytes).find(b"libc.so.6").len(), 1);
    }

    #[test]
    fn damage_yields_less_but_never_panics() {
        let whole = cache_file(&[("libc.so.6", "/lib/libc.so.6", 0), ("libm.so.6", "/lib/libm.so.6", 0)]);
        for length in 0..whole.len() {
            Cache::parse(&whole[..length]);
        }
        for at in 0..whole.len() {
            let mut altered = whole.clone();
            altered[at] ^= 0xff;
            Cache::parse(&altered);
        }
    }
}
