//! What vertices do. A closed set; every field that changes the result is part of the cache key because keys hash
//! the serialised operation (build.md 6.2).

use mica_oci::{Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::{GitSource, HttpSource};

/// One operation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "a graph has hundreds of these, not millions")]
pub enum Op {
    /// Brings something in from outside the graph.
    Source(SourceOp),
    /// Runs a process: RUN.
    Exec(ExecOp),
    /// Changes files: COPY, ADD, WORKDIR, heredoc files.
    File(FileOp),
    /// Stacks the layers of its inputs, lowest first: what `--link` ends in.
    Merge,
}

/// Where a source comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum SourceOp {
    /// An image of the local store or of an OCI layout, already resolved.
    Image {
        /// The name as shown.
        reference: String,
        /// The manifest chosen for the platform: what the key is made of (K1).
        manifest: Digest,
        /// The platform asked for.
        platform: Platform,
    },
    /// A directory of the client: the build context or a named one.
    Local(LocalSource),
    /// A file from a web server.
    Http(HttpSource),
    /// A commit of a git repository.
    Git(GitSource),
}

/// A directory of the client. Its key is the content of the paths that a consumer selects, never its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LocalSource {
    /// `context`, or the name of a `--build-context`.
    pub name: String,
}

/// The file system an operation starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Nothing: an empty root.
    Scratch,
    /// The n-th input of the vertex.
    Vertex(usize),
}

/// RUN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecOp {
    /// The root file system; its changes are the vertex's result.
    pub root: Input,
    /// argv, shell included.
    pub args: Vec<String>,
    /// `NAME=value`: config Env and ARGs in scope, in order.
    pub env: Vec<String>,
    /// Absolute working directory; made 0755 if missing.
    pub cwd: String,
    /// `user[:group]` as in the config; empty is root.
    pub user: String,
    /// Name of the host inside; `buildkitsandbox` by default.
    pub hostname: String,
    /// Network.
    pub network: NetworkMode,
    /// Rights.
    pub security: SecurityMode,
    /// The cgroup in which the step's own one is made.
    pub cgroup_parent: Option<String>,
    /// `--mount` entries, in listing order (M7).
    pub mounts: Vec<ExecMount>,
    /// Names and addresses for /etc/hosts. Addresses are not part of the key (K2).
    pub extra_hosts: Vec<(String, String)>,
    /// Secrets given as environment variables; values never enter the graph.
    pub secret_env: Vec<SecretEnv>,
    /// Proxy variables, both cases: in the environment, not in the key (V19).
    pub proxy_env: Vec<String>,
    /// Size of /dev/shm; `None` is 64 MiB.
    pub shm_bytes: Option<u64>,
    /// `name=soft:hard` limits.
    pub ulimits: Vec<String>,
    /// Where the platform matters: what the programs are built for.
    pub platform: Platform,
}

/// The network of a RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum NetworkMode {
    /// What containers get.
    #[default]
    Default,
    /// Only loopback.
    None,
    /// The host's own.
    Host,
}

/// The rights of a RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum SecurityMode {
    /// Those of containers.
    #[default]
    Sandbox,
    /// All there are.
    Insecure,
}

/// A secret given as an environment variable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SecretEnv {
    /// The secret's id.
    pub id: String,
    /// The variable's name.
    pub name: String,
    /// Whether its absence is an error.
    pub required: bool,
}

/// One `RUN --mount`, resolved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecMount {
    /// Absolute path inside the root.
    pub target: String,
    /// What is mounted.
    pub kind: MountKind,
    /// Whether writes are refused.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum MountKind {
    /// Files of another vertex; writes go to a throw-away copy (M3).
    Bind {
        /// Whose files.
        from: Input,
        /// Path inside it; `/` for all.
        source: String,
    },
    /// A directory kept between builds (M4).
    Cache {
        /// Identity, namespace prefix included.
        id: String,
        /// Whether `id` was given in the Dockerfile: only that is part of the key (K2).
        custom_id: bool,
        /// What concurrent users see.
        sharing: CacheSharing,
        /// Initial content.
        from: Input,
        /// Path inside `from`.
        source: String,
        /// Mode, uid, gid on creation.
        mode: Option<u32>,
        /// Owner on creation.
        uid: u32,
        /// Group on creation.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// Limit; `None` is the kernel's.
        size_bytes: Option<u64>,
    },
    /// A secret as a file (M5).
    Secret {
        /// The secret's id.
        id: String,
        /// File mode.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Whether its absence is an error.
        required: bool,
    },
    /// An agent socket (M6).
    Ssh {
        /// The agent's id.
        id: String,
        /// Socket mode.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Whether its absence is an error.
        required: bool,
    },
}

/// What concurrent users of a cache mount see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum CacheSharing {
    /// One directory.
    #[default]
    Shared,
    /// Another one.
    Private,
    /// They wait.
    Locked,
}

/// File changes on one root, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileOp {
    /// What is changed; `Scratch` with `--link`.
    pub base: Input,
    /// The changes.
    pub actions: Vec<FileAction>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FileAction {
    /// COPY, ADD of local files.
    Copy(CopyAction),
    /// WORKDIR.
    MakeDirectory(MakeDirectory),
    /// Heredoc files.
    MakeFile(MakeFile),
}

/// Copies one source (path or wildcard) of an input; the rules are build.md C1-C18.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CopyAction {
    /// Whose files.
    pub from: Input,
    /// Path or wildcard inside it, cleaned, with leading slash; a trailing slash is remembered. With `parents`, the
    /// part before the first `/./` is not recreated (C17): `/x/./y/z` makes `y/z`.
    pub source: String,
    /// Absolute destination; a trailing slash means directory.
    pub destination: String,
    /// Owner of all that is written; `None`: 0:0 for local sources, kept for others.
    pub owner: Option<Owner>,
    /// Mode of all that is written.
    pub mode: Option<ModeChange>,
    /// Unpack sources that are tar archives (A1).
    pub unpack: bool,
    /// Recreate the source path below the destination (C17).
    pub parents: bool,
    /// Patterns left out of copied directories (C18).
    pub exclude: Vec<String>,
    /// `--link`: the destination is a file name unless it ends in a slash, names need a passwd (C16).
    pub link: bool,
    /// Time of directories made on the way, in seconds (G11, G11a).
    pub created_seconds: i64,
}

impl CopyAction {
    /// A copy without any of `COPY`'s flags, into directories of 1970.
    #[must_use]
    pub fn new(from: Input, source: impl Into<String>, destination: impl Into<String>) -> Self {
        Self {
            from,
            source: source.into(),
            destination: destination.into(),
            owner: None,
            mode: None,
            unpack: false,
            parents: false,
            exclude: Vec::new(),
            link: false,
            created_seconds: 0,
        }
    }
}

/// Makes a directory and its parents.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MakeDirectory {
    /// Absolute path.
    pub path: String,
    /// Mode of what is made.
    pub mode: u32,
    /// Owner of what is made.
    pub owner: Option<Owner>,
    /// Time of what is made.
    pub created_seconds: i64,
}

/// Writes a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MakeFile {
    /// Absolute path; `dest/NAME` is already joined when the destination ends in a slash.
    pub path: String,
    /// Name of the file if `path` turns out to be a directory already (C3); `None`: `path` is the file.
    pub name_in_directory: Option<String>,
    /// Content.
    pub data: Vec<u8>,
    /// Mode.
    pub mode: u32,
    /// Symbolic or octal mode given by `--chmod`, applied over `mode`.
    pub mode_change: Option<ModeChange>,
    /// Owner.
    pub owner: Option<Owner>,
    /// Time of the file and of directories made on the way.
    pub created_seconds: i64,
}

/// `--chmod` (C14).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ModeChange {
    /// Octal bits, 0-07777.
    Octal(u32),
    /// Symbolic clauses, checked: `u=rwX,go=rX`.
    Symbolic(String),
}

/// `--chown` (C13), or the USER of a WORKDIR.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Owner {
    /// Before the colon.
    pub user: OwnerId,
    /// After it.
    pub group: Option<OwnerId>,
}

/// A number, or a name to look up in the destination's /etc/passwd or /etc/group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum OwnerId {
    /// A number.
    Id(u32),
    /// A name.
    Name(String),
}
