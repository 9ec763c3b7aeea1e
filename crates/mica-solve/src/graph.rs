//! The graph of one build: vertices in an order in which inputs come first, equal vertices collapsed.

use std::collections::HashMap;

use mica_oci::Digest;

use crate::{CacheKey, KeyHasher, Op};

/// A vertex of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(pub u32);

/// The result of a vertex as somebody's input. Every operation has one result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Whose result.
    pub vertex: VertexId,
}

/// One operation, its inputs, and how it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Vertex {
    /// What it does.
    pub op: Op,
    /// What it needs; `Input::Vertex(n)` inside the operation counts into this list.
    pub inputs: Vec<VertexId>,
    /// How progress names it: `[build 2/4] RUN make`.
    pub name: String,
    /// `--no-cache`: never looked up, still recorded (K10).
    pub ignore_cache: bool,
    /// First and last line in the Dockerfile, for the error frame (P35).
    pub lines: Option<(u32, u32)>,
}

/// All vertices of a build.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    vertices: Vec<Vertex>,
    identities: Vec<CacheKey>,
    known: HashMap<CacheKey, VertexId>,
}

impl Graph {
    /// Adds a vertex, or returns the equal one that is there already (build.md B1).
    ///
    /// Two vertices are equal when operation and inputs are; names and lines are those of the first. A vertex that
    /// ignores the cache never collapses into one that does not.
    pub fn add(&mut self, vertex: Vertex) -> VertexId {
        let identity = self.identity_of(&vertex);
        if let Some(known) = self.known.get(&identity) {
            return *known;
        }
        let id = VertexId(u32::try_from(self.vertices.len()).expect("a graph has fewer than 2^32 vertices"));
        self.vertices.push(vertex);
        self.identities.push(identity);
        self.known.insert(identity, id);
        id
    }

    fn identity_of(&self, vertex: &Vertex) -> CacheKey {
        let mut hasher = KeyHasher::new("vertex");
        hasher.json(&vertex.op);
        hasher.number(u64::from(vertex.ignore_cache));
        for input in &vertex.inputs {
            hasher.key(&self.identities[input.0 as usize]);
        }
        hasher.finish()
    }

    /// The vertex with this id.
    pub fn vertex(&self, id: VertexId) -> &Vertex {
        &self.vertices[id.0 as usize]
    }

    /// All vertices, inputs before users.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (VertexId, &Vertex)> {
        self.vertices.iter().enumerate().map(|(index, vertex)| (VertexId(index as u32), vertex))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.vertices.is_empty()
    }

    /// A digest that names the vertex in progress output, the same in every process (S6).
    pub fn digest(&self, id: VertexId) -> Digest {
        Digest::from_sha256(*self.identities[id.0 as usize].as_bytes())
    }
}
