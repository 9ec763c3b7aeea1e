//! Containers: run, look, change, remove.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use mica_oci::{Digest, Platform};
use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// `run`.
#[derive(Debug, Clone, Default)]
pub struct RunRequest {
    /// Name, ID prefix or digest.
    pub image: String,
    /// What follows the image.
    pub command: Vec<String>,
    /// `--entrypoint`; an empty string resets it.
    pub entrypoint: Option<String>,
    /// `--name`; `None`: a random one.
    pub name: Option<String>,
    /// Remove the container when it ends.
    pub remove: bool,
    /// `-i`.
    pub interactive: bool,
    /// `-t`.
    pub terminal: bool,
    /// `-e`, resolved by the client: `NAME=value`.
    pub env: Vec<String>,
    /// `-w`.
    pub workdir: Option<String>,
    /// `-u`.
    pub user: Option<String>,
    /// `-v` and `--mount`.
    pub volumes: Vec<VolumeMount>,
    /// `--tmpfs`: path and options.
    pub tmpfs: Vec<(String, String)>,
    /// `--network`.
    pub network: NetworkMode,
    /// `--read-only`.
    pub read_only: bool,
    /// `--cap-add`.
    pub cap_add: Vec<String>,
    /// `--cap-drop`.
    pub cap_drop: Vec<String>,
    /// `--security-opt`.
    pub security_opt: Vec<String>,
    /// `--privileged`.
    pub privileged: bool,
    /// `--pids-limit`; `None` is 2048, -1 unlimited.
    pub pids_limit: Option<i64>,
    /// `--platform`.
    pub platform: Option<Platform>,
    /// `--runtime`.
    pub runtime: Option<PathBuf>,
    /// `--hostname`.
    pub hostname: Option<String>,
    /// `--label`.
    pub labels: Vec<(String, String)>,
    /// `--add-host`.
    pub extra_hosts: Vec<(String, String)>,
    /// `--group-add`.
    pub groups: Vec<String>,
    /// `--shm-size`.
    pub shm_bytes: Option<u64>,
    /// `--ulimit`.
    pub ulimits: Vec<String>,
    /// `--stop-signal`.
    pub stop_signal: Option<String>,
    /// `--cidfile`.
    pub cid_file: Option<PathBuf>,
}

/// What containers see of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The host's, until networks exist.
    #[default]
    Default,
    /// Only loopback.
    None,
    /// The host's own.
    Host,
}

/// `-v SOURCE:TARGET[:ro]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeMount {
    /// What is mounted.
    pub source: VolumeSource,
    /// Path in the container.
    pub target: String,
    /// Refuse writes.
    pub read_only: bool,
    /// Leave an empty volume empty, whatever the image has at the target.
    pub no_copy: bool,
}

/// What is mounted at a path of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VolumeSource {
    /// A path of the host.
    Host(PathBuf),
    /// The volume of this name; made if there is none.
    Named(String),
    /// A volume that is this container's only.
    Anonymous,
}

/// The caller's descriptors, handed to a foreground container.
#[derive(Debug)]
pub struct RunIo {
    /// Standard input, with `-i` or `-t`.
    pub stdin: Option<OwnedFd>,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
}

/// How a foreground container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its code; 128+n for signal n.
    pub code: u8,
}

/// The life of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Its process lives.
    Running,
    /// Its process ended.
    Exited,
    /// Its process is gone and nobody saw how.
    Dead,
}

/// One row of `ps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerSummary {
    /// 64 hex digits.
    pub id: String,
    /// Name.
    pub name: String,
    /// The image as the user wrote it, or its short ID when the name moved on.
    pub image: String,
    /// Image ID.
    pub image_id: Digest,
    /// argv as one line.
    pub command: String,
    /// When it was made.
    pub created: Timestamp,
    /// Its state.
    pub state: ContainerState,
    /// When it started.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub finished: Option<Timestamp>,
    /// How it ended.
    pub exit_code: Option<u8>,
    /// Labels.
    pub labels: Vec<(String, String)>,
    /// What is mounted, as docker prints it: names of volumes, paths of the host.
    pub mounts: Vec<String>,
    /// How many of them are volumes.
    pub volumes: u64,
    /// Networks.
    pub networks: Vec<String>,
    /// Bytes of its own layer, when asked for.
    pub size_bytes: Option<u64>,
}

/// `ps`.
#[derive(Debug, Clone, Copy, Default)]
pub struct ListContainers {
    /// All of them, not only running ones.
    pub all: bool,
    /// Add up the files of each (costs a walk through them).
    pub sizes: bool,
}

/// `rm`.
#[derive(Debug, Clone, Default)]
pub struct RemoveContainer {
    /// Name or ID prefix.
    pub container: String,
    /// Kill it first.
    pub force: bool,
    /// Remove its anonymous volumes too.
    pub volumes: bool,
}

/// `container prune`.
#[derive(Debug, Clone, Default)]
pub struct PruneContainers {
    /// Conditions; all must hold.
    pub filters: Vec<ContainerFilter>,
}

/// One `--filter` of `container prune`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerFilter {
    /// Made before that time.
    Until(Timestamp),
    /// Has a label, perhaps with this value.
    Label(String, Option<String>),
    /// Has not.
    NotLabel(String, Option<String>),
}

/// `inspect` of a container: docker's JSON.
#[derive(Debug, Clone)]
pub struct ContainerDetails {
    /// 64 hex digits.
    pub id: String,
    /// Name without slash.
    pub name: String,
    /// The whole, docker's keys.
    pub json: serde_json::Value,
}

/// `commit`.
#[derive(Debug, Clone, Default)]
pub struct CommitContainer {
    /// Name or ID prefix.
    pub container: String,
    /// Name for the image.
    pub name: Option<mica_oci::Reference>,
    /// `-a`.
    pub author: String,
    /// `-m`.
    pub message: String,
    /// `-c`: Dockerfile instructions.
    pub changes: Vec<String>,
    /// Stop the container meanwhile.
    pub pause: bool,
}

/// One line of `diff`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// What happened.
    pub kind: ChangeKind,
    /// Absolute path.
    pub path: Vec<u8>,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// `A`.
    Added,
    /// `C`.
    Changed,
    /// `D`.
    Deleted,
}

/// `cp CONTAINER:PATH …`: the path as a tar.
#[derive(Debug)]
pub struct CopyFromContainer {
    /// Name or ID prefix.
    pub container: String,
    /// Path in it.
    pub path: String,
    /// Follow a link named by `path`.
    pub follow_link: bool,
    /// Where the tar goes.
    pub output: OwnedFd,
}

/// `cp … CONTAINER:PATH`: a tar into a directory.
#[derive(Debug)]
pub struct CopyIntoContainer {
    /// Name or ID prefix.
    pub container: String,
    /// Path in it: where the entry named by the tar goes, by the rules of cp.
    pub path: String,
    /// Where the tar comes from.
    pub input: OwnedFd,
    /// Base name of what is copied, for the rules of cp.
    pub source_name: String,
    /// Whether the source is a directory.
    pub source_is_directory: bool,
    /// Whether the source was written as `dir/.`.
    pub contents_only: bool,
    /// `-a`: keep owners.
    pub archive: bool,
}

/// `logs`.
#[derive(Debug, Clone, Default)]
pub struct LogRequest {
    /// Name or ID prefix.
    pub container: String,
    /// Only the last so many lines.
    pub tail: Option<u64>,
    /// Go on while the container runs.
    pub follow: bool,
    /// Nothing older.
    pub since: Option<Timestamp>,
    /// Nothing newer.
    pub until: Option<Timestamp>,
}

/// Something a container printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// Whether on standard error.
    pub stderr: bool,
    /// When.
    pub at: Timestamp,
    /// The bytes, newline included when there was one.
    pub data: Vec<u8>,
}
