//! Why a program did not start, in the words of the person who wrote the Dockerfile.

use std::fmt;

use crate::machine::Machine;
use crate::path::shown;

/// Which C library a program or an image uses; one's programs do not run with the other's loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libc {
    /// GNU: Debian, Ubuntu, Fedora, …
    Glibc,
    /// musl: Alpine, Chimera, …
    Musl,
}

impl fmt::Display for Libc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Glibc => "glibc",
            Self::Musl => "musl",
        })
    }
}

/// What a file is that Linux does not start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignFormat {
    /// A PE file.
    Windows,
    /// A Mach-O file.
    MacOs,
    /// A WebAssembly module.
    WebAssembly,
    /// A zip or jar file.
    Zip,
    /// A gzip, zstd, xz or bzip2 file.
    Compressed,
    /// Something else that is not text.
    Unknown,
}

impl fmt::Display for ForeignFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Windows => "a program for Windows",
            Self::MacOs => "a program for macOS, or a Java class",
            Self::WebAssembly => "a WebAssembly module",
            Self::Zip => "a zip or jar archive",
            Self::Compressed => "a compressed file",
            Self::Unknown => "neither a Linux program nor a script",
        })
    }
}

/// Why a program did not start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Diagnosis {
    /// No directory of `PATH` has a program of that name.
    NotFound {
        /// The name looked for.
        name: Vec<u8>,
        /// The value of `PATH`.
        path_searched: Vec<u8>,
    },
    /// There is nothing at the path.
    Missing {
        /// The path.
        path: Vec<u8>,
    },
    /// The path is a link that leads nowhere.
    DanglingLink {
        /// The link.
        path: Vec<u8>,
        /// The text of the link.
        target: Vec<u8>,
    },
    /// The path is a directory.
    IsDirectory {
        /// The path.
        path: Vec<u8>,
    },
    /// The file lacks the permission to execute, for everybody or for this user.
    NotExecutable {
        /// The path.
        path: Vec<u8>,
        /// Its permission bits.
        mode: u32,
        /// The user for whom it lacks; `None` if for everybody.
        uid: Option<u32>,
    },
    /// A directory above the file does not let this user in.
    Unreachable {
        /// The path.
        path: Vec<u8>,
        /// The directory.
        directory: Vec<u8>,
        /// The directory's permission bits.
        mode: u32,
        /// The user.
        uid: u32,
    },
    /// The file is on a mount from which nothing may be executed.
    NoExecMount {
        /// The path.
        path: Vec<u8>,
    },
    /// The loader that a dynamic program names is not there.
    InterpreterMissing {
        /// The program.
        program: Vec<u8>,
        /// The loader.
        interpreter: Vec<u8>,
        /// The C library the program was built for, if its loader tells.
        program_libc: Option<Libc>,
        /// The C library the image has.
        image_libc: Option<Libc>,
    },
    /// A library is in none of the loader's directories.
    LibraryMissing {
        /// The program.
        program: Vec<u8>,
        /// The library's name.
        library: Vec<u8>,
        /// What needs it: the program or another library.
        needed_by: Vec<u8>,
        /// The directories searched.
        searched: Vec<Vec<u8>>,
        /// Where it is, if a directory of `ld.so.conf` has it and the cache does not know.
        unindexed: Option<Vec<u8>>,
    },
    /// The program is for another processor, and there is no emulator for it.
    WrongArchitecture {
        /// The program.
        program: Vec<u8>,
        /// The processor it is for.
        program_machine: Machine,
        /// The processor of this machine.
        host: Machine,
    },
    /// The program in a script's `#!` line is not there.
    ShebangInterpreterMissing {
        /// The script.
        script: Vec<u8>,
        /// The program in the line; for `#!/usr/bin/env NAME` the name.
        interpreter: Vec<u8>,
        /// Where a program of that name is.
        instead: Option<Vec<u8>>,
    },
    /// The lines of a script end as on Windows, and the carriage return became part of a name.
    CrlfShebang {
        /// The script.
        script: Vec<u8>,
        /// The word that got the carriage return.
        interpreter: Vec<u8>,
    },
    /// A text file without a `#!` line.
    TextWithoutShebang {
        /// The file.
        path: Vec<u8>,
        /// A byte order mark hides the `#!`.
        byte_order_mark: bool,
    },
    /// The file has no bytes.
    Empty {
        /// The file.
        path: Vec<u8>,
    },
    /// The file is for another system.
    Foreign {
        /// The file.
        path: Vec<u8>,
        /// What it is.
        format: ForeignFormat,
    },
    /// An ELF file whose headers make no sense.
    Damaged {
        /// The file.
        path: Vec<u8>,
        /// The part that is wrong.
        what: &'static str,
    },
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { name, path_searched } if path_searched.is_empty() => {
                write!(f, "there is no program {}: PATH is empty", shown(name))
            }
            Self::NotFound { name, path_searched } => {
                write!(f, "there is no program {} in PATH ({})", shown(name), shown(path_searched))
            }
            Self::Missing { path } => write!(f, "{} does not exist in the image", shown(path)),
            Self::DanglingLink { path, target } => {
                write!(f, "{} is a link to {}, which does not exist in the image", shown(path), shown(target))
            }
            Self::IsDirectory { path } => write!(f, "{} is a directory", shown(path)),
            Self::NotExecutable { path, mode, uid: None } => {
                write!(f, "{} is not executable (mode {mode:04o})", shown(path))
            }
            Self::NotExecutable { path, mode, uid: Some(uid) } => {
                write!(f, "{} is not executable for user {uid} (mode {mode:04o})", shown(path))
            }
            Self::Unreachable { path, directory, mode, uid } => {
                let (path, directory) = (shown(path), shown(directory));
                write!(f, "user {uid} cannot reach {path}: {directory} does not let it in (mode {mode:04o})")
            }
            Self::NoExecMount { path } => {
                write!(f, "{} is on a mount that forbids execution (noexec)", shown(path))
            }
            Self::TextWithoutShebang { path, byte_order_mark: true } => {
                write!(f, "{} is a script whose #! is hidden behind a byte order mark", shown(path))
            }
            Self::TextWithoutShebang { path, .. } => {
                write!(f, "{} is a text file that does not start with a #! line", shown(path))
            }
            Self::Empty { path } => write!(f, "{} is an empty file", shown(path)),
            Self::Foreign { path, format } => write!(f, "{} is {format}", shown(path)),
            Self::Damaged { path, what } => write!(f, "{} is a damaged program ({what})", shown(path)),
            Self::InterpreterMissing { .. }
            | Self::LibraryMissing { .. }
            | Self::WrongArchitecture { .. }
            | Self::ShebangInterpreterMissing { .. }
            | Self::CrlfShebang { .. } => self.dependency(f),
        }
    }
}

impl Diagnosis {
    /// The sentences about something that the file is there for, but lacks.
    fn dependency(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InterpreterMissing { program, interpreter, program_libc, image_libc } => {
                let (program, interpreter) = (shown(program), shown(interpreter));
                write!(f, "{program} exists, but the loader it needs, {interpreter}, is not in the image")?;
                match (program_libc, image_libc) {
                    (Some(built), Some(image)) if built != image => {
                        write!(f, " (it was built for {built}, the image has {image})")
                    }
                    _ => Ok(()),
                }
            }
            Self::LibraryMissing { program, library, needed_by, .. } if program == needed_by => {
                write!(
                    f,
                    "{} needs the library {}, which the loader does not find",
                    shown(program),
                    shown(library)
                )
            }
            Self::LibraryMissing { program, library, needed_by, .. } => {
                let (program, library, needed_by) = (shown(program), shown(library), shown(needed_by));
                write!(
                    f,
                    "{program} needs the library {library} (for {needed_by}), which the loader does not find"
                )
            }
            Self::WrongArchitecture { program, program_machine, host } => {
                write!(f, "{} is built for {program_machine}, this machine is {host}", shown(program))
            }
            Self::ShebangInterpreterMissing { script, interpreter, .. } => {
                write!(
                    f,
                    "the script {} is run by {}, which is not in the image",
                    shown(script),
                    shown(interpreter)
                )
            }
            Self::CrlfShebang { script, interpreter } => {
                let (script, interpreter) = (shown(script), shown(interpreter));
                write!(
                    f,
                    "the script {script} has Windows line endings (CRLF): its #! line asks for \"{interpreter}\\r\""
                )
            }
            _ => Ok(()),
        }
    }

    /// The exit code that docker users know: 127 if something is missing, 126 if it cannot be executed.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. }
            | Self::Missing { .. }
            | Self::DanglingLink { .. }
            | Self::InterpreterMissing { .. }
            | Self::LibraryMissing { .. }
            | Self::ShebangInterpreterMissing { .. }
            | Self::CrlfShebang { .. } => 127,
            Self::IsDirectory { .. }
            | Self::NotExecutable { .. }
            | Self::Unreachable { .. }
            | Self::NoExecMount { .. }
            | Self::WrongArchitecture { .. }
            | Self::TextWithoutShebang { .. }
            | Self::Empty { .. }
            | Self::Foreign { .. }
            | Self::Damaged { .. } => 126,
        }
    }
}
