//! Why a Dockerfile cannot be converted. The texts are the reference's (build.md), shown after `failed to solve: `.

use std::error::Error;
use std::fmt::{self, Display, Write};

use mica_dockerfile::chmod::ChmodError;
use mica_dockerfile::expand::ExpandError;
use mica_dockerfile::mounts::MountError;
use mica_dockerfile::ports::PortError;
use mica_dockerfile::{
    CheckOptionError, DidYouMean, InvalidSignal, Location, ParseError, ParseErrorKind, Warning,
};
use mica_solve::RemoteError;

use crate::ResolveError;

/// A problem and the instruction that has it.
///
/// `Display` escapes control characters, so foreign text cannot command a terminal.
#[derive(Debug)]
pub struct ConvertError {
    /// What is wrong.
    pub problem: Box<Problem>,
    /// The lines to show (P35); `None` if no line is to blame.
    pub location: Option<Location>,
    /// What was found before the conversion stopped (L4): most likely it is the reason.
    pub warnings: Vec<Warning>,
}

impl Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.problem.to_string().chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                f.write_char(character)?;
            }
        }
        Ok(())
    }
}

impl Error for ConvertError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.problem.source()
    }
}

/// What is wrong with a Dockerfile or with what it refers to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Not a Dockerfile.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Section 2.2.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// M1, M2.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// I4.
    #[error(transparent)]
    Port(#[from] PortError),
    /// I7.
    #[error(transparent)]
    Signal(#[from] InvalidSignal),
    /// C14.
    #[error(transparent)]
    Chmod(#[from] ChmodError),
    /// `# syntax=` names a frontend that is not ours (P10).
    #[error("custom frontends are not supported: {0}")]
    CustomFrontend(String),
    /// V10.
    #[error("base name ({0}) should not be blank")]
    BlankBase(String),
    /// F6; the text ends with a suggestion if there is one.
    #[error("empty platform value from expression {expression}{suggestion}")]
    EmptyPlatform {
        /// As written.
        expression: String,
        /// ` (did you mean x?)`, or nothing.
        suggestion: DidYouMean,
    },
    /// F6.
    #[error("failed to parse platform {expression}: {cause}")]
    Platform {
        /// As written.
        expression: String,
        /// Why.
        cause: String,
    },
    /// F3.
    #[error("failed to parse stage name {name:?}: {cause}")]
    StageName {
        /// As written.
        name: String,
        /// Why.
        cause: String,
    },
    /// F10; the text ends with a suggestion if there is one.
    #[error("target stage {name:?} could not be found{suggestion}")]
    NoTarget {
        /// What was asked for.
        name: String,
        /// ` (did you mean x?)`, or nothing.
        suggestion: DidYouMean,
    },
    /// F11.
    #[error("circular dependency detected on stage: {0}")]
    Circular(String),
    /// C15.
    #[error("invalid stage index {0}")]
    StageIndex(String),
    /// C15.
    #[error("cannot copy from stage {from:?}, it needs to be defined before current stage {current:?}")]
    CopyFromLater {
        /// The stage named.
        from: String,
        /// The stage of the instruction.
        current: String,
    },
    /// M2.
    #[error(
        "cannot mount from stage {from:?} to {target:?}, stage needs to be defined before current command"
    )]
    MountFromLater {
        /// The stage named.
        from: String,
        /// Where to.
        target: String,
    },
    /// `RUN []` (R1).
    #[error("arguments are required")]
    EmptyRun,
    /// R11; names the entitlement.
    #[error("{0} is not allowed")]
    NotAllowed(&'static str),
    /// C20.
    #[error("source can't be a {0} for COPY")]
    RemoteCopy(&'static str),
    /// A4.
    #[error("checksum can't be specified for multiple sources")]
    ChecksumOfMany,
    /// A4.
    #[error("checksum requires HTTP(S) or Git sources")]
    ChecksumOfLocal,
    /// A5.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// P11.
    #[error(transparent)]
    Check(CheckOptionError),
    /// A4.
    #[error("invalid checksum {0:?}")]
    Checksum(String),
    /// V21.
    #[error("invalid SOURCE_DATE_EPOCH: {0}")]
    Epoch(String),
    /// I5.
    #[error("VOLUME specified can not be an empty string")]
    BlankVolume,
    /// An ONBUILD trigger of a base, or a change of `commit`, is no instruction.
    #[error(transparent)]
    Instruction(ParseErrorKind),
    /// A base image or a context cannot be had; the text ends with a suggestion if there is one.
    #[error("{name}: {source}{suggestion}")]
    Unresolved {
        /// As written.
        name: String,
        /// Why.
        source: ResolveError,
        /// ` (did you mean x?)`, or nothing.
        suggestion: DidYouMean,
    },
}

impl Problem {
    /// Says which lines have the problem.
    pub(crate) fn at(self, location: Location) -> ConvertError {
        ConvertError { problem: Box::new(self), location: Some(location), warnings: Vec::new() }
    }

    /// No line is to blame.
    pub(crate) fn nowhere(self) -> ConvertError {
        ConvertError { problem: Box::new(self), location: None, warnings: Vec::new() }
    }
}
