//! The overlay driver: parents and a fresh upper directory, merged by the kernel.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

use mica_archive::{DiffOptions, Kind, NEVER, OverlayFlavour, OwnerLedger, SharedFiles, Table, diff_upper};
use mica_sys::mount::{self, MountAttr, OverlayCall, OverlaySpec};
use mica_sys::root::Root;

use crate::driver::{Active, Draft, Driver, LayerDir, Mounted, view_of};
use crate::error::SnapshotError;
use crate::tidy;
use crate::workspace::{Attachment, dress_root, make_directory, open_root, owner_policy, remove_directory};

/// Snapshots as overlay mounts.
#[derive(Debug, Clone, std::marker::Copy)]
pub struct Overlay {
    /// Whether overlayfs keeps its marks in `user.overlay.*`: needed inside a user namespace.
    pub userxattr: bool,
    /// How the kernel is told of the layers.
    pub call: OverlayCall,
}

impl Overlay {
    /// The driver for the running kernel.
    pub fn new(userxattr: bool) -> Self {
        Self { userxattr, call: OverlayCall::supported() }
    }

    /// Mounts `parents` with or without an upper.
    fn mount(
        &self,
        parents: &[LayerDir],
        below: Option<&Path>,
        upper: Option<(&Path, &Path)>,
        at: PathBuf,
    ) -> Result<(Root, Attachment), SnapshotError> {
        let lowers: Vec<&Path> = distinct(parents).chain(below).collect();
        let Self { userxattr, call } = *self;
        let spec = OverlaySpec { lowers: &lowers, upper, userxattr, volatile: true, scratch: &at, call };
        let mounted = mount::overlay(&spec);
        let mounted = mounted.map_err(|source| SnapshotError::Mount { path: at.clone(), source })?;
        let attachment = Attachment::mount(&mounted, at)?;
        Ok((Root::from_fd(mounted), attachment))
    }

    /// Mounts the directories of a workspace over `parents`.
    fn activate(&self, workspace: &Path, parents: &[LayerDir]) -> Result<Active, SnapshotError> {
        let (upper, work, merged) = (self.upper(workspace), workspace.join("work"), workspace.join("merged"));
        let (root, attachment) = if parents.is_empty() {
            // Nothing to merge with: overlayfs wants a lower, and there is nothing to hide.
            (open_root(&upper)?, Attachment::bind(&upper, merged, MountAttr::default())?)
        } else {
            self.mount(parents, None, Some((&upper, &work)), merged)?
        };
        Ok(Active {
            root,
            attachment,
            workspace: workspace.to_owned(),
            beneath: Some(open_root(&upper)?),
            upper,
            parents: parents.iter().map(|layer| layer.table.clone()).collect(),
            shared: SharedFiles::new(),
        })
    }
}

impl Driver for Overlay {
    fn prepare(&self, workspace: &Path, parents: &[LayerDir]) -> Result<Active, SnapshotError> {
        let (upper, work, merged) = (workspace.join("fs"), workspace.join("work"), workspace.join("merged"));
        for (directory, mode) in [(&upper, 0o755), (&work, 0o700), (&merged, 0o755)] {
            make_directory(directory, mode)?;
        }
        dress_root(&upper, &view_of(parents))?;
        self.activate(workspace, parents)
    }

    fn resume(&self, workspace: &Path, parents: &[LayerDir]) -> Result<Active, SnapshotError> {
        // A work directory that a volatile mount has used cannot be used again (`incompat/volatile` in it).
        remove_directory(workspace, "work")?;
        make_directory(&workspace.join("work"), 0o700)?;
        self.activate(workspace, parents)
    }

    fn upper(&self, workspace: &Path) -> PathBuf {
        workspace.join("fs")
    }

    fn view(&self, workspace: &Path, parents: &[LayerDir]) -> Result<Mounted, SnapshotError> {
        let merged = workspace.join("merged");
        make_directory(&merged, 0o755)?;
        let read_only = MountAttr { read_only: true, ..MountAttr::default() };
        let attachment = match parents {
            [] => Attachment::directory(merged),
            [only] if shows_itself(&only.table) => Attachment::bind(&only.fs, merged, read_only)?,
            [_] => {
                // Without an upper overlayfs wants two lowers.
                let empty = workspace.join("empty");
                make_directory(&empty, 0o755)?;
                return self.mount(parents, Some(&empty), None, merged).map(mounted);
            }
            _ => return self.mount(parents, None, None, merged).map(mounted),
        };
        Ok(Mounted { root: open_root(attachment.path())?, attachment })
    }

    fn commit(&self, active: Active, ledger: &OwnerLedger) -> Result<Draft, SnapshotError> {
        let parent = active.parent_view();
        let Active { root, attachment, workspace, upper, shared, .. } = active;
        // The descriptor first: it would keep the file system alive after unmounting.
        drop(root);
        attachment.detach()?;
        let files = open_root(&upper)?;
        let options = DiffOptions { owners: owner_policy(), cancel: NEVER, shared: Some(&shared) };
        let diff = diff_upper(&files, &parent, ledger, &options)?;
        tidy::apply(&files, &diff)?;
        tidy::strip_marks(&files, &diff.table, &parent)?;
        remove_directory(&workspace, "work")?;
        remove_directory(&workspace, "merged")?;
        Ok(Draft { fs: upper, table: diff.table })
    }

    fn changes(&self, upper: &Path, parents: &[LayerDir]) -> Result<Table, SnapshotError> {
        let options = DiffOptions { owners: owner_policy(), ..DiffOptions::default() };
        Ok(diff_upper(&open_root(upper)?, &view_of(parents), &OwnerLedger::new(), &options)?.table)
    }

    fn flavour(&self) -> OverlayFlavour {
        if self.userxattr { OverlayFlavour::User } else { OverlayFlavour::Trusted }
    }
}

/// The layers' files, topmost first, each once: overlayfs refuses a directory that is there twice (`ELOOP`), and of two
/// equal layers the upper one alone shows the same tree.
fn distinct(parents: &[LayerDir]) -> impl Iterator<Item = &Path> {
    let mut seen = HashSet::new();
    parents.iter().rev().map(|layer| layer.fs.as_path()).filter(move |path| seen.insert(*path))
}

fn mounted((root, attachment): (Root, Attachment)) -> Mounted {
    Mounted { root, attachment }
}

/// Whether the files of a layer look the same without overlayfs.
fn shows_itself(table: &Table) -> bool {
    !table
        .entries()
        .iter()
        .any(|entry| matches!(entry.kind, Kind::Whiteout | Kind::Directory { opaque: true }))
}

/// Whether overlay mounts with an upper directory below `directory` work for this process.
///
/// Tried, not guessed: kernels, security modules and file systems all have a say. Makes `directory` if needed.
pub fn overlay_works(directory: &Path, userxattr: bool) -> bool {
    let probe = directory.join(format!(".overlay-probe-{}", std::process::id()));
    let works = try_overlay(&probe, userxattr).unwrap_or(false);
    if let Ok(root) = Root::open(directory) {
        // What is left over is removed by the store's garbage collection.
        let _ = root.remove_all(probe.file_name().unwrap_or_default().as_encoded_bytes());
    }
    works
}

/// Hides a file of a lower directory, and looks whether that left a whiteout.
fn try_overlay(probe: &Path, userxattr: bool) -> io::Result<bool> {
    use std::os::unix::fs::{DirBuilderExt, FileTypeExt};
    let (lower, upper) = (probe.join("lower"), probe.join("upper"));
    let (work, scratch) = (probe.join("work"), probe.join("merged"));
    for directory in [&lower, &upper, &work, &scratch] {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    std::fs::write(lower.join("file"), b"")?;
    let lowers = [lower.as_path()];
    let upper_and_work = Some((upper.as_path(), work.as_path()));
    let spec = OverlaySpec {
        lowers: &lowers,
        upper: upper_and_work,
        userxattr,
        volatile: true,
        scratch: &scratch,
        call: OverlayCall::supported(),
    };
    let Ok(mounted) = mount::overlay(&spec) else { return Ok(false) };
    Root::from_fd(mounted).remove(b"file")?;
    Ok(std::fs::symlink_metadata(upper.join("file"))?.file_type().is_char_device())
}
