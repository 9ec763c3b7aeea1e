//! The new process, from fork to exec: gives up rights in the one order that works.
//!
//! 1. cgroup and its namespace, the rest of the mounts, stdio: while still privileged;
//! 2. bounding set, groups, group: `SETPCAP` and `SETGID` are still there;
//! 3. system call filter: without no_new_privs it needs `SYS_ADMIN`, and it allows what follows;
//! 4. user, capabilities;
//! 5. death signal: changing ids has cleared any set before.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};

use mica_sys::process::{self, Fork};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};

use super::scene::{self, Launch};
use super::{Step, StepError};
use crate::cgroup::ContainerCgroup;
use crate::plan::{Plan, Ulimit};

/// Turns the forked process into the container's first one. Failures go to `report`.
pub(super) fn become_container(
    plan: &Plan,
    launch: &Launch,
    cgroup: &ContainerCgroup,
    join_v2: bool,
    stdio: Vec<OwnedFd>,
    report: OwnedFd,
) -> ! {
    let mut notices = Vec::new();
    let confined = join(cgroup, join_v2)
        .and_then(|()| scene::complete(plan, &launch.tree, &mut notices))
        .and_then(|cwd| confine(plan, launch, &cwd, &stdio));
    let mut report = File::from(report);
    for notice in notices {
        // If the helper is gone there is nobody to tell; so too below.
        let _ = writeln!(report, "{}{notice}", super::NOTICE);
    }
    let started = confined.and_then(|()| if plan.init { fork_init() } else { Ok(()) });
    let started = started.and_then(|()| start_session(launch));
    if let Err(error) = started {
        let bytes = serde_json::to_vec(&error).unwrap_or_else(|_| b"{}".to_vec());
        let _ = report.write_all(&bytes);
        process::exit_now(126);
    }
    process::exec_or_report(&launch.arguments, &launch.candidates, report.into())
}

fn join(cgroup: &ContainerCgroup, join_v2: bool) -> Result<(), StepError> {
    cgroup.join(join_v2).step("enter the container's cgroup")?;
    // Only after joining: the cgroup we are in becomes the root of the namespace. Kernels may lack it.
    let _ = mica_sys::namespace::unshare(UnshareFlags::NEWCGROUP);
    Ok(())
}

fn confine(plan: &Plan, launch: &Launch, cwd: &OwnedFd, stdio: &[OwnedFd]) -> Result<(), StepError> {
    connect(launch, stdio)?;
    process::reset_signals().step("reset signals")?;
    // A key store of its own, where there are keys at all.
    let _ = process::new_session_keyring();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    set_ulimits(&plan.ulimits)?;
    rustix::process::fchdir(cwd).step("enter the working directory")?;
    drop_bounding_set(launch.capabilities)?;
    if let Some(groups) = &launch.groups {
        let groups: Vec<Gid> = groups.iter().map(|&group| Gid::from_raw(group)).collect();
        rustix::thread::set_thread_groups(&groups).step("set supplementary groups")?;
    }
    let gid = Gid::from_raw(launch.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).step(format!("become group {}", launch.gid))?;
    if plan.no_new_privileges {
        process::set_no_new_privs().step("set no_new_privs")?;
    }
    if let Some(filter) = &launch.filter {
        process::install_seccomp(filter).step("load the system call filter, without which nothing is run")?;
    }
    let uid = Uid::from_raw(launch.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).step(format!("become user {}", launch.uid))?;
    set_capabilities(launch)?;
    process::set_pdeathsig().step("follow the helper in death")
}

/// Puts stdin, stdout and stderr in place.
fn connect(launch: &Launch, stdio: &[OwnedFd]) -> Result<(), StepError> {
    let [stdin, stdout, stderr] = match (&launch.terminal, stdio) {
        (Some(terminal), _) => [terminal.slave.as_fd(); 3],
        (None, [stdin, stdout, stderr]) => [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
        _ => return Err(StepError::new("connect input and output", "they were not handed over")),
    };
    rustix::stdio::dup2_stdin(stdin)
        .and_then(|()| rustix::stdio::dup2_stdout(stdout))
        .and_then(|()| rustix::stdio::dup2_stderr(stderr))
        .step("connect input and output")
}

/// Becomes process 1 that only watches over its child, the actual program.
fn fork_init() -> Result<(), StepError> {
    match process::fork().step("fork below the init")? {
        Fork::Child => Ok(()),
        Fork::Parent(child) => process::run_as_init(child),
    }
}

/// A session of its own, so that nothing can be typed into the caller's terminal (TIOCSTI).
fn start_session(launch: &Launch) -> Result<(), StepError> {
    rustix::process::setsid().step("start a session")?;
    if launch.terminal.is_some() {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).step("take the terminal")?;
    }
    Ok(())
}

fn drop_bounding_set(keep: u64) -> Result<(), StepError> {
    for number in 0..64_u32 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if keep & (1 << number) != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Beyond the last capability of this kernel.
            Err(rustix::io::Errno::INVAL) => break,
            other => other.step("drop capabilities")?,
        }
    }
    Ok(())
}

fn set_capabilities(launch: &Launch) -> Result<(), StepError> {
    // A user other than root has lost all of them by becoming that user.
    let held = if launch.uid == 0 { launch.capabilities } else { 0 };
    let held = CapabilitySet::from_bits_retain(held);
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: held, permitted: held, inheritable: none };
    rustix::thread::set_capabilities(None, sets).step("set capabilities")?;
    // Nothing inheritable leaves nothing ambient; the call is for kernels that see it differently.
    let _ = rustix::thread::clear_ambient_capability_set();
    Ok(())
}

/// Sets limits, never above the ones we have ourselves.
fn set_ulimits(ulimits: &[Ulimit]) -> Result<(), StepError> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let core = getrlimit(Resource::Core);
    setrlimit(Resource::Core, Rlimit { current: Some(0), ..core }).step("set the limit of core files")?;
    for ulimit in ulimits {
        let step = format!("set the limit {}", ulimit.name);
        let resource =
            resource(&ulimit.name).ok_or_else(|| StepError::new(&step, "there is no such limit"))?;
        let bound = getrlimit(resource).maximum;
        let clamp = |limit: Option<u64>| match (limit, bound) {
            (Some(limit), Some(bound)) => Some(limit.min(bound)),
            (limit, bound) => limit.or(bound),
        };
        let limit = Rlimit { current: clamp(ulimit.soft), maximum: clamp(ulimit.hard) };
        setrlimit(resource, limit).step(step)?;
    }
    Ok(())
}

fn resource(name: &str) -> Option<rustix::process::Resource> {
    use rustix::process::Resource;
    Some(match name {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}
