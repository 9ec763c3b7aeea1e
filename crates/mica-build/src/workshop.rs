//! What builds work with: the store, a way to make snapshots, a way to run processes.

use std::sync::Arc;

use mica_api::Error;
use mica_archive::{Table, View};
use mica_distribution::{HttpClient, Registries};
use mica_runtime::{Ids, Runtime};
use mica_snapshot::{Driver, LayerDir, Mounted};
use mica_store::{LayerId, Lease, Store, StoreError};

/// The tools of one process.
#[derive(Clone)]
pub struct Workshop {
    /// Where everything durable is.
    pub store: Store,
    /// How root file systems are assembled.
    pub driver: Arc<dyn Driver>,
    /// Which ids exist here.
    pub ids: Ids,
    /// Whether device nodes can be made.
    pub devices: bool,
    /// What runs containers, unless a request says otherwise.
    pub runtime: Runtime,
    /// What fetches from web servers.
    pub http: Arc<HttpClient>,
    /// Where images come from and go to.
    pub registries: Arc<Registries>,
}

impl Workshop {
    /// The layers of a stack as directories, lowest first.
    ///
    /// # Errors
    /// When a layer is gone or its table is damaged.
    pub fn layer_dirs(&self, stack: &[LayerId]) -> Result<Vec<LayerDir>, StoreError> {
        stack.iter().map(|id| self.layer_dir(*id)).collect()
    }

    /// A layer as a directory.
    pub(crate) fn layer_dir(&self, id: LayerId) -> Result<LayerDir, StoreError> {
        let table = self.store.table(id)?;
        Ok(LayerDir { id: id.to_string(), fs: self.store.state().layer_fs(id), table })
    }

    /// The merged tree of a stack, without mounting anything.
    ///
    /// # Errors
    /// As [`Workshop::layer_dirs`].
    pub fn view(&self, stack: &[LayerId]) -> Result<View, StoreError> {
        let tables: Result<Vec<Arc<Table>>, StoreError> =
            stack.iter().map(|id| self.store.table(*id)).collect();
        Ok(View::stack(tables?))
    }

    /// The merged files of a stack, mounted read-only in a workspace of the lease.
    ///
    /// # Errors
    /// As [`Workshop::layer_dirs`], and when the mount is refused.
    pub fn mount(&self, stack: &[LayerId], lease: &Lease) -> Result<Mounted, Error> {
        Ok(self.driver.view(&lease.workspace()?, &self.layer_dirs(stack)?)?)
    }

    /// Whether files on disk cannot have other owners than the caller.
    pub fn is_single_id(&self) -> bool {
        self.ids == Ids::Single
    }
}
