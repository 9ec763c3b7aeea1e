//! What a process reads from and writes to.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// Standard input of a process.
#[derive(Debug, Default)]
pub enum Input {
    /// Nothing: end of file at once.
    #[default]
    Empty,
    /// The caller's own.
    Inherit,
    /// A pipe, its other end is [`crate::Running::stdin`].
    Pipe,
    /// This file.
    File(OwnedFd),
}

/// Standard output or error of a process.
#[derive(Debug, Default)]
pub enum Output {
    /// Thrown away.
    #[default]
    Null,
    /// The caller's own.
    Inherit,
    /// A pipe, its other end is [`crate::Running::stdout`] or [`crate::Running::stderr`].
    Pipe,
    /// This file.
    File(OwnedFd),
}

/// All three. A plan with a terminal uses none of them.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Standard input.
    pub stdin: Input,
    /// Standard output.
    pub stdout: Output,
    /// Standard error.
    pub stderr: Output,
}

impl Stdio {
    /// No input, output through pipes: a build step.
    pub fn captured() -> Self {
        Self { stdin: Input::Empty, stdout: Output::Pipe, stderr: Output::Pipe }
    }

    /// The caller's own.
    pub fn inherit() -> Self {
        Self { stdin: Input::Inherit, stdout: Output::Inherit, stderr: Output::Inherit }
    }
}

/// Both ends of all three.
pub(crate) struct Ends {
    /// For the process.
    pub(crate) theirs: [OwnedFd; 3],
    pub(crate) stdin: Option<File>,
    pub(crate) stdout: Option<File>,
    pub(crate) stderr: Option<File>,
}

impl Stdio {
    pub(crate) fn open(self) -> io::Result<Ends> {
        let (theirs_in, stdin) = match self.stdin {
            Input::Empty => (io::pipe()?.0.into(), None),
            Input::Inherit => (io::stdin().as_fd().try_clone_to_owned()?, None),
            Input::File(file) => (file, None),
            Input::Pipe => {
                let (reader, writer) = io::pipe()?;
                (reader.into(), Some(OwnedFd::from(writer).into()))
            }
        };
        let (theirs_out, stdout) = self.stdout.open(|| io::stdout().as_fd().try_clone_to_owned())?;
        let (theirs_err, stderr) = self.stderr.open(|| io::stderr().as_fd().try_clone_to_owned())?;
        Ok(Ends { theirs: [theirs_in, theirs_out, theirs_err], stdin, stdout, stderr })
    }
}

impl Output {
    fn open(self, own: impl Fn() -> io::Result<OwnedFd>) -> io::Result<(OwnedFd, Option<File>)> {
        Ok(match self {
            Self::Null => (OpenOptions::new().write(true).open("/dev/null")?.into(), None),
            Self::Inherit => (own()?, None),
            Self::File(file) => (file, None),
            Self::Pipe => {
                let (reader, writer) = io::pipe()?;
                (writer.into(), Some(OwnedFd::from(reader).into()))
            }
        })
    }
}
