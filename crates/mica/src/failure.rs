//! How a command ends when it fails: the text on standard error and the exit code.

use std::io;

use mica_api::{Class, Error};

use crate::format::template::FormatError;

/// The exit code of a command that did what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Status(pub u8);

/// How a command ends.
pub(crate) type Outcome = Result<Status, Failure>;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The engine, or a check before it, said no.
    Engine(Box<Error>),
    /// The engine said no to `run`: 125, or what 126 and 127 mean to docker users.
    Run(Box<Error>),
    /// The command has no such flag yet: 125, as for flags that do not exist.
    Refused(Box<Error>),
    /// A build failed: printed in BuildKit's frame (build.md 1.7).
    Build(Box<Error>),
    /// A flag is wrong: exit 125, as docker does.
    Flag(UsageError),
    /// The number of arguments is wrong, or the command does not exist: exit 1, as docker does.
    Arguments(UsageError),
    /// The template of `inspect` is none: exit 64, as docker does.
    Template(String),
    /// Nobody reads the output any more.
    ReaderGone,
    /// The output cannot be written.
    Output(io::Error),
}

/// A command line that makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsageError {
    /// What is wrong; docker's words.
    pub message: String,
    /// The next step, when one is known.
    pub hint: Option<String>,
    /// `docker images [OPTIONS] [REPOSITORY[:TAG]]`, if a command was found.
    pub usage: Option<String>,
    /// `docker images`.
    pub path: String,
}

impl Failure {
    /// A failure of the class, without further facts.
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Self {
        Error::new(class, message).into()
    }

    /// The exit code.
    pub(crate) fn status(&self) -> Status {
        Status(match self {
            // docker's command line exits 130 when Ctrl-C cancels what it does.
            Self::Engine(error) | Self::Build(error) if error.class == Class::Cancelled => 130,
            Self::Engine(_) | Self::Build(_) | Self::Arguments(_) | Self::Output(_) => 1,
            Self::Run(error) => match error.class {
                Class::CommandNotFound => 127,
                Class::CommandNotInvocable => 126,
                Class::Cancelled => 130,
                _ => 125,
            },
            Self::Flag(_) | Self::Refused(_) => 125,
            Self::Template(_) => 64,
            // What a shell shows for a program that SIGPIPE ended, as it ends docker's.
            Self::ReaderGone => 141,
        })
    }

    /// The failure of an operation that writes to standard output: silence if nobody reads that any more.
    pub(crate) fn of_stream(error: Error) -> Self {
        if crate::output::reader_is_gone() { Self::ReaderGone } else { error.into() }
    }

    /// Whether somebody gave up.
    pub(crate) fn is_cancelled(&self) -> bool {
        match self {
            Self::Engine(error) | Self::Build(error) | Self::Run(error) => error.class == Class::Cancelled,
            _ => false,
        }
    }

    /// What is printed; empty for a reader that went away.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Engine(error) | Self::Run(error) | Self::Refused(error) => error_text(error),
            Self::Build(error) => build_error_text(error),
            Self::Flag(usage) | Self::Arguments(usage) => usage.text(),
            Self::Template(message) => format!("error: {message}\n"),
            Self::ReaderGone => String::new(),
            Self::Output(error) => format!("error: cannot write to standard output\n  why: {error}\n"),
        }
    }
}

impl UsageError {
    fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        if let Some(hint) = &self.hint {
            text.push_str(&format!(" hint: {hint}\n"));
        }
        if let Some(usage) = &self.usage {
            text.push_str(&format!("\nUsage:  {usage}\n"));
        }
        text.push_str(&format!("\nRun '{} --help' for more information\n", self.path));
        text
    }
}

/// The form of house-style.md section 3: what, why, what next.
pub(crate) fn error_text(error: &Error) -> String {
    format!("error: {}\n{}", error.message, details(error))
}

/// The form of build.md 1.7: excerpt, BuildKit's line, then why and what next.
fn build_error_text(error: &Error) -> String {
    let mut text = error.excerpt.clone().unwrap_or_default();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let message = error.message.strip_prefix("failed to solve: ").unwrap_or(&error.message);
    text.push_str(&format!("ERROR: failed to build: failed to solve: {message}\n{}", details(error)));
    text
}

fn details(error: &Error) -> String {
    let line = |label: &str, text: &Option<String>| {
        text.as_ref()
            .map(|text| format!("{label}: {}\n", text.trim_end().replace('\n', "\n       ")))
            .unwrap_or_default()
    };
    line("  why", &error.why) + &line(" hint", &error.hint)
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl From<FormatError> for Failure {
    fn from(error: FormatError) -> Self {
        Self::new(Class::Invalid, error.to_string())
    }
}

/// An I/O failure with what was being done.
pub(crate) fn io_failure(doing: impl Into<String>, error: &io::Error) -> Failure {
    Error::new(Class::of_io(error), doing).why(error.to_string()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_why_and_what_next() {
        let error = Error::new(Class::NotFound, "No such image: x").why("a\nb").hint("`mica images`");
        assert_eq!(error_text(&error), "error: No such image: x\n  why: a\n       b\n hint: `mica images`\n");
    }

    #[test]
    fn a_failed_build_has_buildkits_last_line() {
        let mut error = Error::new(Class::Build, "process \"x\" did not complete successfully: exit code: 3");
        error.excerpt = Some("Dockerfile:2\n--------------------".to_owned());
        assert_eq!(
            build_error_text(&error),
            "Dockerfile:2\n--------------------\nERROR: failed to build: failed to solve: process \"x\" did not \
             complete successfully: exit code: 3\n"
        );
    }

    #[test]
    fn exit_codes_of_run_follow_docker() {
        let code = |class| Failure::Run(Box::new(Error::new(class, "x"))).status().0;
        assert_eq!(code(Class::CommandNotFound), 127);
        assert_eq!(code(Class::CommandNotInvocable), 126);
        assert_eq!(code(Class::NotFound), 125);
    }
}
