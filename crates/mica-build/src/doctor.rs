//! Why a program could not be started, in the user's words.

use std::os::unix::fs::FileExt as _;

use mica_api::{Class, Error};
use mica_elf::{Attempt, FileKind, FileStat, Files, Identity, Machine, diagnose};
use mica_oci::{ImageConfig, Platform};
use mica_runtime::{ExecFailure, Plan};
use mica_sys::root::Root;
use rustix::fs::FileType;

/// A root file system as the doctor looks at it.
pub struct RootFiles<'a>(pub &'a Root);

impl Files for RootFiles<'_> {
    fn stat(&self, path: &[u8]) -> Option<FileStat> {
        let stat = self.0.lstat(path).ok()?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            _ => FileKind::Other,
        };
        Some(FileStat { kind, mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid })
    }

    fn link(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.0.read_link(path).ok()
    }

    fn read(&self, path: &[u8], offset_bytes: u64, length_bytes: usize) -> Option<Vec<u8>> {
        let file = self.0.open_file(path).ok()?;
        let mut bytes = vec![0; length_bytes];
        let mut filled = 0;
        while filled < length_bytes {
            match file.read_at(&mut bytes[filled..], offset_bytes + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(_) => return None,
            }
        }
        bytes.truncate(filled);
        Some(bytes)
    }

    fn names(&self, path: &[u8]) -> Option<Vec<Vec<u8>>> {
        Some(self.0.read_dir(path).ok()?.into_iter().map(|item| item.name).collect())
    }
}

/// The kernel's answer to a failed exec, with what the doctor finds in the root file system.
pub fn explain(failure: &ExecFailure, plan: &Plan, root: &Root) -> Error {
    let class = match failure.exit_code() {
        126 => Class::CommandNotInvocable,
        _ => Class::CommandNotFound,
    };
    let mut error = Error::new(class, failure.to_string());
    let files = RootFiles(root);
    let gids = std::iter::once(plan.user.gid).chain(plan.user.groups.iter().copied()).collect();
    let environment = Environment {
        path: plan.variable("PATH").unwrap_or_default(),
        library_path: plan.variable("LD_LIBRARY_PATH").unwrap_or_default(),
        cwd: &plan.cwd,
        identity: Identity { uid: plan.user.uid, gids },
    };
    if let Some(diagnosis) = examine(&files, &failure.program, environment) {
        error.why = Some(diagnosis.to_string());
        error.hint = diagnosis.advice();
    }
    error
}

/// What decides which program a name means, and whether it may be started.
struct Environment<'a> {
    path: &'a str,
    library_path: &'a str,
    cwd: &'a str,
    identity: Identity,
}

fn examine(files: &dyn Files, program: &str, environment: Environment<'_>) -> Option<mica_elf::Diagnosis> {
    let attempt = Attempt {
        argv0: program.as_bytes(),
        path: environment.path.as_bytes(),
        library_path: environment.library_path.as_bytes(),
        working_directory: environment.cwd.as_bytes(),
        identity: environment.identity,
        host: Machine::of_this_program()?,
        has_emulator: &has_emulator,
        no_exec: false,
    };
    diagnose(files, &attempt)
}

/// Whether binfmt_misc would run programs of that machine.
fn has_emulator(machine: Machine) -> bool {
    let name = match machine.architecture() {
        Some("amd64") => "x86_64",
        Some("386") => "i386",
        Some("arm64") => "aarch64",
        Some(same) => same,
        None => return false,
    };
    std::path::Path::new("/proc/sys/fs/binfmt_misc").join(format!("qemu-{name}")).exists()
}

/// What would stop the image's own command from starting, found before anybody runs it.
///
/// `None` when it would start, when the image has no command, and for platforms that this machine does not run.
pub fn check_command(config: &ImageConfig, root: &Root) -> Option<(String, Option<String>)> {
    if !Platform::host().runs(&config.platform()) {
        return None;
    }
    let program = config.config.entrypoint.first().or(config.config.cmd.first())?;
    let variable = |name: &str| {
        config
            .config
            .env
            .iter()
            .rev()
            .find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_default()
    };
    let cwd = if config.config.working_dir.is_empty() { "/" } else { &config.config.working_dir };
    let environment = Environment {
        path: variable("PATH"),
        library_path: variable("LD_LIBRARY_PATH"),
        cwd,
        identity: Identity { uid: 0, gids: vec![0] },
    };
    let diagnosis = examine(&RootFiles(root), program, environment)?;
    Some((diagnosis.to_string(), diagnosis.advice()))
}
