//! Streams a layer as tar: headers from the table, content from the layer's directory.

use std::io::{self, Read, Write};

use mica_sys::root::Root;

use super::{ZERO_BLOCK, header, padding};
use crate::directories::Directories;
use crate::entry::{ContentDigest, Entry, Kind};
use crate::limits::Cancelled;
use crate::path;
use crate::table::Table;

/// Size of reads and writes; large enough that system calls do not count beside hashing.
pub(crate) const BUFFER_BYTES: usize = 256 << 10;

/// A frozen way to write a tar; stored beside what was written with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TarFormat {
    /// Format 1, described in [`crate::tar`].
    #[default]
    V1,
}

impl TarFormat {
    /// The number to record.
    pub fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
        }
    }

    /// The format with a recorded number, if this program knows it.
    pub fn from_number(number: u32) -> Option<Self> {
        (number == 1).then_some(Self::V1)
    }
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TarSummary {
    /// Length of the stream.
    pub bytes: u64,
}

/// Why a layer could not be written as tar.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A file of the layer cannot be read.
    #[error("cannot read {path:?} of the layer")]
    Read {
        /// Path in the layer, escaped.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what the table says: the layer's directory was changed.
    #[error("{path:?} has {actual} bytes where the layer table says {expected}")]
    Changed {
        /// Path in the layer, escaped.
        path: String,
        /// Bytes promised.
        expected: u64,
        /// Bytes found.
        actual: u64,
    },
    /// A file has not the bytes that the table says.
    #[error("the content of {0:?} is not what the layer table says")]
    Damaged(String),
    /// The receiver of the tar failed.
    #[error("cannot write the layer")]
    Output(#[source] io::Error),
    /// The user gave up.
    #[error("cancelled")]
    Cancelled,
}

/// Writes a layer as tar. Reads every file once; nothing is verified beyond the lengths.
///
/// # Errors
/// [`WriteError`]; what was written so far is useless then.
pub fn write_tar(
    table: &Table,
    fs: &Root,
    out: &mut dyn Write,
    format: TarFormat,
    cancel: Cancelled<'_>,
) -> Result<TarSummary, WriteError> {
    let TarFormat::V1 = format;
    let mut blocks = Direct(out);
    let mut streaming = Streaming::new(fs, &mut blocks, cancel);
    emit(table, &mut streaming)?;
    Ok(TarSummary { bytes: streaming.finish()? })
}

/// Receives the parts of a tar in order.
pub(crate) trait Sink {
    /// Bytes that are in the table: headers, padding, end.
    fn literal(&mut self, bytes: &[u8]) -> Result<(), WriteError>;
    /// The content of the file at `index` of the table.
    fn content(&mut self, index: usize, entry: &Entry, size: u64) -> Result<(), WriteError>;
}

/// Hands the tar of a table to a sink.
pub(crate) fn emit(table: &Table, sink: &mut dyn Sink) -> Result<(), WriteError> {
    let mut headers = Vec::with_capacity(2048);
    for (index, entry) in table.entries().iter().enumerate() {
        headers.clear();
        header::put_entry(&mut headers, entry);
        sink.literal(&headers)?;
        if let Kind::File { size, .. } = entry.kind {
            sink.content(index, entry, size)?;
            sink.literal(&ZERO_BLOCK[..padding(size)])?;
        }
    }
    sink.literal(&[ZERO_BLOCK, ZERO_BLOCK].concat())
}

/// Takes filled buffers and gives back empty ones, so that a consumer on another thread can keep some.
pub(crate) trait Blocks {
    /// Consumes the bytes of `block`; the buffer returned is empty and has the same capacity.
    fn put(&mut self, block: Vec<u8>) -> io::Result<Vec<u8>>;
}

/// Writes blocks as they come.
struct Direct<'a>(&'a mut dyn Write);

impl Blocks for Direct<'_> {
    fn put(&mut self, mut block: Vec<u8>) -> io::Result<Vec<u8>> {
        self.0.write_all(&block)?;
        block.clear();
        Ok(block)
    }
}

/// The sink that reads the files: collects everything in one buffer, so content is copied only by the kernel.
pub(crate) struct Streaming<'a> {
    directories: Directories<'a>,
    out: &'a mut dyn Blocks,
    buffer: Vec<u8>,
    flushed_bytes: u64,
    cancel: Cancelled<'a>,
    /// Digests by index of the table, if they are wanted.
    pub(crate) digests: Option<Vec<(usize, ContentDigest)>>,
}

impl<'a> Streaming<'a> {
    pub(crate) fn new(fs: &'a Root, out: &'a mut dyn Blocks, cancel: Cancelled<'a>) -> Self {
        Self {
            directories: Directories::new(fs),
            out,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            flushed_bytes: 0,
            cancel,
            digests: None,
        }
    }

    fn flush(&mut self) -> Result<(), WriteError> {
        if (self.cancel)() {
            return Err(WriteError::Cancelled);
        }
        self.flushed_bytes += self.buffer.len() as u64;
        let full = std::mem::take(&mut self.buffer);
        self.buffer = self.out.put(full).map_err(WriteError::Output)?;
        Ok(())
    }

    /// Hands over the last buffer and returns the length of the stream.
    pub(crate) fn finish(mut self) -> Result<u64, WriteError> {
        self.flush()?;
        Ok(self.flushed_bytes)
    }

    /// Reads from `file` behind what the buffer holds; returns how many bytes came.
    fn fill(&mut self, file: &mut impl Read, wanted: u64) -> io::Result<usize> {
        let start = self.buffer.len();
        let room = (BUFFER_BYTES - start) as u64;
        // Both are at most the buffer's size.
        let end = start + wanted.min(room) as usize;
        self.buffer.resize(end, 0);
        let read = loop {
            match file.read(&mut self.buffer[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(start + *read.as_ref().unwrap_or(&0));
        read
    }
}

impl Sink for Streaming<'_> {
    fn literal(&mut self, mut bytes: &[u8]) -> Result<(), WriteError> {
        while !bytes.is_empty() {
            if self.buffer.len() == BUFFER_BYTES {
                self.flush()?;
            }
            let (head, rest) = bytes.split_at(bytes.len().min(BUFFER_BYTES - self.buffer.len()));
            self.buffer.extend_from_slice(head);
            bytes = rest;
        }
        Ok(())
    }

    fn content(&mut self, index: usize, entry: &Entry, size: u64) -> Result<(), WriteError> {
        let failed = |source| WriteError::Read { path: path::show(&entry.path), source };
        let changed = |actual| WriteError::Changed { path: path::show(&entry.path), expected: size, actual };
        let (mut file, actual) = self.directories.open_file(&entry.path).map_err(failed)?;
        if actual != size {
            return Err(changed(actual));
        }
        let mut hasher = self.digests.is_some().then(blake3::Hasher::new);
        let mut missing = size;
        while missing > 0 {
            if self.buffer.len() == BUFFER_BYTES {
                self.flush()?;
            }
            let read = self.fill(&mut file, missing).map_err(failed)?;
            if read == 0 {
                return Err(changed(size - missing));
            }
            if let Some(hasher) = &mut hasher {
                hasher.update(&self.buffer[self.buffer.len() - read..]);
            }
            missing -= read as u64;
        }
        if let (Some(hasher), Some(digests)) = (hasher, &mut self.digests) {
            digests.push((index, ContentDigest(*hasher.finalize().as_bytes())));
        }
        Ok(())
    }
}
