//! The way out of each [`Diagnosis`].

use crate::diagnosis::{Diagnosis, ForeignFormat, Libc};
use crate::path::shown;

impl Diagnosis {
    /// The way out, if one is known.
    pub fn advice(&self) -> Option<String> {
        Some(match self {
            Self::NotFound { name, .. } => return not_found_advice(name),
            Self::Missing { path } => return missing_advice(path),
            Self::DanglingLink { target, .. } => {
                format!("copy {} as well, or the file instead of the link", shown(target))
            }
            Self::IsDirectory { path } => format!("name a program inside {}", shown(path)),
            Self::NotExecutable { path, uid: None, .. } => {
                format!("COPY --chmod=755, or RUN chmod +x {}", shown(path))
            }
            Self::NotExecutable { path, .. } => {
                format!("COPY --chmod=755 or --chown, or RUN chmod a+rx {}", shown(path))
            }
            Self::Unreachable { directory, uid, .. } => {
                format!(
                    "put it where every user may go (/usr/local/bin, /app), or RUN chmod a+x {} (user {uid})",
                    shown(directory)
                )
            }
            Self::NoExecMount { .. } => "mount it without noexec, or copy the program elsewhere".into(),
            Self::InterpreterMissing { .. }
            | Self::LibraryMissing { .. }
            | Self::WrongArchitecture { .. }
            | Self::ShebangInterpreterMissing { .. }
            | Self::CrlfShebang { .. } => return self.dependency_advice(),
            Self::TextWithoutShebang { byte_order_mark: true, .. } => {
                "save it as UTF-8 without a byte order mark".into()
            }
            Self::TextWithoutShebang { path, .. } => {
                format!("make #!/bin/sh its first line, or start it with: sh {}", shown(path))
            }
            Self::Empty { .. } => {
                "check the step that writes it: a failed download leaves an empty file".into()
            }
            Self::Foreign { format: ForeignFormat::Windows | ForeignFormat::MacOs, .. } => {
                "build it for Linux, best in a stage of the same Dockerfile".into()
            }
            Self::Foreign { format: ForeignFormat::Zip | ForeignFormat::Compressed, path } => {
                format!("unpack {} first; a jar is started with java -jar", shown(path))
            }
            Self::Foreign { .. } => return None,
            Self::Damaged { .. } => "check how the file got there: a download may have been cut short".into(),
        })
    }

    /// What to do about something that the file is there for, but lacks.
    fn dependency_advice(&self) -> Option<String> {
        Some(match self {
            Self::InterpreterMissing { .. } => return self.interpreter_advice(),
            Self::LibraryMissing { unindexed: Some(path), .. } => {
                format!("it is at {}, but not in /etc/ld.so.cache: RUN ldconfig", shown(path))
            }
            Self::LibraryMissing { library, .. } => format!(
                "install the package that has {}, copy it from the stage that built the program, or link statically",
                shown(library)
            ),
            Self::WrongArchitecture { program_machine, host, .. } => format!(
                "build for {host} (--platform linux/{host}), or register an emulator for {program_machine} (qemu-user-static and binfmt_misc)"
            ),
            Self::ShebangInterpreterMissing { instead: Some(path), .. } => {
                format!("it is at {}: change the #! line", shown(path))
            }
            Self::ShebangInterpreterMissing { interpreter, .. } => {
                format!(
                    "install {}, or start the script with a program that is there (/bin/sh)",
                    base_name(interpreter)
                )
            }
            Self::CrlfShebang { script, .. } => format!(
                "RUN sed -i 's/\\r$//' {}, or dos2unix; in git: `*.sh text eol=lf` in .gitattributes",
                shown(script)
            ),
            _ => return None,
        })
    }

    fn interpreter_advice(&self) -> Option<String> {
        let Self::InterpreterMissing { program, program_libc, image_libc, .. } = self else { return None };
        Some(match (program_libc, image_libc) {
            (Some(Libc::Glibc), Some(Libc::Musl)) => {
                "build it in a stage from the same base, link it statically, use a glibc base (debian, ubuntu), or apk add gcompat"
                    .into()
            }
            (Some(Libc::Musl), Some(Libc::Glibc)) => {
                "build it in a stage from the same base, link it statically, or apt-get install musl".into()
            }
            _ => format!(
                "link it statically (gcc -static, CGO_ENABLED=0, the Rust target *-linux-musl), or take its loader and libraries along: mica pack {}",
                shown(program)
            ),
        })
    }
}

fn base_name(path: &[u8]) -> String {
    shown(path.rsplit(|byte| *byte == b'/').next().unwrap_or_default())
}

/// Names that only a shell knows.
const SHELL_BUILTINS: [&[u8]; 11] =
    [b"cd", b"export", b"source", b".", b"set", b"alias", b"exec", b"eval", b"umask", b"ulimit", b"exit"];

fn not_found_advice(name: &[u8]) -> Option<String> {
    if name.iter().any(u8::is_ascii_whitespace) {
        let words: Vec<String> = name
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .map(|word| format!("\"{}\"", shown(word)))
            .collect();
        return Some(format!("the exec form takes every word by itself: [{}]", words.join(", ")));
    }
    if name.starts_with(b"[") {
        return Some("the exec form is JSON: double quotes, no trailing comma".into());
    }
    if SHELL_BUILTINS.contains(&name) {
        return Some(format!("{} is built into shells: use the shell form, or sh -c '…'", shown(name)));
    }
    if matches!(name, b"sh" | b"bash" | b"ash") {
        return Some(no_shell());
    }
    Some(format!("install {}, copy it into the image, or name it with its whole path", shown(name)))
}

fn missing_advice(path: &[u8]) -> Option<String> {
    if matches!(path, b"/bin/sh" | b"/bin/bash" | b"/bin/ash" | b"/usr/bin/bash") {
        return Some(no_shell());
    }
    if path.iter().any(u8::is_ascii_whitespace) {
        return not_found_advice(path);
    }
    Some(format!("COPY {} into the image, or check how its path is spelled", base_name(path)))
}

fn no_shell() -> String {
    "the image has no such shell: use the exec form ([\"program\", \"argument\"]), /bin/sh if it is there, or a base image with a shell"
        .into()
}
