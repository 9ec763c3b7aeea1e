//! Directories of a workspace, and what is attached to them.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use mica_archive::{OwnerPolicy, View};
use mica_sys::mount::{self, MountAttr};
use mica_sys::root::Root;

use crate::error::SnapshotError;

/// Makes a directory of the workspace; its parents are the caller's business.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<(), SnapshotError> {
    DirBuilder::new().mode(mode).create(path).map_err(SnapshotError::io("create", path))
}

/// Removes a directory of the workspace with everything in it.
pub(crate) fn remove_directory(workspace: &Path, name: &str) -> Result<(), SnapshotError> {
    let path = workspace.join(name);
    let root = Root::open(workspace).map_err(SnapshotError::io("open", workspace))?;
    root.remove_all(name.as_bytes()).map_err(SnapshotError::io("remove", &path))
}

/// Opens a directory as root of a file system.
pub(crate) fn open_root(path: &Path) -> Result<Root, SnapshotError> {
    Root::open(path).map_err(SnapshotError::io("open", path))
}

/// A path that shows a root file system, and is unmounted when dropped if it is a mount.
#[derive(Debug)]
pub(crate) struct Attachment {
    path: PathBuf,
    mounted: bool,
}

impl Attachment {
    /// An ordinary directory.
    pub(crate) fn directory(path: PathBuf) -> Self {
        Self { path, mounted: false }
    }

    /// Attaches a detached mount to a directory.
    pub(crate) fn mount(mount: impl AsFd, path: PathBuf) -> Result<Self, SnapshotError> {
        mount::attach_path(mount.as_fd(), &path).map_err(SnapshotError::io("mount", &path))?;
        Ok(Self { path, mounted: true })
    }

    /// Shows a directory at another place ("bind mount").
    pub(crate) fn bind(source: &Path, path: PathBuf, attr: MountAttr) -> Result<Self, SnapshotError> {
        let bound = mount::open_tree_clone_path(source, false).and_then(|bound| {
            if attr != MountAttr::default() {
                mount::set_attr(bound.as_fd(), attr, false)?;
            }
            Ok(bound)
        });
        Self::mount(bound.map_err(SnapshotError::io("bind", source))?, path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Unmounts; an ordinary directory stays.
    pub(crate) fn detach(mut self) -> Result<(), SnapshotError> {
        self.unmount().map_err(SnapshotError::io("unmount", &self.path))
    }

    fn unmount(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.mounted) { mount::detach(&self.path) } else { Ok(()) }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // Nobody is left to be told. The mount goes with the mount namespace at the latest.
        let _ = self.unmount();
    }
}

/// Gives the root directory of an upper what the merged root has: overlayfs shows the upper's own.
pub(crate) fn dress_root(path: &Path, parent: &View) -> Result<Root, SnapshotError> {
    let root = open_root(path)?;
    let Some(entry) = parent.get(b"") else { return Ok(root) };
    let dressed = || {
        if owner_policy() == OwnerPolicy::Exact {
            root.set_owner(b"", entry.uid, entry.gid)?;
        }
        root.set_mode(b"", entry.mode)?;
        for (name, value) in &entry.xattrs {
            root.set_xattr(b"", name, value)?;
        }
        root.set_times(b"", entry.mtime)
    };
    dressed().map_err(SnapshotError::io("set the attributes of", path))?;
    Ok(root)
}

/// Whether owners can be on the disk: not in a user namespace that maps a single id.
pub(crate) fn owner_policy() -> OwnerPolicy {
    match std::fs::read_to_string("/proc/self/uid_map") {
        Ok(map) if is_single_id(&map) => OwnerPolicy::Ledger,
        // Without /proc nothing is known; a refused chown will then say so.
        _ => OwnerPolicy::Exact,
    }
}

/// Whether a `uid_map` has one line for one id.
fn is_single_id(map: &str) -> bool {
    let mut lines = map.lines();
    let count = lines.next().and_then(|line| line.split_ascii_whitespace().nth(2));
    count == Some("1") && lines.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_for_one_id_is_a_single_id_namespace() {
        assert!(is_single_id("         0       1000          1\n"));
        assert!(!is_single_id("         0          0 4294967295\n"));
        assert!(!is_single_id("         0       1000          1\n         1     100000      65536\n"));
        assert!(!is_single_id(""));
    }
}
