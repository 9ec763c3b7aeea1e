//! Between a running container and its caller: input, output, log, signals, the size of the terminal, other processes.
//!
//! One loop that never waits for anything but all of it: a reader that has stopped reading does not keep `^C` from
//! getting through.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use mica_api::{Cancel, Event, EventSink, RunIo};
use mica_runtime::{Running, tty};
use mica_sys::root::Root;
use mica_sys::signals::SignalQueue;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::FileType;
use rustix::io::{Errno, ReadWriteFlags, pwritev2};
use rustix::process::Signal;

use super::control::Control;
use super::log::{LogWriter, Stream};

/// Signals that are the container's and not ours.
pub(super) const FORWARDED: [Signal; 6] =
    [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2];
/// How often the caller is asked whether it gave up.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// How long a container may take to end after its caller gave up.
const GRACE: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 64 << 10;
/// What a pipe or a terminal takes without blocking when poll(2) says that it is writable (`PIPE_BUF`).
const ATOMIC_BYTES: usize = 4096;
/// End of input, typed at a terminal (^D).
const END_OF_TRANSMISSION: u8 = 4;

/// What stands between a container and its caller.
pub(super) struct Relay<'a> {
    pub(super) running: &'a mut Running,
    pub(super) signals: &'a SignalQueue,
    pub(super) control: Option<Control>,
    pub(super) root: &'a Root,
    /// Asks the program to stop when the caller gives up.
    pub(super) stop_signal: i32,
    pub(super) cancel: &'a Cancel,
    pub(super) events: &'a dyn EventSink,
}

/// Bytes on their way from one descriptor to another.
struct Pump {
    from: Option<OwnedFd>,
    to: Option<OwnedFd>,
    pending: Vec<u8>,
    sent: usize,
    /// How it is written.
    writing: Writing,
    /// Why the receiver takes no more, if its disk is full.
    full: Option<Errno>,
}

/// How bytes are written without ever waiting for who takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// As many as there are: a file, or a descriptor of ours that does not block.
    All,
    /// As many as there are, by a call that does not wait (`RWF_NOWAIT`; on pipes since Linux 6.4).
    NoWait,
    /// As many as are taken without blocking when poll(2) says that it is writable.
    Atomic,
}

impl Pump {
    fn new(from: Option<OwnedFd>, to: Option<OwnedFd>, writing: Writing) -> Self {
        Self { from, to, pending: Vec::with_capacity(BUFFER_BYTES), sent: 0, writing, full: None }
    }

    /// To the caller: its descriptors are shared with others, so they cannot be made non-blocking.
    fn outward(from: Option<OwnedFd>, to: OwnedFd) -> Self {
        let is_file = rustix::fs::fstat(&to)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        Self::new(from, Some(to), if is_file { Writing::All } else { Writing::NoWait })
    }

    /// To the container: our end of a pipe or terminal.
    fn inward(from: OwnedFd, to: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&to, true)?;
        Ok(Self::new(Some(from), Some(to), Writing::All))
    }

    /// What this waits for.
    fn interest(&self) -> Option<PollFd<'_>> {
        match (&self.from, &self.to) {
            (_, Some(to)) if self.sent < self.pending.len() => {
                Some(PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT))
            }
            (Some(from), _) => Some(PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)),
            _ => None,
        }
    }

    fn is_idle(&self) -> bool {
        self.sent >= self.pending.len()
    }

    /// Moves bytes after poll(2) said so; returns those just read.
    fn advance(&mut self) -> io::Result<&[u8]> {
        if self.is_idle() {
            self.read()?;
            return Ok(&self.pending);
        }
        self.write();
        Ok(&[])
    }

    fn read(&mut self) -> io::Result<()> {
        self.pending.clear();
        self.sent = 0;
        let Some(from) = &self.from else { return Ok(()) };
        self.pending.resize(BUFFER_BYTES, 0);
        let length = match rustix::io::read(from, &mut self.pending[..]) {
            Ok(length) => length,
            Err(Errno::INTR | Errno::AGAIN) => {
                self.pending.clear();
                return Ok(());
            }
            // EIO is how Linux says that nobody has the other end of a terminal open any more.
            Err(Errno::IO) => 0,
            Err(errno) => return Err(errno.into()),
        };
        self.pending.truncate(length);
        if length == 0 {
            self.from = None;
        }
        if self.to.is_none() {
            // Nobody to give it to: it has been read to be logged.
            self.sent = length;
        }
        Ok(())
    }

    /// A receiver that is gone, or takes no more, ends the flow: the sender then learns it as in any pipeline.
    fn write(&mut self) {
        let Some(to) = &self.to else { return };
        let bytes = &self.pending[self.sent..];
        let written = match self.writing {
            Writing::All => rustix::io::write(to, bytes),
            // There is no position in what this is used for; all ones say so.
            Writing::NoWait => pwritev2(to, &[IoSlice::new(bytes)], u64::MAX, ReadWriteFlags::NOWAIT),
            Writing::Atomic => rustix::io::write(to, &bytes[..bytes.len().min(ATOMIC_BYTES)]),
        };
        match written {
            Ok(length) => self.sent += length,
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::SPIPE | Errno::INVAL)
                if self.writing == Writing::NoWait =>
            {
                self.writing = Writing::Atomic;
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(errno) => {
                self.full = matches!(errno, Errno::NOSPC | Errno::DQUOT | Errno::FBIG).then_some(errno);
                (self.from, self.to) = (None, None);
                self.sent = self.pending.len();
            }
        }
    }
}

/// The flows of one container.
struct Flows {
    input: Option<Pump>,
    outputs: Vec<(Stream, Pump)>,
    /// Our end of the container's terminal, to tell it its size; with the caller's terminal.
    terminal: Option<(OwnedFd, OwnedFd)>,
}

impl Flows {
    fn of(running: &mut Running, io: RunIo) -> io::Result<Self> {
        if let Some(pty) = running.pty.take() {
            let input = match io.stdin {
                Some(stdin) => Some(Pump::inward(stdin, pty.try_clone()?)?),
                None => None,
            };
            let terminal = Some((pty.try_clone()?, io.stdout.try_clone()?));
            let outputs = vec![(Stream::Stdout, Pump::outward(Some(pty), io.stdout))];
            return Ok(Self { input, outputs, terminal });
        }
        let input = match (io.stdin, running.stdin.take()) {
            (Some(from), Some(to)) => Some(Pump::inward(from, to.into())?),
            _ => None,
        };
        let outputs = vec![
            (Stream::Stdout, Pump::outward(running.stdout.take().map(OwnedFd::from), io.stdout)),
            (Stream::Stderr, Pump::outward(running.stderr.take().map(OwnedFd::from), io.stderr)),
        ];
        Ok(Self { input, outputs, terminal: None })
    }

    fn resize(&self) {
        if let Some((pty, caller)) = &self.terminal
            && let Ok((rows, columns)) = tty::size(caller.as_fd())
        {
            // A terminal that is gone has no size.
            let _ = tty::resize(pty.as_fd(), rows, columns);
        }
    }

    /// Moves what can be moved; says whether any output was.
    fn step(&mut self, ready: &[Source], log: &mut Log<'_>) -> io::Result<bool> {
        let mut moved = false;
        for source in ready {
            match source {
                Source::Input => self.take_input()?,
                Source::Output(index) => {
                    let (stream, pump) = &mut self.outputs[*index];
                    log.take(*stream, pump.advance()?);
                    moved = true;
                }
                Source::End | Source::Other => {}
            }
        }
        if self.terminal.is_some() && self.outputs.iter().all(|(_, pump)| pump.from.is_none()) {
            // The last of our ends: the kernel now hangs up on whoever is still at the other.
            (self.terminal, self.input) = (None, None);
        }
        Ok(moved)
    }

    fn take_input(&mut self) -> io::Result<()> {
        let Some(input) = &mut self.input else { return Ok(()) };
        input.advance()?;
        self.close_input();
        Ok(())
    }

    /// The end of the caller's input is the end of the container's.
    fn close_input(&mut self) {
        let Some(input) = &self.input else { return };
        if input.from.is_some() || !input.is_idle() {
            return;
        }
        if let (Some(to), true) = (&input.to, self.terminal.is_some()) {
            // If it cannot be typed, nobody reads it either.
            let _ = rustix::io::write(to, &[END_OF_TRANSMISSION]);
        }
        self.input = None;
    }
}

/// What poll(2) found something to do for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    End,
    Input,
    Output(usize),
    /// Signals and other processes, which are asked anyway.
    Other,
}

impl Relay<'_> {
    /// Goes on until the container has ended and everything it printed is delivered.
    ///
    /// # Errors
    /// The container's output cannot be read, or the caller's disk took only a part of it.
    pub(super) fn run(mut self, io: RunIo, log: &mut LogWriter) -> io::Result<()> {
        let mut flows = Flows::of(self.running, io)?;
        flows.resize();
        let mut log = Log { writer: log, broken: false, events: self.events };
        let mut given_up: Option<Instant> = None;
        let mut ended = false;
        loop {
            let ready = self.wait(&flows, ended)?;
            let moved = flows.step(&ready, &mut log)?;
            // Its output was written before it ended: what is not there now does not come any more.
            if ended && !moved && flows.outputs.iter().all(|(_, pump)| pump.is_idle()) {
                let full = flows.outputs.iter().find_map(|(_, pump)| pump.full);
                return full.map_or(Ok(()), |errno| Err(errno.into()));
            }
            ended |= ready.contains(&Source::End);
            self.forward_signals(&flows)?;
            if let Some(control) = &mut self.control {
                control.serve(self.running, self.root);
            }
            self.give_up(&mut given_up);
        }
    }

    /// Waits until there is something to do. After the end of the container only for those who take its output.
    fn wait(&self, flows: &Flows, ended: bool) -> io::Result<Vec<Source>> {
        let readable = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut sources = vec![(Source::Other, readable(self.signals.as_fd()))];
        if !ended {
            sources.push((Source::End, readable(self.running.pidfd())));
            sources.extend(flows.input.iter().filter_map(|pump| Some((Source::Input, pump.interest()?))));
            let control = self.control.iter().flat_map(Control::fds);
            sources.extend(control.map(|fd| (Source::Other, readable(fd))));
        }
        for (index, (_, pump)) in flows.outputs.iter().enumerate() {
            sources.extend(pump.interest().map(|interest| (Source::Output(index), interest)));
        }
        let (names, mut fds): (Vec<Source>, Vec<PollFd<'_>>) = sources.into_iter().unzip();
        let drained = ended && flows.outputs.iter().all(|(_, pump)| pump.is_idle());
        let patience = if drained { Duration::ZERO } else { CHECK_INTERVAL };
        let patience = Timespec::try_from(patience).expect("the interval is far below the limit");
        match poll(&mut fds, Some(&patience)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready = names.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(name, _)| name).collect())
    }

    fn forward_signals(&self, flows: &Flows) -> io::Result<()> {
        while let Some(signal) = self.signals.next()? {
            if signal == Signal::WINCH.as_raw() {
                flows.resize();
            } else {
                self.running.kill(signal)?;
            }
        }
        Ok(())
    }

    /// A caller that gave up gets a container that is asked to stop, and then killed.
    fn give_up(&self, since: &mut Option<Instant>) {
        let signal = match since {
            None if self.cancel.is_cancelled() => {
                *since = Some(Instant::now());
                self.stop_signal
            }
            Some(asked) if asked.elapsed() > GRACE => Signal::KILL.as_raw(),
            _ => return,
        };
        // It can only fail for a process that has ended, which the loop will see.
        let _ = self.running.kill(signal);
    }
}

/// The log; a full disk costs the log and not the output.
struct Log<'a> {
    writer: &'a mut LogWriter,
    broken: bool,
    events: &'a dyn EventSink,
}

impl Log<'_> {
    fn take(&mut self, stream: Stream, bytes: &[u8]) {
        if self.broken || bytes.is_empty() {
            return;
        }
        if let Err(error) = self.writer.take(stream, bytes) {
            self.broken = true;
            self.events.event(Event::Notice(format!("cannot write the container's log any more: {error}")));
        }
    }
}

/// The signals to collect while a container runs.
pub(super) fn collected() -> Vec<i32> {
    FORWARDED.iter().chain([&Signal::WINCH]).map(|signal| signal.as_raw()).collect()
}

/// Whether a descriptor is a terminal whose keys are to go to the container.
pub(super) fn raw_mode(stdin: Option<BorrowedFd<'_>>) -> io::Result<Option<tty::RawMode>> {
    match stdin {
        Some(stdin) if rustix::termios::isatty(stdin) => tty::RawMode::enter(stdin).map(Some),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn bytes_flow_and_the_end_is_noticed() {
        let (from, mut source) = io::pipe().unwrap();
        let (mut sink, to) = io::pipe().unwrap();
        let mut pump = Pump::outward(Some(from.into()), to.into());
        source.write_all(b"hello").unwrap();
        assert_eq!(pump.advance().unwrap(), b"hello");
        assert!(pump.advance().unwrap().is_empty() && pump.is_idle());
        let mut bytes = [0; 5];
        sink.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        drop(source);
        pump.advance().unwrap();
        assert!(pump.from.is_none() && pump.interest().is_none());
    }

    #[test]
    fn a_reader_that_went_away_closes_the_source() {
        let (from, mut source) = io::pipe().unwrap();
        let (sink, to) = io::pipe().unwrap();
        let mut pump = Pump::outward(Some(from.into()), to.into());
        drop(sink);
        source.write_all(b"x").unwrap();
        pump.advance().unwrap();
        pump.advance().unwrap();
        assert!(pump.is_idle() && pump.interest().is_none());
        assert_eq!(source.write(b"y").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
