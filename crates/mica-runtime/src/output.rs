//! Reading what a process writes, while it runs.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

/// Where the output of a process goes.
pub trait OutputSink {
    /// Takes bytes of standard output, cut anywhere.
    fn stdout(&mut self, bytes: &[u8]);
    /// Takes bytes of standard error, cut anywhere.
    fn stderr(&mut self, bytes: &[u8]);
}

/// How often a running process is checked for having to stop.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
const BUFFER_BYTES: usize = 64 * 1024;

/// What ended a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// All pipes have been closed by the process.
    Everything,
    /// `stop` said so.
    Stopped,
}

/// Copies both pipes to a sink until all their writers are gone, or `stop` returns true.
pub fn copy(
    mut stdout: Option<File>,
    mut stderr: Option<File>,
    sink: &mut dyn OutputSink,
    stop: &dyn Fn() -> bool,
) -> io::Result<Copied> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let interval = Timespec::try_from(CHECK_INTERVAL).expect("the interval is far below the limit");
    while stdout.is_some() || stderr.is_some() {
        if stop() {
            return Ok(Copied::Stopped);
        }
        let (out_ready, err_ready) = {
            let open = [stdout.as_ref(), stderr.as_ref()].into_iter().flatten();
            let mut fds: Vec<PollFd<'_>> =
                open.map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)).collect();
            match rustix::event::poll(&mut fds, Some(&interval)) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other?,
            };
            let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
            let out_ready = stdout.is_some() && ready.next().unwrap_or(false);
            (out_ready, stderr.is_some() && ready.next().unwrap_or(false))
        };
        if out_ready && let Some(length) = read_some(&mut stdout, &mut buffer)? {
            sink.stdout(&buffer[..length]);
        }
        if err_ready && let Some(length) = read_some(&mut stderr, &mut buffer)? {
            sink.stderr(&buffer[..length]);
        }
    }
    Ok(Copied::Everything)
}

/// Reads what is there; at the end the file is dropped.
fn read_some(file: &mut Option<File>, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    let Some(open) = file else { return Ok(None) };
    match open.read(buffer) {
        Ok(0) => {
            *file = None;
            Ok(None)
        }
        Ok(length) => Ok(Some(length)),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}

/// Collects output in memory.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Collected {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl OutputSink for Collected {
    fn stdout(&mut self, bytes: &[u8]) {
        self.stdout.extend_from_slice(bytes);
    }

    fn stderr(&mut self, bytes: &[u8]) {
        self.stderr.extend_from_slice(bytes);
    }
}
