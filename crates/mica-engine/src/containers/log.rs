//! What a container printed: docker's json-file format, one object per line.
//!
//! `{"log":"text\n","stream":"stdout","time":"2024-01-02T03:04:05.12Z"}`. A line without end is written when the
//! container ends, or in pieces of 16 KiB, as docker does.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use mica_api::{LogLine, LogRequest, Timestamp};
use serde::Deserialize;

use super::json_text;
use crate::times::{parse_rfc3339, rfc3339};

/// The longest piece of a line in one entry.
const PIECE_BYTES: usize = 16 << 10;

/// Where a container prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// One line of the file, as it is read.
#[derive(Debug, Deserialize)]
struct Entry<'a> {
    log: String,
    stream: Stream,
    #[serde(borrow)]
    time: std::borrow::Cow<'a, str>,
}

/// The log file in a container's directory.
pub(super) fn path(directory: &Path, id: &str) -> PathBuf {
    directory.join(format!("{id}-json.log"))
}

/// Writes the log of a running container.
#[derive(Debug)]
pub(super) struct LogWriter {
    file: File,
    /// Unfinished lines of stdout and stderr.
    partial: [Vec<u8>; 2],
    encoded: Vec<u8>,
}

impl LogWriter {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Ok(Self { file, partial: [Vec::new(), Vec::new()], encoded: Vec::new() })
    }

    /// Takes bytes cut anywhere. All entries they complete are one write, and have one time.
    pub(super) fn take(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let end = Ending::now(stream);
        let partial = &mut self.partial[stream as usize];
        // Lines are rarely cut: most bytes are never copied before they are encoded.
        let mut searched = partial.len();
        let joined = searched > 0;
        if joined {
            partial.extend_from_slice(bytes);
        }
        let all = if joined { partial.as_slice() } else { bytes };
        let mut start = 0;
        while let Some(length) = entry_length(&all[start..], searched) {
            end.encode(&mut self.encoded, &all[start..start + length]);
            start += length;
            searched = 0;
        }
        if joined {
            partial.drain(..start);
        } else {
            partial.extend_from_slice(&bytes[start..]);
        }
        self.flush()
    }

    /// Writes lines that have no end.
    pub(super) fn finish(mut self) -> io::Result<()> {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let partial = std::mem::take(&mut self.partial[stream as usize]);
            if !partial.is_empty() {
                Ending::now(stream).encode(&mut self.encoded, &partial);
            }
        }
        self.flush()
    }

    /// Whole entries in one write: a reader never sees half of one for long.
    fn flush(&mut self) -> io::Result<()> {
        let written = self.file.write_all(&self.encoded);
        self.encoded.clear();
        written
    }
}

/// How long the first entry of these bytes is; `None` if its end has not come. The first `searched` bytes are known to
/// have no end of line.
fn entry_length(bytes: &[u8], searched: usize) -> Option<usize> {
    let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
    match piece[searched..].iter().position(|byte| *byte == b'\n') {
        Some(end) => Some(searched + end + 1),
        None => (piece.len() == PIECE_BYTES).then(|| whole_characters(piece)),
    }
}

/// What stands after the text of an entry: the same for all that are written at once.
struct Ending(String);

impl Ending {
    fn now(stream: Stream) -> Self {
        let stream = match stream {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        };
        Self(format!("\",\"stream\":\"{stream}\",\"time\":\"{}\"}}\n", rfc3339(Timestamp::now().0)))
    }

    fn encode(&self, out: &mut Vec<u8>, line: &[u8]) {
        out.extend_from_slice(b"{\"log\":\"");
        json_text::push(out, line);
        out.extend_from_slice(self.0.as_bytes());
    }
}

/// How many bytes of a piece can be taken without cutting a character in two.
fn whole_characters(piece: &[u8]) -> usize {
    let start_of_last = piece.iter().rposition(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
    match std::str::from_utf8(&piece[start_of_last..]) {
        Err(error) if error.error_len().is_none() && start_of_last > 0 => start_of_last,
        _ => piece.len(),
    }
}

/// Reads a log, now and as it grows.
#[derive(Debug)]
pub(super) struct LogReader {
    file: BufReader<File>,
    /// An entry of which the end is not written yet.
    unfinished: Vec<u8>,
}

impl LogReader {
    /// `None` if the container has not printed anything.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self { file: BufReader::new(file), unfinished: Vec::new() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The next entry; `None` at the end of what is written. Damaged entries are passed over.
    pub(super) fn next(&mut self) -> io::Result<Option<LogLine>> {
        loop {
            self.file.read_until(b'\n', &mut self.unfinished)?;
            if self.unfinished.last() != Some(&b'\n') {
                return Ok(None);
            }
            let line = parse(&self.unfinished);
            self.unfinished.clear();
            if line.is_some() {
                return Ok(line);
            }
        }
    }

    /// Everything written so far that a request asks for.
    pub(super) fn so_far(&mut self, request: &LogRequest) -> io::Result<VecDeque<LogLine>> {
        let limit = request.tail.map_or(usize::MAX, |tail| usize::try_from(tail).unwrap_or(usize::MAX));
        let mut lines = VecDeque::new();
        while let Some(line) = self.next()? {
            if !is_wanted(&line, request) {
                continue;
            }
            lines.push_back(line);
            if lines.len() > limit {
                lines.pop_front();
            }
        }
        Ok(lines)
    }
}

/// Whether an entry is in the span of time a request asks for.
pub(super) fn is_wanted(line: &LogLine, request: &LogRequest) -> bool {
    request.since.is_none_or(|since| line.at >= since) && request.until.is_none_or(|until| line.at <= until)
}

fn parse(line: &[u8]) -> Option<LogLine> {
    let entry: Entry<'_> = serde_json::from_slice(line).ok()?;
    Some(LogLine {
        stderr: entry.stream == Stream::Stderr,
        at: Timestamp(parse_rfc3339(&entry.time)?),
        data: entry.log.into_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(writes: &[(Stream, &[u8])]) -> Vec<LogLine> {
        let directory = tempfile::tempdir().unwrap();
        let path = path(directory.path(), "c");
        let mut writer = LogWriter::create(&path).unwrap();
        for (stream, bytes) in writes {
            writer.take(*stream, bytes).unwrap();
        }
        writer.finish().unwrap();
        let lines = LogReader::open(&path).unwrap().unwrap().so_far(&LogRequest::default()).unwrap();
        lines.into()
    }

    #[test]
    fn lines_come_back_as_they_were_printed() {
        let lines = written(&[
            (Stream::Stdout, b"one\ntw"),
            (Stream::Stderr, "fäil\n".as_bytes()),
            (Stream::Stdout, b"o\nend"),
        ]);
        let shown: Vec<(bool, &[u8])> =
            lines.iter().map(|line| (line.stderr, line.data.as_slice())).collect();
        let expected: [(bool, &[u8]); 4] =
            [(false, b"one\n"), (true, "fäil\n".as_bytes()), (false, b"two\n"), (false, b"end")];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let long = "ä".repeat(PIECE_BYTES);
        let shifted = format!("x{long}");
        let lines = written(&[(Stream::Stdout, shifted.as_bytes())]);
        let joined: Vec<u8> = lines.iter().flat_map(|line| line.data.clone()).collect();
        assert_eq!(joined, shifted.as_bytes());
        assert!(lines.len() > 1);
    }

    #[test]
    fn a_span_of_time_and_a_tail_select_lines() {
        let line = |at: i64| LogLine { stderr: false, at: Timestamp(at), data: Vec::new() };
        let request =
            LogRequest { since: Some(Timestamp(2)), until: Some(Timestamp(3)), ..LogRequest::default() };
        let wanted: Vec<i64> = (1..5).filter(|at| is_wanted(&line(*at), &request)).collect();
        assert_eq!(wanted, [2, 3]);
    }

    #[test]
    fn dockers_own_entries_are_understood_and_damaged_ones_are_not() {
        let line = br#"{"log":"hi\n","stream":"stderr","time":"2024-01-02T03:04:05.120000000Z"}"#;
        let parsed = parse(line).unwrap();
        assert_eq!((parsed.stderr, parsed.at.0), (true, 1_704_164_645_120_000_000));
        assert!(parse(b"{\"log\":").is_none());
    }
}
