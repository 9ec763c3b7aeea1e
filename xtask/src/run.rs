//! Starting other programs, and finding them.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What a chore returns: nothing, or a sentence for people.
pub(crate) type Outcome<T = ()> = Result<T, String>;

/// The root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}

/// Where cargo builds to.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace().join(folder),
        None => workspace().join("target"),
    }
}

/// The cargo that runs us.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// A program and its arguments.
pub(crate) fn command(program: impl AsRef<Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(arguments);
    command
}

/// Shows a command, then runs it to its end, which has to be a good one.
pub(crate) fn must(command: &mut Command) -> Outcome {
    let shown = shown(command);
    eprintln!("+ {shown}");
    let status = command.stdin(Stdio::null()).status().map_err(|error| format!("`{shown}`: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{shown}`: {status}")) }
}

/// Runs a command silently and returns its standard output.
pub(crate) fn read(command: &mut Command) -> Outcome<String> {
    let shown = shown(command);
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("`{shown}`: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("`{shown}`: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// A command line for people.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Where peers that `cargo xtask peers` builds go: `MICA_PEERS_BIN`, or `peers/bin` in the target folder.
pub(crate) fn peers_bin() -> PathBuf {
    match std::env::var_os("MICA_PEERS_BIN") {
        Some(folder) => folder.into(),
        None => target().join("peers/bin"),
    }
}

/// Finds a program among the peers and in `PATH`.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(peers_bin())
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|program| {
            program.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}

/// The Debian root file system that tests and benchmarks use: `DEBIAN_TAR`, or what `peers` made.
pub(crate) fn debian_tar() -> Option<PathBuf> {
    let given = std::env::var_os("DEBIAN_TAR").map(PathBuf::from);
    let made = target().join("peers/debian.tar");
    given.into_iter().chain([made]).find(|tar| tar.is_file())
}

/// Whether we are root.
pub(crate) fn is_root() -> bool {
    read(&mut command("id", &["-u"])).is_ok_and(|uid| uid.trim() == "0")
}

/// Writes a file whose folder may not be there yet.
pub(crate) fn write(path: &Path, contents: impl AsRef<[u8]>) -> Outcome {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(path, contents))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
