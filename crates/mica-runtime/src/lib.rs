//! Runs a process in a root file system from a plan in which everything is resolved.
//!
//! Here: the plan ([`plan`]), mica's own executor and external OCI runtimes behind one [`spawn()`], the
//! seccomp profile, cgroups, terminals. Not here: where root file systems come from (`mica-snapshot`),
//! what an image wants to run (`mica-build`, `mica-engine`).
//!
//! # Processes
//! ```text
//! caller ── socket ──► helper (`mica __run`)          new mnt, pid, ipc, uts, net, cgroup namespaces
//!   │                    │  mounts, pivot_root            single-threaded, host pid namespace
//!   │                    └─ fork ──► container process    pid 1; drops rights, loads seccomp, executes
//!   └── stdio, pidfd, pty master: straight to the container process
//! ```
//! The helper lives as long as the container. It reaps the process, takes away mountpoints and cgroups
//! that existed only for it, and reports. When the caller dies the socket closes and the helper kills the
//! container; when the helper is killed the kernel kills the container (`PR_SET_PDEATHSIG`), and a pid
//! namespace dies with its first process.

pub mod bundle;
pub mod capability;
pub mod cgroup;
mod error;
mod executor;
mod external;
mod fault;
pub mod output;
pub mod plan;
pub mod seccomp;
mod spawn;
mod stdio;
pub mod stubs;
pub mod tty;
mod user;
mod wire;

pub use bundle::write_bundle;
pub use capability::Capability;
pub use error::{ExecFailure, RuntimeError};
pub use executor::run_hidden;
pub use output::OutputSink;
pub use plan::{Ids, Limits, MountSource, Network, Plan, PlanMount, Seccomp, Ulimit};
pub use spawn::{ExitStatus, Running, Runtime, spawn};
pub use stdio::{Input, Output, Stdio};
pub use user::{ResolvedUser, UserError, resolve_user};

/// First argument with which the binary starts as the executor's helper.
pub const HIDDEN_COMMAND: &str = "__run";
