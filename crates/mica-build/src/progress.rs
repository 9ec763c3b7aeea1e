//! Telling what happens: vertices that start and end, into the journal and to whoever watches.

use std::fs::File;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mica_api::{
    Event, EventSink, LogStream, StatusUpdate, Timestamp, TransferState, TransferUpdate, VertexUpdate,
};
use mica_oci::Digest;

/// Sends every event to the watcher, and appends it to the journal.
///
/// A journal that cannot be written never fails a build: the watcher still sees everything.
pub(crate) struct Progress<'a> {
    sink: &'a dyn EventSink,
    journal: Mutex<Option<File>>,
    /// How many internal vertices there were: two of one name are two.
    internal: AtomicU64,
}

impl<'a> Progress<'a> {
    /// Appends to `journal`, one JSON object a line.
    pub(crate) fn new(sink: &'a dyn EventSink, journal: Option<File>) -> Self {
        Self { sink, journal: Mutex::new(journal), internal: AtomicU64::new(0) }
    }

    /// Tells one event.
    pub(crate) fn tell(&self, event: Event) {
        let mut journal = self.journal.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(file) = journal.as_mut()
            && let Ok(mut line) = serde_json::to_vec(&event)
        {
            line.push(b'\n');
            if file.write_all(&line).is_err() {
                *journal = None;
            }
        }
        drop(journal);
        self.sink.event(event);
    }

    /// A remark shown at once.
    pub(crate) fn notice(&self, text: impl Into<String>) {
        self.tell(Event::Notice(text.into()));
    }

    /// A vertex begins.
    pub(crate) fn start(&self, digest: Digest, name: impl Into<String>, inputs: Vec<Digest>) -> Step<'_> {
        let update = VertexUpdate {
            digest,
            inputs,
            name: name.into(),
            started: Some(Timestamp::now()),
            completed: None,
            cached: false,
            error: None,
        };
        self.tell(Event::Vertex(update.clone()));
        Step { progress: self, update, ended: false }
    }

    /// A vertex that is not an operation of the graph: `[internal] …`, `exporting …`.
    pub(crate) fn internal(&self, name: impl Into<String>) -> Step<'_> {
        let name = name.into();
        let number = self.internal.fetch_add(1, Ordering::Relaxed);
        self.start(Digest::of(format!("{number} {name}").as_bytes()), name, Vec::new())
    }
}

/// A vertex that runs. Dropped without an ending, it is shown as cancelled.
pub(crate) struct Step<'a> {
    progress: &'a Progress<'a>,
    update: VertexUpdate,
    ended: bool,
}

impl Step<'_> {
    /// Something the step printed.
    pub(crate) fn log(&self, stream: LogStream, data: &[u8]) {
        self.progress.tell(Event::Log {
            vertex: self.update.digest.clone(),
            stream,
            data: data.to_vec(),
            at: Timestamp::now(),
        });
    }

    /// Something inside the step that is done at once: `transferring context: 2B`.
    pub(crate) fn status(&self, id: impl Into<String>, current: u64) {
        let now = Timestamp::now();
        self.progress.tell(Event::Status(StatusUpdate {
            vertex: self.update.digest.clone(),
            id: id.into(),
            current,
            total: 0,
            at: now,
            started: self.update.started,
            completed: Some(now),
        }));
    }

    /// Something that moves between a registry and the store.
    pub(crate) fn transfer(&self, update: &TransferUpdate) {
        let (verb, current, total, is_done) = match update.state {
            TransferState::Queued => ("", 0, 0, false),
            TransferState::Downloading { current_bytes, total_bytes }
            | TransferState::Uploading { current_bytes, total_bytes } => {
                ("", current_bytes, total_bytes, false)
            }
            TransferState::Downloaded => ("", 0, 0, true),
            TransferState::Pulled => ("extracting ", 0, 0, true),
            TransferState::Pushed => ("pushing ", 0, 0, true),
            TransferState::Mounted(_) => ("mounting ", 0, 0, true),
            TransferState::PullingFrom(_)
            | TransferState::AlreadyHere
            | TransferState::AlreadyThere
            | TransferState::Preparing => return,
        };
        let now = Timestamp::now();
        self.progress.tell(Event::Status(StatusUpdate {
            vertex: self.update.digest.clone(),
            id: format!("{verb}{}", update.id),
            current,
            total,
            at: now,
            started: self.update.started,
            completed: is_done.then_some(now),
        }));
    }

    fn end(&mut self) {
        self.ended = true;
        self.update.completed = Some(Timestamp::now());
        self.progress.tell(Event::Vertex(self.update.clone()));
    }

    /// It ended well.
    pub(crate) fn done(mut self) {
        self.end();
    }

    /// An earlier result is used.
    pub(crate) fn cached(mut self) {
        self.update.cached = true;
        self.end();
    }

    /// It failed.
    pub(crate) fn failed(mut self, error: impl Into<String>) {
        self.update.error = Some(error.into());
        self.end();
    }

    /// The error that makes renderers print CANCELED.
    pub(crate) const CANCELLED: &'static str = "context canceled";
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.update.error = Some(Self::CANCELLED.to_owned());
            self.end();
        }
    }
}
