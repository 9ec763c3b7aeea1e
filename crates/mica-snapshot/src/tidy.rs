//! Making the files of a layer agree with its table: nothing that was not changed, whiteouts for what is gone, none of
//! overlayfs's own marks.

use std::io;

use mica_archive::{Kind, Table, UpperDiff, View};
use mica_sys::root::Root;
use rustix::fs::FileType;

use crate::error::SnapshotError;

/// Names of overlayfs's marks, rootful and with `userxattr`.
const MARKS: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Removes what is not part of the layer, and makes opaque directories explicit.
///
/// Whiteouts come before the opaque mark goes: a crash between them leaves too little visible, never too much.
pub(crate) fn apply(files: &Root, diff: &UpperDiff) -> Result<(), SnapshotError> {
    for path in &diff.dropped {
        files.remove(path).map_err(SnapshotError::entry("remove", path))?;
    }
    for path in &diff.whiteouts {
        files
            .mknod(path, FileType::CharacterDevice, 0, 0, 0)
            .map_err(SnapshotError::entry("make a whiteout of", path))?;
    }
    for path in &diff.opaque {
        remove_marks(files, path)?;
    }
    restore_times(files, diff)
}

/// Puts back the times of directories in which something was removed or made.
fn restore_times(files: &Root, diff: &UpperDiff) -> Result<(), SnapshotError> {
    let touched = diff.dropped.iter().chain(&diff.whiteouts);
    let mut parents: Vec<&[u8]> = touched.filter_map(|path| mica_archive::path::parent(path)).collect();
    parents.sort_unstable();
    parents.dedup();
    for parent in parents {
        let Some(entry) = diff.table.get(parent).filter(|entry| entry.kind.is_directory()) else { continue };
        files.set_times(parent, entry.mtime).map_err(SnapshotError::entry("set the time of", parent))?;
    }
    Ok(())
}

/// Removes overlayfs's marks from everything that can have one: directories, and copies of lower files.
pub(crate) fn strip_marks(files: &Root, table: &Table, parent: &View) -> Result<(), SnapshotError> {
    remove_marks(files, b"")?;
    for entry in table.entries() {
        let is_copy = || matches!(entry.kind, Kind::File { .. }) && parent.locate(&entry.path).is_some();
        if entry.kind.is_directory() || is_copy() {
            remove_marks(files, &entry.path)?;
        }
    }
    Ok(())
}

fn remove_marks(files: &Root, path: &[u8]) -> Result<(), SnapshotError> {
    let removed = || {
        for name in files.xattrs(path)?.keys().filter(|name| MARKS.iter().any(|mark| name.starts_with(mark)))
        {
            files.remove_xattr(path, name)?;
        }
        Ok::<_, io::Error>(())
    };
    removed().map_err(SnapshotError::entry("clean the attributes of", path))
}
