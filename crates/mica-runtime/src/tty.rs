//! Terminals: the caller's in raw mode, its size passed on, bytes copied both ways.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, Termios, Winsize};

/// The caller's terminal in raw mode; put back when dropped.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// Switches a terminal to raw mode: keys, `^C` among them, go to the process in the container.
    pub fn enter(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        let before = rustix::termios::tcgetattr(terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(terminal, OptionalActions::Drain, &raw)?;
        Ok(Self { terminal: terminal.try_clone_to_owned()?, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // If the terminal is gone there is nothing to put back.
        let _ = rustix::termios::tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
    }
}

/// Returns rows and columns of a terminal.
pub fn size(terminal: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let size = rustix::termios::tcgetwinsize(terminal)?;
    Ok((size.ws_row, size.ws_col))
}

/// Sets rows and columns of a terminal; its processes get `SIGWINCH`.
pub fn resize(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(rustix::termios::tcsetwinsize(terminal, size)?)
}

/// How often the caller's terminal is asked for its size: no signal handler is needed for that, and
/// nobody resizes faster.
const SIZE_INTERVAL: Duration = Duration::from_millis(100);

/// Keys that end a copy without ending the process (`--detach-keys`), as bytes.
#[derive(Debug, Clone, Default)]
pub struct DetachKeys(pub Vec<u8>);

/// How a copy between terminals ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// The process closed its terminal.
    Ended,
    /// The user typed the detach keys.
    Detached,
}

/// Copies between the caller's terminal (or pipes) and a container's, until the latter is closed.
///
/// The size of `output`, if it is a terminal, is passed on whenever it changes.
pub fn converse(
    input: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
    pty: BorrowedFd<'_>,
    detach: &DetachKeys,
) -> io::Result<Session> {
    let interval = Timespec::try_from(SIZE_INTERVAL).expect("the interval is far below the limit");
    let mut known_size = None;
    let mut input_open = true;
    let mut typed = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        if let Ok(now) = size(output)
            && known_size != Some(now)
        {
            resize(pty, now.0, now.1)?;
            known_size = Some(now);
        }
        let mut fds = vec![PollFd::from_borrowed_fd(pty.as_fd(), PollFlags::IN)];
        if input_open {
            fds.push(PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN));
        }
        match poll(&mut fds, Some(&interval)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        let pty_ready = !fds[0].revents().is_empty();
        let input_ready = fds.get(1).is_some_and(|input| !input.revents().is_empty());
        if pty_ready {
            match rustix::io::read(pty, &mut buffer[..]) {
                // EIO is how Linux says that no process has the other end open any more.
                Ok(0) | Err(rustix::io::Errno::IO) => return Ok(Session::Ended),
                Ok(length) => write_all(output, &buffer[..length])?,
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        if input_ready {
            let length = rustix::io::read(input, &mut buffer[..])?;
            input_open = length > 0;
            if !input_open {
                // End of a piped input is what ^D is at a terminal.
                write_all(pty, &[4])?;
            } else if detaches(&mut typed, &buffer[..length], detach) {
                return Ok(Session::Detached);
            } else {
                write_all(pty, &buffer[..length])?;
            }
        }
    }
}

/// Returns whether the last keys typed are the detach keys.
fn detaches(typed: &mut Vec<u8>, bytes: &[u8], keys: &DetachKeys) -> bool {
    if keys.0.is_empty() {
        return false;
    }
    typed.extend_from_slice(bytes);
    let excess = typed.len().saturating_sub(keys.0.len());
    typed.drain(..excess);
    *typed == keys.0
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::OUT)];
                poll(&mut fds, None)?;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_seen_across_reads() {
        let keys = DetachKeys(vec![16, 17]);
        let mut typed = Vec::new();
        assert!(!detaches(&mut typed, b"abc\x10", &keys));
        assert!(detaches(&mut typed, b"\x11", &keys));
        assert!(!detaches(&mut Vec::new(), b"\x10\x11", &DetachKeys::default()));
    }
}
