//! Where bytes go: a file that is complete or absent, or a descriptor of the caller's.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use mica_api::{Class, Destination, Error};

/// An output being written.
///
/// Dropped without [`OutputFile::commit`], a file leaves nothing behind.
pub struct OutputFile {
    writer: BufWriter<File>,
    rename: Option<(PathBuf, PathBuf)>,
}

/// Large writes keep the number of system calls low.
const BUFFER_BYTES: usize = 256 << 10;

impl OutputFile {
    /// Opens a destination. Devices, pipes and sockets named as files are written as they are.
    ///
    /// # Errors
    /// When the file cannot be made; directories are refused.
    pub fn open(destination: &Destination) -> Result<Self, Error> {
        match destination {
            Destination::File(path) => Self::create(path).map_err(|error| refused(path, &error)),
            Destination::Stream(descriptor) => {
                let file =
                    File::from(descriptor.try_clone().map_err(|error| refused(Path::new("-"), &error))?);
                Ok(Self { writer: BufWriter::with_capacity(BUFFER_BYTES, file), rename: None })
            }
            Destination::Directory(path) => {
                Err(Error::new(Class::Invalid, format!("{} is a directory, not a file", path.display())))
            }
        }
    }

    fn create(path: &Path) -> io::Result<Self> {
        if let Ok(metadata) = fs::metadata(path) {
            let kind = metadata.file_type();
            if kind.is_dir() {
                return Err(io::Error::from(io::ErrorKind::IsADirectory));
            }
            if kind.is_char_device() || kind.is_fifo() || kind.is_socket() {
                let file = File::options().write(true).open(path)?;
                return Ok(Self { writer: BufWriter::with_capacity(BUFFER_BYTES, file), rename: None });
            }
        }
        // a symbolic link stays one: what it points at is replaced
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy().into_owned();
        let temporary = path.with_file_name(format!(".{name}.mica-{}", std::process::id()));
        let file = File::options().write(true).create_new(true).open(&temporary)?;
        Ok(Self { writer: BufWriter::with_capacity(BUFFER_BYTES, file), rename: Some((temporary, path)) })
    }

    /// Makes the output complete: synced, and under its name.
    ///
    /// # Errors
    /// When the last bytes, the sync or the rename fail; a file is gone then.
    pub fn commit(mut self) -> Result<(), Error> {
        let Some((temporary, path)) = self.rename.clone() else {
            return self.writer.flush().map_err(|error| refused(Path::new("-"), &error));
        };
        let done = self
            .writer
            .flush()
            .and_then(|()| self.writer.get_ref().sync_data())
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| sync_folder(&path));
        done.map_err(|error| refused(&path, &error))?;
        self.rename = None;
        Ok(())
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.rename {
            // the operation failed already; a leftover beside the target is only untidy
            let _ = fs::remove_file(temporary);
        }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

fn refused(path: &Path, error: &io::Error) -> Error {
    Error::new(Class::of_io(error), format!("cannot write {}", path.display())).why(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_that_is_not_committed_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        let mut output = OutputFile::open(&Destination::File(path.clone())).unwrap();
        output.write_all(b"half").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_committed_output_replaces_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, "old").unwrap();
        let mut output = OutputFile::open(&Destination::File(path.clone())).unwrap();
        output.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        output.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
