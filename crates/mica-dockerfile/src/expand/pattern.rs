//! The glob patterns of `${name#pattern}` and its relatives (V6, V7): `*`, `?`, backslash escapes.
//!
//! Like the reference's regular expressions, wildcards do not match a line feed.

use super::ExpandErrorKind;
use crate::glob::{Matcher, Token};

/// Characters of the value times tokens of the pattern: keeps a hostile file to about a second.
const MAX_WORK: usize = 1 << 28;

/// How much a wildcard takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    Shortest,
    Longest,
}

/// Which occurrences are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Occurrences {
    First,
    All,
}

/// Removes the prefix of `value` that matches.
pub(super) fn trim_prefix(pattern: &str, value: &str, extent: Extent) -> Result<String, ExpandErrorKind> {
    let tokens = compile(pattern)?;
    check_work(&tokens, value)?;
    let end = matching_prefix(&tokens, value.chars(), extent);
    Ok(value.chars().skip(end.unwrap_or(0)).collect())
}

/// Removes the suffix of `value` that matches: a prefix of both written backwards.
pub(super) fn trim_suffix(pattern: &str, value: &str, extent: Extent) -> Result<String, ExpandErrorKind> {
    let mut tokens = compile(pattern)?;
    check_work(&tokens, value)?;
    tokens.reverse();
    let cut = matching_prefix(&tokens, value.chars().rev(), extent).unwrap_or(0);
    let kept = value.chars().count() - cut;
    Ok(value.chars().take(kept).collect())
}

/// Replaces what matches; the leftmost first, each as long as possible.
pub(super) fn replace(
    pattern: &str,
    value: &str,
    replacement: &str,
    occurrences: Occurrences,
) -> Result<String, ExpandErrorKind> {
    let tokens = compile(pattern)?;
    check_work(&tokens, value)?;
    let chars: Vec<char> = value.chars().collect();
    let mut out = String::with_capacity(value.len());
    let mut position = 0;
    let mut previous_end = None;
    while let Some((start, end)) = find(&tokens, &chars, position) {
        // An empty match that touches the previous one is not a match of its own.
        let counts = start != end || previous_end != Some(start);
        out.extend(&chars[position..start]);
        if counts {
            super::check_size(out.len() + replacement.len())?;
            out.push_str(replacement);
        }
        position = end;
        previous_end = Some(end);
        if start == end {
            out.extend(chars.get(end));
            position = end + 1;
        }
        if position > chars.len() || (counts && occurrences == Occurrences::First) {
            break;
        }
    }
    out.extend(chars.get(position..).unwrap_or_default());
    Ok(out)
}

/// Returns the leftmost match at or after `from`, the longest of those that begin there.
fn find(tokens: &[Token], chars: &[char], from: usize) -> Option<(usize, usize)> {
    let mut matcher = Matcher::new(tokens);
    let mut best: Option<(usize, usize)> = None;
    for at in from..=chars.len() {
        if best.is_none() {
            matcher.begin(at);
        }
        if let Some(start) = matcher.accepted()
            && best.is_none_or(|(found, _)| start <= found)
        {
            best = Some((start, at));
        }
        if let Some((start, _)) = best {
            // Only a match that began earlier, or a longer one from the same place, can still win.
            match matcher.earliest() {
                Some(earliest) if earliest == start => matcher.keep_only(start),
                Some(earliest) if earliest < start => {}
                _ => break,
            }
        }
        if let Some(&c) = chars.get(at) {
            matcher.step(c);
        }
    }
    best
}

/// Returns how many characters of `text` match, from its beginning.
fn matching_prefix(tokens: &[Token], text: impl Iterator<Item = char>, extent: Extent) -> Option<usize> {
    let mut matcher = Matcher::new(tokens);
    matcher.begin(0);
    let mut end = matcher.accepted().map(|_| 0);
    for (at, c) in text.enumerate() {
        if (end.is_some() && extent == Extent::Shortest) || matcher.earliest().is_none() {
            break;
        }
        matcher.step(c);
        if matcher.accepted().is_some() {
            end = Some(at + 1);
        }
    }
    end
}

fn check_work(tokens: &[Token], value: &str) -> Result<(), ExpandErrorKind> {
    if tokens.len().saturating_mul(value.len()) > MAX_WORK {
        return Err(ExpandErrorKind::PatternTooExpensive);
    }
    Ok(())
}

fn compile(pattern: &str) -> Result<Vec<Token>, ExpandErrorKind> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' => Token::RunBut('\n'),
            '?' => Token::AnyBut('\n'),
            '\\' => match chars.next() {
                // `}` and `/` have to be escaped inside `${}`; the backslash is not part of the pattern.
                Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Token::Literal(escaped),
                other => return Err(invalid_escape(pattern, other)),
            },
            literal => Token::Literal(literal),
        });
    }
    Ok(tokens)
}

fn invalid_escape(pattern: &str, escaped: Option<char>) -> ExpandErrorKind {
    let escaped = escaped.map(String::from).unwrap_or_default();
    ExpandErrorKind::InvalidPattern { pattern: pattern.to_owned(), escaped }
}
