//! Splitting an instruction into keyword, flags and arguments (P16, P17, P20-P23).

use crate::error::ParseErrorKind;

/// What separates keyword and arguments.
pub(crate) const BLANKS: [char; 5] = ['\t', '\x0b', '\x0c', '\r', ' '];

/// Splits off the keyword; the rest has no blanks at its ends.
pub(crate) fn split_keyword(line: &str) -> (&str, &str) {
    let line = line.trim();
    match line.find(BLANKS) {
        Some(at) => (&line[..at], line[at..].trim()),
        None => (line, ""),
    }
}

/// Splits off the flags, quotes and escapes removed; a bare `--` ends them and is dropped (P17).
pub(crate) fn split_flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (flag, after) = flag_word(rest, escape);
        rest = after.trim_start();
        if flag == "--" {
            break;
        }
        flags.push(flag);
    }
    (flags, rest.trim())
}

/// Reads one flag up to an unquoted blank.
fn flag_word(text: &str, escape: char) -> (String, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (word, &text[at..]),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ if c == escape => word.extend(chars.next().map(|(_, protected)| protected)),
            _ => word.push(c),
        }
    }
    (word, "")
}

/// Splits at blanks; quotes mean nothing (P21).
pub(crate) fn split_blanks(text: &str) -> Vec<String> {
    text.split(BLANKS).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Splits ENV, LABEL and ARG into words. Quotes and escapes protect blanks and stay in the word (P22).
pub(crate) fn split_quoted(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == escape && quote != Some('\'') {
            // An escape at the very end protects nothing and is dropped.
            if let Some(protected) = chars.next() {
                word.push(c);
                word.push(protected);
            }
            continue;
        }
        match quote {
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Reads a JSON array of strings; `None` if the text is not a JSON array (P20).
pub(crate) fn json_strings(text: &str) -> Result<Option<Vec<String>>, ParseErrorKind> {
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(string) => Ok(string),
        _ => Err(ParseErrorKind::JsonNotStrings),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

/// Reads a JSON array of strings, or else words separated by blanks.
pub(crate) fn json_or_words(text: &str) -> Result<Vec<String>, ParseErrorKind> {
    Ok(json_strings(text)?.unwrap_or_else(|| split_blanks(text)))
}
