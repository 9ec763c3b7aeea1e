//! `RUN --mount=key=value,…` (build.md M1, M2, M5, M6).

mod csv;
mod fields;
#[cfg(test)]
mod tests;

use std::fmt::{self, Display};

use crate::expand::ExpandError;
use crate::suggest::DidYouMean;
use fields::Fields;

/// A mount, all variables expanded, defaults filled in. Paths are as written unless a field says otherwise;
/// relative targets are relative to the working directory, see [`target_in`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountFlag {
    /// `type=bind`.
    Bind {
        /// Where it is mounted; may be empty, which [`target_in`] judges.
        target: String,
        /// Stage, named context or image; the main context if absent.
        from: Option<String>,
        /// Path in there; empty means its root.
        source: String,
        /// Whether writes fail; else they go to a copy that is thrown away.
        read_only: bool,
    },
    /// `type=cache`.
    Cache {
        /// Where it is mounted.
        target: String,
        /// Name of the cache; the cleaned target if not given.
        id: String,
        /// Where its first content comes from; empty if absent.
        from: Option<String>,
        /// Path in there; empty means its root.
        source: String,
        /// What concurrent users get.
        sharing: Sharing,
        /// Whether writes fail.
        read_only: bool,
        /// Of the directory when it is created.
        attributes: Attributes,
    },
    /// `type=tmpfs`.
    Tmpfs {
        /// Where it is mounted.
        target: String,
        /// Most bytes it can hold; `None` if not limited.
        size_bytes: Option<u64>,
    },
    /// `type=secret`.
    Secret {
        /// Name of the secret, the default (base name of the target) filled in.
        id: String,
        /// Absolute path of the file, the default filled in; `None` if there is only a variable.
        target: Option<String>,
        /// Variable that holds it.
        env: Option<String>,
        /// Whether the build fails without it.
        required: bool,
        /// Of the file.
        attributes: Attributes,
    },
    /// `type=ssh`.
    Ssh {
        /// Name of the agent; `default` if not given.
        id: String,
        /// Path of the socket.
        target: Option<String>,
        /// Whether the build fails without it.
        required: bool,
        /// Of the socket.
        attributes: Attributes,
    },
}

/// `mode`, `uid` and `gid` as far as given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Attributes {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// What concurrent users of a cache get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// The same directory.
    #[default]
    Shared,
    /// Another directory.
    Private,
    /// Their turn.
    Locked,
}

/// The mount types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountType {
    /// `bind`.
    #[default]
    Bind,
    /// `cache`.
    Cache,
    /// `tmpfs`.
    Tmpfs,
    /// `secret`.
    Secret,
    /// `ssh`.
    Ssh,
}

impl Display for MountType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        })
    }
}

/// Why a `--mount` is refused (M2).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the error texts say it")]
pub enum MountError {
    #[error("failed to parse csv mounts: {0}")]
    Csv(&'static str),
    #[error("'from' doesn't support variable expansion, define alias stage instead")]
    VariableInFrom,
    #[error(transparent)]
    Expand(#[from] ExpandError),
    #[error("unsupported mount type {value:?}{suggestion}")]
    UnsupportedType { value: String, suggestion: DidYouMean },
    #[error("unsupported sharing value {value:?}{suggestion}")]
    UnsupportedSharing { value: String, suggestion: DidYouMean },
    #[error("unexpected key '{key}' in '{field}'{suggestion}")]
    UnexpectedKey { key: String, field: String, suggestion: DidYouMean },
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyOfOtherType { key: String, kind: MountType },
    #[error("invalid field '{0}' must be a key=value pair")]
    NotKeyValue(String),
    #[error("invalid value for {key}: {value}")]
    InvalidValue { key: String, value: String },
    #[error("invalid value {value} for {key}")]
    InvalidNumber { key: &'static str, value: String },
    #[error("{key} not allowed for \"{kind}\" type mounts")]
    AttributeNotAllowed { key: &'static str, kind: MountType },
    #[error("secret mount should not have a from")]
    SecretFrom,
    #[error("secret mount should not define sharing")]
    SecretSharing,
    #[error("invalid secret mount. one of source, target required")]
    SecretNameless,
    #[error("both source and id can't be set")]
    SecretSourceAndId,
    #[error("ssh does not support source")]
    SshSource,
    #[error("invalid cache sharing set for {0} mount")]
    SharingNotAllowed(MountType),
    #[error("invalid mount target {0:?}")]
    InvalidTarget(String),
}

/// Parses the value of one `--mount`; `expand` is applied to every value but that of `from`.
///
/// # Errors
/// [`MountError`], those of `expand` included.
pub fn parse_mount(
    text: &str,
    mut expand: impl FnMut(&str) -> Result<String, ExpandError>,
) -> Result<MountFlag, MountError> {
    let mut fields = Fields::default();
    for field in csv::fields(text)? {
        fields.read(&field, &mut expand)?;
    }
    fields.check()?;
    fields.into_mount()
}

/// Checks what does not depend on variables: the quoting, and that `from` has none (V3).
pub(crate) fn check_unexpanded(text: &str) -> Result<(), MountError> {
    for field in csv::fields(text)? {
        match field.split_once('=') {
            Some((key, value)) if key.eq_ignore_ascii_case("from") => fields::check_from(value)?,
            _ => {}
        }
    }
    Ok(())
}

/// Returns the absolute, clean path of a target, joined to the working directory if relative (M1).
///
/// # Errors
/// [`MountError::InvalidTarget`] if that is the root.
pub fn target_in(working_directory: &str, target: &str) -> Result<String, MountError> {
    let joined = match target.starts_with('/') {
        true => clean_absolute(target),
        false => clean_absolute(&format!("{working_directory}/{target}")),
    };
    if joined == "/" { Err(MountError::InvalidTarget(joined)) } else { Ok(joined) }
}

/// Removes `.`, `..` and empty components; nothing leaves the root.
pub(crate) fn clean_absolute(path: &str) -> String {
    let mut components = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    format!("/{}", components.join("/"))
}
