//! Running one operation: inputs that are there become a new layer.

mod exec;
mod files;
mod hosts;
mod mounts;

use std::path::PathBuf;

use mica_api::{Cancel, Class, Error, Secret, SshAgent};
use mica_runtime::Runtime;
use mica_solve::{Graph, Input, Op, SourceOp, Vertex, VertexId};
use mica_store::{LayerId, Lease};

use crate::Workshop;
use crate::contexts::LocalContexts;
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
    pub(crate) runtime: &'a Runtime,
    pub(crate) progress: &'a Progress<'a>,
    pub(crate) cancel: &'a Cancel,
}

/// What an operation made.
pub(crate) struct Made {
    /// The whole stack, lowest first.
    pub(crate) layers: Vec<LayerId>,
    /// Whether the files it read were still those that its key is made of; if not, the result must not be recorded.
    pub(crate) is_as_keyed: bool,
}

/// The stack that a vertex made, by vertex. `None`: a local directory, or not there.
pub(crate) type Stacks<'a> = dyn Fn(VertexId) -> Option<Vec<LayerId>> + Sync + 'a;

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
                .map(|stacks| Made { layers: stacks.concat(), is_as_keyed: true }),
            Op::Source(source @ (SourceOp::Http(_) | SourceOp::Git(_))) => {
                let resolved = self.remotes.resolve(source)?;
                let layer = self.remotes.fetch(source, &resolved)?;
                Ok(Made { layers: vec![layer], is_as_keyed: true })
            }
            Op::Source(_) => Err(Error::new(Class::Internal, "sources are opened, not run")),
        }
    }

    /// The stack behind an input; empty for scratch.
    fn stack(&self, vertex: &Vertex, input: Input, stacks: &Stacks<'_>) -> Result<Vec<LayerId>, Error> {
        match input_vertex(vertex, input) {
            None => Ok(Vec::new()),
            Some(id) => stacks(id).ok_or_else(|| no_root(self.graph, id)),
        }
    }

    fn workspace(&self) -> Result<PathBuf, Error> {
        Ok(self.lease.workspace()?)
    }
}

fn no_root(graph: &Graph, id: VertexId) -> Error {
    Error::new(Class::Internal, format!("{} has no layers", graph.vertex(id).name))
}
