//! Files of this machine as a tar.

use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use mica_api::{Class, Error};
use tar_core::builder::EntryBuilder;
use tar_core::{EntryType, HEADER_SIZE};

/// What is packed.
#[derive(Debug)]
pub(super) struct Source {
    /// Where it is.
    path: PathBuf,
    /// Its last name: the first component of every member.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Whether it was written as `dir/.`.
    pub contents_only: bool,
    keep_owners: bool,
}

impl Source {
    /// Looks at a path. A trailing slash, or `-L`, follows a link.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn of(text: &str, follow_link: bool, keep_owners: bool) -> Result<Self, Error> {
        let given = Path::new(text);
        let contents_only = super::base(text).1;
        let follow = follow_link || contents_only || text.ends_with('/');
        let meta = if follow { fs::metadata(given) } else { fs::symlink_metadata(given) };
        let meta = meta.map_err(super::at(given))?;
        let path = if follow { fs::canonicalize(given).map_err(super::at(given))? } else { given.to_owned() };
        let named = if follow_link || contents_only {
            super::base(&path.to_string_lossy()).0
        } else {
            super::base(text).0
        };
        let name = match named.as_str() {
            "" | ".." => {
                fs::canonicalize(given).map(|real| super::base(&real.to_string_lossy()).0).unwrap_or_default()
            }
            _ => named,
        };
        Ok(Self { path, name, is_directory: meta.is_dir(), contents_only, keep_owners })
    }
}

/// Writes the tar; returns the bytes of the files in it.
///
/// # Errors
/// A file cannot be read, or the reader is gone.
pub(super) fn pack(source: &Source, output: File) -> Result<u64, Error> {
    let mut out = BufWriter::with_capacity(1 << 16, output);
    let name = if source.name.is_empty() { "." } else { source.name.as_str() };
    let mut waiting = vec![(source.path.clone(), name.as_bytes().to_vec())];
    let mut total = 0;
    while let Some((path, name)) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).map_err(super::at(&path))?;
        if meta.is_dir() {
            let mut children = Vec::new();
            for entry in fs::read_dir(&path).map_err(super::at(&path))? {
                let entry = entry.map_err(super::at(&path))?;
                children.push((entry.path(), [&name, &b"/"[..], entry.file_name().as_bytes()].concat()));
            }
            children.sort_by(|a, b| b.1.cmp(&a.1));
            waiting.extend(children);
        }
        total += member(&mut out, &path, &name, &meta, source.keep_owners)?;
    }
    let end = [0; 2 * HEADER_SIZE];
    out.write_all(&end).and_then(|()| out.flush()).map_err(super::at(&source.path))?;
    Ok(total)
}

fn member(
    out: &mut impl Write,
    path: &Path,
    name: &[u8],
    meta: &Metadata,
    owners: bool,
) -> Result<u64, Error> {
    let kind = meta.file_type();
    let mut entry = EntryBuilder::new_gnu();
    let mut size = 0;
    if kind.is_dir() {
        entry.path([name, b"/"].concat()).entry_type(EntryType::Directory);
    } else {
        entry.path(name);
    }
    if kind.is_file() {
        size = meta.len();
        entry.entry_type(EntryType::Regular);
    } else if kind.is_symlink() {
        let target = fs::read_link(path).map_err(super::at(path))?;
        entry.entry_type(EntryType::Symlink).link_name(target.as_os_str().as_bytes());
    } else if kind.is_fifo() {
        entry.entry_type(EntryType::Fifo);
    } else if kind.is_socket() {
        // A socket is nothing without its process; tar leaves it out too.
        return Ok(0);
    } else if !kind.is_dir() {
        return Err(Error::new(
            Class::Unsupported,
            format!("cannot copy {}: it is a device", path.display()),
        ));
    }
    let (uid, gid) = if owners { (meta.uid(), meta.gid()) } else { (0, 0) };
    fill(&mut entry, meta, uid, gid, size).map_err(|why| {
        Error::new(Class::Invalid, format!("cannot copy {}", path.display())).why(why.to_string())
    })?;
    out.write_all(&entry.finish_bytes()).map_err(super::at(path))?;
    if size > 0 {
        data(out, path, size).map_err(super::at(path))?;
    }
    Ok(size)
}

fn fill(entry: &mut EntryBuilder, meta: &Metadata, uid: u32, gid: u32, size: u64) -> tar_core::Result<()> {
    let mtime = u64::try_from(meta.mtime()).unwrap_or_default();
    entry.mode(meta.mode() & 0o7777)?.uid(uid.into())?.gid(gid.into())?.size(size)?.mtime(mtime)?;
    Ok(())
}

/// Exactly `size` bytes, whatever happens to the file meanwhile, and padding.
fn data(out: &mut impl Write, path: &Path, size: u64) -> io::Result<()> {
    let copied = io::copy(&mut File::open(path)?.take(size), out)?;
    if copied < size {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the file became shorter while it was read",
        ));
    }
    let padding = size.next_multiple_of(HEADER_SIZE as u64) - size;
    out.write_all(&[0; HEADER_SIZE][..padding as usize])
}
