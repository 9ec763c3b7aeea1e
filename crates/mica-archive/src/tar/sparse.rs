//! Maps of sparse files: where stored bytes belong. Old GNU headers and the three PAX forms.

use super::header::field;
use super::pax;
use super::read::TarError;
use super::{BLOCK_BYTES, fields::number};
use crate::limits::LimitExceeded;

/// Stored bytes and where in the file they belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// Regions in the order they are stored, with a limit on their number.
#[derive(Debug, Default)]
pub(crate) struct Regions(pub(crate) Vec<Region>);

impl Regions {
    pub(crate) fn push(&mut self, offset: u64, bytes: u64, limit: u64) -> Result<(), TarError> {
        LimitExceeded::check("number of regions of a sparse file", self.0.len() as u64 + 1, limit)?;
        self.0.push(Region { offset, bytes });
        Ok(())
    }

    /// Checks that regions are in order, do not overlap, end within `size` and have `stored` bytes together.
    pub(crate) fn check(&self, size: u64, stored: u64) -> Result<(), TarError> {
        let bad = TarError::Malformed("sparse map");
        let (mut end, mut sum) = (0u64, 0u64);
        for region in &self.0 {
            if region.offset < end {
                return Err(bad);
            }
            let Some(next) = region.offset.checked_add(region.bytes) else { return Err(bad) };
            end = next;
            sum += region.bytes;
        }
        if end <= size && sum == stored { Ok(()) } else { Err(bad) }
    }
}

/// Old GNU header: four regions in the header, more in blocks behind it.
pub(crate) struct OldGnu {
    pub(crate) regions: Regions,
    pub(crate) size: u64,
    pub(crate) continues: bool,
}

pub(crate) fn old_gnu(block: &[u8; BLOCK_BYTES], limit: u64) -> Result<OldGnu, TarError> {
    let mut regions = Regions::default();
    take_pairs(&block[386..482], &mut regions, limit)?;
    let size = unsigned(&block[483..495])?;
    Ok(OldGnu { regions, size, continues: block[482] != 0 })
}

/// A block of 21 further regions; says whether another follows.
pub(crate) fn old_gnu_more(
    block: &[u8; BLOCK_BYTES],
    regions: &mut Regions,
    limit: u64,
) -> Result<bool, TarError> {
    take_pairs(&block[..504], regions, limit)?;
    Ok(block[504] != 0)
}

fn take_pairs(bytes: &[u8], regions: &mut Regions, limit: u64) -> Result<(), TarError> {
    for pair in bytes.chunks_exact(24) {
        // An unused slot ends the list.
        if pair[0] == 0 || pair[12] == 0 {
            break;
        }
        regions.push(unsigned(&pair[..12])?, unsigned(&pair[12..])?, limit)?;
    }
    Ok(())
}

fn unsigned(slot: &[u8]) -> Result<u64, TarError> {
    u64::try_from(number(slot)?).map_err(|_| TarError::Malformed("sparse map"))
}

/// What PAX records say about a sparse file.
#[derive(Debug, Default)]
pub(crate) struct PaxSparse {
    major: Option<u64>,
    minor: Option<u64>,
    pub(crate) name: Option<Vec<u8>>,
    size: Option<u64>,
    regions: Regions,
    offset: Option<u64>,
    mapped: bool,
}

/// How a PAX sparse file keeps its map.
pub(crate) enum PaxMap {
    /// In the records (0.0 and 0.1).
    Records { size: u64, regions: Regions },
    /// At the start of the content (1.0).
    Content { size: u64 },
}

impl PaxSparse {
    /// Takes one record; says whether it was about a sparse file.
    pub(crate) fn take(&mut self, keyword: &[u8], value: &[u8], limit: u64) -> Result<bool, TarError> {
        let Some(keyword) = keyword.strip_prefix(b"GNU.sparse.") else { return Ok(false) };
        let decimal = || pax::decimal(value).ok_or(TarError::Malformed("sparse map"));
        match keyword {
            b"major" => self.major = Some(decimal()?),
            b"minor" => self.minor = Some(decimal()?),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(decimal()?),
            b"offset" => self.offset = Some(decimal()?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or(TarError::Malformed("sparse map"))?;
                self.regions.push(offset, decimal()?, limit)?;
                self.mapped = true;
            }
            b"map" => self.take_map(value, limit)?,
            _ => {}
        }
        Ok(true)
    }

    fn take_map(&mut self, value: &[u8], limit: u64) -> Result<(), TarError> {
        self.mapped = true;
        let mut numbers = value.split(|&byte| byte == b',').map(pax::decimal);
        while let Some(offset) = numbers.next() {
            match (offset, numbers.next().flatten()) {
                (Some(offset), Some(bytes)) => self.regions.push(offset, bytes, limit)?,
                _ => return Err(TarError::Malformed("sparse map")),
            }
        }
        Ok(())
    }

    /// Says where the map is; `None` if the file is not sparse.
    pub(crate) fn map(self) -> Result<Option<PaxMap>, TarError> {
        match (self.major, self.minor, self.size) {
            (Some(1), Some(0), Some(size)) if !self.mapped => Ok(Some(PaxMap::Content { size })),
            (None | Some(0), None | Some(0 | 1), Some(size)) => {
                Ok(Some(PaxMap::Records { size, regions: self.regions }))
            }
            (None, None, None) if !self.mapped && self.name.is_none() => Ok(None),
            _ => Err(TarError::Malformed("sparse map")),
        }
    }
}

/// Reads the map at the start of a PAX 1.0 sparse file, block by block.
#[derive(Default)]
pub(crate) struct ContentMap {
    count: Option<u64>,
    number: Option<u64>,
    offset: Option<u64>,
    pub(crate) regions: Regions,
}

impl ContentMap {
    /// Takes a block; says whether the map is complete.
    pub(crate) fn take(&mut self, block: &[u8; BLOCK_BYTES], limit: u64) -> Result<bool, TarError> {
        let bad = || TarError::Malformed("sparse map");
        for &byte in block {
            if self.is_complete() {
                // The rest of the last block is padding.
                return Ok(true);
            }
            match byte {
                b'0'..=b'9' => {
                    let number = self.number.unwrap_or(0).checked_mul(10).ok_or_else(bad)?;
                    self.number = Some(number.checked_add(u64::from(byte - b'0')).ok_or_else(bad)?);
                }
                b'\n' => {
                    let number = self.number.take().ok_or_else(bad)?;
                    self.take_number(number, limit)?;
                }
                _ => return Err(bad()),
            }
        }
        Ok(self.is_complete())
    }

    fn is_complete(&self) -> bool {
        self.count == Some(self.regions.0.len() as u64)
    }

    fn take_number(&mut self, number: u64, limit: u64) -> Result<(), TarError> {
        if self.count.is_none() {
            LimitExceeded::check("number of regions of a sparse file", number, limit)?;
            self.count = Some(number);
        } else if let Some(offset) = self.offset.take() {
            self.regions.push(offset, number, limit)?;
        } else {
            self.offset = Some(number);
        }
        Ok(())
    }
}

/// Whether the header of an old GNU sparse file may be read as one: other formats keep the prefix there.
pub(crate) fn is_gnu(block: &[u8; BLOCK_BYTES]) -> bool {
    &block[field::MAGIC] == super::header::GNU_MAGIC
}
