//! Where text goes: standard output and standard error. A reader that went away ends the command in silence.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mica_api::{Event, EventSink};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::failure::Failure;

/// A stream of text, shared by the threads that print.
#[derive(Clone)]
pub(crate) struct Out {
    writer: Arc<Mutex<dyn Write + Send>>,
    terminal: bool,
}

impl std::fmt::Debug for Out {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Out").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

impl Out {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self { terminal: io::stdout().is_terminal(), writer: Arc::new(Mutex::new(io::stdout())) }
    }

    /// Standard error.
    pub(crate) fn stderr() -> Self {
        Self { terminal: io::stderr().is_terminal(), writer: Arc::new(Mutex::new(io::stderr())) }
    }

    /// Any writer; `terminal` says how it is treated.
    #[cfg(test)]
    pub(crate) fn of(writer: Arc<Mutex<Vec<u8>>>, terminal: bool) -> Self {
        Self { writer, terminal }
    }

    /// Whether a person reads it.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Writes text, of which parts may be a stranger's: see [`printable`].
    ///
    /// # Errors
    /// [`Failure::ReaderGone`] or [`Failure::Output`].
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        self.bytes(printable(text).as_bytes())
    }

    /// Writes a line, as [`Out::text`].
    ///
    /// # Errors
    /// [`Failure::ReaderGone`] or [`Failure::Output`].
    pub(crate) fn line(&self, line: &str) -> Result<(), Failure> {
        self.text(&format!("{line}\n"))
    }

    /// Writes bytes as they are.
    ///
    /// # Errors
    /// [`Failure::ReaderGone`] or [`Failure::Output`].
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut writer = self.lock();
        writer.write_all(bytes).and_then(|()| writer.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => Failure::Output(error),
        })
    }

    fn lock(&self) -> MutexGuard<'_, dyn Write + Send + 'static> {
        // A thread that panicked while printing leaves at worst half a line.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text in which nothing steers a terminal (security.md row 28): control characters but line ends and tabs are
/// written as `\x1b`. Names, labels and histories of images are anybody's.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match steers(c) {
            true => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            false => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// Remarks of the engine, for commands that show no other progress.
impl EventSink for Out {
    fn event(&self, event: Event) {
        if let Event::Notice(text) = event {
            // A remark nobody can read stops nothing.
            let _unheard = self.line(&text);
        }
    }
}

/// Whether standard output is a pipe or socket whose reader has gone.
///
/// What the engine writes to a copy of the descriptor fails in the middle of an archive, far from here; this tells
/// afterwards that nothing is wrong but that `head` has seen enough.
pub(crate) fn reader_is_gone() -> bool {
    let stdout = io::stdout();
    let mut ends = [PollFd::new(&stdout, PollFlags::empty())];
    // Nothing to wait for: a reader that is gone is reported at once, unasked.
    poll(&mut ends, Some(&Timespec::default())).is_ok() && ends[0].revents().contains(PollFlags::ERR)
}

/// A copy of standard input's descriptor.
///
/// # Errors
/// Out of descriptors, or standard input is closed.
pub(crate) fn stdin_fd() -> io::Result<OwnedFd> {
    io::stdin().as_fd().try_clone_to_owned()
}

/// A copy of standard output's descriptor.
///
/// # Errors
/// Out of descriptors, or standard output is closed.
pub(crate) fn stdout_fd() -> io::Result<OwnedFd> {
    io::stdout().as_fd().try_clone_to_owned()
}

/// A copy of standard error's descriptor.
///
/// # Errors
/// Out of descriptors, or standard error is closed.
pub(crate) fn stderr_fd() -> io::Result<OwnedFd> {
    io::stderr().as_fd().try_clone_to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_sent() {
        assert_eq!(printable("a\x1b[31m\u{9b}b\r\n\tc"), "a\\x1b[31m\\x9bb\\x0d\n\tc");
        assert!(matches!(printable("plain ü"), Cow::Borrowed(_)));
    }
}
