//! What is known of a running build: the sum of its events.

use std::collections::{BTreeSet, HashMap, VecDeque};

use mica_api::{Event, LogStream, StatusUpdate, Timestamp, VertexUpdate};
use mica_oci::Digest;

use crate::output::printable;

/// Lines of a vertex that are kept for the failure tail (build.md S4).
const TAIL_LINES: usize = 10;

/// A build so far.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// In the order in which they were first heard of.
    pub vertices: Vec<Vertex>,
    /// Findings, in order.
    pub warnings: Vec<Warning>,
    /// Remarks of the engine that nobody has shown yet.
    pub notices: Vec<String>,
    /// Vertices with news that nobody has shown yet.
    pub changed: BTreeSet<usize>,
    index: HashMap<Digest, usize>,
    numbered: usize,
}

/// A vertex so far.
#[derive(Debug, Default)]
pub(crate) struct Vertex {
    /// How it is shown.
    pub name: String,
    /// Its number: 1 for the first that started.
    pub number: usize,
    /// When it began.
    pub started: Option<Timestamp>,
    /// When it ended.
    pub completed: Option<Timestamp>,
    /// Whether an earlier result is used.
    pub cached: bool,
    /// Why it failed.
    pub error: Option<String>,
    /// Things inside it, in order of appearance.
    pub statuses: Vec<Status>,
    /// Whole lines with their times that nobody has shown yet.
    pub fresh_lines: Vec<String>,
    /// Findings that belong to it and nobody has shown yet.
    pub fresh_warnings: Vec<String>,
    /// The last lines with their times.
    pub tail: VecDeque<String>,
    /// The last lines without times, for terminals.
    pub screen: VecDeque<String>,
    /// News since it was last shown, and when the first of them came: for sharing the screen.
    pub news: usize,
    /// See `news`.
    pub news_since: Option<Timestamp>,
    partial: [Vec<u8>; 2],
}

/// Progress inside a vertex.
#[derive(Debug)]
pub(crate) struct Status {
    /// The latest update.
    pub update: StatusUpdate,
    /// Whether nobody has shown it yet.
    pub fresh: bool,
}

/// A finding that does not stop the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Warning {
    /// `Rule: text (line N)`.
    pub short: String,
    /// What `--debug` adds.
    pub full: Full,
}

/// What is told of a finding to those who want to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Full {
    /// Where more is to be read.
    pub url: Option<String>,
    /// The lines that are meant.
    pub excerpt: Option<String>,
}

impl Vertex {
    /// Whether it runs now.
    pub(crate) fn is_open(&self) -> bool {
        self.started.is_some() && self.completed.is_none()
    }

    /// Whether it ended because somebody gave up.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.error.as_deref().is_some_and(|error| error.ends_with("context canceled"))
    }

    /// Seconds it took, or has taken until `now`.
    pub(crate) fn seconds(&self, now: Timestamp) -> f64 {
        self.started.map_or(0.0, |started| self.completed.unwrap_or(now).seconds_since(started).max(0.0))
    }

    fn note_news(&mut self, at: Timestamp) {
        if self.news == 0 {
            self.news_since = Some(at);
        }
        self.news += 1;
    }

    /// Cuts what a step printed into lines. Both streams share the vertex, but not their unfinished lines.
    fn log(&mut self, stream: LogStream, data: &[u8], at: Timestamp) {
        let which = usize::from(stream == LogStream::Stderr);
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let mut line = std::mem::take(&mut self.partial[which]);
            line.extend_from_slice(piece);
            match line.strip_suffix(b"\n") {
                Some(whole) => self.line(whole, at),
                // A step that never ends its line must not fill the memory.
                None if line.len() >= LINE_BYTES => self.line(&line, at),
                None => self.partial[which] = line,
            }
        }
    }

    /// A step that ended will not finish its lines.
    fn flush(&mut self, at: Timestamp) {
        for which in 0..self.partial.len() {
            let rest = std::mem::take(&mut self.partial[which]);
            if !rest.is_empty() {
                self.line(&rest, at);
            }
        }
    }

    fn line(&mut self, bytes: &[u8], at: Timestamp) {
        let text = String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes)).into_owned();
        let seconds = self.started.map_or(0.0, |started| at.seconds_since(started).max(0.0));
        let timed = format!("{} {text}", log_seconds(seconds));
        push_bounded(&mut self.tail, timed.clone());
        push_bounded(&mut self.screen, text);
        self.fresh_lines.push(timed);
        self.note_news(at);
    }
}

/// A longer line is shown in several.
const LINE_BYTES: usize = 64 << 10;

fn push_bounded(lines: &mut VecDeque<String>, line: String) {
    if lines.len() == TAIL_LINES {
        lines.pop_front();
    }
    lines.push_back(line);
}

/// Build.md S2: three decimals below ten seconds, two below a hundred, then one.
fn log_seconds(seconds: f64) -> String {
    let decimals = match seconds {
        s if s < 10.0 => 3,
        s if s < 100.0 => 2,
        _ => 1,
    };
    format!("{seconds:.decimals$}")
}

impl Trace {
    /// Takes one event into account.
    pub(crate) fn update(&mut self, event: &Event) {
        match event {
            Event::Vertex(update) => self.update_vertex(update),
            Event::Status(update) => self.update_status(update),
            Event::Log { vertex, stream, data, at } => {
                if let Some(index) = self.index.get(vertex).copied() {
                    self.vertices[index].log(*stream, data, *at);
                    self.changed.insert(index);
                }
            }
            Event::Warning { title, message, line, url, excerpt } => {
                let full = Full { url: url.clone(), excerpt: excerpt.clone() };
                self.warn(title, message, *line, full);
            }
            Event::Notice(text) => self.notices.push(text.clone()),
            _ => {}
        }
    }

    /// When the first vertex began.
    pub(crate) fn started(&self) -> Option<Timestamp> {
        self.vertices.iter().filter_map(|vertex| vertex.started).min()
    }

    fn update_vertex(&mut self, update: &VertexUpdate) {
        let index = *self.index.entry(update.digest.clone()).or_insert_with(|| {
            self.vertices.push(Vertex::default());
            self.vertices.len() - 1
        });
        let vertex = &mut self.vertices[index];
        vertex.name = printable(&update.name).into_owned();
        vertex.started = update.started.or(vertex.started);
        vertex.completed = update.completed;
        vertex.cached = update.cached;
        vertex.error = update.error.as_deref().map(|error| printable(error).into_owned());
        if let Some(at) = update.completed {
            vertex.flush(at);
        }
        let Some(at) = update.completed.or(update.started) else { return };
        if vertex.number == 0 {
            self.numbered += 1;
            vertex.number = self.numbered;
        }
        vertex.note_news(at);
        self.changed.insert(index);
    }

    fn update_status(&mut self, update: &StatusUpdate) {
        let Some(index) = self.index.get(&update.vertex).copied() else { return };
        let vertex = &mut self.vertices[index];
        match vertex.statuses.iter_mut().find(|status| status.update.id == update.id) {
            Some(status) => *status = Status { update: update.clone(), fresh: true },
            None => vertex.statuses.push(Status { update: update.clone(), fresh: true }),
        }
        vertex.note_news(update.at);
        self.changed.insert(index);
    }

    /// Findings of the Dockerfile are shown at the vertex that read it, as BuildKit does.
    fn warn(&mut self, title: &str, message: &str, line: Option<u32>, full: Full) {
        let mut short = format!("{title}: {message}");
        if let Some(line) = line {
            short.push_str(&format!(" (line {line})"));
        }
        short = printable(&short).into_owned();
        let reader = self.vertices.iter().position(|vertex| vertex.name.contains("load build definition"));
        if let Some(index) = reader {
            self.vertices[index].fresh_warnings.push(short.clone());
            self.changed.insert(index);
        }
        self.warnings.push(Warning { short, full });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_lines_lose_decimals_as_they_grow() {
        assert_eq!([0.0984, 12.345_6, 123.456].map(log_seconds), ["0.098", "12.35", "123.5"]);
    }

    #[test]
    fn lines_that_come_in_pieces_are_whole_in_the_end() {
        let mut vertex = Vertex { started: Some(Timestamp(0)), ..Vertex::default() };
        vertex.log(LogStream::Stdout, b"ab", Timestamp(0));
        vertex.log(LogStream::Stderr, b"err\n", Timestamp(0));
        vertex.log(LogStream::Stdout, b"cd\nrest", Timestamp(1_000_000_000));
        vertex.flush(Timestamp(2_000_000_000));
        assert_eq!(vertex.fresh_lines, ["0.000 err", "1.000 abcd", "2.000 rest"]);
    }
}
