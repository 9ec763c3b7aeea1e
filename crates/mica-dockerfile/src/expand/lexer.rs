//! The reader behind [`super::word`]: one pass, recursing only into `${…}` and never deeper than allowed.

use super::pattern::{self, Extent, Occurrences};
use super::{Environment, ExpandError, ExpandErrorKind, Expanded, MAX_DEPTH, check_size};

/// Words in error messages are cut to this many characters.
const MAX_SHOWN_CHARS: usize = 300;

/// What to do with quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quotes {
    /// They group, and disappear.
    Remove,
    /// They group, and stay.
    Keep,
    /// They mean nothing.
    Ordinary,
}

/// What to do with the escape character outside of quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escapes {
    /// It protects the next character, and disappears.
    Remove,
    /// It protects the next character, and stays.
    Keep,
}

/// What to do with `$name` of an unset variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unset {
    /// It is empty.
    Empty,
    /// It stays as written.
    Keep,
}

/// How a word is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) escape: char,
    pub(crate) quotes: Quotes,
    pub(crate) escapes: Escapes,
    pub(crate) unset: Unset,
}

impl Default for Options {
    fn default() -> Self {
        Self { escape: '\\', quotes: Quotes::Remove, escapes: Escapes::Remove, unset: Unset::Empty }
    }
}

/// A word being read.
pub(crate) struct Lexer<'a> {
    source: &'a str,
    rest: &'a str,
    environment: &'a dyn Environment,
    options: Options,
    depth: usize,
    seen: Expanded,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(source: &'a str, environment: &'a dyn Environment, options: Options) -> Self {
        Self { source, rest: source, environment, options, depth: 0, seen: Expanded::default() }
    }

    /// Reads everything as one word.
    pub(crate) fn word(mut self) -> Result<Expanded, ExpandError> {
        let mut out = Output::default();
        match self.read(None, self.options.escapes, &mut out) {
            Ok(()) => Ok(Expanded { text: out.text, ..self.seen }),
            Err(kind) => Err(self.error(kind)),
        }
    }

    /// Reads everything, split at blanks.
    pub(crate) fn words(mut self) -> Result<Vec<String>, ExpandError> {
        let mut out = Output { splitter: Some(Splitter::default()), ..Output::default() };
        match self.read(None, self.options.escapes, &mut out) {
            Ok(()) => Ok(out.splitter.map(Splitter::finish).unwrap_or_default()),
            Err(kind) => Err(self.error(kind)),
        }
    }

    fn error(&self, kind: ExpandErrorKind) -> ExpandError {
        let mut word: String = self.source.chars().take(MAX_SHOWN_CHARS).collect();
        if word.len() < self.source.len() {
            word.push('…');
        }
        ExpandError { word, kind }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    /// Reads up to and including an unquoted `stop`, or to the end of the text.
    fn read(
        &mut self,
        stop: Option<char>,
        escapes: Escapes,
        out: &mut Output,
    ) -> Result<(), ExpandErrorKind> {
        while let Some(c) = self.peek() {
            if stop == Some(c) {
                self.next();
                return Ok(());
            }
            let quotes = self.options.quotes != Quotes::Ordinary;
            match c {
                '$' => {
                    let value = self.dollar()?;
                    check_size(out.text.len() + value.len())?;
                    out.push_value(&value);
                }
                '<' => out.push_protected(self.possible_heredoc()),
                '\'' if quotes => out.push_protected(&self.single_quoted()?),
                '"' if quotes => out.push_protected(&self.double_quoted(escapes)?),
                _ if c == self.options.escape => self.escape(escapes, out),
                _ => {
                    self.next();
                    out.push_plain(c);
                }
            }
        }
        match stop {
            None => Ok(()),
            // Always replaced by the caller: what is missing depends on where we are.
            Some(_) => Err(ExpandErrorKind::MissingBrace),
        }
    }

    /// Reads a substitution's part, which ends with `stop`; `missing` if the text ends first.
    fn part(
        &mut self,
        stop: char,
        escapes: Escapes,
        missing: ExpandErrorKind,
    ) -> Result<String, ExpandErrorKind> {
        if self.depth == MAX_DEPTH {
            return Err(ExpandErrorKind::TooDeep);
        }
        self.depth += 1;
        let mut out = Output::default();
        let result = self.read(Some(stop), escapes, &mut out);
        self.depth -= 1;
        match result {
            Ok(()) => Ok(out.text),
            Err(limit @ (ExpandErrorKind::TooDeep | ExpandErrorKind::TooLarge)) => Err(limit),
            Err(_) if self.rest.is_empty() => Err(missing),
            Err(other) => Err(other),
        }
    }

    fn escape(&mut self, escapes: Escapes, out: &mut Output) {
        let escape = self.options.escape;
        self.next();
        if escapes == Escapes::Keep {
            out.push_protected_char(escape);
        }
        if let Some(protected) = self.next() {
            out.push_protected_char(protected);
        }
    }

    /// Reads `<`, or `<<` with the blanks behind it: those do not end the word (P26).
    fn possible_heredoc(&mut self) -> &'a str {
        let start = self.rest;
        self.next();
        if self.peek() == Some('<') {
            self.next();
            self.rest = self.rest.trim_start_matches(['\t', '\r', ' ']);
        }
        &start[..start.len() - self.rest.len()]
    }

    fn single_quoted(&mut self) -> Result<String, ExpandErrorKind> {
        self.next();
        let Some(end) = self.rest.find('\'') else {
            self.rest = "";
            return Err(ExpandErrorKind::UnmatchedSingleQuote);
        };
        let inner = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Ok(match self.options.quotes {
            Quotes::Keep => format!("'{inner}'"),
            Quotes::Remove | Quotes::Ordinary => inner.to_owned(),
        })
    }

    fn double_quoted(&mut self, escapes: Escapes) -> Result<String, ExpandErrorKind> {
        let mut out = String::new();
        let keep = self.options.quotes == Quotes::Keep;
        self.next();
        out.extend(keep.then_some('"'));
        loop {
            match self.peek() {
                None => return Err(ExpandErrorKind::UnmatchedDoubleQuote),
                Some('"') => {
                    self.next();
                    out.extend(keep.then_some('"'));
                    return Ok(out);
                }
                Some('$') => {
                    let value = self.dollar()?;
                    check_size(out.len() + value.len())?;
                    out.push_str(&value);
                }
                Some(c) if c == self.options.escape => {
                    self.next();
                    self.quoted_escape(escapes, &mut out);
                }
                Some(c) => {
                    self.next();
                    out.push(c);
                }
            }
        }
    }

    /// Inside double quotes the escape character protects only `"`, `$` and itself; else it stays.
    fn quoted_escape(&mut self, escapes: Escapes, out: &mut String) {
        let escape = self.options.escape;
        if escapes == Escapes::Keep {
            out.push(escape);
        }
        match self.peek() {
            None => {}
            Some(protected) if protected == '"' || protected == '$' || protected == escape => {
                self.next();
                out.push(protected);
            }
            Some(_) => out.push(escape),
        }
    }

    /// Reads `$name` or `${…}` and returns what it stands for.
    fn dollar(&mut self) -> Result<String, ExpandErrorKind> {
        self.next();
        if self.peek() == Some('{') {
            self.next();
            return self.braced();
        }
        let name = self.name();
        if name.is_empty() {
            return Ok("$".to_owned());
        }
        Ok(match self.lookup(name) {
            Some(value) => value,
            None if self.options.unset == Unset::Keep => format!("${name}"),
            None => String::new(),
        })
    }

    fn braced(&mut self) -> Result<String, ExpandErrorKind> {
        match self.peek() {
            None => return Err(ExpandErrorKind::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandErrorKind::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.next() {
            None => Err(ExpandErrorKind::MissingBrace),
            Some('}') => Ok(match self.lookup(name) {
                Some(value) => value,
                None if self.options.unset == Unset::Keep => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some(':') => {
                let operator = self.next().ok_or(ExpandErrorKind::MissingBrace)?;
                self.conditional(name, operator, true)
            }
            Some(operator @ ('+' | '-' | '?')) => self.conditional(name, operator, false),
            Some(operator @ ('#' | '%')) => self.trimmed(name, operator),
            Some('/') => self.replaced(name),
            Some(other) => Err(ExpandErrorKind::UnsupportedModifier(other.to_string())),
        }
    }

    /// `${name-word}`, `${name+word}`, `${name?word}`; with a colon, empty counts as unset.
    fn conditional(
        &mut self,
        name: &str,
        operator: char,
        empty_is_unset: bool,
    ) -> Result<String, ExpandErrorKind> {
        let shown = || if empty_is_unset { format!(":{operator}") } else { operator.to_string() };
        if !matches!(operator, '-' | '+' | '?') {
            return Err(ExpandErrorKind::UnsupportedModifier(shown()));
        }
        let word = self.part('}', Escapes::Remove, ExpandErrorKind::MissingBrace)?;
        let found = self.lookup(name);
        if found.is_none() && self.options.unset == Unset::Keep {
            return Ok(format!("${{{name}{}{word}}}", shown()));
        }
        let unset = found.is_none();
        let usable = found.filter(|value| !(empty_is_unset && value.is_empty()));
        match (operator, usable) {
            ('+', Some(_)) | ('-', None) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, Some(value)) => Ok(value),
            (_, None) => {
                let default = if unset { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { default.to_owned() } else { word };
                Err(ExpandErrorKind::Required { name: name.to_owned(), message })
            }
        }
    }

    /// `${name#pattern}`, `##`, `%`, `%%`.
    fn trimmed(&mut self, name: &str, operator: char) -> Result<String, ExpandErrorKind> {
        let word = self.part('}', Escapes::Keep, ExpandErrorKind::MissingBrace)?;
        let value = match self.lookup(name) {
            None if self.options.unset == Unset::Keep => return Ok(format!("${{{name}{operator}{word}}}")),
            found => found.unwrap_or_default(),
        };
        // The second `#` is found after expansion, as the reference does.
        let (pattern, extent) = match word.strip_prefix(operator) {
            Some(pattern) => (pattern, Extent::Longest),
            None => (word.as_str(), Extent::Shortest),
        };
        match operator {
            '#' => pattern::trim_prefix(pattern, &value, extent),
            _ => pattern::trim_suffix(pattern, &value, extent),
        }
    }

    /// `${name/pattern/replacement}` and `${name//pattern/replacement}`.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandErrorKind> {
        let mut occurrences = Occurrences::First;
        if self.peek() == Some('/') {
            self.next();
            occurrences = Occurrences::All;
        }
        let pattern = self.part('/', Escapes::Keep, ExpandErrorKind::MissingSlash)?;
        let replacement = self.part('}', Escapes::Keep, ExpandErrorKind::MissingBrace)?;
        let value = match self.lookup(name) {
            None if self.options.unset == Unset::Keep => {
                return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
            }
            found => found.unwrap_or_default(),
        };
        pattern::replace(&pattern, &value, &replacement, occurrences)
    }

    /// Reads a name: letters, digits and `_`; or digits only; or one special character; or nothing.
    fn name(&mut self) -> &'a str {
        let rest = self.rest;
        let length = match rest.chars().next() {
            Some(c) if c.is_numeric() => rest.find(|c: char| !c.is_numeric()).unwrap_or(rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()),
        };
        self.rest = &rest[length..];
        &rest[..length]
    }

    fn lookup(&mut self, name: &str) -> Option<String> {
        let value = self.environment.get(name);
        let list = if value.is_some() { &mut self.seen.used } else { &mut self.seen.unset };
        if !list.iter().any(|known| known == name) {
            list.push(name.to_owned());
        }
        value
    }
}

/// What has been read so far.
#[derive(Default)]
struct Output {
    text: String,
    splitter: Option<Splitter>,
}

impl Output {
    /// A character that stands for itself: a blank ends a word.
    fn push_plain(&mut self, c: char) {
        self.text.push(c);
        if let Some(splitter) = &mut self.splitter {
            splitter.push(c);
        }
    }

    /// The value of a variable: blanks in it end words, too.
    fn push_value(&mut self, value: &str) {
        self.text.push_str(value);
        if let Some(splitter) = &mut self.splitter {
            value.chars().for_each(|c| splitter.push(c));
        }
    }

    /// A character that never ends a word.
    fn push_protected_char(&mut self, c: char) {
        self.push_protected(c.encode_utf8(&mut [0; 4]));
    }

    /// Text that never ends a word.
    fn push_protected(&mut self, text: &str) {
        self.text.push_str(text);
        if let Some(splitter) = &mut self.splitter {
            splitter.current.push_str(text);
        }
    }
}

/// Words found so far. Empty words are dropped, quoted or not, as the reference does.
#[derive(Default)]
struct Splitter {
    words: Vec<String>,
    current: String,
}

impl Splitter {
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.current.push(c);
        } else if !self.current.is_empty() {
            self.words.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.push(' ');
        self.words
    }
}
