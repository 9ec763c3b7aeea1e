//! What a finished command left behind.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// Exit status and texts of a finished command.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
    pub(crate) command: String,
}

impl Output {
    /// The exit code; 128 and the signal if a signal ended it.
    pub fn code(&self) -> i32 {
        self.status.code().or_else(|| self.status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
    }

    /// Demands that it succeeded.
    ///
    /// # Panics
    /// If it did not, with everything it wrote.
    #[track_caller]
    pub fn success(self) -> Self {
        self.exits(0)
    }

    /// Demands an exit code.
    ///
    /// # Panics
    /// If it is another one, with everything it wrote.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert!(
            self.code() == code,
            "`{}` exits {}, want {code}\n--- stdout\n{}--- stderr\n{}",
            self.command,
            self.code(),
            self.stdout_text(),
            self.stderr_text()
        );
        self
    }

    /// Demands a text on standard error.
    ///
    /// # Panics
    /// If it is not there, with everything it wrote.
    #[track_caller]
    pub fn complains(self, about: &str) -> Self {
        let stderr = self.stderr_text();
        assert!(stderr.contains(about), "`{}` does not say {about:?}:\n{stderr}", self.command);
        self
    }

    /// Standard output as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard output without the line end: an ID, a name, a digest.
    pub fn line(&self) -> String {
        self.stdout_text().trim_end().to_owned()
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// If it is none.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| {
            panic!("`{}` wrote no JSON ({error}):\n{}", self.command, self.stdout_text())
        })
    }
}
