//! Helpers for the tests of this crate: tar streams with any content, however wrong.

use crate::tar::header::{checksum, field};
use crate::tar::{BLOCK_BYTES, padding, pax};

/// Builds tar streams by hand.
#[derive(Default, Clone)]
pub(crate) struct TarBytes(pub(crate) Vec<u8>);

impl TarBytes {
    /// Adds a header block without data; `change` edits it before the checksum is made.
    pub(crate) fn header(
        mut self,
        name: &[u8],
        type_flag: u8,
        size: u64,
        change: impl FnOnce(&mut [u8; BLOCK_BYTES]),
    ) -> Self {
        let mut block = [0; BLOCK_BYTES];
        block[..name.len()].copy_from_slice(name);
        let mut put = |range: std::ops::Range<usize>, text: String| {
            block[range.start..range.start + text.len()].copy_from_slice(text.as_bytes());
        };
        put(field::MODE, "0000644".into());
        put(field::UID, "0000000".into());
        put(field::GID, "0000000".into());
        put(field::SIZE, format!("{size:011o}"));
        put(field::MTIME, format!("{:011o}", 1_000_000_000));
        put(field::MAGIC, "ustar\x0000".into());
        block[field::TYPE] = type_flag;
        change(&mut block);
        let sum = format!("{:06o}\0 ", checksum(&block));
        block[field::CHECKSUM].copy_from_slice(sum.as_bytes());
        self.0.extend_from_slice(&block);
        self
    }

    /// Adds raw bytes, padded to a block.
    pub(crate) fn data(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len() + padding(bytes.len() as u64), 0);
        self
    }

    pub(crate) fn file(self, name: &str, content: &[u8]) -> Self {
        self.header(name.as_bytes(), b'0', content.len() as u64, |_| {}).data(content)
    }

    pub(crate) fn directory(self, name: &str) -> Self {
        self.header(name.as_bytes(), b'5', 0, |block| block[field::MODE][..7].copy_from_slice(b"0000755"))
    }

    pub(crate) fn link(self, name: &str, type_flag: u8, target: &str) -> Self {
        self.header(name.as_bytes(), type_flag, 0, |block| {
            block[field::LINK][..target.len()].copy_from_slice(target.as_bytes());
        })
    }

    pub(crate) fn pax(self, records: &[(&[u8], &[u8])]) -> Self {
        let mut list = pax::Records::default();
        for (keyword, value) in records {
            list.add(keyword, value);
        }
        let bytes = list.finish();
        self.header(b"PaxHeaders.0/x", b'x', bytes.len() as u64, |_| {}).data(&bytes)
    }

    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK_BYTES, 0);
        self.0
    }
}

/// Whether the test runs as root; says so if not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIP: needs root");
    }
    root
}
