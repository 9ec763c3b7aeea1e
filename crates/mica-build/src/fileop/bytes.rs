//! Copying the bytes of one file: shared extents, else inside the kernel, else through a buffer; holes stay holes.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use mica_api::Cancel;
use rustix::fs::{SeekFrom, Stat};
use rustix::io::Errno;

const BUFFER_BYTES: usize = 256 << 10;
/// What one call copies at most, so that cancelling takes effect soon.
const STEP_BYTES: u64 = 16 << 20;

/// Copies files; keeps a buffer.
pub(super) struct ByteCopier<'a> {
    cancel: &'a Cancel,
    buffer: Vec<u8>,
}

impl<'a> ByteCopier<'a> {
    pub(super) fn new(cancel: &'a Cancel) -> Self {
        Self { cancel, buffer: Vec::new() }
    }

    /// Copies `from`, whose metadata is `stat`, into the empty file `to`.
    pub(super) fn copy(&mut self, from: &File, stat: &Stat, to: &File) -> io::Result<()> {
        let size = stat.st_size.cast_unsigned();
        if size == 0 {
            return Ok(());
        }
        // Through an overlay both calls fail with EXDEV; asking the device first saves them.
        let same_device = rustix::fs::fstat(to)?.st_dev == stat.st_dev;
        if same_device && rustix::fs::ioctl_ficlone(to, from).is_ok() {
            return Ok(());
        }
        let sparse = stat.st_blocks.cast_unsigned().saturating_mul(512) < size;
        if !sparse {
            return self.range(from, to, 0..size, same_device);
        }
        let mut at = 0;
        while let Some(start) = seek(from, SeekFrom::Data(at))?.filter(|start| *start < size) {
            let end = seek(from, SeekFrom::Hole(start))?.unwrap_or(size).min(size);
            self.range(from, to, start..end, same_device)?;
            at = end;
        }
        Ok(rustix::fs::ftruncate(to, size)?)
    }

    /// Copies `from` to its end, and returns the digest of what was written.
    pub(super) fn copy_hashing(&mut self, from: &File, to: &File) -> io::Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        self.buffer.resize(BUFFER_BYTES, 0);
        let mut at = 0;
        loop {
            let length = read(from, &mut self.buffer, at)?;
            if length == 0 {
                return Ok(*hasher.finalize().as_bytes());
            }
            hasher.update(&self.buffer[..length]);
            write_all(to, &self.buffer[..length], at)?;
            at += length as u64;
            self.check()?;
        }
    }

    fn range(
        &mut self,
        from: &File,
        to: &File,
        range: std::ops::Range<u64>,
        same_device: bool,
    ) -> io::Result<()> {
        let mut at = range.start;
        if same_device {
            while at < range.end {
                let (mut source, mut target) = (at, at);
                let wanted = (range.end - at).min(STEP_BYTES) as usize;
                match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), wanted) {
                    Ok(0) => return Ok(()),
                    Ok(copied) => at += copied as u64,
                    Err(Errno::INTR) => {}
                    // Not between these two files: the buffer does the rest.
                    Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => break,
                    Err(error) => return Err(error.into()),
                }
                self.check()?;
            }
        }
        self.buffer.resize(BUFFER_BYTES, 0);
        while at < range.end {
            let wanted = (range.end - at).min(BUFFER_BYTES as u64) as usize;
            let length = read(from, &mut self.buffer[..wanted], at)?;
            if length == 0 {
                // The file became shorter; whoever asked compares its identity.
                return Ok(());
            }
            write_all(to, &self.buffer[..length], at)?;
            at += length as u64;
            self.check()?;
        }
        Ok(())
    }

    fn check(&self) -> io::Result<()> {
        self.cancel.check().map_err(|cancelled| io::Error::new(io::ErrorKind::Interrupted, cancelled))
    }
}

/// Seeks to data or a hole; `None` if there is none up to the end.
fn seek(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn read(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match rustix::io::pread(file.as_fd(), &mut *buffer, at) {
            Err(Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

fn write_all(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, at)
}
