//! Reads any tar: one state machine, every length checked before it is believed.
//!
//! Rules that decide between readings of one stream (security.md row 14, "TARmageddon"):
//! * An extended header belongs to the next *member*; a GNU long name between the two has its own size.
//! * The PAX size is the size, for data and for finding the next header.
//! * Links, directories, devices and pipes have no data whatever their size field says.
//! * Two extended headers for one member, or two different names for it, are an error: readers disagree about them.
//! * Global headers are skipped: nothing in an image needs them.
//! * A zero block ends the archive; one that is followed by something else is an error.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use mica_sys::root::Timestamp;

use super::fields::{
    header_name, header_time, kind, number, signed_checksum, size_field, text, time, until_nul,
};
use super::header::{self, field};
use super::sparse::{self, ContentMap, PaxMap, PaxSparse, Region, Regions};
use super::{BLOCK_BYTES, ZERO_BLOCK, padding, pax};
use crate::limits::{LimitExceeded, Limits};

/// Why bytes are not a tar we read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The bytes could not be read (or not decompressed).
    #[error("cannot read the archive")]
    Io(#[source] io::Error),
    /// The stream ends within a header or content.
    #[error("the archive is cut off")]
    Truncated,
    /// A field or record does not follow its format.
    #[error("the archive has a malformed {0}")]
    Malformed(&'static str),
    /// A kind of member that has no meaning here.
    #[error("the archive has a member of the unknown type {:?}", char::from(*.0))]
    Unsupported(u8),
    /// More than the limits allow.
    #[error(transparent)]
    Limit(#[from] LimitExceeded),
}

impl From<io::Error> for TarError {
    /// Limits found while decompressing come through `io::Error`; they are limits all the same.
    fn from(error: io::Error) -> Self {
        match error.downcast::<LimitExceeded>() {
            Ok(limit) => Self::Limit(limit),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Self::Truncated,
            Err(error) => Self::Io(error),
        }
    }
}

/// One member of a tar, names as they are in the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Name, unchecked: may be absolute, climb, end in a slash, be empty.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// `0o7777`.
    pub mode: u32,
    /// Owner, below 2^32-1.
    pub uid: u32,
    /// Group, below 2^32-1.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// All `SCHILY.xattr.` records, unfiltered.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Size of the file, holes included; 0 for everything else.
    pub size: u64,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file; its data follows.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to these bytes.
    Symlink(Vec<u8>),
    /// A hard link to the member with this name.
    Hardlink(Vec<u8>),
    /// A character device.
    CharDevice(u32, u32),
    /// A block device.
    BlockDevice(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Receives the bytes of the stream that are not handed out as data: headers, padding, data nobody asked for.
pub trait Literals {
    /// Takes the next such bytes.
    fn literal(&mut self, bytes: &[u8]);
}

/// For readers that do not care.
impl Literals for () {
    fn literal(&mut self, _: &[u8]) {}
}

/// Data of a file and where it belongs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Data<'a> {
    pub(crate) offset: u64,
    pub(crate) bytes: &'a [u8],
}

/// Reads the members of a tar in order.
#[derive(Debug)]
pub struct TarReader<R, L = ()> {
    source: R,
    literals: L,
    limits: Limits,
    /// Bytes of the source's buffer that were handed out and are to be consumed.
    lent: usize,
    position: u64,
    logical_bytes: u64,
    members: u64,
    data: Regions,
    region: usize,
    /// Bytes of the current region already handed out.
    done: u64,
    stored_left: u64,
    padding: usize,
    ended: bool,
}

/// What was read ahead of a member.
#[derive(Default)]
struct Ahead {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

/// The records of an extended header that matter.
#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Timestamp>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    sparse: PaxSparse,
}

impl<R: BufRead> TarReader<R> {
    /// Starts reading.
    pub fn new(source: R, limits: Limits) -> Self {
        Self::with_literals(source, limits, ())
    }
}

impl<R: BufRead, L: Literals> TarReader<R, L> {
    pub(crate) fn with_literals(source: R, limits: Limits, literals: L) -> Self {
        Self {
            source,
            literals,
            limits,
            lent: 0,
            position: 0,
            logical_bytes: 0,
            members: 0,
            data: Regions::default(),
            region: 0,
            done: 0,
            stored_left: 0,
            padding: 0,
            ended: false,
        }
    }

    pub(crate) fn literals(&mut self) -> &mut L {
        &mut self.literals
    }

    pub(crate) fn into_parts(self) -> (R, L) {
        (self.source, self.literals)
    }

    /// How many bytes of the stream are behind us: right after a file member, where its data starts.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Returns the next member, skipping data of the last one that nobody read; `None` at the end of the stream.
    ///
    /// # Errors
    /// [`TarError`]; the reader is of no use afterwards.
    pub fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        let mut ahead = Ahead::default();
        loop {
            self.skip_data()?;
            let Some(block) = self.next_header()? else {
                let nothing_ahead =
                    ahead.pax.is_none() && ahead.long_name.is_none() && ahead.long_link.is_none();
                return if nothing_ahead { Ok(None) } else { Err(TarError::Truncated) };
            };
            let slot = match block[field::TYPE] {
                b'x' => {
                    let records = self.extended(&block)?;
                    if ahead.pax.replace(self.pax(&records)?).is_some() {
                        return Err(TarError::Malformed("pair of extended headers"));
                    }
                    continue;
                }
                b'g' => {
                    let records = self.extended(&block)?;
                    check_global(&records)?;
                    continue;
                }
                b'L' => &mut ahead.long_name,
                b'K' => &mut ahead.long_link,
                _ => return self.member(&block, ahead).map(Some),
            };
            let mut name = self.extended(&block)?;
            name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
            if slot.replace(name).is_some() {
                return Err(TarError::Malformed("pair of long names"));
            }
        }
    }

    /// Returns some of the current member's data, in ascending order of offsets; `None` at its end.
    pub(crate) fn data(&mut self) -> Result<Option<Data<'_>>, TarError> {
        self.return_lent();
        while let Some(region) = self.data.0.get(self.region) {
            if self.done < region.bytes {
                break;
            }
            self.region += 1;
            self.done = 0;
        }
        let Some(&Region { offset, bytes }) = self.data.0.get(self.region) else { return Ok(None) };
        let available = fill(&mut self.source)?;
        if available.is_empty() {
            return Err(TarError::Truncated);
        }
        let length = available.len().min(usize::try_from(bytes - self.done).unwrap_or(usize::MAX));
        let data = Data { offset: offset + self.done, bytes: &available[..length] };
        self.lent = length;
        self.done += length as u64;
        self.stored_left -= length as u64;
        self.position += length as u64;
        Ok(Some(data))
    }

    fn return_lent(&mut self) {
        self.source.consume(std::mem::take(&mut self.lent));
    }

    /// Passes over what is left of the current member and its padding.
    fn skip_data(&mut self) -> Result<(), TarError> {
        self.return_lent();
        let left = std::mem::take(&mut self.stored_left) + std::mem::take(&mut self.padding) as u64;
        self.data.0.clear();
        self.region = 0;
        self.done = 0;
        self.pass(left)
    }

    /// Reads `count` bytes as literals.
    fn pass(&mut self, mut count: u64) -> Result<(), TarError> {
        while count > 0 {
            let available = fill(&mut self.source)?;
            if available.is_empty() {
                return Err(TarError::Truncated);
            }
            let length = available.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            self.literals.literal(&available[..length]);
            self.source.consume(length);
            self.position += length as u64;
            count -= length as u64;
        }
        Ok(())
    }

    /// Reads one block; `None` if the stream ends before its first byte.
    fn block(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, TarError> {
        let mut block = ZERO_BLOCK;
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            let available = fill(&mut self.source)?;
            if available.is_empty() {
                return if filled == 0 { Ok(None) } else { Err(TarError::Truncated) };
            }
            let length = available.len().min(BLOCK_BYTES - filled);
            block[filled..filled + length].copy_from_slice(&available[..length]);
            self.source.consume(length);
            filled += length;
        }
        self.literals.literal(&block);
        self.position += BLOCK_BYTES as u64;
        LimitExceeded::check("size of the layer", self.position, self.limits.layer_bytes)?;
        Ok(Some(block))
    }

    /// Reads a header block with a right checksum; `None` at the end of the archive, everything behind it read.
    fn next_header(&mut self) -> Result<Option<[u8; BLOCK_BYTES]>, TarError> {
        if self.ended {
            return Ok(None);
        }
        let Some(block) = self.block()? else {
            // No end marker: some tools leave it out, and a cut between members is no other stream.
            self.ended = true;
            return Ok(None);
        };
        if block == ZERO_BLOCK {
            self.ended = true;
            if self.block()?.is_some_and(|second| second != ZERO_BLOCK) {
                return Err(TarError::Malformed("end: one zero block and then more"));
            }
            self.pass_trailer()?;
            return Ok(None);
        }
        let unsigned = i64::from(header::checksum(&block));
        let stated = number(&block[field::CHECKSUM])?;
        if stated != unsigned && stated != signed_checksum(&block) {
            return Err(TarError::Malformed("header checksum"));
        }
        Ok(Some(block))
    }

    /// Reads what follows the end marker; it belongs to the digest of the stream and to nothing else.
    fn pass_trailer(&mut self) -> Result<(), TarError> {
        loop {
            let length = fill(&mut self.source)?.len();
            if length == 0 {
                return Ok(());
            }
            self.pass(length as u64)?;
            LimitExceeded::check("size of the layer", self.position, self.limits.layer_bytes)?;
        }
    }

    /// Reads the content of an extended header or a long name.
    fn extended(&mut self, block: &[u8; BLOCK_BYTES]) -> Result<Vec<u8>, TarError> {
        let size = size_field(block)?;
        LimitExceeded::check("size of an extended header", size, self.limits.header_bytes)?;
        let mut bytes = Vec::new();
        let mut left = size;
        while left > 0 {
            let available = fill(&mut self.source)?;
            if available.is_empty() {
                return Err(TarError::Truncated);
            }
            // `left` is below the limit of a header.
            let length = available.len().min(left as usize);
            bytes.extend_from_slice(&available[..length]);
            self.source.consume(length);
            left -= length as u64;
        }
        self.literals.literal(&bytes);
        self.position += size;
        self.pass(padding(size) as u64)?;
        Ok(bytes)
    }

    fn pax(&self, bytes: &[u8]) -> Result<Pax, TarError> {
        let mut found = Pax::default();
        let mut xattrs_bytes = 0;
        for record in pax::records(bytes) {
            let (keyword, value) = record.ok_or(TarError::Malformed("PAX record"))?;
            let decimal = || pax::decimal(value).ok_or(TarError::Malformed("PAX number"));
            match keyword {
                // An empty value takes back what an earlier record said.
                b"path" => found.path = text(value)?,
                b"linkpath" => found.link = text(value)?,
                b"size" => {
                    let size = decimal()?;
                    // Where the next header is would depend on the reader.
                    if found.size.replace(size).is_some_and(|earlier| earlier != size) {
                        return Err(TarError::Malformed("PAX size given twice"));
                    }
                }
                b"uid" => found.uid = Some(decimal()?),
                b"gid" => found.gid = Some(decimal()?),
                b"mtime" => found.mtime = Some(time(value)?),
                _ => {
                    if let Some(name) = keyword.strip_prefix(pax::XATTR_PREFIX) {
                        xattrs_bytes += value.len() as u64;
                        self.check_xattr(value.len() as u64, xattrs_bytes)?;
                        found.xattrs.insert(name.to_vec(), value.to_vec());
                    } else {
                        found.sparse.take(keyword, value, self.limits.sparse_regions)?;
                    }
                }
            }
        }
        Ok(found)
    }

    fn check_xattr(&self, value_bytes: u64, sum_bytes: u64) -> Result<(), TarError> {
        let limits = &self.limits;
        LimitExceeded::check("size of an extended attribute", value_bytes, limits.xattr_value_bytes)?;
        LimitExceeded::check("size of the extended attributes of a file", sum_bytes, limits.xattrs_bytes)?;
        Ok(())
    }

    /// Makes a member of its header and what came before.
    fn member(&mut self, block: &[u8; BLOCK_BYTES], ahead: Ahead) -> Result<Member, TarError> {
        self.members += 1;
        LimitExceeded::check("number of entries of the layer", self.members, self.limits.entries)?;
        let has_pax = ahead.pax.is_some();
        let mut pax = ahead.pax.unwrap_or_default();
        let sparse_name = pax.sparse.name.take();
        let name = sparse_name.map_or_else(|| one_name(pax.path, ahead.long_name), |name| Ok(Some(name)))?;
        let name = name.map_or_else(|| header_name(block), Ok)?;
        let link = one_name(pax.link, ahead.long_link)?;
        let link = link.unwrap_or_else(|| until_nul(&block[field::LINK]).to_vec());
        for (what, length) in [("length of a path", name.len()), ("length of a link target", link.len())] {
            // A marker's prefix comes on top of the longest path.
            let without_prefix = (length as u64).saturating_sub(6);
            LimitExceeded::check(what, without_prefix, self.limits.path_bytes)?;
        }
        let owner = |from_pax: Option<u64>, slot| -> Result<u32, TarError> {
            let value =
                from_pax.map_or_else(|| number(&block[slot]), |id| Ok(i64::try_from(id).unwrap_or(-1)))?;
            u32::try_from(value).ok().filter(|id| *id != u32::MAX).ok_or(TarError::Malformed("owner"))
        };
        let mode = u64::try_from(number(&block[field::MODE])?).map_err(|_| TarError::Malformed("mode"))?;
        let mut member = Member {
            kind: kind(block, &name, link)?,
            name,
            // Twelve bits.
            mode: (mode & 0o7777) as u32,
            uid: owner(pax.uid, field::UID)?,
            gid: owner(pax.gid, field::GID)?,
            mtime: pax.mtime.map_or_else(|| header_time(block), Ok)?,
            xattrs: pax.xattrs,
            size: 0,
        };
        if member.kind == MemberKind::File {
            let stored = pax.size.map_or_else(|| size_field(block), Ok)?;
            member.size = self.start_data(block, stored, has_pax.then_some(pax.sparse))?;
        }
        Ok(member)
    }

    /// Prepares reading the data of a file; returns its size.
    fn start_data(
        &mut self,
        block: &[u8; BLOCK_BYTES],
        stored: u64,
        pax: Option<PaxSparse>,
    ) -> Result<u64, TarError> {
        if i64::try_from(stored).is_err() {
            return Err(TarError::Malformed("size"));
        }
        let limit = self.limits.sparse_regions;
        self.padding = padding(stored);
        self.stored_left = stored;
        let map = pax.map(PaxSparse::map).transpose()?.flatten();
        let size = if block[field::TYPE] == b'S' {
            self.old_gnu_map(block)?
        } else {
            match map {
                None => {
                    self.data.push(0, stored, limit)?;
                    stored
                }
                Some(PaxMap::Records { size, regions }) => {
                    self.data = regions;
                    size
                }
                Some(PaxMap::Content { size }) => {
                    self.content_map()?;
                    size
                }
            }
        };
        self.data.check(size, self.stored_left)?;
        self.logical_bytes = self.logical_bytes.saturating_add(size);
        let asked = self.logical_bytes.max(self.position.saturating_add(stored));
        LimitExceeded::check("size of the layer", asked, self.limits.layer_bytes)?;
        Ok(size)
    }

    fn old_gnu_map(&mut self, block: &[u8; BLOCK_BYTES]) -> Result<u64, TarError> {
        if !sparse::is_gnu(block) {
            return Err(TarError::Malformed("sparse header"));
        }
        let limit = self.limits.sparse_regions;
        let mut found = sparse::old_gnu(block, limit)?;
        while found.continues {
            let more = self.block()?.ok_or(TarError::Truncated)?;
            let before = found.regions.0.len();
            found.continues = sparse::old_gnu_more(&more, &mut found.regions, limit)?;
            if found.continues && found.regions.0.len() == before {
                return Err(TarError::Malformed("sparse map"));
            }
        }
        self.data = found.regions;
        Ok(found.size)
    }

    fn content_map(&mut self) -> Result<(), TarError> {
        let mut map = ContentMap::default();
        loop {
            let left = self.stored_left.checked_sub(BLOCK_BYTES as u64);
            self.stored_left = left.ok_or(TarError::Malformed("sparse map"))?;
            let block = self.block()?.ok_or(TarError::Truncated)?;
            if map.take(&block, self.limits.sparse_regions)? {
                self.data = map.regions;
                return Ok(());
            }
        }
    }
}

/// `fill_buf` that does not stop at signals.
fn fill<R: BufRead>(source: &mut R) -> Result<&[u8], TarError> {
    loop {
        match source.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
            Ok(_) => break,
        }
    }
    // The borrow of the first call cannot leave the loop; the second one only looks at the buffer.
    Ok(source.fill_buf()?)
}

/// A global header may say what it likes, but not how long the next member is: some readers believe it, some do not.
fn check_global(records: &[u8]) -> Result<(), TarError> {
    for record in pax::records(records) {
        let (keyword, _) = record.ok_or(TarError::Malformed("PAX record"))?;
        if keyword == b"size" {
            return Err(TarError::Malformed("global header: it has a size"));
        }
    }
    Ok(())
}

/// One name of two sources: if both speak they have to agree, because readers differ in whom they believe.
fn one_name(pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>) -> Result<Option<Vec<u8>>, TarError> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => Err(TarError::Malformed("pair of names for one member")),
        (pax, gnu) => Ok(pax.or(gnu)),
    }
}

#[cfg(test)]
mod tests;
