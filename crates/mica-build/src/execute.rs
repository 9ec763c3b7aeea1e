//! Running what is not known: one thread per operation that is ready, results recorded, failures that stop the rest.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use mica_api::{Class, Error, LogStream};
use mica_solve::{
    CacheKey, CopyAction, ExecMount, Input, MountKind, Op, Schedule, SourceOp, Vertex, VertexId,
};
use mica_store::{LayerId, LockFile, NewCacheRecord, Waited};

use crate::cache::{CacheEntry, CacheKeys, Imports};
use crate::keys::{KeyKind, Part};
use crate::lookup::{Hit, Known, find, input_vertex, key_of, local_name, select_part};
use crate::operation::Operations;
use crate::progress::Step;

/// What a vertex made.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Its content key.
    pub(crate) key: CacheKey,
    /// The whole stack, lowest first.
    pub(crate) layers: Vec<LayerId>,
    /// Made anew because the cache was to be ignored: what builds on it must not be answered from the cache, which
    /// has results for the old one under the same key.
    pub(crate) renewed: bool,
}

/// A failure, and the vertex that has it.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) vertex: VertexId,
    pub(crate) error: Error,
}

/// The running of one graph.
pub(crate) struct Execution<'a> {
    pub(crate) operations: Operations<'a>,
    pub(crate) known: Vec<Known>,
    outcomes: Mutex<HashMap<VertexId, Outcome>>,
    /// Steps that began before: sources that had to be asked what they are.
    begun: Mutex<HashMap<VertexId, Step<'a>>>,
    /// What has been shown already: the context.
    shown: Option<&'a SourceOp>,
    imports: &'a Imports<'a>,
}

impl<'a> Execution<'a> {
    pub(crate) fn new(
        operations: Operations<'a>,
        known: Vec<Known>,
        begun: HashMap<VertexId, Step<'a>>,
        shown: Option<&'a SourceOp>,
        imports: &'a Imports<'a>,
    ) -> Self {
        Self { operations, known, outcomes: Mutex::default(), begun: Mutex::new(begun), shown, imports }
    }

    /// Everything that this build has results of, in the order of the Dockerfile.
    pub(crate) fn entries(&self) -> Vec<CacheEntry> {
        let entry = |(id, _): (VertexId, &Vertex)| match &self.known[id.0 as usize] {
            Known::Vertex { definition, .. } => self.outcome(id).map(|outcome| CacheEntry {
                content: outcome.key,
                definition: *definition,
                layers: outcome.layers,
            }),
            Known::Local | Known::Image(_) | Known::Failed(_) => None,
        };
        self.operations.graph.iter().filter_map(entry).collect()
    }

    /// Makes sure that `target` has a result, and returns its stack.
    ///
    /// # Errors
    /// The first failure; everything else is cancelled and waited for.
    pub(crate) fn run(&self, target: VertexId) -> Result<Vec<LayerId>, Failure> {
        let mut schedule = Schedule::new(self.operations.graph);
        for (id, _) in self.operations.graph.iter() {
            if let Some(outcome) = self.known_outcome(id) {
                self.remember(id, outcome);
                schedule.known(id);
            } else if matches!(self.known[id.0 as usize], Known::Local) {
                schedule.known(id);
            }
        }
        self.tell_known();
        schedule.demand(target);
        self.drive(&mut schedule)?;
        for (_, step) in self.begun.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            // nobody needed the files: what was made of them is still there
            step.cached();
        }
        let outcome = self.outcome(target);
        outcome.map(|outcome| outcome.layers).ok_or_else(|| Failure {
            vertex: target,
            error: Error::new(Class::Build, "the target is a directory of the client, not an image"),
        })
    }

    fn known_outcome(&self, id: VertexId) -> Option<Outcome> {
        let hit = match &self.known[id.0 as usize] {
            Known::Image(hit) | Known::Vertex { hit: Some(hit), .. } => hit,
            _ => return None,
        };
        Some(Outcome { key: hit.key, layers: hit.layers.clone(), renewed: false })
    }

    /// Shows everything that the cache answers, in the order of the Dockerfile.
    fn tell_known(&self) {
        for (id, vertex) in self.operations.graph.iter() {
            if matches!(&vertex.op, Op::Source(source) if self.shown == Some(source)) {
                continue;
            }
            match &self.known[id.0 as usize] {
                Known::Image(_) | Known::Vertex { hit: Some(_), .. } => self.start(id, vertex).cached(),
                _ => {}
            }
        }
    }

    fn start(&self, id: VertexId, vertex: &Vertex) -> Step<'a> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        if let Some(step) = begun {
            return step;
        }
        let graph = self.operations.graph;
        let inputs = vertex.inputs.iter().map(|input| graph.digest(*input)).collect();
        self.operations.progress.start(graph.digest(id), &*vertex.name, inputs)
    }

    fn outcome(&self, id: VertexId) -> Option<Outcome> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    fn remember(&self, id: VertexId, outcome: Outcome) {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).insert(id, outcome);
    }

    fn drive(&self, schedule: &mut Schedule) -> Result<(), Failure> {
        let slots = slots();
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            let mut running = 0;
            let mut failure: Option<Failure> = None;
            loop {
                while running < slots && failure.is_none() {
                    let Some(id) = schedule.next_ready() else { break };
                    let sender = sender.clone();
                    scope.spawn(move || {
                        let result = self.vertex(id);
                        // the receiver lives as long as the scope
                        let _ = sender.send((id, result));
                    });
                    running += 1;
                }
                if running == 0 {
                    return failure.map_or(Ok(()), Err);
                }
                let Ok((id, result)) = receiver.recv() else { return failure.map_or(Ok(()), Err) };
                running -= 1;
                match result {
                    Ok(outcome) => {
                        self.remember(id, outcome);
                        schedule.done(id);
                    }
                    Err(error) => {
                        let first = failure.is_none();
                        self.operations.cancel.cancel();
                        if first {
                            failure = Some(Failure { vertex: id, error });
                        }
                    }
                }
            }
        })
    }

    /// Answers a vertex by content, or runs it.
    fn vertex(&self, id: VertexId) -> Result<Outcome, Error> {
        let vertex = self.operations.graph.vertex(id);
        let step = self.start(id, vertex);
        match self.answer(id, vertex, &step) {
            Ok((outcome, cached)) => {
                if cached {
                    step.cached()
                } else {
                    step.done()
                }
                Ok(outcome)
            }
            Err(error) if error.class == Class::Cancelled => Err(error),
            Err(error) => {
                step.failed(error.message.clone());
                Err(error)
            }
        }
    }

    fn answer(&self, id: VertexId, vertex: &Vertex, step: &Step<'_>) -> Result<(Outcome, bool), Error> {
        self.operations.cancel.check()?;
        let definition = match &self.known[id.0 as usize] {
            Known::Vertex { definition, .. } => *definition,
            Known::Failed(error) => return Err(error.clone()),
            _ => return Err(Error::new(Class::Internal, "sources are opened, not run")),
        };
        let content = match &vertex.op {
            // what it is was asked before anything ran
            Op::Source(_) => definition,
            _ => self.content_key(vertex)?,
        };
        let renewed = vertex.ignore_cache || self.base_renewed(vertex);
        if renewed {
            let layers = self.make(vertex, step, content, definition)?;
            return Ok((Outcome { key: content, layers, renewed: true }, false));
        }
        if let Some(hit) = self.by_content(content, definition, vertex)? {
            return Ok((Outcome { key: hit.key, layers: hit.layers, renewed: false }, true));
        }
        if takes_secrets(vertex) {
            // what a secret made here is nobody else's, and nobody else's failure is ours
            let layers = self.make(vertex, step, content, definition)?;
            return Ok((Outcome { key: content, layers, renewed: false }, false));
        }
        let held = match self.turn(content, step)? {
            Turn::Ours(held) => held,
            Turn::AfterAnother(held) => {
                if let Some(hit) = self.by_content(content, definition, vertex)? {
                    return Ok((Outcome { key: hit.key, layers: hit.layers, renewed: false }, true));
                }
                held
            }
        };
        let made = self.make(vertex, step, content, definition);
        if let Err(error) = &made
            && error.class != Class::Cancelled
        {
            // those who wait for this very step learn why it failed; a note that cannot be written costs them a run
            let _ = held.leave_note(error.message.as_bytes());
        }
        Ok((Outcome { key: content, layers: made?, renewed: false }, false))
    }

    /// Takes the lock of a content key: one process runs a step, the others wait.
    ///
    /// # Errors
    /// The failure of the process waited for, which ran the same step on the same files.
    fn turn(&self, content: CacheKey, step: &Step<'_>) -> Result<Turn, Error> {
        let lock = self.operations.workshop.store.lock(&content.hex());
        if let Some(held) = lock.try_acquire()? {
            return Ok(Turn::Ours(held));
        }
        if let Some(pid) = lock.holder() {
            let text = format!("waiting for process {pid}, which runs the same step\n");
            step.log(LogStream::Stderr, text.as_bytes());
        }
        let cancel = self.operations.cancel;
        match lock.wait_or_note(&|| cancel.is_cancelled())? {
            Waited::Acquired(held) => Ok(Turn::AfterAnother(held)),
            Waited::Note(note) => Err(Error::new(Class::Build, String::from_utf8_lossy(&note).into_owned())
                .why("another build was running the same step and it failed there")),
        }
    }

    /// A result under the content key; the definition key leads to it from now on.
    fn by_content(
        &self,
        content: CacheKey,
        definition: CacheKey,
        vertex: &Vertex,
    ) -> Result<Option<Hit>, Error> {
        let Operations { workshop, lease, .. } = self.operations;
        let hit = match find(workshop, content, lease)? {
            Some(hit) => hit,
            None => {
                let keys = CacheKeys { keys: [content.as_bytes()], description: &vertex.name };
                match self.imports.bring(&keys)? {
                    Some(hit) => hit,
                    None => return Ok(None),
                }
            }
        };
        self.record(vertex, content, definition, &hit.layers)?;
        Ok(Some(hit))
    }

    fn make(
        &self,
        vertex: &Vertex,
        step: &Step<'_>,
        content: CacheKey,
        definition: CacheKey,
    ) -> Result<Vec<LayerId>, Error> {
        let stacks = |id: VertexId| self.outcome(id).map(|outcome| outcome.layers);
        let made = self.operations.run(vertex, &stacks, step)?;
        if made.is_as_keyed {
            self.record(vertex, content, definition, &made.layers)?;
        }
        Ok(made.layers)
    }

    fn record(
        &self,
        vertex: &Vertex,
        content: CacheKey,
        definition: CacheKey,
        layers: &[LayerId],
    ) -> Result<(), Error> {
        let record = NewCacheRecord {
            content: content.as_bytes(),
            aliases: &[*definition.as_bytes()],
            layers,
            description: &vertex.name,
        };
        self.operations.workshop.store.cache_record(&record, self.operations.lease)?;
        Ok(())
    }

    /// Whether the file system a vertex starts from was made anew because the cache was to be ignored.
    fn base_renewed(&self, vertex: &Vertex) -> bool {
        let renewed = |input: Input| {
            input_vertex(vertex, input).and_then(|id| self.outcome(id)).is_some_and(|outcome| outcome.renewed)
        };
        match &vertex.op {
            Op::Exec(op) => renewed(op.root),
            Op::File(op) => renewed(op.base),
            Op::Merge => (0..vertex.inputs.len()).any(|index| renewed(Input::Vertex(index))),
            Op::Source(_) => false,
        }
    }

    fn content_key(&self, vertex: &Vertex) -> Result<CacheKey, Error> {
        let Operations { graph, contexts, workshop, .. } = self.operations;
        let whole = |input: Input| match input_vertex(vertex, input) {
            None => Ok(Part::Nothing),
            Some(id) => self
                .outcome(id)
                .map(|outcome| Part::Whole(outcome.key))
                .ok_or_else(|| Error::new(Class::Internal, "an input has no result")),
        };
        let source = |action: &CopyAction| {
            if let Some(name) = local_name(graph, vertex, action.from) {
                let context = contexts.get(name).expect("the frontend names only contexts it was told of");
                return select_part(context, action, name);
            }
            let stack = input_vertex(vertex, action.from).and_then(|id| self.outcome(id));
            let stack = stack.map(|outcome| outcome.layers).unwrap_or_default();
            let name = input_vertex(vertex, action.from).map(|id| graph.digest(id).short().to_owned());
            select_part(&workshop.view(&stack)?, action, name.as_deref().unwrap_or("scratch"))
        };
        key_of(KeyKind::Content, vertex, &whole, &source)
    }
}

/// How a process came to run a step.
enum Turn {
    /// Nobody else was at it.
    Ours(LockFile),
    /// Somebody was, and there may be a result now.
    AfterAnother(LockFile),
}

/// Whether a step sees secrets or agents: such steps neither wait for others nor take over their failures.
fn takes_secrets(vertex: &Vertex) -> bool {
    let Op::Exec(op) = &vertex.op else { return false };
    let is_secret =
        |mount: &ExecMount| matches!(mount.kind, MountKind::Secret { .. } | MountKind::Ssh { .. });
    !op.secret_env.is_empty() || op.mounts.iter().any(is_secret)
}

/// How many operations run at once: steps wait for networks and disks more than they compute.
fn slots() -> usize {
    thread::available_parallelism().map_or(4, usize::from).max(2) * 2
}
