//! Why a process could not be run.

use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why nothing ran, or why its end is unknown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The program could not be executed; everything around it was in place.
    #[error("{0}")]
    Exec(ExecFailure),
    /// The container could not be set up.
    #[error("cannot {step}: {reason}")]
    Setup {
        /// What was being done.
        step: String,
        /// Why it failed.
        reason: String,
        /// The error number, if there was one.
        errno: Option<i32>,
    },
    /// The helper process could not be started or spoken to.
    #[error("cannot {action} the executor")]
    Helper {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The helper ended without saying how the process did.
    #[error("the executor ended unexpectedly")]
    HelperDied,
    /// The external runtime could not be started.
    #[error("cannot start the runtime {}", path.display())]
    External {
        /// The program.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The bundle for an external runtime could not be written.
    #[error("cannot write the bundle in {}", path.display())]
    Bundle {
        /// Directory of the bundle.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Something the plan asks for is beyond this runtime.
    #[error("{0}")]
    Unsupported(String),
}

/// The program of a plan could not be executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecFailure {
    /// The program as the plan names it.
    pub program: String,
    /// The file that was tried, inside the root file system; `None` if `PATH` had none of that name.
    pub path: Option<String>,
    /// The kernel's answer.
    pub errno: i32,
    /// The file exists: with `ENOENT` it is its interpreter that does not.
    pub exists: bool,
}

impl ExecFailure {
    /// Returns the exit code docker gives: 127 not found, 126 not executable.
    pub fn exit_code(&self) -> i32 {
        let missing = self.path.is_none() || self.errno == libc_errno::ENOENT;
        if missing { 127 } else { 126 }
    }
}

/// The error numbers with a meaning here.
mod libc_errno {
    pub(super) const ENOENT: i32 = 2;
}

impl std::fmt::Display for ExecFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(path) = &self.path else {
            return write!(f, "exec: {:?}: executable file not found in $PATH", self.program);
        };
        let reason = error_text(self.errno);
        match self.errno {
            libc_errno::ENOENT if !self.exists => write!(f, "exec: {path:?}: stat {path}: {reason}"),
            libc_errno::ENOENT => write!(f, "exec {path}: {reason}"),
            _ if self.exists && self.errno == rustix::io::Errno::NOEXEC.raw_os_error() => {
                write!(f, "exec {path}: {reason}")
            }
            _ => write!(f, "exec: {path:?}: {reason}"),
        }
    }
}

/// The kernel's words for an error number, as Go (and so docker) writes them.
fn error_text(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(path: Option<&str>, errno: i32, exists: bool) -> ExecFailure {
        ExecFailure { program: "foo".into(), path: path.map(str::to_owned), errno, exists }
    }

    #[test]
    fn failures_read_as_dockers() {
        let missing = failure(None, 2, false);
        assert_eq!(missing.to_string(), "exec: \"foo\": executable file not found in $PATH");
        assert_eq!(missing.exit_code(), 127);
        let absent = failure(Some("/foo"), 2, false);
        assert_eq!(absent.to_string(), "exec: \"/foo\": stat /foo: no such file or directory");
        assert_eq!((absent.exit_code(), failure(Some("/foo"), 2, true).exit_code()), (127, 127));
        let refused = failure(Some("/foo"), 13, true);
        assert_eq!(
            (refused.to_string().as_str(), refused.exit_code()),
            ("exec: \"/foo\": permission denied", 126)
        );
        assert_eq!(failure(Some("/foo"), 8, true).to_string(), "exec /foo: exec format error");
    }
}
