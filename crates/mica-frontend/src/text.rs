//! Fields of instructions once their variables are known: thin names for what `mica_dockerfile` does.

use std::cell::RefCell;

use mica_dockerfile::chmod::Chmod;
use mica_dockerfile::expand::{self, Environment, Expanded};
use mica_dockerfile::{Command, DidYouMean, parse_instruction};
use mica_solve::ModeChange;

use crate::Problem;
use crate::arguments::Variables;

/// The escape character where no file says another one: triggers, changes, heredoc bodies.
pub(crate) const DEFAULT_ESCAPE: char = '\\';

/// One field.
pub(crate) fn word(text: &str, environment: &dyn Environment, escape: char) -> Result<String, Problem> {
    Ok(expand::word(text, environment, escape)?.text)
}

/// Variables that an instruction used and nobody had set, once per word, each with the nearest name that was set.
#[derive(Debug, Default)]
pub(crate) struct Unset(RefCell<Vec<(String, DidYouMean)>>);

impl Unset {
    /// Takes a text, and notes what it lacked.
    pub(crate) fn note(&self, expanded: Expanded, variables: &Variables) -> String {
        let near = |name: &str| {
            let DidYouMean(near) = DidYouMean::among(name, variables.names());
            DidYouMean(near.map(|near| format!("${near}")))
        };
        let unset = expanded.unset.into_iter().map(|name| (near(&name), name));
        self.0.borrow_mut().extend(unset.map(|(near, name)| (name, near)));
        expanded.text
    }

    /// What was noted since the last time.
    pub(crate) fn take(&self) -> Vec<(String, DidYouMean)> {
        self.0.take()
    }
}

/// A command line as titles show it; as written, if it cannot be expanded.
pub(crate) fn shown(text: &str, environment: &dyn Environment, escape: char) -> String {
    expand::shown(text, environment, escape).map_or_else(|_| text.to_owned(), |expanded| expanded.text)
}

/// The body of a heredoc; the reference does not care for the escape directive there.
pub(crate) fn body(text: &str, environment: &dyn Environment) -> Result<Expanded, Problem> {
    Ok(expand::raw_word(text, environment, DEFAULT_ESCAPE)?)
}

/// An instruction that stands alone.
pub(crate) fn instruction(text: &str) -> Result<Command, Problem> {
    parse_instruction(text, DEFAULT_ESCAPE).map_err(|error| Problem::Instruction(error.kind))
}

/// `--chmod`.
pub(crate) fn mode_change(text: &str) -> Result<ModeChange, Problem> {
    Ok(match Chmod::parse(text)? {
        Chmod::Octal(bits) => ModeChange::Octal(bits),
        Chmod::Symbolic(symbolic) => ModeChange::Symbolic(symbolic.as_str().to_owned()),
    })
}

/// `from` of a `RUN --mount` whose variables are not known yet; `from` itself has none (V3).
///
/// Quotes of the CSV are only peeled off: neither stages nor images have commas in their names.
pub(crate) fn mount_source(mount: &str) -> Option<&str> {
    let fields = mount.split(',').map(|field| field.trim_matches('"'));
    let pairs = fields.filter_map(|field| field.split_once('='));
    pairs
        .filter(|(key, value)| key.eq_ignore_ascii_case("from") && !value.is_empty())
        .map(|(_, value)| value)
        .next_back()
}
