//! Logical lines: physical lines joined, comments removed, heredoc bodies attached (P5, P13-P15, P27).

use std::borrow::Cow;

use crate::ast::{Heredoc, Location, Warning};
use crate::directive::{self, Zone};
use crate::error::{ParseError, ParseErrorKind};
use crate::heredoc;
use crate::source::{Lines, without_line_end};
use crate::words::{split_flags, split_keyword};

/// An instruction, split but not understood.
pub(crate) struct Statement {
    /// As written.
    pub(crate) keyword: String,
    /// Words starting with `--`, quotes removed.
    pub(crate) flags: Vec<String>,
    /// Everything after the flags.
    pub(crate) rest: String,
    /// The whole logical line.
    pub(crate) line: String,
    pub(crate) heredocs: Vec<Heredoc>,
    pub(crate) location: Location,
    pub(crate) comments: Vec<String>,
    pub(crate) escape: char,
}

impl Statement {
    /// Splits a logical line.
    pub(crate) fn split(line: String, escape: char, location: Location) -> Self {
        let (keyword, rest) = split_keyword(&line);
        let (flags, rest) = split_flags(rest, escape);
        Self {
            keyword: keyword.to_owned(),
            flags,
            rest: rest.to_owned(),
            heredocs: Vec::new(),
            location,
            comments: Vec::new(),
            escape,
            line,
        }
    }
}

/// Reads statement after statement.
pub(crate) struct Reader<'a> {
    lines: Lines<'a>,
    zone: Zone,
    /// The escape character; final once a statement has been read.
    pub(crate) escape: char,
    comments: Vec<String>,
    /// Findings so far.
    pub(crate) warnings: Vec<Warning>,
}

impl<'a> Reader<'a> {
    /// Reads a file, directives included.
    pub(crate) fn of_file(bytes: &'a [u8]) -> Result<Self, ParseError> {
        Self::new(bytes, Zone::new("#"), '\\')
    }

    /// Reads text in which directives mean nothing.
    pub(crate) fn of_text(text: &'a str, escape: char) -> Result<Self, ParseError> {
        Self::new(text.as_bytes(), Zone::closed(), escape)
    }

    fn new(bytes: &'a [u8], zone: Zone, escape: char) -> Result<Self, ParseError> {
        let lines = Lines::new(bytes)?;
        Ok(Self { lines, zone, escape, comments: Vec::new(), warnings: Vec::new() })
    }

    /// Returns the next statement; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Statement>, ParseError> {
        let Some(first) = self.first_line()? else { return Ok(None) };
        let start = self.lines.number;
        let line = self.logical_line(&first)?;
        let location = Location { start, end: self.lines.number };
        let mut statement = Statement::split(line, self.escape, location);
        if heredoc::allowed(&statement.keyword, &statement.rest, self.escape) {
            statement.heredocs = self.heredocs(&statement.line, start)?;
            statement.location.end = self.lines.number;
        }
        statement.comments = std::mem::take(&mut self.comments);
        Ok(Some(statement))
    }

    /// Returns the first line of the next statement, left-trimmed.
    fn first_line(&mut self) -> Result<Option<Cow<'a, str>>, ParseError> {
        while let Some(bytes) = self.lines.next() {
            let line = String::from_utf8_lossy(without_line_end(bytes));
            let text = line.trim_start();
            let directive = self.zone.read(text).map_err(|kind| kind.at(self.lines.here()))?;
            if let Some((name, value)) = directive {
                if name == "escape" {
                    self.escape = directive::escape(value).map_err(|kind| kind.at(self.lines.here()))?;
                }
            } else if let Some(comment) = text.strip_prefix('#') {
                self.comment(comment.trim());
            } else if !text.is_empty() {
                return self.checked(line).map(Some);
            }
        }
        Ok(None)
    }

    /// Remembers a comment for the next statement; an empty one parts it from those before.
    fn comment(&mut self, text: &str) {
        if text.is_empty() {
            self.comments.clear();
        } else {
            self.comments.push(text.to_owned());
        }
    }

    /// Refuses a line that had to be repaired: foreign bytes are welcome in comments only.
    fn checked(&self, line: Cow<'a, str>) -> Result<Cow<'a, str>, ParseError> {
        match line {
            Cow::Borrowed(_) => Ok(line),
            Cow::Owned(_) => Err(ParseErrorKind::NotUtf8.at(self.lines.here())),
        }
    }

    /// Joins a line with its continuation lines.
    fn logical_line(&mut self, first: &str) -> Result<String, ParseError> {
        let (piece, mut continues) = split_continuation(first.trim_start(), self.escape);
        let mut joined = piece.to_owned();
        let mut has_blank_line = false;
        while continues {
            let Some(bytes) = self.lines.next() else { break };
            let line = String::from_utf8_lossy(without_line_end(bytes));
            let trimmed = line.trim_start();
            if trimmed.starts_with('#') {
                continue;
            }
            if trimmed.is_empty() {
                has_blank_line = true;
                continue;
            }
            let line = self.checked(line)?;
            let (piece, more) = split_continuation(&line, self.escape);
            joined.push_str(piece);
            continues = more;
        }
        if has_blank_line {
            self.warnings.push(Warning {
                rule: "NoEmptyContinuation",
                message: "Empty continuation line".to_owned(),
                location: self.lines.here(),
            });
        }
        Ok(joined)
    }

    /// Reads the bodies of the heredocs that a line announces.
    fn heredocs(&mut self, line: &str, start: u32) -> Result<Vec<Heredoc>, ParseError> {
        let mut heredocs = heredoc::announced(line);
        for heredoc in &mut heredocs {
            if !self.body(heredoc)? {
                let location = Location { start, end: self.lines.number };
                return Err(ParseErrorKind::UnterminatedHeredoc.at(location));
            }
        }
        Ok(heredocs)
    }

    /// Reads one body; returns whether its terminator was found.
    fn body(&mut self, heredoc: &mut Heredoc) -> Result<bool, ParseError> {
        while let Some(bytes) = self.lines.next() {
            let line = self.checked(String::from_utf8_lossy(bytes))?;
            let mut candidate = line.trim_end_matches(['\r', '\n']);
            if heredoc.strip_tabs {
                candidate = candidate.trim_start_matches('\t');
            }
            if candidate == heredoc.name {
                return Ok(true);
            }
            heredoc.body.push_str(&line);
        }
        Ok(false)
    }
}

/// Removes a continuation mark: an escape character, not itself escaped, and blanks after it (P14).
fn split_continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(head) if !head.ends_with(escape) => (head, true),
        _ => (line, false),
    }
}
