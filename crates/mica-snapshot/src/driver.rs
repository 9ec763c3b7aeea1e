//! What every driver does, and what it hands out.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mica_archive::{OverlayFlavour, OwnerLedger, SharedFiles, Table, View};
use mica_sys::root::Root;

use crate::error::SnapshotError;
use crate::workspace::Attachment;

/// A committed layer.
#[derive(Debug, Clone)]
pub struct LayerDir {
    /// Its id, for messages.
    pub id: String,
    /// Its files.
    pub fs: PathBuf,
    /// What it contains.
    pub table: Arc<Table>,
}

/// A way to make snapshots.
pub trait Driver: Send + Sync {
    /// Shows `parents` (lowest first) merged and writable at `<workspace>/merged`. Changes are not synced to disk.
    /// Tables without digests are enough here, if [`Active::set_parents`] follows.
    ///
    /// # Errors
    /// When a directory cannot be made or the layers cannot be mounted.
    fn prepare(&self, workspace: &Path, parents: &[LayerDir]) -> Result<Active, SnapshotError>;

    /// Shows an active snapshot again that was left in `workspace`, by whatever end of the process that had it.
    ///
    /// # Errors
    /// As [`Driver::prepare`].
    fn resume(&self, workspace: &Path, parents: &[LayerDir]) -> Result<Active, SnapshotError>;

    /// Where the changes of a snapshot in `workspace` are: what [`Driver::changes`] looks at.
    fn upper(&self, workspace: &Path) -> PathBuf;

    /// Shows `parents` merged, to be read only.
    ///
    /// # Errors
    /// As [`Driver::prepare`].
    fn view(&self, workspace: &Path, parents: &[LayerDir]) -> Result<Mounted, SnapshotError>;

    /// Ends an active snapshot: leaves its changes as a layer's files in `<workspace>/fs`.
    ///
    /// No process may use the snapshot any more. `ledger` names owners that are not on the disk.
    ///
    /// # Errors
    /// When the changes cannot be read or put in order; the workspace is then to be thrown away.
    fn commit(&self, active: Active, ledger: &OwnerLedger) -> Result<Draft, SnapshotError>;

    /// Returns what an active snapshot has changed so far, and leaves it as it is.
    ///
    /// `upper` is what [`Active::upper`] returned.
    ///
    /// # Errors
    /// When the changes cannot be read.
    fn changes(&self, upper: &Path, parents: &[LayerDir]) -> Result<Table, SnapshotError>;

    /// How layers have to be unpacked for this driver.
    fn flavour(&self) -> OverlayFlavour;
}

/// Changes that are on disk but no layer yet.
#[derive(Debug)]
pub struct Draft {
    /// The changed files.
    pub fs: PathBuf,
    /// What they are; files have no digests yet ([`mica_archive::finalize`]).
    pub table: Table,
}

/// A root file system that can be written. Dropped, it is unmounted; its files stay until the workspace goes.
#[derive(Debug)]
pub struct Active {
    pub(crate) root: Root,
    pub(crate) attachment: Attachment,
    pub(crate) workspace: PathBuf,
    pub(crate) upper: PathBuf,
    pub(crate) parents: Vec<Arc<Table>>,
    /// The upper directory of a mount.
    pub(crate) beneath: Option<Root>,
    pub(crate) shared: SharedFiles,
}

impl Active {
    /// The merged root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Where the merged root is.
    pub fn path(&self) -> &Path {
        self.attachment.path()
    }

    /// Where changes are: [`Driver::upper`] of the workspace.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// Where the mount at [`Active::root`] writes to, if there is one. Below a directory that was made since the mount,
    /// writing there is the same as writing to the root and several times faster; elsewhere it is forbidden.
    pub fn beneath(&self) -> Option<&Root> {
        self.beneath.as_ref()
    }

    /// Says which files are hard links to files of other layers.
    pub fn set_shared(&mut self, shared: SharedFiles) {
        self.shared = shared;
    }

    /// Replaces the tables of the parents by ones with content digests, which [`Driver::commit`] needs to tell an
    /// unchanged copy of a file from a changed one.
    pub fn set_parents(&mut self, tables: Vec<Arc<Table>>) {
        self.parents = tables;
    }

    pub(crate) fn parent_view(&self) -> View {
        View::stack(self.parents.iter().cloned())
    }
}

/// A root file system that is only read. Dropped, it is unmounted.
#[derive(Debug)]
pub struct Mounted {
    pub(crate) root: Root,
    pub(crate) attachment: Attachment,
}

impl Mounted {
    /// The merged root.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Where the merged root is.
    pub fn path(&self) -> &Path {
        self.attachment.path()
    }
}

/// The merged tree of layers.
pub(crate) fn view_of(parents: &[LayerDir]) -> View {
    View::stack(parents.iter().map(|layer| Arc::clone(&layer.table)))
}
