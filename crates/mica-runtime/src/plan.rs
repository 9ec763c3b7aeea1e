//! The plan: all the executor needs to know, nothing left to look up or decide.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::capability::Capability;
use crate::user::ResolvedUser;

/// What to run, where, and within which limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Name of the container, unique on this machine; names its cgroup.
    pub id: String,
    /// Root file system: a directory in the caller's mount namespace, mounted already.
    pub rootfs: PathBuf,
    /// The process cannot write to the root file system.
    pub read_only: bool,
    /// Program and arguments; a program without a slash is looked up in `PATH` of `env`.
    pub args: Vec<String>,
    /// Environment, `NAME=value` each. `HOME` is added from the user if missing.
    pub env: Vec<String>,
    /// Working directory, made with mode 0755 if missing.
    pub cwd: String,
    /// Who runs it.
    pub user: ResolvedUser,
    /// Host name in the container.
    pub hostname: String,
    /// The process gets a terminal; its other end is [`crate::Running::pty`].
    pub terminal: bool,
    /// Rows and columns that the terminal has from the start; `None` leaves it without a size.
    pub terminal_size: Option<(u16, u16)>,
    /// Mounts beyond the standard ones, in the order in which they are made.
    pub mounts: Vec<PlanMount>,
    /// Network of the process.
    pub network: Network,
    /// Capabilities of a process running as root, and the bound of all others.
    pub capabilities: Vec<Capability>,
    /// System call filter.
    pub seccomp: Seccomp,
    /// Executing a file never gives rights.
    pub no_new_privileges: bool,
    /// All capabilities, no filter, nothing masked.
    pub insecure: bool,
    /// Resource limits.
    pub limits: Limits,
    /// Content of `/etc/hosts`, mounted read-only; `None` leaves the image's.
    pub hosts_file: Option<Vec<u8>>,
    /// Content of `/etc/resolv.conf`, mounted read-only; `None` leaves the image's.
    pub resolv_conf: Option<Vec<u8>>,
    /// Size of `/dev/shm`.
    pub shm_size_bytes: u64,
    /// Resource limits of the process itself (setrlimit).
    pub ulimits: Vec<Ulimit>,
    /// Process 1 is a small init that reaps orphans and passes signals on.
    pub init: bool,
    /// Which ids can be used here.
    pub ids: Ids,
    /// `/dev`, `/proc` and `/sys` stay if they were made for the run. They do in the layers of build steps, as with
    /// BuildKit; containers leave no trace.
    pub keeps_standard_directories: bool,
}

impl Plan {
    /// Returns a plan with docker's defaults for a command in a root file system.
    pub fn new(id: impl Into<String>, rootfs: impl Into<PathBuf>, args: Vec<String>) -> Self {
        Self {
            id: id.into(),
            rootfs: rootfs.into(),
            read_only: false,
            args,
            env: vec![format!("PATH={DEFAULT_PATH}")],
            cwd: "/".into(),
            user: ResolvedUser::root(),
            hostname: "mica".into(),
            terminal: false,
            terminal_size: None,
            mounts: Vec::new(),
            network: Network::None,
            capabilities: crate::capability::DEFAULT.to_vec(),
            seccomp: Seccomp::Default,
            no_new_privileges: false,
            insecure: false,
            limits: Limits { pids: Some(2048), ..Limits::default() },
            hosts_file: None,
            resolv_conf: None,
            shm_size_bytes: 64 * 1024 * 1024,
            ulimits: Vec::new(),
            init: false,
            ids: Ids::Root,
            keeps_standard_directories: false,
        }
    }

    /// Returns a variable of the environment.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    }
}

/// `PATH` of an image that sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanMount {
    /// Where, inside the root file system; links are followed there. Made for the time of the run if
    /// missing.
    pub target: Vec<u8>,
    /// What.
    pub source: MountSource,
    /// No writing.
    pub read_only: bool,
    /// Set-user-id has no effect.
    pub nosuid: bool,
    /// Nothing can be executed.
    pub noexec: bool,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    /// A directory or file of the caller's mount namespace.
    Bind {
        /// A path of the host, trusted.
        host: PathBuf,
        /// A path below `host`, not trusted: links cannot lead out of `host`.
        sub: Option<Vec<u8>>,
        /// The mounts below it come along.
        recursive: bool,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Upper limit; half the memory without.
        size_bytes: Option<u64>,
        /// Mode of the directory; without that of the directory it covers, or 1777 if there was none.
        mode: Option<u32>,
    },
    /// A file in memory (secrets, `/etc/hosts`).
    File {
        /// Its bytes.
        content: Vec<u8>,
        /// Its mode.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

/// Network of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// A new network namespace with nothing but loopback.
    None,
    /// The caller's network namespace.
    Host,
}

/// System call filter of a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// mica's own profile.
    Default,
    /// No filter.
    Unconfined,
    /// A profile in docker's JSON form.
    Profile(PathBuf),
}

/// Limits for all processes of a container together. What cannot be set here becomes a notice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Processes and threads.
    pub pids: Option<i64>,
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// Memory and swap together; -1 is no limit.
    pub memory_and_swap_bytes: Option<i64>,
    /// Relative weight, 1024 is normal.
    pub cpu_shares: Option<u64>,
    /// CPU time in microseconds per `cpu_period`.
    pub cpu_quota: Option<i64>,
    /// Length of the period in microseconds.
    pub cpu_period: Option<u64>,
    /// CPUs, like `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    pub cpuset_mems: Option<String>,
    /// The cgroup in which the container's is made: from the top if it begins with a slash, else below the caller's.
    pub parent: Option<String>,
    /// A cgroup of the container's own in every hierarchy, which it may write to if it is `insecure`.
    pub delegated: bool,
    /// Prepare for [`crate::cgroup::freeze`].
    pub freezable: bool,
    /// Nobody asked for these limits: what cannot be set is not worth a notice.
    pub best_effort: bool,
}

impl Limits {
    /// Returns whether no cgroup is needed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One resource limit of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// Name as in `docker run --ulimit`: `nofile`, `core`, …
    pub name: String,
    /// Soft limit; `None` is unlimited.
    pub soft: Option<u64>,
    /// Hard limit; `None` is unlimited.
    pub hard: Option<u64>,
}

/// Which ids exist for the processes of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ids {
    /// mica runs as root of the machine (or of a user namespace that looks like one).
    Root,
    /// In a user namespace with a range of ids.
    Subordinate,
    /// In a user namespace with a single id: no other owner, no groups.
    Single,
}
