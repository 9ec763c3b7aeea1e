//! Sources beyond the machine: files of web servers, commits of git repositories (build.md A3-A5, O1, O2).
//!
//! First a source is *resolved*: what it is at this moment becomes its key, so a moved branch or a changed file is a
//! miss and everything else a hit. Its files are fetched only if a step needs them that the cache does not answer; of
//! a web server that knows no conditional requests, the body is fetched to know what it is.

mod checkout;
mod download;
mod git;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use mica_api::{Cancel, Class, Error, Secret, SshAgent};
use mica_solve::{CacheKey, CopyAction, FileAction, FileOp, Graph, Input, Op, SourceOp, VertexId};
use mica_store::{CacheKind, LayerId, Lease, NewCacheRecord};

use crate::context::LocalContext;
use crate::fileop::{self, FileOptions, SourceTree};
use crate::hit::{Hit, find};
use crate::progress::{Progress, Step};
use crate::{Draft, Workshop, finish_layer};

use download::Body;

/// What a source is now.
#[derive(Debug)]
pub(crate) struct Resolved {
    /// Its key.
    pub(crate) key: CacheKey,
    /// When it was changed last, in seconds.
    pub(crate) seconds: Option<i64>,
    found: Found,
}

#[derive(Debug)]
enum Found {
    /// A body that was fetched to know it; `None`: a record has it, or it is fetched when needed.
    Http(Option<Body>),
    /// A commit.
    Git(String),
}

/// The remote sources of one build, each resolved once.
pub(crate) struct Remotes<'a> {
    pub(crate) workshop: &'a Workshop,
    pub(crate) lease: &'a Lease,
    pub(crate) secrets: &'a [Secret],
    pub(crate) agents: &'a [SshAgent],
    pub(crate) cancel: &'a Cancel,
    resolved: Mutex<HashMap<String, Result<Arc<Resolved>, Error>>>,
}

impl<'a> Remotes<'a> {
    pub(crate) fn new(
        workshop: &'a Workshop,
        lease: &'a Lease,
        secrets: &'a [Secret],
        agents: &'a [SshAgent],
        cancel: &'a Cancel,
    ) -> Self {
        Self { workshop, lease, secrets, agents, cancel, resolved: Mutex::default() }
    }

    /// What a source is now.
    ///
    /// # Errors
    /// The server does not answer, or not with what was asked for.
    pub(crate) fn resolve(&self, source: &SourceOp) -> Result<Arc<Resolved>, Error> {
        let name = serde_json::to_string(source).expect("sources are plain data");
        let lock = || self.resolved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(resolved) = lock().get(&name) {
            return resolved.clone();
        }
        let resolved = match source {
            SourceOp::Http(http) => self.resolve_http(http),
            SourceOp::Git(git) => self.resolve_git(git),
            SourceOp::Image { .. } | SourceOp::Local(_) => Err(not_remote()),
        };
        let resolved = resolved.map(Arc::new);
        lock().insert(name, resolved.clone());
        resolved
    }

    /// Resolves all sources of a graph side by side; what comes of it is kept. Returns their steps, which have begun.
    pub(crate) fn resolve_all<'p>(
        &self,
        graph: &Graph,
        progress: &'p Progress<'_>,
    ) -> HashMap<VertexId, Step<'p>> {
        let is_known = |source: &SourceOp| {
            let name = serde_json::to_string(source).expect("sources are plain data");
            self.resolved.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&name)
        };
        let mut steps = HashMap::new();
        thread::scope(|scope| {
            for (id, vertex) in graph.iter() {
                let Op::Source(source @ (SourceOp::Http(_) | SourceOp::Git(_))) = &vertex.op else {
                    continue;
                };
                if !is_known(source) {
                    steps.insert(id, progress.start(graph.digest(id), &*vertex.name, Vec::new()));
                    // whoever needs it asks again and gets the same answer, or the first one if there is no thread
                    let _ = thread::Builder::new().spawn_scoped(scope, || drop(self.resolve(source)));
                }
            }
        });
        steps
    }

    /// The files of a source as a layer that is made now.
    ///
    /// # Errors
    /// As [`Remotes::resolve`], and when they cannot be written.
    pub(crate) fn fetch(&self, source: &SourceOp, resolved: &Resolved) -> Result<LayerId, Error> {
        match (source, &resolved.found) {
            (SourceOp::Http(http), Found::Http(body)) => self.fetch_http(http, body.as_ref()),
            (SourceOp::Git(git), Found::Git(commit)) => self.fetch_git(git, commit),
            _ => Err(not_remote()),
        }
    }

    /// The files of a source, from the cache if they are there.
    ///
    /// # Errors
    /// As [`Remotes::fetch`].
    pub(crate) fn layers(&self, source: &SourceOp, name: &str) -> Result<(Arc<Resolved>, Hit), Error> {
        let resolved = self.resolve(source)?;
        if let Some(hit) = find(self.workshop, resolved.key, self.lease)? {
            return Ok((resolved, hit));
        }
        let layers = vec![self.fetch(source, &resolved)?];
        let key = resolved.key;
        let kind = match source {
            SourceOp::Git(_) => CacheKind::GitCheckout,
            _ => CacheKind::Regular,
        };
        let record = NewCacheRecord {
            content: key.as_bytes(),
            aliases: &[],
            layers: &layers,
            description: name,
            kind,
        };
        self.workshop.store.cache_record(&record, self.lease)?;
        Ok((resolved, Hit { key, layers }))
    }

    /// Makes a layer of a directory that this process has made: owners are 0:0.
    fn import(&self, directory: &Path, exclude: &[&str], seconds: i64) -> Result<LayerId, Error> {
        let failed = |error: std::io::Error| {
            Error::new(Class::of_io(&error), "cannot read what was fetched").why(error.to_string())
        };
        let context = LocalContext::open(directory, None, None).map_err(failed)?;
        let copy = CopyAction {
            exclude: exclude.iter().map(|&pattern| pattern.to_owned()).collect(),
            created_seconds: seconds,
            ..CopyAction::new(Input::Vertex(0), "/", "/")
        };
        let op = FileOp { base: Input::Scratch, actions: vec![FileAction::Copy(copy)] };
        let workspace = self.lease.workspace()?;
        let active = self.workshop.driver.prepare(&workspace, &[])?;
        let options = FileOptions::new(self.workshop.is_single_id(), self.cancel);
        let tree = |_| SourceTree::local(&context, "source");
        let outcome = fileop::run(&op, active.root(), &tree, &options)?;
        let draft = self.workshop.driver.commit(active, &outcome.ledger)?;
        let draft = Draft { directory: &workspace, table: draft.table };
        Ok(finish_layer(self.workshop, draft, self.lease, self.cancel)?.id)
    }
}

fn not_remote() -> Error {
    Error::new(Class::Internal, "only web servers and repositories are fetched")
}
