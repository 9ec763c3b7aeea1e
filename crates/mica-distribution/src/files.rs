//! The files of an archive by name: a tar read in place, or a directory.
//!
//! Nothing is extracted (security.md row 25): a tar becomes a map from names to offsets, and only regular files are in
//! it, so a link named `layer.tar` cannot lead anywhere.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use mica_archive::Limits;
use mica_archive::tar::{MemberKind, TarError, TarReader};
use mica_sys::root::Root;

/// A file of an archive: its bytes, and how many there are.
pub type OpenFile<'a> = (Box<dyn Read + Send + 'a>, u64);

/// The files of an archive.
pub trait ImageFiles: Send + Sync {
    /// Opens a file by its exact name; `None` if there is none of that name, or if it is no regular file.
    ///
    /// # Errors
    /// [`FilesError`] when the medium cannot be read.
    fn open(&self, name: &str) -> Result<Option<OpenFile<'_>>, FilesError>;
}

/// Why the files of an archive cannot be reached.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The medium.
    #[error("read failed")]
    Io(#[from] io::Error),
    /// The tar is damaged.
    #[error("invalid tar header")]
    Tar(#[source] TarError),
    /// Two files of one name: which one counts would depend on the reader.
    #[error("{0} is there twice")]
    Duplicate(String),
}

/// A tar read in place.
#[derive(Debug)]
pub struct TarFile {
    file: Arc<File>,
    entries: HashMap<String, (u64, u64)>,
}

/// A directory.
#[derive(Debug)]
pub struct Directory {
    root: Root,
}

impl Directory {
    /// Opens a directory.
    ///
    /// # Errors
    /// [`FilesError::Io`] when it is none.
    pub fn open(path: &Path) -> Result<Self, FilesError> {
        Ok(Self { root: Root::open(path)? })
    }
}

impl ImageFiles for Directory {
    fn open(&self, name: &str) -> Result<Option<OpenFile<'_>>, FilesError> {
        match self.root.open_file(name.as_bytes()) {
            Ok(file) => {
                let size = file.metadata()?.len();
                Ok(Some((Box::new(file), size)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Reads a part of a file by position, so that several readers share one descriptor.
struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl TarFile {
    /// Makes the map of an uncompressed tar.
    ///
    /// # Errors
    /// [`FilesError`] when it is damaged, or has one name twice.
    pub fn index(mut file: File) -> Result<Self, FilesError> {
        file.seek(SeekFrom::Start(0))?;
        let mut entries = HashMap::new();
        let buffered = BufReader::with_capacity(256 << 10, &file);
        let mut tar = TarReader::new(buffered, Limits::default());
        while let Some(member) = tar.next_member().map_err(FilesError::Tar)? {
            if member.kind != MemberKind::File {
                continue;
            }
            let name = String::from_utf8_lossy(&member.name);
            let name = name.strip_prefix("./").unwrap_or(&name).to_owned();
            if entries.insert(name.clone(), (tar.position(), member.size)).is_some() {
                return Err(FilesError::Duplicate(name));
            }
        }
        Ok(Self { file: Arc::new(file), entries })
    }
}

impl ImageFiles for TarFile {
    fn open(&self, name: &str) -> Result<Option<OpenFile<'_>>, FilesError> {
        Ok(self.entries.get(name).map(|(at, size)| {
            let part = Part { file: self.file.clone(), at: *at, end: at + size };
            (Box::new(part) as Box<dyn Read + Send>, *size)
        }))
    }
}
