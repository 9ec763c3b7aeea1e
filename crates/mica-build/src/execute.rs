//! Running what is not known: one thread per operation that is ready, results recorded, failures that stop the rest.
//!
//! A vertex ends when its operation does. Hashing its layer and recording the result run on, beside the vertices that
//! need it ([`crate::fresh`]); a failing vertex stops other vertices, but not what is left of those that ended well.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use mica_api::{Cancel, Class, Error, LogStream};
use mica_solve::{
    CacheKey, CopyAction, ExecMount, Input, MountKind, Op, Schedule, SourceOp, Vertex, VertexId,
};
use mica_store::{CacheKind, LayerId, LockFile, NewCacheRecord, Waited};

use crate::cache::{CacheEntry, CacheKeys, Imports};
use crate::fresh::{StackLayer, Unhashed, stored};
use crate::hit::{Hit, find};
use crate::keys::{KeyKind, Part};
use crate::lookup::{Known, input_vertex, key_of, local_name, select_part};
use crate::operation::Operations;
use crate::permits::{Permit, Permits};
use crate::progress::Step;

/// What a vertex made.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Its content key.
    pub(crate) key: CacheKey,
    /// The whole stack, lowest first.
    pub(crate) layers: Vec<StackLayer>,
    /// Made anew because the cache was to be ignored: what builds on it must not be answered from the cache, which
    /// has results for the old one under the same key.
    pub(crate) renewed: bool,
}

impl Outcome {
    fn of_hit(hit: Hit) -> Self {
        let layers = hit.layers.into_iter().map(StackLayer::Stored).collect();
        Self { key: hit.key, layers, renewed: false }
    }
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
    /// The user's own, which a failing vertex leaves alone.
    cancel: &'a Cancel,
    slots: Permits,
    hashing: Permits,
}

impl<'a> Execution<'a> {
    pub(crate) fn new(
        operations: Operations<'a>,
        known: Vec<Known>,
        begun: HashMap<VertexId, Step<'a>>,
        shown: Option<&'a SourceOp>,
        (imports, cancel): (&'a Imports<'a>, &'a Cancel),
    ) -> Self {
        let cores = thread::available_parallelism().map_or(2, usize::from);
        Self {
            operations,
            known,
            outcomes: Mutex::default(),
            begun: Mutex::new(begun),
            shown,
            imports,
            cancel,
            // Steps wait for networks and disks more than they compute.
            slots: Permits::new(cores.max(2) * 2),
            hashing: Permits::new(cores),
        }
    }

    /// Everything that this build has results of, in the order of the Dockerfile.
    pub(crate) fn entries(&self) -> Vec<CacheEntry> {
        let entry = |(id, _): (VertexId, &Vertex)| match &self.known[id.0 as usize] {
            Known::Vertex { definition, .. } => self.outcome(id).and_then(|outcome| {
                // a layer that failed has failed the build
                let layers = stored(&outcome.layers).ok()?;
                Some(CacheEntry { content: outcome.key, definition: *definition, layers })
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
        let layers = match self.outcome(target) {
            Some(outcome) => stored(&outcome.layers),
            None => Err(Error::new(Class::Build, "the target is a directory of the client, not an image")),
        };
        layers.map_err(|error| Failure { vertex: target, error })
    }

    fn known_outcome(&self, id: VertexId) -> Option<Outcome> {
        let hit = match &self.known[id.0 as usize] {
            Known::Image(hit) | Known::Vertex { hit: Some(hit), .. } => hit,
            _ => return None,
        };
        Some(Outcome::of_hit(hit.clone()))
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

    fn stack(&self, id: VertexId) -> Option<Vec<StackLayer>> {
        self.outcome(id).map(|outcome| outcome.layers)
    }

    fn remember(&self, id: VertexId, outcome: Outcome) {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).insert(id, outcome);
    }

    fn drive(&self, schedule: &mut Schedule) -> Result<(), Failure> {
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::channel();
            let mut under_way = 0;
            let mut failure: Option<Failure> = None;
            loop {
                while failure.is_none()
                    && let Some(permit) = self.slots.try_take()
                    && let Some(id) = schedule.next_ready()
                {
                    let to_here = sender.clone();
                    let started = thread::Builder::new().spawn_scoped(scope, move || {
                        let slot = Slot { slots: &self.slots, permit: Some(permit), sender: &to_here };
                        let result = self.vertex(id, slot);
                        // the receiver lives as long as the scope
                        let _ = to_here.send(Message::Ended(id, result));
                    });
                    under_way += 1;
                    if let Err(error) = started {
                        // as above
                        let _ = sender.send(Message::Ended(id, Err(no_thread(&error))));
                    }
                }
                if under_way == 0 {
                    return failure.map_or(Ok(()), Err);
                }
                let Ok(message) = receiver.recv() else { return failure.map_or(Ok(()), Err) };
                match message {
                    Message::SlotFree => continue,
                    Message::Ended(id, Ok(answer)) => {
                        self.remember(id, answer.outcome);
                        schedule.done(id);
                        if let Some(rest) = answer.rest {
                            let to_here = sender.clone();
                            let started = thread::Builder::new().spawn_scoped(scope, move || {
                                // as above
                                let _ = to_here.send(Message::Finished(id, self.finish(id, rest)));
                            });
                            under_way += 1;
                            if let Err(error) = started {
                                // as above
                                let _ = sender.send(Message::Finished(id, Err(no_thread(&error))));
                            }
                        }
                    }
                    Message::Finished(_, Ok(())) => {}
                    Message::Ended(vertex, Err(error)) | Message::Finished(vertex, Err(error)) => {
                        self.operations.cancel.cancel();
                        failure.get_or_insert(Failure { vertex, error });
                    }
                }
                under_way -= 1;
            }
        })
    }

    /// Answers a vertex by content, or runs it.
    fn vertex(&self, id: VertexId, mut slot: Slot<'_>) -> Result<Answer, Error> {
        let vertex = self.operations.graph.vertex(id);
        let step = self.start(id, vertex);
        match self.answer(id, vertex, &step, &mut slot) {
            Ok(answer) => {
                if answer.rest.is_none() {
                    step.cached()
                } else {
                    step.done()
                }
                Ok(answer)
            }
            Err(error) if error.class == Class::Cancelled => Err(error),
            Err(error) => {
                step.failed(error.message.clone());
                Err(error)
            }
        }
    }

    fn answer(
        &self,
        id: VertexId,
        vertex: &Vertex,
        step: &Step<'_>,
        slot: &mut Slot<'_>,
    ) -> Result<Answer, Error> {
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
        let keys = Keys { content, definition };
        if vertex.ignore_cache || self.base_renewed(vertex) {
            let mut answer = self.make(vertex, step, keys)?;
            answer.outcome.renewed = true;
            return Ok(answer);
        }
        if let Some(hit) = self.by_content(keys, vertex)? {
            return Ok(Answer { outcome: Outcome::of_hit(hit), rest: None });
        }
        if takes_secrets(vertex) {
            // what a secret made here is nobody else's, and nobody else's failure is ours
            return self.make(vertex, step, keys);
        }
        let held = match self.turn(content, step, slot)? {
            Turn::Ours(held) => held,
            Turn::AfterAnother(held) => {
                if let Some(hit) = self.by_content(keys, vertex)? {
                    return Ok(Answer { outcome: Outcome::of_hit(hit), rest: None });
                }
                held
            }
        };
        match self.make(vertex, step, keys) {
            Ok(mut answer) => {
                answer.rest = answer.rest.map(|rest| Rest { held: Some(held), ..rest });
                Ok(answer)
            }
            Err(error) => {
                if error.class != Class::Cancelled {
                    // those who wait for this very step learn why it failed; a note that cannot be written costs
                    // them a run
                    let _ = held.leave_note(error.message.as_bytes());
                }
                Err(error)
            }
        }
    }

    /// Takes the lock of a content key: one process runs a step, the others wait.
    ///
    /// # Errors
    /// The failure of the process waited for, which ran the same step on the same files.
    fn turn(&self, content: CacheKey, step: &Step<'_>, slot: &mut Slot<'_>) -> Result<Turn, Error> {
        let lock = self.operations.workshop.store.lock(&content.hex());
        if let Some(held) = lock.try_acquire()? {
            return Ok(Turn::Ours(held));
        }
        if let Some(pid) = lock.holder() {
            let text = format!("waiting for process {pid}, which runs the same step\n");
            step.log(LogStream::Stderr, text.as_bytes());
        }
        let cancel = self.operations.cancel;
        slot.give_back();
        let waited = lock.wait_or_note(&|| cancel.is_cancelled())?;
        slot.take_back();
        match waited {
            Waited::Acquired(held) => Ok(Turn::AfterAnother(held)),
            Waited::Note(note) => Err(Error::new(Class::Build, String::from_utf8_lossy(&note).into_owned())
                .why("another build was running the same step and it failed there")),
        }
    }

    /// A result under the content key; the definition key leads to it from now on.
    fn by_content(&self, keys: Keys, vertex: &Vertex) -> Result<Option<Hit>, Error> {
        let Operations { workshop, lease, .. } = self.operations;
        let hit = match find(workshop, keys.content, lease)? {
            Some(hit) => hit,
            None => {
                let wanted = CacheKeys { keys: [keys.content.as_bytes()], description: &vertex.name };
                match self.imports.bring(&wanted)? {
                    Some(hit) => hit,
                    None => return Ok(None),
                }
            }
        };
        self.record(vertex, keys, &hit.layers)?;
        Ok(Some(hit))
    }

    fn make(&self, vertex: &Vertex, step: &Step<'_>, keys: Keys) -> Result<Answer, Error> {
        let made = self.operations.run(vertex, &|id| self.stack(id), step)?;
        let rest = Rest { keys: made.is_as_keyed.then_some(keys), unhashed: made.unhashed, held: None };
        let outcome = Outcome { key: keys.content, layers: made.layers, renewed: false };
        Ok(Answer { outcome, rest: Some(rest) })
    }

    /// Does what is left when an operation has ended: its layer is hashed and adopted, its result recorded.
    fn finish(&self, id: VertexId, rest: Rest) -> Result<(), Error> {
        // dropped last: those who wait for the step look for its record then
        let _held = rest.held;
        let Operations { workshop, lease, graph, .. } = self.operations;
        if let Some(unhashed) = rest.unhashed {
            let _permit = self.hashing.take();
            unhashed.finish(workshop, lease, self.cancel)?;
        }
        let Some(keys) = rest.keys else { return Ok(()) };
        let layers = stored(&self.stack(id).unwrap_or_default())?;
        self.record(graph.vertex(id), keys, &layers)
    }

    fn record(&self, vertex: &Vertex, keys: Keys, layers: &[LayerId]) -> Result<(), Error> {
        let record = NewCacheRecord {
            content: keys.content.as_bytes(),
            aliases: &[*keys.definition.as_bytes()],
            layers,
            description: &vertex.name,
            kind: kind_of(&vertex.op),
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
        let Operations { graph, contexts, .. } = self.operations;
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
            let view = self.operations.view(vertex, action.from, &|id| self.stack(id))?;
            let name = input_vertex(vertex, action.from).map(|id| graph.digest(id).short().to_owned());
            select_part(&*view, action, name.as_deref().unwrap_or("scratch"))
        };
        key_of(KeyKind::Content, vertex, &whole, &source)
    }
}

fn no_thread(error: &std::io::Error) -> Error {
    Error::new(Class::Exhausted, "cannot start a thread")
        .why(error.to_string())
        .hint("the limit of processes is reached: `ulimit -u`, or `pids.max` of the control group")
}

/// What threads tell the one that drives the graph.
enum Message {
    /// A vertex has its result, or has failed.
    Ended(VertexId, Result<Answer, Error>),
    /// What was left of it is done.
    Finished(VertexId, Result<(), Error>),
    /// A vertex waits for another process, and others may run meanwhile.
    SlotFree,
}

/// The result of a vertex.
struct Answer {
    outcome: Outcome,
    /// What is left to do; `None` if the cache had it.
    rest: Option<Rest>,
}

/// What is left to do when an operation has ended.
struct Rest {
    /// Where to record the result, if it may be.
    keys: Option<Keys>,
    unhashed: Option<Unhashed>,
    held: Option<LockFile>,
}

/// The two keys of a vertex.
#[derive(Clone, Copy)]
struct Keys {
    content: CacheKey,
    definition: CacheKey,
}

/// The place of a vertex among those that run.
struct Slot<'a> {
    slots: &'a Permits,
    permit: Option<Permit<'a>>,
    sender: &'a mpsc::Sender<Message>,
}

impl Slot<'_> {
    /// Lets another vertex run.
    fn give_back(&mut self) {
        self.permit = None;
        // the receiver lives as long as the vertices
        let _ = self.sender.send(Message::SlotFree);
    }

    /// Waits for a place again.
    fn take_back(&mut self) {
        self.permit = Some(self.slots.take());
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

/// What kind of record the result of an operation is.
fn kind_of(op: &Op) -> CacheKind {
    match op {
        Op::Source(SourceOp::Git(_)) => CacheKind::GitCheckout,
        _ => CacheKind::Regular,
    }
}
