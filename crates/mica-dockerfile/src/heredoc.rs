//! Heredoc tokens on a command line, and what a RUN with heredocs executes (P25-P31, P34).

use std::borrow::Cow;

use crate::ast::{Heredoc, Run, RunScript, ShellOrExec};
use crate::expand::{Escapes, Lexer, Options, Quotes, Unset};
use crate::words::{json_strings, split_flags, split_keyword};

/// Whether an instruction may have heredocs: RUN, COPY, ADD or ONBUILD of those, not in JSON form (P25).
pub(crate) fn allowed(keyword: &str, rest: &str, escape: char) -> bool {
    if keyword.eq_ignore_ascii_case("onbuild") {
        let (keyword, rest) = split_keyword(rest);
        let (_, rest) = split_flags(rest, escape);
        return takes_heredocs(keyword) && !is_json(rest);
    }
    takes_heredocs(keyword) && !is_json(rest)
}

fn takes_heredocs(keyword: &str) -> bool {
    ["run", "copy", "add"].iter().any(|name| keyword.eq_ignore_ascii_case(name))
}

fn is_json(rest: &str) -> bool {
    matches!(json_strings(rest), Ok(Some(_)))
}

/// Returns the heredocs that a logical line announces, without their bodies, in order (P26).
///
/// A line whose quotes do not balance has none: the shell will have to say what it thinks of it. The
/// escape character is always a backslash here, as in the reference.
pub(crate) fn announced(line: &str) -> Vec<Heredoc> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let words = lex(line, Quotes::Keep, Escapes::Keep);
    words.iter().filter_map(|word| token(word)).collect()
}

/// Reads a word as a heredoc token: digits, `<<`, an optional `-`, blanks, one word without `<`.
pub(crate) fn token(word: &str) -> Option<Heredoc> {
    let (digits, rest) = word.split_once("<<")?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (strip_tabs, rest) = match rest.strip_prefix('-') {
        Some(after) => (true, after),
        None => (false, rest),
    };
    let delimiter = rest.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
    if delimiter.is_empty() || delimiter.contains('<') {
        return None;
    }
    let [name] = <[String; 1]>::try_from(lex(delimiter, Quotes::Remove, Escapes::Remove)).ok()?;
    let [quoted] = <[String; 1]>::try_from(lex(delimiter, Quotes::Keep, Escapes::Remove)).ok()?;
    let expand = count_quotes(&name) == count_quotes(&quoted);
    let file_descriptor = digits.parse().unwrap_or(0);
    Some(Heredoc { name, body: String::new(), expand, strip_tabs, file_descriptor })
}

fn lex(text: &str, quotes: Quotes, escapes: Escapes) -> Vec<String> {
    let unset = |_: &str| None;
    let options = Options { escape: '\\', quotes, escapes, unset: Unset::Keep };
    Lexer::new(text, &unset, options).words().unwrap_or_default()
}

fn count_quotes(text: &str) -> usize {
    text.bytes().filter(|byte| matches!(byte, b'\'' | b'"')).count()
}

impl Run {
    /// Returns what is to be executed (P29, P30).
    pub fn script(&self) -> RunScript<'_> {
        let line = match &self.command {
            ShellOrExec::Exec(argv) => return RunScript::Exec(argv),
            ShellOrExec::Shell(line) => line,
        };
        match self.heredocs.as_slice() {
            [] => RunScript::Shell(Cow::Borrowed(line)),
            [only] if token(line).is_some() => {
                if only.body.starts_with("#!") {
                    RunScript::File { name: &only.name, body: only.content() }
                } else {
                    RunScript::Shell(only.content())
                }
            }
            several => RunScript::Shell(Cow::Owned(rebuilt(line, several))),
        }
    }

    /// Returns what the title of a RUN that is one heredoc ends with: ` (first line...)` (P34).
    pub(crate) fn title_suffix(&self) -> String {
        match (&self.command, self.heredocs.as_slice()) {
            (ShellOrExec::Shell(line), [only, ..]) if token(line).is_some() => {
                format!(" ({})", summary(&only.body))
            }
            _ => String::new(),
        }
    }
}

/// Returns a command with the bodies and terminators of its heredocs put back.
pub(crate) fn rebuilt(line: &str, heredocs: &[Heredoc]) -> String {
    let mut text = line.to_owned();
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(&heredoc.body);
        text.push_str(&heredoc.name);
    }
    text
}

/// Returns the first line of a body, with dots if there is more.
fn summary(body: &str) -> String {
    let body = body.trim();
    match body.split_once('\n') {
        Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
        None => body.to_owned(),
    }
}
