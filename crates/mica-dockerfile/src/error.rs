//! Why a Dockerfile is refused.

use std::fmt::{self, Display};

use crate::ast::Location;
use crate::expand::ExpandError;
use crate::mounts::MountError;
use crate::suggest::DidYouMean;

/// A Dockerfile that cannot be parsed: `dockerfile parse error on line N: <gist>` (P35).
///
/// `Display` escapes control characters, so foreign text cannot command a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong.
    pub kind: ParseErrorKind,
    /// Where; `None` if the file as a whole is at fault.
    pub location: Option<Location>,
}

impl std::error::Error for ParseError {}

impl Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(location) = self.location {
            write!(f, "dockerfile parse error on line {}: ", location.start)?;
        }
        write!(f, "{}", Printable(&self.kind.to_string()))
    }
}

/// Text with its control characters escaped.
struct Printable<'a>(&'a str);

impl Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

/// What is wrong with a Dockerfile. The words are those of the reference (build.md).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the error texts say it")]
pub enum ParseErrorKind {
    #[error("the Dockerfile cannot be empty")]
    Empty,
    #[error("file with no instructions")]
    NoInstructions,
    #[error("dockerfile contains no stages to build")]
    NoStages,
    #[error("no build stage in current context")]
    NoCurrentStage,
    #[error("dockerfile greater than max allowed size of {0}")]
    FileTooLarge(usize),
    #[error("dockerfile line greater than max allowed size of {0}")]
    LineTooLong(usize),
    #[error("instruction is not valid UTF-8")]
    NotUtf8,
    #[error("only one {0} parser directive can be used")]
    DuplicateDirective(&'static str),
    #[error("invalid escape token '{0}' does not match ` or \\")]
    InvalidEscape(String),
    #[error(transparent)]
    CheckOption(#[from] CheckOptionError),
    #[error("unknown instruction: {name}{suggestion}")]
    UnknownInstruction { name: String, suggestion: DidYouMean },
    #[error("expected a single instruction")]
    NotOneInstruction,
    #[error("FROM isn't allowed here")]
    FromNotAllowed,
    #[error("unterminated heredoc")]
    UnterminatedHeredoc,
    #[error("{command} cannot accept a heredoc as a destination")]
    HeredocDestination { command: &'static str },
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    JsonNotStrings,
    #[error("unknown flag: {flag}{suggestion}")]
    UnknownFlag { flag: String, suggestion: DidYouMean },
    #[error("duplicate flag specified: {0}")]
    DuplicateFlag(String),
    #[error("missing a value on flag: {0}")]
    MissingFlagValue(String),
    #[error("expecting boolean value for flag --{flag}, not: {value}")]
    NotBoolean { flag: String, value: String },
    #[error("{0} requires at least one argument")]
    AtLeastOneArgument(&'static str),
    #[error("{0} requires exactly one argument")]
    ExactlyOneArgument(&'static str),
    #[error(
        "{0} requires at least two arguments, but only one was provided. Destination could not be determined"
    )]
    NoDestination(&'static str),
    #[error("{0} must have two arguments")]
    TwoArguments(&'static str),
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    #[error("Syntax error - can't find = in {0:?}. Must be of the form: name=value")]
    MissingEquals(String),
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    #[error("invalid name for build stage: {0:?}, name can't start with a number or contain symbols")]
    InvalidStageName(String),
    #[error("{0} requires the arguments to be in JSON form")]
    JsonRequired(&'static str),
    #[error("VOLUME specified can not be an empty string")]
    BlankVolume,
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global \
         scope as a workaround"
    )]
    VariableInFrom,
    #[error(transparent)]
    Expand(#[from] ExpandError),
    #[error(transparent)]
    Mount(#[from] MountError),
    #[error("invalid network mode {0:?}")]
    InvalidNetwork(String),
    #[error("security {0:?} is not valid")]
    InvalidSecurity(String),
    #[error("device feature is only supported in Dockerfile frontend 1.14.0-labs or later")]
    DeviceFlag,
    #[error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    ChainedOnbuild,
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    ForbiddenTrigger(&'static str),
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthcheckNoneArguments,
    #[error("Unknown type {0:?} in HEALTHCHECK (try CMD)")]
    HealthcheckType(String),
    #[error("Missing command after HEALTHCHECK CMD")]
    HealthcheckNoCommand,
    #[error("Interval {0:?} cannot be less than 1ms")]
    IntervalTooShort(&'static str),
    #[error("--{flag}: {source}")]
    Duration { flag: &'static str, source: crate::duration::DurationError },
    #[error("--retries cannot be negative ({0})")]
    NegativeRetries(i64),
    #[error("--retries: {0:?} is not a number")]
    InvalidRetries(String),
}

impl ParseErrorKind {
    /// The error, with its place.
    pub(crate) fn at(self, location: Location) -> ParseError {
        ParseError { kind: self, location: Some(location) }
    }

    /// Whether an ONBUILD is refused for this error in its trigger; the others show when it fires.
    pub(crate) fn concerns_grammar(&self) -> bool {
        matches!(self, Self::JsonNotStrings | Self::TwoArguments(_) | Self::MissingEquals(_))
    }
}

/// Why check options are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckOptionError {
    /// No such option, or no `=`.
    #[error("invalid check option {0:?}")]
    Unknown(String),
    /// `error=` with something else than a boolean.
    #[error("failed to parse check option {0:?}")]
    NotBoolean(String),
}
