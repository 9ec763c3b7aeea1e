//! Progress: the typed events of a build's journal. BuildKit's status stream has the same shape (build.md S6).

use mica_oci::Digest;
use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The clock.
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// Seconds from `earlier` to this, as progress prints them.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0) as f64 / 1e9
    }
}

/// One entry of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Event {
    /// A vertex appeared, started or ended.
    Vertex(VertexUpdate),
    /// Something inside a vertex has progress of its own.
    Status(StatusUpdate),
    /// A step printed something.
    Log {
        /// Which vertex.
        vertex: Digest,
        /// Where it printed.
        stream: LogStream,
        /// What.
        data: Vec<u8>,
        /// When.
        at: Timestamp,
    },
    /// A finding that does not stop the build; shown once at the end.
    Warning {
        /// Rule or short title.
        title: String,
        /// The whole text.
        message: String,
        /// First line in the Dockerfile.
        line: Option<u32>,
        /// Where more is to be read.
        url: Option<String>,
        /// The lines of the Dockerfile that are meant, framed.
        excerpt: Option<String>,
    },
    /// A remark of the engine, shown at once: a mode chosen, a limit that could not be set.
    Notice(String),
    /// Something moves between a registry and the store.
    Transfer(TransferUpdate),
}

/// What became of one thing that moves between a registry and the store. Later updates replace earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferUpdate {
    /// The tag, or the first digits of the layer's digest.
    pub id: String,
    /// What is known of it now.
    pub state: TransferState,
}

/// The states of a transfer; docker's words for them are in the command line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TransferState {
    /// The manifest was found in this repository.
    PullingFrom(String),
    /// A layer that has to be fetched.
    Queued,
    /// A layer that is here.
    AlreadyHere,
    /// Bytes arrived.
    Downloading {
        /// So many.
        current_bytes: u64,
        /// Of so many.
        total_bytes: u64,
    },
    /// All bytes arrived, and are what they should be.
    Downloaded,
    /// The layer is in the store.
    Pulled,
    /// A layer that is looked at.
    Preparing,
    /// Bytes were sent.
    Uploading {
        /// So many.
        current_bytes: u64,
        /// Of so many.
        total_bytes: u64,
    },
    /// The layer is in the registry now.
    Pushed,
    /// The layer was in the registry.
    AlreadyThere,
    /// The registry took the layer from another of its repositories.
    Mounted(String),
}

/// The state of a vertex. Later updates replace earlier ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VertexUpdate {
    /// Identity.
    pub digest: Digest,
    /// Vertices it needs.
    pub inputs: Vec<Digest>,
    /// How it is shown.
    pub name: String,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub completed: Option<Timestamp>,
    /// Whether an earlier result is used.
    pub cached: bool,
    /// Why it failed. `context canceled` is shown as CANCELED.
    pub error: Option<String>,
}

/// Progress inside a vertex: `transferring context: 2B`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusUpdate {
    /// Which vertex.
    pub vertex: Digest,
    /// What.
    pub id: String,
    /// Units done; bytes unless `total` is zero and `id` says otherwise.
    pub current: u64,
    /// Units in all; 0 if unknown.
    pub total: u64,
    /// When this was true.
    pub at: Timestamp,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub completed: Option<Timestamp>,
}

/// Where a step printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogStream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// Takes events from any thread, in order per vertex. Never blocks for long.
pub trait EventSink: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// Takes no notice.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ignore;

impl EventSink for Ignore {
    fn event(&self, _: Event) {}
}
