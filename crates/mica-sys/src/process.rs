//! Processes: forking, executing, confinement of the calling process.
//!
//! The fork functions are for single-threaded processes: the child goes on with a copy of everything,
//! and a lock another thread held at that moment would stay locked for ever.

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus};

/// `CLONE_INTO_CGROUP`; libc's constant is an overflowed `int`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a fork the caller is on.
#[derive(Debug)]
pub enum Fork {
    /// The process that called.
    Parent(Child),
    /// The new process.
    Child,
}

/// A forked process that has not been waited for.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It called exit with this code.
    Exited(i32),
    /// This signal killed it.
    Signaled(i32),
}

impl Ending {
    /// Returns the exit code a shell would show: 128 + n for a signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => 128 + signal,
        }
    }
}

impl Child {
    /// Returns the process id, as seen from the parent.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Returns the descriptor that becomes readable when the process ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for the end and reaps the process.
    pub fn wait(&self) -> io::Result<Ending> {
        loop {
            match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(status) => return Ok(ending(status.as_ref())),
            }
        }
    }
}

fn ending(status: Option<&WaitIdStatus>) -> Ending {
    let killed = status.and_then(WaitIdStatus::terminating_signal);
    let exited = status.and_then(WaitIdStatus::exit_status);
    killed.map_or(Ending::Exited(exited.unwrap_or(0)), Ending::Signaled)
}

/// Forks a single-threaded process.
pub fn fork() -> io::Result<Fork> {
    fork_into(None)
}

/// Forks a single-threaded process; the child starts in this cgroup (v2, Linux 5.7).
pub fn fork_into(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: an all-zero `clone_args` is a valid value of this plain C structure.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: no stack and no CLONE_VM: the child runs on a copy of everything, as after fork(2). The
    // structure is initialised, its own size is passed, `pidfd` outlives the call. The documented
    // precondition (one thread) keeps libc's locks free in the child.
    let rc = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    let pid = match crate::check(rc) {
        // Container engines answer so to make libcs use clone(2), whose flags their filter can read.
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) && cgroup.is_none() => {
            return plain_fork();
        }
        other => other?,
    };
    let Some(pid) = Pid::from_raw(pid as i32) else {
        return Ok(Fork::Child);
    };
    // SAFETY: with CLONE_PIDFD the kernel has put a new descriptor there which nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Fork::Parent(Child { pid, pidfd }))
}

/// fork(2), and the pidfd afterwards: nobody else can reap our child, so its id is not reused meanwhile.
fn plain_fork() -> io::Result<Fork> {
    // SAFETY: the documented precondition (one thread) is all that fork asks for.
    let pid = crate::check(unsafe { libc::fork() }.into())?;
    let Some(pid) = Pid::from_raw(pid as i32) else {
        return Ok(Fork::Child);
    };
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
    Ok(Fork::Parent(Child { pid, pidfd }))
}

/// Ends the process at once: no destructors, no exit handlers. For forked children.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Program, arguments and environment in the form the kernel takes.
#[derive(Debug)]
pub struct ExecArguments {
    args: Vec<CString>,
    env: Vec<CString>,
}

impl ExecArguments {
    /// Converts arguments and environment.
    ///
    /// # Errors
    /// `InvalidInput` if one of them has a NUL byte.
    pub fn new(args: &[impl AsRef<[u8]>], env: &[impl AsRef<[u8]>]) -> io::Result<Self> {
        Ok(Self { args: c_strings(args)?, env: c_strings(env)? })
    }

    /// Replaces the program of this process; returns only on failure.
    pub fn exec(&self, program: &CStr) -> io::Result<Infallible> {
        let (args, env) = (pointers(&self.args), pointers(&self.env));
        // SAFETY: program is NUL-terminated; both arrays hold pointers to NUL-terminated strings owned
        // by `self` and end with a null pointer; all outlive the call, which only reads.
        unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
        Err(io::Error::last_os_error())
    }
}

/// What [`exec_or_report`] writes when nothing could be executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecReport {
    /// Which candidate the error is about.
    pub candidate: u32,
    /// The kernel's answer.
    pub errno: i32,
    /// That candidate exists.
    pub exists: bool,
}

impl ExecReport {
    /// First byte of a report.
    pub const TAG: u8 = b'E';

    /// Reads a report as written to the pipe.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; 10] = bytes.try_into().ok()?;
        let [tag, c0, c1, c2, c3, e0, e1, e2, e3, exists] = *bytes;
        (tag == Self::TAG).then_some(Self {
            candidate: u32::from_le_bytes([c0, c1, c2, c3]),
            errno: i32::from_le_bytes([e0, e1, e2, e3]),
            exists: exists != 0,
        })
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![Self::TAG];
        bytes.extend(self.candidate.to_le_bytes());
        bytes.extend(self.errno.to_le_bytes());
        bytes.push(self.exists.into());
        bytes
    }
}

/// Executes the first of several files that can be, as execvp(3) does, and never returns: if none can,
/// an [`ExecReport`] goes to `report` and the process ends.
///
/// All descriptors above 2 are closed first, so neither the files nor their interpreters are looked
/// up through a descriptor of ours (`/proc/self/fd/N`, CVE-2024-21626).
pub fn exec_or_report(arguments: &ExecArguments, candidates: &[CString], report: OwnedFd) -> ! {
    let report = keep_only(report);
    let mut failure = ExecReport { candidate: 0, errno: libc::ENOENT, exists: false };
    for (number, candidate) in candidates.iter().enumerate() {
        let Err(error) = arguments.exec(candidate);
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        let exists = rustix::fs::stat(&**candidate).is_ok();
        let this = ExecReport { candidate: number as u32, errno, exists };
        match errno {
            // Not there, or not a path: the next one. A file that is there but lacks its interpreter, or
            // may not be executed, is worth reporting if no later one can be.
            libc::ENOENT | libc::ENOTDIR | libc::EACCES => {
                if exists && !failure.exists {
                    failure = this;
                }
            }
            _ => {
                failure = this;
                break;
            }
        }
    }
    // Nobody is left to hear of a failure to write.
    let _ = rustix::io::write(&report, &failure.bytes());
    exit_now(127)
}

/// Closes all descriptors above 2 but this one, which becomes number 3.
///
/// Only for functions that never return: nobody is left to use the descriptors closed.
fn keep_only(kept: OwnedFd) -> OwnedFd {
    const KEPT: i32 = 3;
    let number = std::os::fd::IntoRawFd::into_raw_fd(kept);
    // SAFETY: the caller diverges and this process has one thread, so no owner of a closed or replaced
    // descriptor ever runs again; 3 is open afterwards and owned by the value returned alone.
    unsafe {
        if number != KEPT {
            libc::dup3(number, KEPT, libc::O_CLOEXEC);
        }
        libc::syscall(libc::SYS_close_range, KEPT + 1, libc::c_uint::MAX, 0);
        OwnedFd::from_raw_fd(KEPT)
    }
}

/// Is process 1 for a child: passes signals on to it, reaps orphans, and ends as it ends.
pub fn run_as_init(child: Child) -> ! {
    let main = child.pid();
    // SAFETY: this function diverges and the process has one thread: nobody uses the descriptors again.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    std::mem::forget(child);
    // SAFETY: `set` is initialised by sigfillset before use; both calls only touch what they are given.
    // Blocked signals reach process 1 even where the kernel would drop unhandled ones.
    let set = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut());
        set
    };
    loop {
        // SAFETY: `set` is a valid set; a null info pointer is allowed.
        let signal = unsafe { libc::sigwaitinfo(&raw const set, std::ptr::null_mut()) };
        match signal {
            libc::SIGCHLD => reap_orphans(main),
            1.. => {
                // SAFETY: kill takes plain numbers; `main` is not reaped before we exit.
                unsafe { libc::kill(main, signal) };
            }
            _ => {}
        }
    }
}

/// Reaps all that have ended; ends this process if the main one is among them.
fn reap_orphans(main: i32) {
    loop {
        let mut status = 0;
        // SAFETY: `status` outlives the call.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        if pid <= 0 {
            return;
        }
        if pid == main {
            let code = if libc::WIFSIGNALED(status) {
                128 + libc::WTERMSIG(status)
            } else {
                libc::WEXITSTATUS(status)
            };
            exit_now(code);
        }
    }
}

fn c_strings(strings: &[impl AsRef<[u8]>]) -> io::Result<Vec<CString>> {
    strings.iter().map(|text| CString::new(text.as_ref()).map_err(io::Error::from)).collect()
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Opens a process by id. Ids are reused: compare its start time before believing it is the same.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal by number to the process of a pidfd; that it has ended already is no error.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let signal = named_signal(signal)?;
    match rustix::process::pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Sends a signal by number to the process with this id.
pub fn signal(pid: i32, signal: i32) -> io::Result<()> {
    let pid = Pid::from_raw(pid).ok_or(rustix::io::Errno::SRCH)?;
    Ok(rustix::process::kill_process(pid, named_signal(signal)?)?)
}

fn named_signal(signal: i32) -> io::Result<Signal> {
    if !(1..=64).contains(&signal) {
        return Err(rustix::io::Errno::INVAL.into());
    }
    // SAFETY: the number is in the kernel's range; the reserved ones (32 to 34) concern only threads of
    // this process, and signals are sent to other processes here.
    Ok(unsafe { Signal::from_raw_unchecked(signal) })
}

/// Has this process killed when the thread that made it ends. Changing ids clears it again.
pub fn set_pdeathsig() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Forbids this process to gain rights by executing a file (set-user-id, file capabilities).
pub fn set_no_new_privs() -> io::Result<()> {
    Ok(rustix::thread::set_no_new_privs(true)?)
}

/// Marks all descriptors from `first` up as close-on-exec (Linux 5.11).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed now, so no owner of a descriptor is cheated.
    let rc =
        unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    crate::check(rc).map(drop)
}

/// Gives signals the state a new program expects: none blocked, the ones Rust's start-up and terminals
/// may have had ignored back to their default.
pub fn reset_signals() -> io::Result<()> {
    for signal in 1..=31 {
        if matches!(signal, libc::SIGKILL | libc::SIGSTOP) {
            continue;
        }
        // SAFETY: SIG_DFL is a valid disposition for each of these; no handler of ours is relied upon.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero set is a valid sigset_t; sigprocmask reads it and keeps nothing.
    let rc = unsafe {
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    crate::check(rc.into()).map(drop)
}

/// One instruction of a seccomp program (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterInstruction {
    /// Operation.
    pub code: u16,
    /// Instructions skipped if the comparison holds.
    pub jump_true: u8,
    /// Instructions skipped if not.
    pub jump_false: u8,
    /// Operand.
    pub value: u32,
}

/// Installs a seccomp filter for this thread and what it executes.
///
/// Needs `CAP_SYS_ADMIN` in the user namespace, or no_new_privs.
pub fn install_seccomp(program: &[FilterInstruction]) -> io::Result<()> {
    let mut filter: Vec<libc::sock_filter> = program
        .iter()
        .map(|step| libc::sock_filter {
            code: step.code,
            jt: step.jump_true,
            jf: step.jump_false,
            k: step.value,
        })
        .collect();
    let length = u16::try_from(filter.len()).map_err(|_| rustix::io::Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: filter.as_mut_ptr() };
    // SAFETY: `program` points at `length` initialised instructions that outlive the call; the kernel
    // copies and verifies them.
    let rc =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    crate::check(rc).map(drop)
}

/// Gives this process a session keyring of its own, so that it cannot reach its caller's keys.
pub fn new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing else is passed.
    let rc =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<c_char>()) };
    crate::check(rc).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_number_out_of_range_is_refused() {
        assert!(signal(1, 0).is_err());
        assert!(signal(1, 65).is_err());
    }

    #[test]
    fn a_shell_shows_a_signal_as_128_and_more() {
        assert_eq!(Ending::Signaled(9).code(), 137);
        assert_eq!(Ending::Exited(3).code(), 3);
    }

    #[test]
    fn arguments_with_a_nul_byte_are_refused() {
        assert!(ExecArguments::new(&["a\0b"], &["A=b"]).is_err());
    }
}
