//! The thread between the events of a build and standard error.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mica_api::{Cancel, Event, EventSink, Timestamp};

use super::colours::Colours;
use super::plain::Plain;
use super::rawjson::RawJson;
use super::tail;
use super::trace::{Trace, Warning};
use super::tty::Tty;
use crate::environment::Environment;
use crate::failure::Failure;
use crate::output::Out;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Lines.
    Plain,
    /// A block that is drawn again and again.
    Tty,
    /// JSON.
    RawJson,
    /// Nothing.
    Quiet,
}

impl Mode {
    /// What `--progress` means here: `auto` looks at the terminal, which has to be one for `tty`.
    pub(crate) fn choose(word: &str, terminal: bool, environment: &Environment) -> Option<Self> {
        let capable = terminal && environment.get("TERM") != Some("dumb");
        match word {
            "auto" | "tty" if capable => Some(Self::Tty),
            "auto" | "tty" | "plain" => Some(Self::Plain),
            "rawjson" => Some(Self::RawJson),
            "quiet" | "none" => Some(Self::Quiet),
            _ => None,
        }
    }
}

/// Whether more will come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// More will come.
    Running,
    /// This is the last frame.
    Finished,
}

/// Makes text of a build's events.
pub(crate) trait Renderer: Send {
    /// Sees an event before it is part of the trace.
    fn event(&mut self, _event: &Event) {}
    /// What to write now.
    fn frame(&mut self, trace: &mut Trace, now: Timestamp, phase: Phase) -> String;
}

struct Silent;

impl Renderer for Silent {
    fn frame(&mut self, trace: &mut Trace, _: Timestamp, _: Phase) -> String {
        trace.vertices.iter_mut().for_each(|vertex| vertex.fresh_lines.clear());
        String::new()
    }
}

/// What is left to say when a build has ended.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Logs of what failed.
    pub failures: String,
    /// Findings.
    pub warnings: Vec<Warning>,
    /// Nobody reads standard error any more; the build was asked to stop.
    pub reader_is_gone: bool,
}

/// Shows the progress of one build.
#[derive(Debug)]
pub(crate) struct Display {
    sender: Sender<Event>,
    /// None if it could not be started: the build goes on unseen.
    thread: Option<JoinHandle<Summary>>,
}

/// Frames come no faster than this.
const INTERVAL: Duration = Duration::from_millis(100);
/// Events taken between two looks at the clock.
const BATCH: usize = 1000;

impl Display {
    /// Starts the thread. The engine is open by now: it wants a process with one thread.
    pub(crate) fn start(mode: Mode, out: Out, environment: &Environment, cancel: &Cancel) -> Self {
        let mut renderer = renderer(mode, environment);
        let (sender, receiver) = channel();
        let mut writer = Writer { out, cancel: cancel.clone(), reader_is_gone: false };
        let drive = move || drive(&receiver, &mut writer, renderer.as_mut());
        let thread = std::thread::Builder::new().spawn(drive).ok();
        Self { sender, thread }
    }

    /// Shows the end and stops.
    pub(crate) fn finish(self) -> Summary {
        drop(self.sender);
        // A renderer that panicked has nothing more to say; the build's own result stands.
        self.thread.and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl EventSink for Display {
    fn event(&self, event: Event) {
        // Without a receiver nobody listens any more, which is no reason to stop.
        let _unheard = self.sender.send(event);
    }
}

fn renderer(mode: Mode, environment: &Environment) -> Box<dyn Renderer> {
    match mode {
        Mode::Plain => Box::new(Plain::new(environment.get("PROGRESS_NO_TRUNC") == Some("0"))),
        Mode::Tty => {
            let lines =
                environment.nonempty("BUILDKIT_TTY_LOG_LINES").and_then(|n| n.parse().ok()).unwrap_or(6);
            Box::new(Tty::new(Colours::of(environment), Box::new(terminal_size), lines))
        }
        Mode::RawJson => Box::new(RawJson::default()),
        Mode::Quiet => Box::new(Silent),
    }
}

/// Columns and rows of standard error's terminal.
fn terminal_size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

fn drive(receiver: &Receiver<Event>, writer: &mut Writer, renderer: &mut dyn Renderer) -> Summary {
    let mut trace = Trace::default();
    let mut drawn: Option<Instant> = None;
    loop {
        match receiver.recv_timeout(INTERVAL) {
            Ok(event) => {
                for event in std::iter::once(event).chain(receiver.try_iter().take(BATCH)) {
                    renderer.event(&event);
                    trace.update(&event);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if drawn.is_none_or(|at| at.elapsed() >= INTERVAL) {
            writer.write(&renderer.frame(&mut trace, Timestamp::now(), Phase::Running));
            drawn = Some(Instant::now());
        }
    }
    writer.write(&renderer.frame(&mut trace, Timestamp::now(), Phase::Finished));
    let failures = tail::failures(&trace);
    Summary { failures, warnings: trace.warnings, reader_is_gone: writer.reader_is_gone }
}

/// Writes frames until nobody reads them.
struct Writer {
    out: Out,
    cancel: Cancel,
    reader_is_gone: bool,
}

impl Writer {
    /// A reader that went away stops the build, as SIGPIPE ends docker's; a full disk does not.
    fn write(&mut self, text: &str) {
        if text.is_empty() || self.reader_is_gone {
            return;
        }
        // What the display writes itself moves the cursor; strangers' texts in it are cleaned where they come in.
        if let Err(Failure::ReaderGone) = self.out.bytes(text.as_bytes()) {
            self.reader_is_gone = true;
            self.cancel.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_looks_at_the_terminal() {
        let environment = Environment::default();
        assert_eq!(Mode::choose("auto", true, &environment), Some(Mode::Tty));
        assert_eq!(Mode::choose("auto", false, &environment), Some(Mode::Plain));
        assert_eq!(Mode::choose("tty", true, &Environment::of(&[("TERM", "dumb")])), Some(Mode::Plain));
        assert_eq!(Mode::choose("none", true, &environment), Some(Mode::Quiet));
        assert_eq!(Mode::choose("fancy", true, &environment), None);
    }
}
