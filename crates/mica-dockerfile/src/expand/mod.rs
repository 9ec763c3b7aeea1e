//! Variables, quotes and escapes of one word (build.md 2.2).
//!
//! The text of a field is read once, left to right; what a variable expands to is not read again.
//! Substitutions may nest (`${a:-${b}}`) up to [`MAX_DEPTH`]; the result may not exceed [`MAX_BYTES`],
//! so that `ENV A=$A$A` repeated does not eat the memory.

mod lexer;
mod pattern;
#[cfg(test)]
mod tests;

pub(crate) use lexer::{Escapes, Lexer, Options, Quotes, Unset};

/// Deepest nesting of substitutions.
pub const MAX_DEPTH: usize = 100;

/// Longest result of one expansion.
pub const MAX_BYTES: usize = 10 << 20;

/// Where the values of variables come from.
pub trait Environment {
    /// Returns the value of a variable; `None` if it is unset, which is not the same as empty.
    fn get(&self, name: &str) -> Option<String>;
}

impl<F: Fn(&str) -> Option<String>> Environment for F {
    fn get(&self, name: &str) -> Option<String> {
        self(name)
    }
}

/// The result of [`word`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// Variables that were looked at and found unset, in order, each once (lint rule UndefinedVar).
    pub unset: Vec<String>,
    /// Variables that were looked at and found, in order, each once.
    pub used: Vec<String>,
}

/// Why a word cannot be expanded: `failed to process "<word>": <gist>` (V8).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {word:?}: {kind}")]
pub struct ExpandError {
    /// The word, cut if it is very long.
    pub word: String,
    /// What is wrong with it.
    pub kind: ExpandErrorKind,
}

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the error texts say it")]
pub enum ExpandErrorKind {
    #[error("unexpected end of statement while looking for matching single-quote")]
    UnmatchedSingleQuote,
    #[error("unexpected end of statement while looking for matching double-quote")]
    UnmatchedDoubleQuote,
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    #[error("unsupported modifier ({0}) in substitution")]
    UnsupportedModifier(String),
    #[error("{name}: {message}")]
    Required { name: String, message: String },
    #[error("invalid pattern ({pattern}) in substitution: invalid escape '\\{escaped}'")]
    InvalidPattern { pattern: String, escaped: String },
    #[error("pattern and value too long for a substitution")]
    PatternTooExpensive,
    #[error("substitutions nested deeper than {MAX_DEPTH}")]
    TooDeep,
    #[error("expansion larger than {MAX_BYTES} bytes")]
    TooLarge,
}

/// Expands a field into one string: variables replaced, quotes removed, escapes applied (V4-V9).
///
/// # Errors
/// [`ExpandError`] for unbalanced quotes, malformed or refused substitutions, and results over the limits.
pub fn word(text: &str, environment: &dyn Environment, escape: char) -> Result<Expanded, ExpandError> {
    let options = Options { escape, ..Options::default() };
    Lexer::new(text, environment, options).word()
}

/// Expands a field and splits the result at unquoted blanks, those inside of values included (EXPOSE).
///
/// # Errors
/// As [`word`].
pub fn words(text: &str, environment: &dyn Environment, escape: char) -> Result<Vec<String>, ExpandError> {
    let options = Options { escape, ..Options::default() };
    Lexer::new(text, environment, options).words()
}

/// Expands the body of a heredoc: variables and escapes as in [`word`], quotes are ordinary text (P32).
///
/// The reference uses a backslash here whatever the file's escape character; so should callers.
///
/// # Errors
/// As [`word`].
pub fn raw_word(text: &str, environment: &dyn Environment, escape: char) -> Result<Expanded, ExpandError> {
    let options = Options { escape, quotes: Quotes::Ordinary, ..Options::default() };
    Lexer::new(text, environment, options).word()
}

/// Expands a command line as it is shown to people: quotes stay, and so do names of unset variables (S3).
///
/// # Errors
/// As [`word`].
pub fn shown(text: &str, environment: &dyn Environment, escape: char) -> Result<Expanded, ExpandError> {
    let options = Options { escape, quotes: Quotes::Keep, unset: Unset::Keep, ..Options::default() };
    Lexer::new(text, environment, options).word()
}

/// Refuses results that are too large.
fn check_size(bytes: usize) -> Result<(), ExpandErrorKind> {
    if bytes > MAX_BYTES { Err(ExpandErrorKind::TooLarge) } else { Ok(()) }
}
