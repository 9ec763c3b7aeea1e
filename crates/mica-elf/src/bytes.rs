//! Numbers out of foreign bytes, without a way to panic.

/// The order of the bytes of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Endian {
    Little,
    Big,
}

/// Bytes whose numbers are all in one byte order.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) endian: Endian,
}

impl<'a> Fields<'a> {
    /// `length` bytes at `offset`.
    pub(crate) fn slice(&self, offset: usize, length: usize) -> Option<&'a [u8]> {
        self.bytes.get(offset..offset.checked_add(length)?)
    }

    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.slice(offset, N)?.try_into().ok()
    }

    pub(crate) fn u16(&self, offset: usize) -> Option<u16> {
        let bytes = self.array(offset)?;
        Some(match self.endian {
            Endian::Little => u16::from_le_bytes(bytes),
            Endian::Big => u16::from_be_bytes(bytes),
        })
    }

    pub(crate) fn u32(&self, offset: usize) -> Option<u32> {
        let bytes = self.array(offset)?;
        Some(match self.endian {
            Endian::Little => u32::from_le_bytes(bytes),
            Endian::Big => u32::from_be_bytes(bytes),
        })
    }

    pub(crate) fn u64(&self, offset: usize) -> Option<u64> {
        let bytes = self.array(offset)?;
        Some(match self.endian {
            Endian::Little => u64::from_le_bytes(bytes),
            Endian::Big => u64::from_be_bytes(bytes),
        })
    }

    /// The string that starts at `offset` and ends at a NUL; `None` if there is no NUL.
    pub(crate) fn string(&self, offset: usize) -> Option<&'a [u8]> {
        until_nul(self.bytes.get(offset..)?)
    }
}

/// The bytes before the first NUL; `None` if there is none.
pub(crate) fn until_nul(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    bytes.get(..end)
}
