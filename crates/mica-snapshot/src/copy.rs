//! The copy driver: the merged tree as ordinary files, for places where nothing can be mounted.
//!
//! Slow and large, but needs nothing of the kernel. What was changed is found by comparing the tree with the parents;
//! committing removes from the tree whatever did not change, and what is left are the layer's files.

use std::io;
use std::path::{Path, PathBuf};

use mica_archive::{
    DiffOptions, Entry, Kind, Located, NEVER, OverlayFlavour, OwnerLedger, OwnerPolicy, SharedFiles, Table,
    View, diff_views,
};
use mica_sys::root::Root;
use rustix::fs::FileType;

use crate::driver::{Active, Draft, Driver, LayerDir, Mounted, view_of};
use crate::error::SnapshotError;
use crate::tidy;
use crate::workspace::{Attachment, dress_root, make_directory, open_root, owner_policy};

/// Snapshots as copies.
#[derive(Debug, Clone, std::marker::Copy)]
pub struct Copy;

impl Driver for Copy {
    fn prepare(&self, workspace: &Path, parents: &[LayerDir]) -> Result<Active, SnapshotError> {
        assemble(&workspace.join("merged"), parents)?;
        self.resume(workspace, parents)
    }

    fn resume(&self, workspace: &Path, parents: &[LayerDir]) -> Result<Active, SnapshotError> {
        let merged = workspace.join("merged");
        Ok(Active {
            root: open_root(&merged)?,
            upper: merged.clone(),
            attachment: Attachment::directory(merged),
            workspace: workspace.to_owned(),
            parents: parents.iter().map(|layer| layer.table.clone()).collect(),
            beneath: None,
            shared: SharedFiles::new(),
        })
    }

    fn upper(&self, workspace: &Path) -> PathBuf {
        workspace.join("merged")
    }

    fn view(&self, workspace: &Path, parents: &[LayerDir]) -> Result<Mounted, SnapshotError> {
        let merged = workspace.join("merged");
        let root = assemble(&merged, parents)?;
        Ok(Mounted { root, attachment: Attachment::directory(merged) })
    }

    fn commit(&self, active: Active, ledger: &OwnerLedger) -> Result<Draft, SnapshotError> {
        let parent = active.parent_view();
        let Active { root, upper: merged, workspace, shared, .. } = active;
        let options = DiffOptions { owners: owner_policy(), cancel: NEVER, shared: Some(&shared) };
        let diff = diff_views(&parent, &root, ledger, &options)?;
        tidy::apply(&root, &diff)?;
        make_whiteouts(&root, &diff.table)?;
        let fs = workspace.join("fs");
        std::fs::rename(&merged, &fs).map_err(SnapshotError::io("rename", &merged))?;
        Ok(Draft { fs, table: diff.table })
    }

    fn changes(&self, upper: &Path, parents: &[LayerDir]) -> Result<Table, SnapshotError> {
        let options = DiffOptions { owners: owner_policy(), ..DiffOptions::default() };
        Ok(diff_views(&view_of(parents), &open_root(upper)?, &OwnerLedger::new(), &options)?.table)
    }

    fn flavour(&self) -> OverlayFlavour {
        OverlayFlavour::None
    }
}

/// Whiteouts on disk, where the kernel lets us: this driver reads them from the table only.
fn make_whiteouts(root: &Root, table: &Table) -> Result<(), SnapshotError> {
    for entry in table.entries().iter().filter(|entry| entry.kind == Kind::Whiteout) {
        match root.mknod(&entry.path, FileType::CharacterDevice, 0, 0, 0) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(()),
            other => other.map_err(SnapshotError::entry("make a whiteout of", &entry.path))?,
        }
    }
    Ok(())
}

/// Copies everything that is visible of `parents` to a new directory.
fn assemble(merged: &Path, parents: &[LayerDir]) -> Result<Root, SnapshotError> {
    make_directory(merged, 0o755)?;
    let view = view_of(parents);
    let sources = parents.iter().map(|layer| open_root(&layer.fs)).collect::<Result<Vec<_>, _>>()?;
    let root = open_root(merged)?;
    let copier = Copier { root: &root, sources: &sources, owners: owner_policy() };
    let mut directories: Vec<&Entry> = Vec::new();
    for found in view.walk_located(b"") {
        copier.copy(&found).map_err(SnapshotError::entry("copy", &found.entry.path))?;
        if found.entry.kind.is_directory() {
            directories.push(found.entry);
        }
    }
    // Innermost first: modes may forbid what is still to come, and times change with the content.
    for entry in directories.into_iter().rev() {
        copier.dress(entry, &entry.path).map_err(SnapshotError::entry("copy", &entry.path))?;
    }
    finish(merged, &view)
}

fn finish(merged: &Path, view: &View) -> Result<Root, SnapshotError> {
    dress_root(merged, view)
}

struct Copier<'a> {
    root: &'a Root,
    sources: &'a [Root],
    owners: OwnerPolicy,
}

impl Copier<'_> {
    /// Copies one path. Each name of a hard-linked file becomes a file of its own: so does the first write to one in an
    /// overlay, and the drivers have to agree.
    fn copy(&self, found: &Located<'_>) -> io::Result<()> {
        let (path, content) = (&found.entry.path, found.content);
        match &content.kind {
            Kind::Directory { .. } => return self.root.create_dir(path, 0o700),
            Kind::File { .. } => {
                let mut from = self.sources[found.layer].open_file_nofollow(&content.path)?;
                let mut to = self.root.create_file(path, 0o600)?;
                // Shares extents or stays inside the kernel where it can.
                io::copy(&mut from, &mut to)?;
            }
            Kind::Symlink { target } => self.root.symlink(target, path)?,
            Kind::CharDevice { major, minor } => {
                return self.device(content, path, FileType::CharacterDevice, (*major, *minor));
            }
            Kind::BlockDevice { major, minor } => {
                return self.device(content, path, FileType::BlockDevice, (*major, *minor));
            }
            Kind::Fifo => self.root.mknod(path, FileType::Fifo, 0o600, 0, 0)?,
            Kind::Hardlink { .. } | Kind::Whiteout => return Ok(()),
        }
        self.dress(content, path)
    }

    /// Makes a device node; where this process may not, the tree is without it, as everywhere in rootless mode.
    fn device(&self, entry: &Entry, path: &[u8], kind: FileType, device: (u32, u32)) -> io::Result<()> {
        match self.root.mknod(path, kind, 0o600, device.0, device.1) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            other => other.and_then(|()| self.dress(entry, path)),
        }
    }

    /// Owner, mode, attributes and time, in this order: each undoes part of those after it.
    fn dress(&self, entry: &Entry, path: &[u8]) -> io::Result<()> {
        if self.owners == OwnerPolicy::Exact {
            self.root.set_owner(path, entry.uid, entry.gid)?;
        }
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            self.root.set_mode(path, entry.mode)?;
        }
        for (name, value) in &entry.xattrs {
            self.root.set_xattr(path, name, value)?;
        }
        self.root.set_times(path, entry.mtime)
    }
}
