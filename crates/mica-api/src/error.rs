//! Errors as users meet them: what failed, why, and what to do next.

use std::fmt;

/// What kind of failure it is; decides exit codes and HTTP statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Class {
    /// The request makes no sense.
    Invalid,
    /// The thing named is not there.
    NotFound,
    /// The thing is in use, or its name is taken.
    Conflict,
    /// Bytes are not what they should be.
    Corrupt,
    /// The system refused: permissions, missing features.
    Denied,
    /// No space, no memory, no descriptors.
    Exhausted,
    /// The caller gave up.
    Cancelled,
    /// Something is not there yet.
    Unsupported,
    /// A build step, or the input of the build, failed.
    Build,
    /// A program could not be started: exit 127.
    CommandNotFound,
    /// A program could not be invoked: exit 126.
    CommandNotInvocable,
    /// Anything else of the system.
    Internal,
}

/// What a typed error of any crate says about itself beyond its text.
pub trait Fault: std::error::Error {
    /// Its kind.
    fn class(&self) -> Class;

    /// The next step, only when one is known.
    fn advice(&self) -> Option<String> {
        None
    }
}

/// The result of an engine's operation.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure, ready to be shown.
#[derive(Debug, Clone)]
pub struct Error {
    /// Its kind.
    pub class: Class,
    /// What failed, and on which object. Where docker has a known text, this is its gist.
    pub message: String,
    /// The cause, with the facts.
    pub why: Option<String>,
    /// The next step.
    pub hint: Option<String>,
    /// Failed builds: what is printed before the `ERROR:` line (log tail, Dockerfile excerpt).
    pub excerpt: Option<String>,
}

impl Error {
    /// A failure without further facts.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), why: None, hint: None, excerpt: None }
    }

    /// A typed error: its text is the message, its sources are the `why`.
    pub fn from_fault(fault: &dyn Fault) -> Self {
        let mut error = Self::new(fault.class(), fault.to_string());
        error.why = causes(fault.source());
        error.hint = fault.advice();
        error
    }

    /// Adds the cause.
    #[must_use]
    pub fn why(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Adds the next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Puts what was being done in front: `cannot save x: …` with the old message as `why`.
    #[must_use]
    pub fn context(mut self, doing: impl Into<String>) -> Self {
        let old = std::mem::replace(&mut self.message, doing.into());
        self.why = Some(match self.why {
            Some(why) => format!("{old}: {why}"),
            None => old,
        });
        self
    }
}

/// The chain of causes as one line.
fn causes(mut source: Option<&(dyn std::error::Error + 'static)>) -> Option<String> {
    let mut text = String::new();
    while let Some(cause) = source {
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    (!text.is_empty()).then_some(text)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.why {
            Some(why) => write!(f, ": {why}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl<F: Fault> From<F> for Error {
    fn from(fault: F) -> Self {
        Self::from_fault(&fault)
    }
}

impl Class {
    /// The class of a failed system call.
    pub fn of_io(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Self::Denied,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::OutOfMemory => Self::Exhausted,
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => Self::Corrupt,
            _ => Self::Internal,
        }
    }
}
