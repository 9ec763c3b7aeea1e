//! Build graphs: what vertices do, how they depend on each other, when two of them are the same, and in which order
//! they run.
//!
//! Pure: no threads, no containers, no store. The graph is LLB's set of operations (ARCHITECTURE.md, a build):
//! source, exec, file, merge. [`Schedule`] is a state machine that is told what happened and answers what to do.

mod graph;
mod key;
mod op;
mod remote;
mod schedule;

pub use graph::{Edge, Graph, Vertex, VertexId};
pub use key::{CacheKey, KeyHasher};
pub use op::{
    CacheSharing, CopyAction, ExecMount, ExecOp, FileAction, FileOp, Input, LocalSource, MakeDirectory,
    MakeFile, ModeChange, MountKind, NetworkMode, Op, Owner, OwnerId, SecretEnv, SecurityMode, SourceOp,
};
pub use remote::{GitSource, GitTime, HttpSource, Remote, RemoteError, is_commit};
pub use schedule::{Schedule, VertexState};
