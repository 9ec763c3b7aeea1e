//! Parser directives: `# syntax=`, `# escape=`, `# check=` (P6-P11).

use crate::ast::{CheckOptions, Directives, Location, Origin, RuleSet};
use crate::error::{CheckOptionError, ParseError, ParseErrorKind};
use crate::source::without_bom;

/// The directives there are.
const NAMES: [&str; 3] = ["syntax", "escape", "check"];

/// The unbroken run of directives at the top of a file.
pub(crate) struct Zone {
    open: bool,
    seen: Vec<&'static str>,
    prefix: &'static str,
}

impl Zone {
    /// The zone at the top of a file; `prefix` begins a comment.
    pub(crate) fn new(prefix: &'static str) -> Self {
        Self { open: true, seen: Vec::new(), prefix }
    }

    /// No zone: for text in which directives mean nothing.
    pub(crate) fn closed() -> Self {
        Self { open: false, seen: Vec::new(), prefix: "#" }
    }

    /// Returns name and value if the line, left-trimmed, is a directive. Any other line ends the zone.
    pub(crate) fn read<'a>(
        &mut self,
        line: &'a str,
    ) -> Result<Option<(&'static str, &'a str)>, ParseErrorKind> {
        if !self.open {
            return Ok(None);
        }
        let Some((name, value)) = line.strip_prefix(self.prefix).and_then(directive) else {
            self.open = false;
            return Ok(None);
        };
        if self.seen.contains(&name) {
            return Err(ParseErrorKind::DuplicateDirective(name));
        }
        self.seen.push(name);
        Ok(Some((name, value)))
    }
}

/// Splits ` key = value ` of a known key.
fn directive(text: &str) -> Option<(&'static str, &str)> {
    let (key, value) = text.split_once('=')?;
    let key = key.trim();
    let value = value.trim();
    let name = NAMES.into_iter().find(|name| name.eq_ignore_ascii_case(key))?;
    (!value.is_empty()).then_some((name, value))
}

/// Returns the first word of a value.
fn first_word(value: &str) -> &str {
    value.split(' ').next().unwrap_or(value)
}

/// Reads the value of `escape` (P9).
pub(crate) fn escape(value: &str) -> Result<char, ParseErrorKind> {
    match value {
        "\\" => Ok('\\'),
        "`" => Ok('`'),
        other => Err(ParseErrorKind::InvalidEscape(other.to_owned())),
    }
}

/// Reads the directives other than `escape`.
pub(crate) fn directives(text: &str) -> Result<Directives, ParseError> {
    let check = match find("check", "#", text) {
        Some((value, line)) => Some(
            parse_check_options(first_word(value))
                .map_err(|error| ParseErrorKind::from(error).at(Location { start: line, end: line }))?,
        ),
        None => None,
    };
    Ok(Directives { syntax: detect_syntax(text.as_bytes()), check })
}

/// Returns the frontend image that a file asks for, in any of the spellings (P10).
///
/// A file in one of the exotic ones (`// syntax=`, JSON) need not be a Dockerfile at all: look here first.
pub fn detect_syntax(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(without_bom(bytes)).ok()?;
    if let Some((value, _)) = find("syntax", "#", text).or_else(|| find("syntax", "//", text)) {
        return Some(first_word(value).to_owned());
    }
    let json: serde_json::Value = serde_json::from_str(without_interpreter(text)).ok()?;
    json.get("syntax")?.as_str().map(str::to_owned)
}

/// Returns the value of a directive and its line; a first line `#!…` does not count as one.
fn find<'a>(name: &str, prefix: &'static str, text: &'a str) -> Option<(&'a str, u32)> {
    let body = without_interpreter(text);
    let first = if body.len() < text.len() { 2 } else { 1 };
    let mut zone = Zone::new(prefix);
    for (number, line) in (first..).zip(body.lines()) {
        match zone.read(line.trim_start()) {
            Ok(Some((found, value))) if found == name => return Some((value, number)),
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => return None,
        }
    }
    None
}

/// Drops a first line that names an interpreter.
fn without_interpreter(text: &str) -> &str {
    if !text.starts_with("#!") {
        return text;
    }
    text.split_once('\n').map_or("", |(_, rest)| rest)
}

/// Parses `skip=A,B;error=true;experimental=all` (P11).
///
/// # Errors
/// [`CheckOptionError`] for an unknown option and for `error` with something else than a boolean.
pub fn parse_check_options(text: &str) -> Result<CheckOptions, CheckOptionError> {
    let mut options = CheckOptions::default();
    if text.trim().is_empty() {
        return Ok(options);
    }
    for part in text.trim().split(';') {
        let (key, value) = part.split_once('=').ok_or_else(|| CheckOptionError::Unknown(part.to_owned()))?;
        let value = value.trim();
        match key.trim() {
            "skip" => options.skip = rule_set(value),
            "experimental" => options.experimental = rule_set(value),
            "error" => {
                let parsed = go_bool(value).ok_or_else(|| CheckOptionError::NotBoolean(part.to_owned()))?;
                options.error = Some(parsed);
            }
            other => return Err(CheckOptionError::Unknown(other.to_owned())),
        }
    }
    Ok(options)
}

fn rule_set(value: &str) -> RuleSet {
    match value {
        "all" => RuleSet::All,
        list => RuleSet::Named(list.split(',').map(|rule| rule.trim().to_owned()).collect()),
    }
}

/// Reads a boolean in the spellings that Go's `strconv.ParseBool` knows.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl Origin {
    /// Returns the options of a comment `# check=…` directly above; malformed ones do not count (P11).
    pub fn check_options(&self) -> Option<CheckOptions> {
        let value = self.comments.iter().find_map(|comment| match directive(comment)? {
            ("check", value) => Some(value),
            _ => None,
        })?;
        parse_check_options(first_word(value)).ok()
    }

    /// Returns the text of a comment `# <name> text` directly above, which describes `name`.
    pub fn description_of(&self, name: &str) -> Option<&str> {
        self.comments
            .iter()
            .find_map(|comment| comment.strip_prefix(name)?.strip_prefix(' '))
            .filter(|_| !name.is_empty())
    }
}

impl CheckOptions {
    /// Returns these options with those of `over` put on top: what `over` leaves open stays (P11).
    pub fn merged_with(self, over: CheckOptions) -> Self {
        Self {
            skip: self.skip.merged_with(over.skip),
            error: over.error.or(self.error),
            experimental: self.experimental.merged_with(over.experimental),
        }
    }
}

impl RuleSet {
    /// Whether a rule, whatever its case, is among these.
    pub fn contains(&self, rule: &str) -> bool {
        match self {
            Self::Unset => false,
            Self::All => true,
            Self::Named(names) => names.iter().any(|name| name.eq_ignore_ascii_case(rule)),
        }
    }

    fn merged_with(self, over: Self) -> Self {
        match (self, over) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (base, Self::Unset) => base,
            (Self::Unset, over) => over,
            (Self::Named(mut names), Self::Named(more)) => {
                names.extend(more);
                Self::Named(names)
            }
        }
    }
}
