//! Running one operation: inputs that are there become a new layer.

mod exec;
mod files;
mod hosts;
mod log_limit;
mod mounts;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use mica_api::{Cancel, Class, Error, LogLimits, Resources, Secret, SshAgent};
use mica_archive::{OwnerLedger, View};
use mica_runtime::Runtime;
use mica_snapshot::{Active, LayerDir};
use mica_solve::{Graph, Input, Op, SourceOp, Vertex, VertexId};
use mica_store::Lease;

use crate::Workshop;
use crate::contexts::LocalContexts;
use crate::fresh::{StackLayer, Unhashed, stored};
use crate::lookup::input_vertex;
use crate::progress::{Progress, Step};
use crate::remote::Remotes;

/// What all operations of a build share.
pub(crate) struct Operations<'a> {
    pub(crate) workshop: &'a Workshop,
    pub(crate) lease: &'a Lease,
    pub(crate) graph: &'a Graph,
    pub(crate) contexts: &'a LocalContexts,
    pub(crate) remotes: &'a Remotes<'a>,
    pub(crate) secrets: &'a [Secret],
    pub(crate) agents: &'a [SshAgent],
    pub(crate) resources: &'a Resources,
    pub(crate) log_limits: LogLimits,
    pub(crate) runtime: &'a Runtime,
    pub(crate) progress: &'a Progress<'a>,
    pub(crate) cancel: &'a Cancel,
    /// Merged trees that were looked into, by the vertex that made them.
    pub(crate) views: Mutex<HashMap<VertexId, Arc<View>>>,
}

/// What an operation made.
pub(crate) struct Made {
    /// The whole stack, lowest first.
    pub(crate) layers: Vec<StackLayer>,
    /// What is left to do of the topmost layer, if it is new.
    pub(crate) unhashed: Option<Unhashed>,
    /// Whether the files it read were still those that its key is made of; if not, the result must not be recorded.
    pub(crate) is_as_keyed: bool,
}

/// The stack that a vertex made, by vertex. `None`: a local directory, or not there.
pub(crate) type Stacks<'a> = dyn Fn(VertexId) -> Option<Vec<StackLayer>> + Sync + 'a;

impl Operations<'_> {
    /// Runs an operation and returns the whole stack of its result.
    pub(crate) fn run(&self, vertex: &Vertex, stacks: &Stacks<'_>, step: &Step<'_>) -> Result<Made, Error> {
        match &vertex.op {
            Op::Exec(op) => self.exec(vertex, op, stacks, step),
            Op::File(op) => self.files(vertex, op, stacks),
            Op::Merge => vertex
                .inputs
                .iter()
                .map(|input| stacks(*input).ok_or_else(|| no_root(self.graph, *input)))
                .collect::<Result<Vec<_>, _>>()
                .map(|stacks| Made { layers: stacks.concat(), unhashed: None, is_as_keyed: true }),
            Op::Source(source @ (SourceOp::Http(_) | SourceOp::Git(_))) => {
                let resolved = self.remotes.resolve(source)?;
                let layers = vec![StackLayer::Stored(self.remotes.fetch(source, &resolved)?)];
                Ok(Made { layers, unhashed: None, is_as_keyed: true })
            }
            Op::Source(_) => Err(Error::new(Class::Internal, "sources are opened, not run")),
        }
    }

    /// The stack behind an input; empty for scratch.
    fn stack(&self, vertex: &Vertex, input: Input, stacks: &Stacks<'_>) -> Result<Vec<StackLayer>, Error> {
        match input_vertex(vertex, input) {
            None => Ok(Vec::new()),
            Some(id) => stacks(id).ok_or_else(|| no_root(self.graph, id)),
        }
    }

    /// The layers of a stack as directories to mount.
    fn directories(&self, stack: &[StackLayer]) -> Result<Vec<LayerDir>, Error> {
        stack.iter().map(|layer| layer.directory(self.workshop)).collect()
    }

    /// The merged tree behind an input, with digests: what its key and its copy are made of.
    pub(crate) fn view(
        &self,
        vertex: &Vertex,
        input: Input,
        stacks: &Stacks<'_>,
    ) -> Result<Arc<View>, Error> {
        let Some(id) = input_vertex(vertex, input) else { return Ok(Arc::new(View::empty())) };
        let views = || self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views().get(&id) {
            return Ok(Arc::clone(view));
        }
        let view = Arc::new(self.workshop.view(&stored(&self.stack(vertex, input, stacks)?)?)?);
        views().insert(id, Arc::clone(&view));
        Ok(view)
    }

    /// Ends a step: what it changed above `stack` becomes one more layer, even if that is nothing (R9).
    fn commit(
        &self,
        mut active: Active,
        workspace: PathBuf,
        mut stack: Vec<StackLayer>,
        ledger: &OwnerLedger,
    ) -> Result<Made, Error> {
        let parents = stored(&stack)?;
        let tables = parents.iter().map(|id| self.workshop.store.table(*id)).collect::<Result<_, _>>()?;
        active.set_parents(tables);
        let draft = self.workshop.driver.commit(active, ledger)?;
        let unhashed = Unhashed::new(workspace, draft.table)?;
        stack.push(unhashed.layer());
        Ok(Made { layers: stack, unhashed: Some(unhashed), is_as_keyed: true })
    }

    fn workspace(&self) -> Result<PathBuf, Error> {
        Ok(self.lease.workspace()?)
    }
}

fn no_root(graph: &Graph, id: VertexId) -> Error {
    Error::new(Class::Internal, format!("{} has no layers", graph.vertex(id).name))
}
