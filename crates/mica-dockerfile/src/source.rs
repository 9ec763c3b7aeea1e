//! The physical lines of a Dockerfile, and the limits on them (P2, P3).

use crate::ast::Location;
use crate::error::{ParseError, ParseErrorKind};

/// Largest Dockerfile.
pub const MAX_FILE_BYTES: usize = 10 << 20;

/// Longest physical line, without its line feed.
pub const MAX_LINE_BYTES: usize = 65_535;

/// Byte order mark of UTF-8.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// A file split into lines, read one after the other.
pub(crate) struct Lines<'a> {
    rest: &'a [u8],
    /// Number of the line read last; 0 before the first.
    pub(crate) number: u32,
}

impl<'a> Lines<'a> {
    /// Checks the limits.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, ParseError> {
        if bytes.len() > MAX_FILE_BYTES {
            return Err(ParseError { kind: ParseErrorKind::FileTooLarge(MAX_FILE_BYTES), location: None });
        }
        for (index, line) in (1..).zip(bytes.split(|&byte| byte == b'\n')) {
            if line.len() > MAX_LINE_BYTES {
                let location = Location { start: index, end: index };
                return Err(ParseErrorKind::LineTooLong(MAX_LINE_BYTES).at(location));
            }
        }
        Ok(Self { rest: without_bom(bytes), number: 0 })
    }

    /// Returns the next line with its line end.
    pub(crate) fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let length = self.rest.iter().position(|&byte| byte == b'\n').map_or(self.rest.len(), |at| at + 1);
        let (line, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.number += 1;
        Some(line)
    }

    /// Returns the location of the line read last.
    pub(crate) fn here(&self) -> Location {
        Location { start: self.number, end: self.number }
    }
}

/// Removes a byte order mark.
pub(crate) fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(BOM).unwrap_or(bytes)
}

/// Removes the line end: any CR and LF there.
pub(crate) fn without_line_end(mut line: &[u8]) -> &[u8] {
    while let [head @ .., b'\r' | b'\n'] = line {
        line = head;
    }
    line
}
