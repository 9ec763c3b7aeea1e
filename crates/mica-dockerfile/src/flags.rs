//! The flags of one instruction (P17-P19).

use crate::error::ParseErrorKind;
use crate::suggest::DidYouMean;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing, `true` or `false`.
    Boolean,
    /// A value.
    Text,
    /// A value; may be repeated.
    List,
}

/// A flag that an instruction knows, without its dashes.
pub(crate) type Known = (&'static str, Takes);

/// Flags as given; each name is one of those known.
pub(crate) struct Flags(Vec<(&'static str, String)>);

impl Flags {
    /// Checks the flags of an instruction.
    pub(crate) fn parse(words: &[String], known: &[Known]) -> Result<Self, ParseErrorKind> {
        let mut flags = Vec::new();
        for word in words {
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (word.as_str(), None),
            };
            let name = flag.strip_prefix("--").unwrap_or(flag);
            let Some(&(name, takes)) = known.iter().find(|(known, _)| *known == name) else {
                let suggestion = DidYouMean::among(name, known.iter().map(|(known, _)| *known));
                return Err(ParseErrorKind::UnknownFlag { flag: flag.to_owned(), suggestion });
            };
            if takes != Takes::List && flags.iter().any(|(given, _)| *given == name) {
                return Err(ParseErrorKind::DuplicateFlag(flag.to_owned()));
            }
            flags.push((name, checked_value(flag, takes, value)?));
        }
        Ok(Self(flags))
    }

    /// Returns the value of a text flag, if it was given.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, value)| value.clone())
    }

    /// Returns the value of a text flag, if it was given and is not empty.
    pub(crate) fn non_empty(&self, name: &str) -> Option<String> {
        self.text(name).filter(|value| !value.is_empty())
    }

    /// Returns the value of a boolean flag, if it was given.
    pub(crate) fn boolean(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value == "true")
    }

    /// Returns all values of a flag, in order.
    pub(crate) fn list(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(given, _)| *given == name).map(|(_, value)| value.clone()).collect()
    }
}

/// Returns the value of a flag, booleans as `true` or `false`.
fn checked_value(flag: &str, takes: Takes, value: Option<&str>) -> Result<String, ParseErrorKind> {
    let missing = || ParseErrorKind::MissingFlagValue(flag.to_owned());
    if takes != Takes::Boolean {
        return value.map(str::to_owned).ok_or_else(missing);
    }
    match value.map(str::to_lowercase).as_deref() {
        None => Ok("true".to_owned()),
        Some("") => Err(missing()),
        Some(boolean @ ("true" | "false")) => Ok(boolean.to_owned()),
        // The reference's words have the name without dashes; P19.
        Some(_) => Err(ParseErrorKind::NotBoolean {
            flag: flag.strip_prefix("--").unwrap_or(flag).to_owned(),
            value: value.unwrap_or_default().to_owned(),
        }),
    }
}
