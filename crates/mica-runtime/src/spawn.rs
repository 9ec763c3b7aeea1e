//! Starting a process and holding on to it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use mica_sys::mount::{self, MountAttr};

use crate::error::RuntimeError;
use crate::external::External;
use crate::output::{self, Copied, OutputSink};
use crate::plan::Plan;
use crate::stdio::Stdio;
use crate::wire::{self, Reply, Started};

/// Who runs the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Runtime {
    /// mica's own executor.
    #[default]
    Own,
    /// An OCI runtime: `crun`, `runc`, `youki`, or the path of one.
    External(PathBuf),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus {
    /// Exit code; 128 + n for signal n.
    pub code: i32,
}

impl ExitStatus {
    /// Returns whether the code is 0.
    pub fn success(self) -> bool {
        self.code == 0
    }
}

/// A process that has been started. Dropping it kills the process.
#[derive(Debug)]
pub struct Running {
    /// The pipe to standard input, if asked for.
    pub stdin: Option<File>,
    /// The pipe from standard output, if asked for.
    pub stdout: Option<File>,
    /// The pipe from standard error, if asked for.
    pub stderr: Option<File>,
    /// The terminal, if the plan has one.
    pub pty: Option<OwnedFd>,
    started: Started,
    pidfd: OwnedFd,
    keeper: Keeper,
}

/// Who waits for the process and cleans up.
#[derive(Debug)]
enum Keeper {
    Helper { socket: UnixStream, child: Child },
    External(External),
}

/// Starts the process of a plan.
///
/// Returns when it has been executed. It dies with the caller, whichever way that goes.
///
/// # Errors
/// [`RuntimeError::Exec`] if everything worked but executing the program; its `exit_code` is the one to
/// exit with.
pub fn spawn(plan: &Plan, stdio: Stdio, runtime: &Runtime) -> Result<Running, RuntimeError> {
    match runtime {
        Runtime::Own => spawn_own(plan, stdio),
        Runtime::External(program) => spawn_external(plan, stdio, program),
    }
}

fn helper(action: &'static str) -> impl Fn(io::Error) -> RuntimeError {
    move |source| RuntimeError::Helper { action, source }
}

fn spawn_own(plan: &Plan, stdio: Stdio) -> Result<Running, RuntimeError> {
    let ends = stdio.open().map_err(helper("open pipes for"))?;
    let (socket, theirs) = UnixStream::pair().map_err(helper("make a socket for"))?;
    let mut child = start_helper(theirs, &plan.id).map_err(helper("start"))?;
    let fds: Vec<BorrowedFd<'_>> = ends.theirs.iter().map(AsFd::as_fd).collect();
    let fds = if plan.terminal { &fds[..0] } else { &fds[..] };
    let reply = wire::send(&socket, plan, fds).and_then(|()| wire::receive::<Reply>(&socket));
    // The process has its own copies now; ours would keep the pipes open for ever.
    drop(ends.theirs);
    let failure = match reply {
        Ok(Some((Reply::Started(started), fds))) => {
            let mut fds = fds.into_iter();
            if let Some(pidfd) = fds.next() {
                let keeper = Keeper::Helper { socket, child };
                let (stdin, stdout, stderr, pty) = (ends.stdin, ends.stdout, ends.stderr, fds.next());
                return Ok(Running { stdin, stdout, stderr, pty, started, pidfd, keeper });
            }
            RuntimeError::HelperDied
        }
        Ok(Some((Reply::ExecFailed(failure), _))) => RuntimeError::Exec(failure),
        Ok(Some((Reply::SetupFailed { step, reason, errno }, _))) => {
            RuntimeError::Setup { step, reason, errno }
        }
        Ok(Some((Reply::Ended { .. }, _)) | None) => RuntimeError::HelperDied,
        Err(error) => helper("talk to")(error),
    };
    drop(socket);
    child.wait().map_err(helper("wait for"))?;
    Err(failure)
}

/// Starts this program again as the helper, with the socket as standard input.
fn start_helper(socket: UnixStream, id: &str) -> io::Result<Child> {
    let read_only = read_only_self();
    let program = match &read_only {
        Ok(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()),
        // Without the right to mount there is no container that could write to our file either.
        Err(_) => "/proc/self/exe".to_owned(),
    };
    Command::new(program)
        .args([crate::HIDDEN_COMMAND, id])
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(socket))
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
}

/// Opens our own executable through a read-only mount of its own: a container that gets hold of
/// `/proc/self/exe` before its exec cannot overwrite it (CVE-2019-5736).
fn read_only_self() -> io::Result<OwnedFd> {
    let own = mount::open_tree_clone_path(Path::new("/proc/self/exe"), false)?;
    let attr = MountAttr { read_only: true, ..MountAttr::default() };
    mount::set_attr(own.as_fd(), attr, false)?;
    Ok(own)
}

fn spawn_external(plan: &Plan, stdio: Stdio, program: &Path) -> Result<Running, RuntimeError> {
    let ends = stdio.open().map_err(helper("open pipes for"))?;
    let (external, pid) = External::start(plan, program, ends.theirs)?;
    let pidfd = mica_sys::process::pidfd_open(pid).map_err(helper("find the process of"))?;
    let started = Started { pid, ..Started::default() };
    let keeper = Keeper::External(external);
    let (stdin, stdout, stderr) = (ends.stdin, ends.stdout, ends.stderr);
    Ok(Running { stdin, stdout, stderr, pty: None, started, pidfd, keeper })
}

impl Running {
    /// Returns the process id, in the caller's pid namespace.
    pub fn pid(&self) -> i32 {
        self.started.pid
    }

    /// Returns the start time in clock ticks since boot: with the boot id and the pid it names the process
    /// for good.
    pub fn start_time(&self) -> io::Result<u64> {
        start_time(self.pid())
    }

    /// Returns the descriptor that names the process and becomes readable when it ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Returns what could not be done as asked, in sentences for the user.
    pub fn notices(&self) -> &[String] {
        &self.started.notices
    }

    /// Returns the paths in the root file system made only to be mounted on; they are removed at the end.
    pub fn mountpoints_created(&self) -> &[Vec<u8>] {
        &self.started.stubs
    }

    /// Returns the cgroup directories of the container.
    pub fn cgroups(&self) -> &[PathBuf] {
        &self.started.cgroups
    }

    /// Sends a signal to the process.
    pub fn kill(&self, signal: i32) -> io::Result<()> {
        mica_sys::process::pidfd_signal(self.pidfd.as_fd(), signal)
    }

    /// Tells the terminal its size.
    pub fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        match &self.pty {
            Some(pty) => crate::tty::resize(pty.as_fd(), rows, columns),
            None => Ok(()),
        }
    }

    /// Stops all processes of the container until the result is dropped.
    pub fn freeze(&self) -> io::Result<crate::cgroup::Frozen> {
        crate::cgroup::freeze(self.pid(), self.cgroups())
    }

    /// Waits for the end of the process; mountpoints and cgroups are gone then.
    pub fn wait(mut self) -> Result<ExitStatus, RuntimeError> {
        drop(self.stdin.take());
        self.reap()
    }

    /// Copies the output to a sink until the process ends. If `stop` returns true it is killed first.
    pub fn wait_with_output(
        mut self,
        sink: &mut dyn OutputSink,
        stop: &dyn Fn() -> bool,
    ) -> Result<ExitStatus, RuntimeError> {
        drop(self.stdin.take());
        let copied = output::copy(self.stdout.take(), self.stderr.take(), sink, stop);
        let copied = copied.map_err(helper("read the output of"))?;
        if copied == Copied::Stopped {
            self.kill(rustix::process::Signal::KILL.as_raw()).map_err(helper("kill the process of"))?;
        }
        while !self.ended(std::time::Duration::from_millis(50))? {
            if stop() {
                self.kill(rustix::process::Signal::KILL.as_raw()).map_err(helper("kill the process of"))?;
            }
        }
        self.reap()
    }

    /// Waits a while for the end; `true` if it has come.
    pub fn ended(&self, timeout: std::time::Duration) -> Result<bool, RuntimeError> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let timeout = Timespec::try_from(timeout).ok();
        let mut fds = [PollFd::from_borrowed_fd(self.pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut fds, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => Ok(false),
            Ok(ready) => Ok(ready > 0),
            Err(errno) => Err(helper("wait for the process of")(errno.into())),
        }
    }

    fn reap(&mut self) -> Result<ExitStatus, RuntimeError> {
        let (socket, child) = match &mut self.keeper {
            Keeper::Helper { socket, child } => (socket, child),
            Keeper::External(external) => return external.wait().map(|code| ExitStatus { code }),
        };
        let reply = wire::receive::<Reply>(socket).map_err(helper("listen to"));
        child.wait().map_err(helper("wait for"))?;
        match reply? {
            Some((Reply::Ended { code }, _)) => Ok(ExitStatus { code }),
            Some((Reply::SetupFailed { step, reason, errno }, _)) => {
                Err(RuntimeError::Setup { step, reason, errno })
            }
            _ => {
                // The helper was killed; the kernel kills the process with it, unless a set-user-id
                // program has shaken that off.
                let _ = self.kill(rustix::process::Signal::KILL.as_raw());
                Err(RuntimeError::HelperDied)
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Keeper::Helper { socket, child } = &mut self.keeper {
            // End of file makes the helper kill the process and clean up. After `wait` both calls find
            // nothing left to do.
            let _ = socket.shutdown(std::net::Shutdown::Both);
            let _ = child.wait();
        }
    }
}

/// Reads field 22 of `/proc/<pid>/stat`; the name in field 2 may contain anything.
fn start_time(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(") ").map(|(_, rest)| rest);
    let field = after_name.and_then(|rest| rest.split(' ').nth(19));
    field.and_then(|field| field.parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
