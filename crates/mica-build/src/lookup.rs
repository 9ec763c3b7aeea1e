//! What is known before anything runs: definition keys of all vertices, and the results recorded under them.

use std::collections::HashMap;

use mica_api::{Class, Error};
use mica_oci::Digest;
use mica_solve::{CacheKey, CopyAction, FileAction, Graph, Input, MountKind, Op, SourceOp, Vertex, VertexId};
use mica_store::LayerId;

use crate::Workshop;
use crate::contexts::LocalContexts;
use crate::hit::{Hit, find};
use crate::keys::{self, KeyKind, Part};
use crate::remote::Remotes;
use crate::select::{Tree, select, selection_digest};

/// What is known of one vertex.
#[derive(Debug)]
pub(crate) enum Known {
    /// A directory of the client.
    Local,
    /// An image: its key and layers.
    Image(Hit),
    /// Its key; perhaps a result.
    Vertex {
        /// The definition key.
        definition: CacheKey,
        /// What is recorded under it.
        hit: Option<Hit>,
        /// Whether a record may answer it at all: not if the cache is to be ignored, or was for what it stands on.
        may_hit: bool,
    },
    /// Its sources are wrong; an error if somebody needs it.
    Failed(Error),
}

impl Known {
    fn definition(&self) -> Option<CacheKey> {
        match self {
            Self::Image(hit) => Some(hit.key),
            Self::Vertex { definition, .. } => Some(*definition),
            Self::Local | Self::Failed(_) => None,
        }
    }
}

/// Asks the cache about every vertex, inputs first.
///
/// # Errors
/// Only those of the store. What is wrong with a vertex is kept until somebody needs it.
pub(crate) fn look_up(
    workshop: &Workshop,
    graph: &Graph,
    contexts: &LocalContexts,
    bases: &HashMap<Digest, Vec<LayerId>>,
    remotes: &Remotes<'_>,
) -> Result<Vec<Known>, Error> {
    let lease = remotes.lease;
    let mut known: Vec<Known> = Vec::with_capacity(graph.len());
    // Behind a step that has to run again only contents can tell: a definition would hide the step.
    let mut behind: Vec<bool> = Vec::with_capacity(graph.len());
    for (_, vertex) in graph.iter() {
        behind.push(vertex.ignore_cache || vertex.inputs.iter().any(|input| behind[input.0 as usize]));
        known.push(match &vertex.op {
            Op::Source(SourceOp::Local(_)) => Known::Local,
            Op::Source(SourceOp::Image { manifest, .. }) => {
                let layers = bases.get(manifest).cloned().unwrap_or_default();
                Known::Image(Hit { key: keys::image(manifest), layers })
            }
            Op::Source(source @ (SourceOp::Http(_) | SourceOp::Git(_))) => match remotes.resolve(source) {
                Ok(resolved) => {
                    let hit = find(workshop, resolved.key, lease)?;
                    Known::Vertex { definition: resolved.key, hit, may_hit: true }
                }
                Err(error) => Known::Failed(error),
            },
            _ => match definition_key(graph, vertex, &known, contexts) {
                Ok(definition) => {
                    Known::Vertex { definition, hit: None, may_hit: behind.last() != Some(&true) }
                }
                Err(error) => Known::Failed(error),
            },
        });
    }
    let (mut asked, mut keys) = (Vec::new(), Vec::new());
    for vertex in &mut known {
        if let Known::Vertex { definition, hit: hit @ None, may_hit: true } = vertex {
            keys.push(*definition.as_bytes());
            asked.push(hit);
        }
    }
    for (hit, found) in asked.into_iter().zip(workshop.store.cache_lookup_leased(&keys, lease)?) {
        *hit = found.map(Hit::of);
    }
    Ok(known)
}

/// The definition key: what is taken from local directories counts by content, everything else by definition.
fn definition_key(
    graph: &Graph,
    vertex: &Vertex,
    known: &[Known],
    contexts: &LocalContexts,
) -> Result<CacheKey, Error> {
    let whole = |input: Input| -> Result<Part, Error> {
        let Some(id) = input_vertex(vertex, input) else { return Ok(Part::Nothing) };
        let key = known[id.0 as usize].definition();
        key.map(Part::Whole).ok_or_else(|| unknown_input(graph, id, &known[id.0 as usize]))
    };
    let source = |action: &CopyAction| match local_name(graph, vertex, action.from) {
        Some(name) => {
            let context = contexts.get(name).expect("the frontend names only contexts it was told of");
            select_part(context, action, name)
        }
        None => whole(action.from),
    };
    key_of(KeyKind::Definition, vertex, &whole, &source)
}

fn unknown_input(graph: &Graph, id: VertexId, known: &Known) -> Error {
    match known {
        Known::Failed(error) => error.clone(),
        _ => Error::new(Class::Internal, format!("{} cannot be a root file system", graph.vertex(id).name)),
    }
}

/// The key of an operation, given what its whole inputs and its selected sources count as.
pub(crate) fn key_of(
    kind: KeyKind,
    vertex: &Vertex,
    whole: &dyn Fn(Input) -> Result<Part, Error>,
    source: &dyn Fn(&CopyAction) -> Result<Part, Error>,
) -> Result<CacheKey, Error> {
    match &vertex.op {
        Op::Exec(op) => {
            let mut parts = Vec::new();
            for mount in &op.mounts {
                match &mount.kind {
                    // K3: what is mounted read-only counts by content
                    MountKind::Bind { from, source: path } if mount.read_only => {
                        parts.push(source(&mounted(*from, path))?);
                    }
                    MountKind::Bind { from, source: path } => {
                        parts.push(match whole(*from) {
                            Ok(part) => part,
                            Err(_) => source(&mounted(*from, path))?,
                        });
                    }
                    MountKind::Cache { from, .. } => parts.push(whole(*from).unwrap_or(Part::Nothing)),
                    _ => {}
                }
            }
            Ok(keys::exec(kind, op, whole(op.root)?, &parts))
        }
        Op::File(op) => {
            let parts: Result<Vec<Part>, Error> = op
                .actions
                .iter()
                .filter_map(|action| match action {
                    FileAction::Copy(copy) => Some(source(copy)),
                    _ => None,
                })
                .collect();
            Ok(keys::file(kind, op, whole(op.base)?, &parts?))
        }
        Op::Merge => {
            let parts: Result<Vec<Part>, Error> =
                (0..vertex.inputs.len()).map(|index| whole(Input::Vertex(index))).collect();
            Ok(keys::merge(kind, &parts?))
        }
        Op::Source(_) => unreachable_source(),
    }
}

fn unreachable_source() -> Result<CacheKey, Error> {
    Err(Error::new(Class::Internal, "sources have keys of their own"))
}

/// A bind mount's source as a copy, so that both are selected and digested by the same rules.
pub(crate) fn mounted(from: Input, path: &str) -> CopyAction {
    CopyAction::new(from, path, "/")
}

/// The content of what an action selects, as part of a key.
pub(crate) fn select_part(tree: &dyn Tree, action: &CopyAction, reference: &str) -> Result<Part, Error> {
    let failed = |error: String| Error::new(Class::Build, error);
    let selection = select(tree, action, reference).map_err(|error| failed(error.to_string()))?;
    selection_digest(tree, &selection).map(Part::Selected).map_err(|error| failed(error.to_string()))
}

/// The vertex behind an input.
pub(crate) fn input_vertex(vertex: &Vertex, input: Input) -> Option<VertexId> {
    match input {
        Input::Scratch => None,
        Input::Vertex(index) => vertex.inputs.get(index).copied(),
    }
}

/// The name of the local directory behind an input, if it is one.
pub(crate) fn local_name<'a>(graph: &'a Graph, vertex: &Vertex, input: Input) -> Option<&'a str> {
    match &graph.vertex(input_vertex(vertex, input)?).op {
        Op::Source(SourceOp::Local(local)) => Some(&local.name),
        _ => None,
    }
}
