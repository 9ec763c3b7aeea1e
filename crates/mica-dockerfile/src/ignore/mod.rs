//! .dockerignore files and `--exclude` (build.md section 4, C18).
//!
//! The meaning is that of moby's patternmatcher: patterns are read in order, a pattern that matches a
//! directory matches everything below it, and the last pattern that matches decides.

#[cfg(test)]
mod tests;

use crate::glob::{Class, Matcher, Token};

/// An ignore file larger than this is refused.
pub const MAX_BYTES: usize = 10 << 20;

/// Patterns in order. The empty list excludes nothing.
#[derive(Debug, Clone, Default)]
pub struct Patterns(Vec<Pattern>);

#[derive(Debug, Clone)]
struct Pattern {
    negated: bool,
    tokens: Vec<Token>,
    /// What every match begins with: a cheap way to say no.
    literal_prefix: String,
}

/// Why patterns are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IgnoreError {
    /// A `!` with nothing to include again.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneNegation,
    /// Brackets or escapes that do not end.
    #[error("syntax error in pattern")]
    Syntax,
    /// The file is too large.
    #[error("ignore file greater than max allowed size of {MAX_BYTES}")]
    TooLarge,
}

impl Patterns {
    /// Parses an ignore file (D2). Bytes that are not UTF-8 match nothing that has a name in UTF-8.
    ///
    /// # Errors
    /// [`IgnoreError`] for the first malformed pattern.
    pub fn parse(bytes: &[u8]) -> Result<Self, IgnoreError> {
        if bytes.len() > MAX_BYTES {
            return Err(IgnoreError::TooLarge);
        }
        let text = String::from_utf8_lossy(crate::source::without_bom(bytes));
        let lines = text.split('\n').filter(|line| !line.starts_with('#')).map(str::trim);
        let lines: Vec<String> = lines.filter(|line| !line.is_empty()).map(from_file).collect();
        Self::from_lines(&lines)
    }

    /// Takes patterns that come one by one (`--exclude`): no comments, and a leading slash is not removed.
    ///
    /// # Errors
    /// [`IgnoreError`] for the first malformed pattern.
    pub fn from_lines(lines: &[String]) -> Result<Self, IgnoreError> {
        let mut patterns = Vec::new();
        for line in lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()) {
            let line = clean(line);
            let (negated, text) = match line.strip_prefix('!') {
                Some("") => return Err(IgnoreError::LoneNegation),
                Some(text) => (true, text),
                None => (false, line.as_str()),
            };
            patterns.push(Pattern::compile(negated, text)?);
        }
        Ok(Self(patterns))
    }

    /// Whether nothing is ever excluded.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is a `!` pattern.
    pub fn has_negations(&self) -> bool {
        self.0.iter().any(|pattern| pattern.negated)
    }

    /// Whether a path is excluded: slashes, relative to the root, clean (D4).
    pub fn matches(&self, path: &str) -> bool {
        self.0.iter().fold(false, |excluded, pattern| {
            // Only a pattern that would change the answer has to be asked.
            if pattern.negated == excluded && pattern.matches_or_contains(path) {
                !excluded
            } else {
                excluded
            }
        })
    }

    /// Whether a `!` pattern could match something below a directory: if so it must be walked although it
    /// is excluded.
    pub fn could_reinclude_below(&self, directory: &str) -> bool {
        self.0.iter().any(|pattern| pattern.negated && pattern.could_match_below(directory))
    }
}

impl Pattern {
    fn compile(negated: bool, text: &str) -> Result<Self, IgnoreError> {
        let tokens = compile(text)?;
        let literal_prefix = tokens.iter().map_while(|token| match token {
            Token::Literal(c) => Some(*c),
            _ => None,
        });
        Ok(Self { negated, literal_prefix: literal_prefix.collect(), tokens })
    }

    /// Whether the path or one of its parent directories matches.
    fn matches_or_contains(&self, path: &str) -> bool {
        if !path.starts_with(&self.literal_prefix) {
            return false;
        }
        let mut matcher = Matcher::new(&self.tokens);
        matcher.begin(0);
        for c in path.chars() {
            if c == '/' && matcher.accepted().is_some() {
                return true;
            }
            matcher.step(c);
            if matcher.earliest().is_none() {
                return false;
            }
        }
        matcher.accepted().is_some()
    }

    /// Whether some path that begins with `directory/` matches.
    fn could_match_below(&self, directory: &str) -> bool {
        let mut matcher = Matcher::new(&self.tokens);
        matcher.begin(0);
        if !directory.is_empty() {
            directory.chars().for_each(|c| matcher.step(c));
            matcher.step('/');
        }
        matcher.earliest().is_some()
    }
}

/// Brings a line of a file into the form of [`Patterns::from_lines`]: clean, no leading slash.
fn from_file(line: &str) -> String {
    let (mark, text) = match line.strip_prefix('!') {
        Some(text) => ("!", text.trim()),
        None => ("", line),
    };
    if text.is_empty() {
        return mark.to_owned();
    }
    let cleaned = clean(text);
    let relative = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&cleaned);
    format!("{mark}{relative}")
}

fn compile(text: &str) -> Result<Vec<Token>, IgnoreError> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    let mut at_start = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                let has_slash = chars.next_if_eq(&'/').is_some();
                let is_last = chars.peek().is_none();
                // `**x` with nothing special after it matches any path that ends in x; elsewhere `**` takes
                // whole components.
                let any_suffix = at_start && !has_slash && chars.clone().all(|c| !"*?[]\\".contains(c));
                if is_last || any_suffix {
                    tokens.push(Token::Run);
                } else {
                    tokens.extend([Token::Optional, Token::ThroughSlash]);
                }
            }
            '*' => tokens.push(Token::RunBut('/')),
            '?' => tokens.push(Token::AnyBut('/')),
            '\\' => tokens.push(Token::Literal(chars.next().ok_or(IgnoreError::Syntax)?)),
            '[' => tokens.push(Token::Class(class(&mut chars)?)),
            literal => tokens.push(Token::Literal(literal)),
        }
        at_start = false;
    }
    Ok(tokens)
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

/// Reads a character class after its `[`: one range at least.
fn class(chars: &mut Chars<'_>) -> Result<Class, IgnoreError> {
    let negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || chars.next_if_eq(&']').is_none() {
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        if high < low {
            return Err(IgnoreError::Syntax);
        }
        ranges.push((low, high));
    }
    Ok(Class { negated, ranges })
}

/// Reads one end of a range: `-`, `]` and the end of the pattern are errors unless escaped.
fn class_char(chars: &mut Chars<'_>) -> Result<char, IgnoreError> {
    match chars.next() {
        Some('\\') => chars.next().ok_or(IgnoreError::Syntax),
        Some('-' | ']') | None => Err(IgnoreError::Syntax),
        Some(c) => Ok(c),
    }
}

/// Removes `.`, `..` and empty components as far as possible; `.` if nothing is left (Go's `path.Clean`).
pub(crate) fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut components: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => match components.last() {
                Some(&last) if last != ".." => {
                    components.pop();
                }
                _ if is_absolute => {}
                _ => components.push(".."),
            },
            name => components.push(name),
        }
    }
    match (is_absolute, components.is_empty()) {
        (true, _) => format!("/{}", components.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => components.join("/"),
    }
}
