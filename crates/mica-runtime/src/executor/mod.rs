//! The helper process: makes the container around itself, starts the process in it, and outlives it.
//!
//! Single-threaded. It moves itself into the new namespaces (except that a new pid namespace only takes
//! its children), mounts everything but proc, and forks. The child mounts proc and makes the root file
//! system the root of the mount namespace, the helper's too. Looking back from there is impossible by
//! path: what is needed of the host later is held as descriptors.

mod confine;
mod devices;
mod kernel;
mod mounts;
mod scene;

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use mica_sys::process::{self, Child, ExecReport, Fork};
use rustix::event::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};

use crate::error::ExecFailure;
use crate::plan::Plan;
use crate::wire::{self, Reply, Started};
use scene::{Launch, Scene};

/// Why a step of making the container failed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StepError {
    /// Fits after "cannot".
    step: String,
    reason: String,
    errno: Option<i32>,
}

impl StepError {
    fn new(step: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { step: step.into(), reason: reason.into(), errno: None }
    }
}

/// Names the step an error happened in.
trait Step<T> {
    fn step(self, step: impl Into<String>) -> Result<T, StepError>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, step: impl Into<String>) -> Result<T, StepError> {
        self.map_err(|error| StepError {
            step: step.into(),
            reason: error.to_string(),
            errno: error.raw_os_error(),
        })
    }
}

impl<T> Step<T> for Result<T, rustix::io::Errno> {
    fn step(self, step: impl Into<String>) -> Result<T, StepError> {
        self.map_err(io::Error::from).step(step)
    }
}

impl<T> Step<T> for Result<T, mica_sys::mount::MountError> {
    fn step(self, step: impl Into<String>) -> Result<T, StepError> {
        self.map_err(|error| StepError {
            step: step.into(),
            reason: format!("{error}: {}", error.source),
            errno: error.source.raw_os_error(),
        })
    }
}

/// Entry of the hidden subcommand. The binary calls it first thing when its first argument is
/// [`crate::HIDDEN_COMMAND`], before any thread exists; the result is the exit code.
///
/// Standard input is the socket to the caller; arguments are for the reader of `ps` only.
pub fn run_hidden() -> i32 {
    let Ok(socket) = rustix::stdio::stdin().try_clone_to_owned() else { return 1 };
    let socket = UnixStream::from(socket);
    // A message that cannot be delivered means that the caller is gone, and nobody waits for an answer.
    i32::from(serve(&socket).is_err())
}

fn serve(socket: &UnixStream) -> io::Result<()> {
    let Some((plan, stdio)) = wire::receive::<Plan>(socket)? else { return Ok(()) };
    // Our memory has the caller's secrets in it and our executable is the caller's (CVE-2019-5736).
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let mut scene = match Scene::new() {
        Ok(scene) => scene,
        Err(error) => return refuse(socket, error),
    };
    let outcome = run(&plan, stdio, &mut scene, socket);
    scene.clear();
    match outcome {
        Ok(Outcome::Ended(code)) => wire::send(socket, &Reply::Ended { code }, &[]),
        Ok(Outcome::NotExecuted(failure)) => wire::send(socket, &Reply::ExecFailed(failure), &[]),
        Err(error) => refuse(socket, error),
    }
}

fn refuse(socket: &UnixStream, error: StepError) -> io::Result<()> {
    let StepError { step, reason, errno } = error;
    wire::send(socket, &Reply::SetupFailed { step, reason, errno }, &[])
}

/// Begins each line of a report that is a notice.
const NOTICE: char = 'N';

enum Outcome {
    Ended(i32),
    NotExecuted(ExecFailure),
}

/// Makes the container, runs the process to its end.
fn run(
    plan: &Plan,
    stdio: Vec<OwnedFd>,
    scene: &mut Scene,
    socket: &UnixStream,
) -> Result<Outcome, StepError> {
    let launch = scene.build(plan)?;
    let (report_in, report_out) = io::pipe().step("make a pipe")?;
    let child = start(plan, scene, &launch, stdio, report_out.into())?;
    match read_report(report_in, &mut scene.notices) {
        Ok(None) => {}
        Ok(Some(report)) => {
            // It ends by itself right after reporting.
            let _ = child.wait();
            return report.outcome(plan, &launch);
        }
        Err(error) => {
            kill(&child);
            return Err(error);
        }
    }
    let started = Started {
        pid: child.pid(),
        notices: std::mem::take(&mut scene.notices),
        stubs: scene.stubs.paths(),
        cgroups: scene.cgroup.paths(),
    };
    let mut fds = vec![child.pidfd()];
    fds.extend(launch.terminal.as_ref().map(|terminal| terminal.master.as_fd()));
    if wire::send(socket, &Reply::Started(started), &fds).is_err() {
        kill(&child);
    }
    drop(launch);
    wait(&child, socket).map(Outcome::Ended)
}

/// Forks the process of the container.
fn start(
    plan: &Plan,
    scene: &Scene,
    launch: &Launch,
    stdio: Vec<OwnedFd>,
    report: OwnedFd,
) -> Result<Child, StepError> {
    let target = scene.cgroup.clone_target();
    let (forked, in_v2) = match (process::fork_into(target), target) {
        // Kernels before 5.7, and cgroups we may write to but not clone into: move afterwards.
        (Err(_), Some(_)) => (process::fork(), false),
        (forked, target) => (forked, target.is_some()),
    };
    match forked.step("fork")? {
        Fork::Parent(child) => Ok(child),
        Fork::Child => confine::become_container(plan, launch, &scene.cgroup, !in_v2, stdio, report),
    }
}

/// What came through the report pipe before it was closed by a successful exec.
enum Report {
    Exec(ExecReport),
    Step(StepError),
}

impl Report {
    fn outcome(self, plan: &Plan, launch: &Launch) -> Result<Outcome, StepError> {
        match self {
            Self::Step(error) => Err(error),
            Self::Exec(report) => {
                let program = plan.args.first().cloned().unwrap_or_default();
                let candidate = launch.candidates.get(report.candidate as usize);
                let path = candidate.map(|path| path.to_string_lossy().into_owned());
                let searched = !program.contains('/') && !report.exists;
                let path = path.filter(|_| !searched);
                let failure = ExecFailure { program, path, errno: report.errno, exists: report.exists };
                Ok(Outcome::NotExecuted(failure))
            }
        }
    }
}

fn read_report(mut pipe: io::PipeReader, notices: &mut Vec<String>) -> Result<Option<Report>, StepError> {
    let mut bytes = Vec::new();
    pipe.read_to_end(&mut bytes).step("read the report of the new process")?;
    let mut bytes = bytes.as_slice();
    while let [first, rest @ ..] = bytes
        && *first == NOTICE as u8
    {
        let end = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        notices.push(String::from_utf8_lossy(&rest[..end]).into_owned());
        bytes = rest.get(end + 1..).unwrap_or_default();
    }
    if bytes.is_empty() {
        return Ok(None);
    }
    if let Some(report) = ExecReport::parse(bytes) {
        return Ok(Some(Report::Exec(report)));
    }
    let step = serde_json::from_slice(bytes)
        .map_err(|_| StepError::new("start the process", "its report cannot be read"))?;
    Ok(Some(Report::Step(step)))
}

/// Waits for the process; kills it if the caller goes away first.
fn wait(child: &Child, socket: &UnixStream) -> Result<i32, StepError> {
    let mut caller_is_there = true;
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(child.pidfd(), PollFlags::IN)];
        if caller_is_there {
            fds.push(PollFd::new(socket, PollFlags::IN | PollFlags::RDHUP));
        }
        match rustix::event::poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.step("wait for the process")?,
        };
        if !fds[0].revents().is_empty() {
            return Ok(child.wait().step("wait for the process")?.code());
        }
        // The caller sends nothing after its request, so whatever comes is its end.
        if fds.get(1).is_some_and(|caller| !caller.revents().is_empty()) {
            caller_is_there = false;
            kill(child);
        }
    }
}

/// Kills the first process of the pid namespace, and with it all others.
fn kill(child: &Child) {
    // It cannot fail: the process is our unreaped child.
    let _ = process::pidfd_signal(child.pidfd(), rustix::process::Signal::KILL.as_raw());
}
