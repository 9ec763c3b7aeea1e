//! Extended attributes of an entry of an open directory, the entry itself and never what a link leads to.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::entry::keeps_xattr;

/// Names under which overlayfs marks a directory opaque, rootful and with `userxattr`.
pub(crate) const OPAQUE: [&[u8]; 2] = [b"trusted.overlay.opaque", b"user.overlay.opaque"];

/// What the extended attributes of an entry say.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    /// Those that belong into a layer.
    pub(crate) kept: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Whether overlayfs takes the directory for opaque.
    pub(crate) opaque: bool,
}

/// Returns the attributes of an entry that belong into a layer; `scratch` is reused between calls.
pub fn kept_xattrs(
    parent: BorrowedFd<'_>,
    name: &[u8],
    scratch: &mut Vec<u8>,
) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    Ok(read(parent, name, scratch)?.kept)
}

/// Reads the attributes of an entry; `scratch` is reused between calls.
pub(crate) fn read(parent: BorrowedFd<'_>, name: &[u8], scratch: &mut Vec<u8>) -> io::Result<Attributes> {
    let path = proc_path(parent, name)?;
    let mut found = Attributes::default();
    let Some(length) = with_room(scratch, |buffer| rustix::fs::llistxattr(&*path, buffer))? else {
        return Ok(found);
    };
    if length == 0 {
        return Ok(found);
    }
    let names = scratch[..length].to_vec();
    for name in names.split(|&byte| byte == 0) {
        let marks_opaque = OPAQUE.contains(&name);
        if !marks_opaque && !keeps_xattr(name) {
            continue;
        }
        let c_name = CString::new(name).map_err(io::Error::other)?;
        // None: removed since the list was made.
        let Some(length) = with_room(scratch, |buffer| rustix::fs::lgetxattr(&*path, &*c_name, buffer))?
        else {
            continue;
        };
        let value = &scratch[..length];
        if marks_opaque {
            found.opaque |= value == b"y";
        } else {
            found.kept.insert(name.to_vec(), value.to_vec());
        }
    }
    Ok(found)
}

/// `/proc/self/fd/N` leads to the directory held open; the last component is not followed by the `l*xattr` calls,
/// which have no descriptor form before Linux 6.13.
fn proc_path(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    path.extend_from_slice(if name.is_empty() { b"." } else { name });
    CString::new(path).map_err(io::Error::other)
}

/// Calls with a growing buffer; `None` if there is nothing, or no such thing on this file system.
fn with_room(
    buffer: &mut Vec<u8>,
    mut call: impl FnMut(&mut [u8]) -> Result<usize, Errno>,
) -> io::Result<Option<usize>> {
    if buffer.is_empty() {
        buffer.resize(512, 0);
    }
    loop {
        match call(buffer) {
            Ok(length) => return Ok(Some(length)),
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            // OVERFLOW: a capability that counts only in a user namespace which is not ours.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::OVERFLOW) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}
