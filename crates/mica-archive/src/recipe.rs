//! Recipe: what is needed beside a layer's files to give back the exact tar they came from.
//!
//! A tar of another tool differs from ours in headers, order and padding, never in the content of files. So the recipe
//! keeps all bytes that are not content, compressed, and says which part of which file goes between them.
//!
//! # Format 1
//! ```text
//! "micarec\0"  u32 le format  bytes head  bytes literals  32 bytes BLAKE3 of everything before
//! head (zstd): 32 bytes sha256 of the tar  varint length of the tar
//!              varint files, each: u8 0 and the path in the layer | u8 1 and the content itself
//!              the rest: varint literal bytes before it, file, offset, length; per part
//! literals (zstd): all other bytes of the tar in order
//! ```
//! Content is kept in the recipe itself only for files that a later member of the same tar replaced.

use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use mica_oci::{DiffId, Digest};
use mica_sys::root::Root;
use sha2::{Digest as _, Sha256};

use crate::apply::StreamId;
use crate::directories::Directories;
use crate::entry::{Entry, Kind};
use crate::limits::Cancelled;
use crate::path;
use crate::table::Table;
use crate::tar::read::Literals;
use crate::tar::{BUFFER_BYTES, Sink, WriteError, emit};
use crate::varint::{self, Cursor};

const MAGIC: &[u8; 8] = b"micarec\0";
const FORMAT: u32 = 1;
/// Headers repeat so much that a higher level gains little and would slow unpacking.
const LITERALS_LEVEL: i32 = 1;
/// Largest head that is unpacked: 5 million entries have less.
const MAX_HEAD_BYTES: u64 = 2 << 30;

/// How to give back the tar a layer was applied from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    sha256: [u8; 32],
    tar_bytes: u64,
    files: Vec<Source>,
    parts: Vec<u8>,
    literals: Vec<u8>,
}

/// Where content comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Path(Vec<u8>),
    Bytes(Vec<u8>),
}

/// A piece of content in the tar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    literal_bytes: u64,
    file: u64,
    offset: u64,
    bytes: u64,
}

/// Why a tar could not be given back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// The bytes are not a recipe of a format this program knows, or were changed.
    #[error("layer recipe is damaged")]
    Damaged,
    /// A file of the layer is missing or shorter than it was.
    #[error("cannot read {path:?} of the layer")]
    Read {
        /// Path in the layer, escaped.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// The receiver of the tar failed.
    #[error("cannot write the layer")]
    Output(#[source] io::Error),
    /// The bytes given back are not those that were read: a file of the layer was changed.
    #[error("layer {expected} is rebuilt as {actual}")]
    Mismatch {
        /// What it was.
        expected: DiffId,
        /// What came out.
        actual: DiffId,
    },
    /// The user gave up.
    #[error("cancelled")]
    Cancelled,
}

impl Recipe {
    /// Digest of the tar this gives.
    pub fn diff_id(&self) -> DiffId {
        DiffId(Digest::from_sha256(self.sha256))
    }

    /// Length of the tar this gives.
    pub fn tar_bytes(&self) -> u64 {
        self.tar_bytes
    }

    /// Returns the recipe as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut head = self.sha256.to_vec();
        varint::put(&mut head, self.tar_bytes);
        varint::put(&mut head, self.files.len() as u64);
        for file in &self.files {
            let (tag, bytes) = match file {
                Source::Path(path) => (0, path),
                Source::Bytes(bytes) => (1, bytes),
            };
            head.push(tag);
            varint::put_bytes(&mut head, bytes);
        }
        head.extend_from_slice(&self.parts);
        let head = zstd::bulk::compress(&head, 3).expect("compressing to memory cannot fail");
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&FORMAT.to_le_bytes());
        varint::put_bytes(&mut out, &head);
        varint::put_bytes(&mut out, &self.literals);
        let checksum = blake3::hash(&out);
        out.extend_from_slice(checksum.as_bytes());
        out
    }

    /// Reads what [`Recipe::encode`] wrote.
    ///
    /// # Errors
    /// [`RecipeError::Damaged`] for anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecipeError> {
        Self::take(bytes).ok_or(RecipeError::Damaged)
    }

    fn take(bytes: &[u8]) -> Option<Self> {
        let (body, checksum) = bytes.split_last_chunk::<32>()?;
        if blake3::hash(body).as_bytes() != checksum {
            return None;
        }
        let mut cursor = Cursor::new(body.strip_prefix(MAGIC)?);
        if cursor.take(4)? != FORMAT.to_le_bytes() {
            return None;
        }
        let packed = cursor.bytes()?;
        let literals = cursor.bytes()?.to_vec();
        let mut head = Vec::new();
        let decoder = zstd::stream::read::Decoder::with_buffer(packed).ok()?;
        decoder.take(MAX_HEAD_BYTES).read_to_end(&mut head).ok()?;
        let mut cursor = Cursor::new(&head);
        let sha256 = *cursor.take(32)?.first_chunk()?;
        let tar_bytes = cursor.number()?;
        let mut files = Vec::new();
        for _ in 0..cursor.number()? {
            files.push(match (cursor.byte()?, cursor.bytes()?) {
                (0, path) => Source::Path(path.to_vec()),
                (1, bytes) => Source::Bytes(bytes.to_vec()),
                _ => return None,
            });
        }
        let parts = cursor.rest().to_vec();
        Some(Self { sha256, tar_bytes, files, parts, literals })
    }
}

/// Writes the tar that a layer was applied from.
///
/// # Errors
/// [`RecipeError::Mismatch`] if the bytes written are not the original ones; whoever received them must not use them.
pub fn rebuild(
    recipe: &Recipe,
    fs: &Root,
    out: &mut dyn Write,
    cancel: Cancelled<'_>,
) -> Result<u64, RecipeError> {
    let mut output = Output { out, hash: Sha256::new(), bytes: 0, buffer: vec![0; BUFFER_BYTES], cancel };
    let mut directories = Directories::new(fs);
    let mut literals = zstd::stream::read::Decoder::with_buffer(recipe.literals.as_slice())
        .map_err(|_| RecipeError::Damaged)?;
    let mut cursor = Cursor::new(&recipe.parts);
    while !cursor.is_empty() {
        let part = take_part(&mut cursor).ok_or(RecipeError::Damaged)?;
        output.copy(&mut (&mut literals).take(part.literal_bytes), part.literal_bytes, || {
            RecipeError::Damaged
        })?;
        let file = usize::try_from(part.file).ok().and_then(|index| recipe.files.get(index));
        match file.ok_or(RecipeError::Damaged)? {
            Source::Bytes(bytes) => {
                let rest = usize::try_from(part.offset).ok().and_then(|offset| bytes.get(offset..));
                output.copy(&mut rest.unwrap_or_default(), part.bytes, || RecipeError::Damaged)?;
            }
            Source::Path(path) => {
                let failed = |source| RecipeError::Read { path: path::show(path), source };
                let (file, _) = directories.open_file(path).map_err(failed)?;
                let mut section = Section { file, offset: part.offset };
                output.copy(&mut section, part.bytes, || failed(io::ErrorKind::UnexpectedEof.into()))?;
            }
        }
    }
    output.copy_rest(&mut literals)?;
    let actual: [u8; 32] = output.hash.finalize().into();
    if actual != recipe.sha256 {
        let actual = DiffId(Digest::from_sha256(actual));
        return Err(RecipeError::Mismatch { expected: recipe.diff_id(), actual });
    }
    Ok(output.bytes)
}

/// A file read from an offset on.
struct Section {
    file: std::fs::File,
    offset: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Copies to the receiver while hashing.
struct Output<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
    bytes: u64,
    buffer: Vec<u8>,
    cancel: Cancelled<'a>,
}

impl Output<'_> {
    /// Copies exactly `count` bytes; `missing` makes the error when there are fewer.
    fn copy(
        &mut self,
        from: &mut dyn Read,
        mut count: u64,
        missing: impl Fn() -> RecipeError,
    ) -> Result<(), RecipeError> {
        while count > 0 {
            let wanted = self.buffer.len().min(usize::try_from(count).unwrap_or(usize::MAX));
            let read = self.some(from, wanted).map_err(|error| error.unwrap_or_else(&missing))?;
            if read == 0 {
                return Err(missing());
            }
            count -= read as u64;
        }
        Ok(())
    }

    fn copy_rest(&mut self, from: &mut dyn Read) -> Result<(), RecipeError> {
        while self.some(from, BUFFER_BYTES).map_err(|error| error.unwrap_or(RecipeError::Damaged))? > 0 {}
        Ok(())
    }

    /// Copies what one read gives. The error is `None` if reading failed.
    fn some(&mut self, from: &mut dyn Read, wanted: usize) -> Result<usize, Option<RecipeError>> {
        if (self.cancel)() {
            return Err(Some(RecipeError::Cancelled));
        }
        let read = loop {
            match from.read(&mut self.buffer[..wanted]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(|_| None)?,
            }
        };
        let bytes = &self.buffer[..read];
        self.hash.update(bytes);
        self.out.write_all(bytes).map_err(|error| Some(RecipeError::Output(error)))?;
        self.bytes += read as u64;
        Ok(read)
    }
}

fn take_part(cursor: &mut Cursor<'_>) -> Option<Part> {
    let literal_bytes = cursor.number()?;
    Some(Part { literal_bytes, file: cursor.number()?, offset: cursor.number()?, bytes: cursor.number()? })
}

/// Collects a recipe while a tar is read.
pub(crate) struct Capture {
    literal_bytes: u64,
    parts: Vec<u8>,
    hash: blake3::Hasher,
    /// `None` if nobody wants the recipe or it grew over its limit.
    literals: Option<zstd::stream::write::Encoder<'static, Vec<u8>>>,
    limit_bytes: u64,
    /// Content of files that were replaced, by number of the file.
    replaced: Vec<(usize, Vec<u8>)>,
    replaced_bytes: u64,
}

impl Capture {
    pub(crate) fn new(keep: bool, limit_bytes: u64) -> io::Result<Self> {
        let encoder = || zstd::stream::write::Encoder::new(Vec::new(), LITERALS_LEVEL);
        Ok(Self {
            literal_bytes: 0,
            parts: Vec::new(),
            hash: blake3::Hasher::new(),
            literals: keep.then(encoder).transpose()?,
            limit_bytes,
            replaced: Vec::new(),
            replaced_bytes: 0,
        })
    }

    /// Notes that the stream goes on with content of a file.
    pub(crate) fn part(&mut self, file: usize, offset: u64, bytes: u64) {
        for number in [std::mem::take(&mut self.literal_bytes), file as u64, offset, bytes] {
            varint::put(&mut self.parts, number);
        }
    }

    /// Whether the content of a file about to be replaced is wanted.
    pub(crate) fn wants(&self, bytes: u64) -> bool {
        self.literals.is_some() && self.replaced_bytes.saturating_add(bytes) <= self.limit_bytes
    }

    /// Takes the content of a file that is about to be replaced; `None` if it is too much to keep.
    pub(crate) fn replace(&mut self, file: usize, content: Option<Vec<u8>>) {
        match content {
            Some(content) => {
                self.replaced_bytes += content.len() as u64;
                self.replaced.push((file, content));
            }
            None => self.literals = None,
        }
    }

    /// Whether the writer would give the very bytes that were read, without reading any file.
    ///
    /// The stream is all literals, and content at certain places between them; both have to be equal.
    pub(crate) fn equals_writer(&self, table: &Table, paths: &[Option<Vec<u8>>]) -> bool {
        let mut skeleton = Skeleton {
            hash: blake3::Hasher::new(),
            literal_bytes: 0,
            expected: Cursor::new(&self.parts),
            paths,
        };
        emit(table, &mut skeleton).is_ok()
            && skeleton.expected.is_empty()
            && skeleton.hash.finalize() == self.hash.finalize()
    }

    /// Returns the recipe, if one was kept.
    pub(crate) fn finish(self, id: StreamId, paths: Vec<Option<Vec<u8>>>) -> Option<Recipe> {
        let literals = self.literals?.finish().ok()?;
        let mut files: Vec<Source> =
            paths.into_iter().map(|path| path.map_or(Source::Bytes(Vec::new()), Source::Path)).collect();
        for (file, content) in self.replaced {
            files[file] = Source::Bytes(content);
        }
        Some(Recipe { sha256: id.sha256, tar_bytes: id.bytes, files, parts: self.parts, literals })
    }
}

impl Literals for Capture {
    fn literal(&mut self, bytes: &[u8]) {
        self.literal_bytes += bytes.len() as u64;
        self.hash.update(bytes);
        if let Some(encoder) = &mut self.literals {
            let failed = encoder.write_all(bytes).is_err();
            if failed || encoder.get_ref().len() as u64 > self.limit_bytes {
                self.literals = None;
            }
        }
    }
}

/// The writer's stream without content, compared while it is made.
struct Skeleton<'a> {
    hash: blake3::Hasher,
    literal_bytes: u64,
    expected: Cursor<'a>,
    paths: &'a [Option<Vec<u8>>],
}

impl Sink for Skeleton<'_> {
    fn literal(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        self.literal_bytes += bytes.len() as u64;
        self.hash.update(bytes);
        Ok(())
    }

    fn content(&mut self, _: usize, entry: &Entry, size: u64) -> Result<(), WriteError> {
        debug_assert!(matches!(entry.kind, Kind::File { .. }));
        if size == 0 {
            return Ok(());
        }
        let differs = || WriteError::Output(io::ErrorKind::InvalidData.into());
        let part = take_part(&mut self.expected).ok_or_else(differs)?;
        let path = usize::try_from(part.file).ok().and_then(|file| self.paths.get(file)?.as_ref());
        let literal_bytes = std::mem::take(&mut self.literal_bytes);
        let same = (part.literal_bytes, part.offset, part.bytes) == (literal_bytes, 0, size);
        if same && path == Some(&entry.path) { Ok(()) } else { Err(differs()) }
    }
}
