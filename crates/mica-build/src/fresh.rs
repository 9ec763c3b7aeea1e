//! Layers between the end of their step and the store: hashed beside the steps that follow.
//!
//! A step ends with a draft: files in a workspace, and a table without digests. The next step mounts these files at
//! once. What needs digests or the layer's identity waits for it ([`StackLayer::stored`]): keys of what is copied from
//! it, the comparison at the end of the next step, cache records, the publish.
//!
//! # Invariants
//! 1. Adopting a layer moves its directory, so a fresh layer is reached by descriptor and never by path.
//! 2. A fresh layer that turns out to be known already keeps its files until the lease ends: they may be mounted.

use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use mica_api::{Cancel, Class, Error};
use mica_archive::Table;
use mica_snapshot::LayerDir;
use mica_store::{LayerId, Lease};
use mica_sys::root::Root;

use crate::{Draft, Workshop, finish_layer};

/// A layer of a stack.
#[derive(Debug, Clone)]
pub(crate) enum StackLayer {
    /// In the store.
    Stored(LayerId),
    /// Made by a step of this build, and perhaps not in the store yet.
    Fresh(Arc<Fresh>),
}

/// A layer that a step of this build made.
#[derive(Debug)]
pub(crate) struct Fresh {
    files: Root,
    draft: Arc<Table>,
    stored: OnceLock<Result<LayerId, Error>>,
}

impl StackLayer {
    /// Waits until the layer is in the store.
    ///
    /// # Errors
    /// Why it could not get there.
    pub(crate) fn stored(&self) -> Result<LayerId, Error> {
        match self {
            Self::Stored(id) => Ok(*id),
            Self::Fresh(fresh) => fresh.stored.wait().clone(),
        }
    }

    /// The layer as a directory to mount. The table may be without digests.
    pub(crate) fn directory(&self, workshop: &Workshop) -> Result<LayerDir, Error> {
        match self {
            Self::Stored(id) => Ok(workshop.layer_dir(*id)?),
            Self::Fresh(fresh) => Ok(LayerDir {
                id: "just made".to_owned(),
                fs: format!("/proc/self/fd/{}", fresh.files.as_fd().as_raw_fd()).into(),
                table: Arc::clone(&fresh.draft),
            }),
        }
    }
}

/// Waits until all layers of a stack are in the store.
///
/// # Errors
/// As [`StackLayer::stored`].
pub(crate) fn stored(stack: &[StackLayer]) -> Result<Vec<LayerId>, Error> {
    stack.iter().map(StackLayer::stored).collect()
}

/// The work that is left of a layer: hash it, adopt it. Dropped undone, it fails for those who wait.
#[derive(Debug)]
pub(crate) struct Unhashed {
    workspace: PathBuf,
    layer: Arc<Fresh>,
}

impl Unhashed {
    /// Takes over the changes in `<workspace>/fs`.
    ///
    /// # Errors
    /// When they cannot be opened.
    pub(crate) fn new(workspace: PathBuf, table: Table) -> Result<Self, Error> {
        let path = workspace.join("fs");
        let files = Root::open(&path).map_err(|error| {
            Error::new(Class::of_io(&error), format!("cannot open {}", path.display())).why(error.to_string())
        })?;
        let layer = Fresh { files, draft: Arc::new(table), stored: OnceLock::new() };
        Ok(Self { workspace, layer: Arc::new(layer) })
    }

    /// The layer, for the stacks it is in.
    pub(crate) fn layer(&self) -> StackLayer {
        StackLayer::Fresh(Arc::clone(&self.layer))
    }

    /// Makes it a layer of the store.
    ///
    /// # Errors
    /// As [`finish_layer`]; all who wait get the same.
    pub(crate) fn finish(self, workshop: &Workshop, lease: &Lease, cancel: &Cancel) -> Result<(), Error> {
        let draft = Draft { directory: &self.workspace, table: Table::clone(&self.layer.draft) };
        let finished = finish_layer(workshop, draft, lease, cancel).map(|record| record.id);
        self.layer.stored.get_or_init(|| finished).clone().map(drop)
    }
}

impl Drop for Unhashed {
    fn drop(&mut self) {
        let undone = || Err(Error::new(Class::Cancelled, "the layer was not finished"));
        self.layer.stored.get_or_init(undone);
    }
}
