//! Compression of layers as they leave, decompression as they come.
//!
//! Compressed bytes are reproducible: block boundaries are fixed in the *uncompressed* stream, so the number of threads
//! does not show. Gzip is written as independent members of 1 MiB, which every reader of gzip accepts; zstd always with
//! its multi-threaded encoder, whose bytes differ from the single-threaded one but not between thread counts.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

use crate::limits::{LimitExceeded, Limits};

/// Uncompressed bytes of a gzip member.
const MEMBER_BYTES: usize = 1 << 20;
/// Blocks a gzip worker has at a time: one it works on, one ready.
const BLOCKS_PER_WORKER: usize = 2;
/// Longest magic number.
const MAGIC_BYTES: u64 = 6;
/// Size of reads when nothing has to be grouped.
const BUFFER_BYTES: usize = 256 << 10;

/// The gzip level (libdeflate) that is smaller than the default of the reference and several times as fast: of a Debian
/// root file system of 170 MB it makes 59.3 MB in 2.1 s, where BuildKit 0.26 makes 61.3 MB in 9.8 s (2 cores).
pub const GZIP_LEVEL: i32 = 7;
/// zstd's own default level.
pub const ZSTD_LEVEL: i32 = 3;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// Gzip with a libdeflate level, 1 to 12.
    Gzip {
        /// Level; out of range is clamped.
        level: i32,
    },
    /// zstd, levels 1 to 22.
    Zstd {
        /// Level; out of range is clamped.
        level: i32,
    },
}

/// A compression that layers are found in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Not compressed.
    Plain,
    /// Gzip, any number of members.
    Gzip,
    /// zstd, any number of frames.
    Zstd,
    /// bzip2, any number of streams (`ADD x.tar.bz2`).
    Bzip2,
    /// xz, any number of streams (`ADD x.tar.xz`).
    Xz,
}

impl Format {
    /// Says what starts with these bytes; six are enough.
    pub fn of(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame first, as some zstd writers put one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }
}

/// Compresses everything `input` gives; returns the number of bytes written.
///
/// Memory: about 4 MiB per thread. The bytes do not depend on `threads`.
///
/// # Errors
/// Those of `input` and `output`.
pub fn compress(
    input: &mut dyn Read,
    output: &mut dyn Write,
    compression: Compression,
    threads: usize,
) -> io::Result<u64> {
    let mut output = Counting { inner: output, bytes: 0 };
    let threads = threads.clamp(1, 64);
    match compression {
        Compression::None => copy(input, &mut output)?,
        Compression::Gzip { level } => gzip(input, &mut output, level, threads)?,
        Compression::Zstd { level } => {
            let range = zstd::compression_level_range();
            let level = level.clamp(1, *range.end());
            let mut encoder = zstd::stream::write::Encoder::new(&mut output, level)?;
            encoder.include_checksum(true)?;
            // Never 0: see the head of this file.
            encoder.multithread(u32::try_from(threads).unwrap_or(1))?;
            copy(input, &mut encoder)?;
            encoder.finish()?;
        }
    }
    output.inner.flush()?;
    Ok(output.bytes)
}

fn copy(input: &mut dyn Read, output: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => output.write_all(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Counts what passes.
struct Counting<'a> {
    inner: &'a mut dyn Write,
    bytes: u64,
}

impl Write for Counting<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A block to compress, and the compressed bytes in a buffer used before.
struct Job {
    plain: Vec<u8>,
    packed: Vec<u8>,
}

/// A thread that compresses blocks in the order it gets them.
struct Worker {
    jobs: SyncSender<Job>,
    done: Receiver<Job>,
}

/// Deals blocks to workers in turn and collects them in the same turn, so order needs no bookkeeping.
fn gzip(input: &mut dyn Read, output: &mut dyn Write, level: i32, threads: usize) -> io::Result<()> {
    std::thread::scope(|scope| {
        let mut workers: Vec<Worker> = Vec::new();
        let mut under_way: VecDeque<usize> = VecDeque::new();
        let mut spare: Vec<Job> = Vec::new();
        let mut turn = 0;
        loop {
            let mut job = spare.pop().unwrap_or_else(|| Job { plain: Vec::new(), packed: Vec::new() });
            job.plain.clear();
            io::Read::take(&mut *input, MEMBER_BYTES as u64).read_to_end(&mut job.plain)?;
            let is_last = job.plain.len() < MEMBER_BYTES;
            // An empty stream is one empty member; otherwise an empty rest is nothing.
            if !job.plain.is_empty() || turn == 0 {
                let index = turn % threads;
                if workers.len() <= index {
                    workers.push(start_worker(scope, level)?);
                }
                workers[index].jobs.send(job).map_err(|_| worker_ended())?;
                under_way.push_back(index);
                turn += 1;
            }
            let keep = if is_last { 0 } else { threads * BLOCKS_PER_WORKER - 1 };
            while under_way.len() > keep {
                let Some(index) = under_way.pop_front() else { break };
                let job = workers[index].done.recv().map_err(|_| worker_ended())?;
                output.write_all(&job.packed)?;
                spare.push(job);
            }
            if is_last {
                return Ok(());
            }
        }
    })
}

fn worker_ended() -> io::Error {
    io::Error::other("a compression thread ended early")
}

fn start_worker<'scope>(scope: &'scope Scope<'scope, '_>, level: i32) -> io::Result<Worker> {
    let (jobs, inbox) = sync_channel::<Job>(BLOCKS_PER_WORKER);
    let (outbox, done) = sync_channel::<Job>(BLOCKS_PER_WORKER);
    let level = libdeflater::CompressionLvl::new(level.clamp(1, 12)).unwrap_or_default();
    std::thread::Builder::new().spawn_scoped(scope, move || {
        let mut compressor = libdeflater::Compressor::new(level);
        while let Ok(mut job) = inbox.recv() {
            job.packed.resize(compressor.gzip_compress_bound(job.plain.len()), 0);
            let Ok(length) = compressor.gzip_compress(&job.plain, &mut job.packed) else { return };
            job.packed.truncate(length);
            if outbox.send(job).is_err() {
                return;
            }
        }
    })?;
    Ok(Worker { jobs, done })
}

/// Opens compressed bytes of any known format.
#[derive(Debug)]
pub struct Decompressor;

impl Decompressor {
    /// Returns the bytes of `reader` uncompressed, within the default [`Limits`]. See [`decompress`].
    ///
    /// # Errors
    /// Those of `reader`, and of bytes that only start like a compressed stream.
    pub fn detect<'a>(reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        decompress(reader, &Limits::default()).map(|(_, reader)| reader)
    }
}

/// Says what compression the bytes of `reader` have and returns them uncompressed.
///
/// The stream ends with an error that holds [`LimitExceeded`] once it is larger, in itself or against its compressed
/// form, than the limits allow; windows larger than the limit are refused. Memory is bounded by the window.
///
/// # Errors
/// Those of `reader`, and of bytes that only start like a compressed stream.
pub fn decompress<'a>(
    mut reader: impl Read + Send + 'a,
    limits: &Limits,
) -> io::Result<(Format, Box<dyn Read + Send + 'a>)> {
    let start = start(&mut reader)?;
    let format = Format::of(&start);
    let inner = io::Cursor::new(start).chain(reader);
    let input = BufReader::with_capacity(BUFFER_BYTES, CountingReader { inner, bytes: 0 });
    let window_bytes = limits.window_bytes;
    let guard =
        |stream| Box::new(Guarded { stream, bytes: 0, limits: limits.clone() }) as Box<dyn Read + Send + 'a>;
    let reader = match format {
        Format::Plain => Box::new(input),
        Format::Gzip => guard(Stream::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input)))),
        Format::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
            decoder.window_log_max(window_bytes.max(1 << 10).ilog2())?;
            guard(Stream::Zstd(decoder))
        }
        Format::Bzip2 => guard(Stream::Bzip2(bzip2::bufread::MultiBzDecoder::new(input))),
        Format::Xz => {
            let window_kib = u32::try_from(window_bytes >> 10).unwrap_or(u32::MAX);
            guard(Stream::Xz(Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, window_kib))))
        }
    };
    Ok((format, reader))
}

/// Reads the first bytes, fewer only if there are no more: a pipe may give them one by one.
fn start(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(MAGIC_BYTES as usize);
    reader.take(MAGIC_BYTES).read_to_end(&mut start)?;
    Ok(start)
}

struct CountingReader<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bytes += read as u64;
        Ok(read)
    }
}

type Input<R> = BufReader<CountingReader<R>>;

/// A decoder and, inside it, the count of what it has read.
enum Stream<R: Read> {
    Gzip(Box<flate2::bufread::MultiGzDecoder<Input<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, Input<R>>),
    Bzip2(bzip2::bufread::MultiBzDecoder<Input<R>>),
    Xz(Box<lzma_rust2::XzReader<Input<R>>>),
}

impl<R: Read> Stream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Bzip2(decoder) => decoder.read(buffer),
            Self::Xz(decoder) => decoder.read(buffer),
        }
    }

    fn compressed_bytes(&self) -> u64 {
        let input = match self {
            Self::Gzip(decoder) => decoder.get_ref(),
            Self::Zstd(decoder) => decoder.get_ref(),
            Self::Bzip2(decoder) => decoder.get_ref(),
            Self::Xz(decoder) => decoder.inner(),
        };
        input.get_ref().bytes
    }
}

/// Ends a stream that grows beyond what its compressed form justifies.
struct Guarded<R: Read> {
    stream: Stream<R>,
    bytes: u64,
    limits: Limits,
}

impl<R: Read> Read for Guarded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.bytes += read as u64;
        let limits = &self.limits;
        LimitExceeded::check("size of the layer", self.bytes, limits.layer_bytes)
            .map_err(io::Error::other)?;
        if self.bytes > limits.ratio_from_bytes {
            let ratio = self.bytes / self.stream.compressed_bytes().max(1);
            LimitExceeded::check("compression ratio of the layer", ratio, limits.ratio)
                .map_err(io::Error::other)?;
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
