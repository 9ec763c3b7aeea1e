//! Running what is not known: one thread per operation that is ready, results recorded, failures that stop the rest.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use mica_api::{Class, Error};
use mica_solve::{CacheKey, CopyAction, Input, Op, Schedule, Vertex, VertexId};
use mica_store::{LayerId, NewCacheRecord};

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
}

impl<'a> Execution<'a> {
    pub(crate) fn new(operations: Operations<'a>, known: Vec<Known>) -> Self {
        Self { operations, known, outcomes: Mutex::default() }
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
            match &self.known[id.0 as usize] {
                Known::Image(_) | Known::Vertex { hit: Some(_), .. } => self.start(id, vertex).cached(),
                _ => {}
            }
        }
    }

    fn start(&self, id: VertexId, vertex: &Vertex) -> Step<'a> {
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
            Known::Failed(error) => return Err(copy_of(error)),
            _ => return Err(Error::new(Class::Internal, "sources are opened, not run")),
        };
        let content = self.content_key(vertex)?;
        let renewed = vertex.ignore_cache || self.base_renewed(vertex);
        if renewed {
            let layers = self.make(vertex, step, content, definition)?;
            return Ok((Outcome { key: content, layers, renewed: true }, false));
        }
        if let Some(hit) = self.by_content(content, definition, vertex)? {
            return Ok((Outcome { key: hit.key, layers: hit.layers, renewed: false }, true));
        }
        // one process makes it, the others wait and look again
        let lock = self.operations.workshop.store.lock(&content.hex());
        let cancel = self.operations.cancel;
        let held = match lock.try_acquire()? {
            Some(held) => held,
            None => {
                if let Some(pid) = lock.holder() {
                    step.log(
                        mica_api::LogStream::Stderr,
                        format!("waiting for process {pid}, which runs the same step\n").as_bytes(),
                    );
                }
                let held = lock.wait(&|| cancel.is_cancelled())?;
                if let Some(hit) = self.by_content(content, definition, vertex)? {
                    return Ok((Outcome { key: hit.key, layers: hit.layers, renewed: false }, true));
                }
                held
            }
        };
        let layers = self.make(vertex, step, content, definition)?;
        drop(held);
        Ok((Outcome { key: content, layers, renewed: false }, false))
    }

    /// A result under the content key; the definition key leads to it from now on.
    fn by_content(
        &self,
        content: CacheKey,
        definition: CacheKey,
        vertex: &Vertex,
    ) -> Result<Option<Hit>, Error> {
        let Operations { workshop, lease, .. } = self.operations;
        let Some(hit) = find(workshop, content, lease)? else { return Ok(None) };
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

/// A failure of several users of one vertex.
fn copy_of(error: &Error) -> Error {
    Error {
        class: error.class,
        message: error.message.clone(),
        why: error.why.clone(),
        hint: error.hint.clone(),
        excerpt: None,
    }
}

/// How many operations run at once: steps wait for networks and disks more than they compute.
fn slots() -> usize {
    thread::available_parallelism().map_or(4, usize::from).max(2) * 2
}
