//! Finds out why a program did not start, by going through what the kernel and the loader go through.

use crate::configuration::ld_so_conf;
use crate::diagnosis::{Diagnosis, ForeignFormat, Libc};
use crate::files::{FileKind, FileStat, Files};
use crate::link::{Outcome, dependencies};
use crate::loader::{Loader, Search};
use crate::machine::Machine;
use crate::object::{Object, ObjectError};
use crate::path::{Walked, join, parent, walk, walk_to_file};
use crate::script::{HEAD_BYTES, Script};

/// The kernel follows `#!` lines no deeper (`fs/exec.c`, `exec_binprm`).
const SCRIPTS: usize = 5;

/// Who tried to start a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The groups, the supplementary ones included.
    pub gids: Vec<u32>,
}

/// A failed attempt to start a program.
pub struct Attempt<'a> {
    /// What was to be started, as the user gave it.
    pub argv0: &'a [u8],
    /// The value of `PATH`.
    pub path: &'a [u8],
    /// The value of `LD_LIBRARY_PATH`.
    pub library_path: &'a [u8],
    /// The working directory, absolute.
    pub working_directory: &'a [u8],
    /// Who tried; root may read and enter everything.
    pub identity: Identity,
    /// The processor of this machine.
    pub host: Machine,
    /// Whether an emulator for a processor is registered.
    pub has_emulator: &'a dyn Fn(Machine) -> bool,
    /// The program is on a mount that forbids execution.
    pub no_exec: bool,
}

/// Says why the attempt failed; `None` if nothing is wrong with the files.
pub fn diagnose(files: &dyn Files, attempt: &Attempt<'_>) -> Option<Diagnosis> {
    let doctor = Doctor { files, attempt };
    match doctor.locate() {
        Ok(path) => doctor.program(&path, SCRIPTS),
        Err(diagnosis) => Some(diagnosis),
    }
}

struct Doctor<'a> {
    files: &'a dyn Files,
    attempt: &'a Attempt<'a>,
}

impl Doctor<'_> {
    /// The path that would have been started: execvpe(3), which passes over what is not executable.
    fn locate(&self) -> Result<Vec<u8>, Diagnosis> {
        let name = self.attempt.argv0;
        if name.contains(&b'/') {
            return Ok(join(self.attempt.working_directory, name));
        }
        let found: Vec<Vec<u8>> = if name.is_empty() { Vec::new() } else { self.in_path(name) };
        let executable = found.iter().find(|path| self.access(path).is_none());
        executable.or(found.first()).cloned().ok_or_else(|| Diagnosis::NotFound {
            name: name.to_vec(),
            path_searched: self.attempt.path.to_vec(),
        })
    }

    /// The files of that name in the directories of `PATH`.
    fn in_path(&self, name: &[u8]) -> Vec<Vec<u8>> {
        let directories = self.attempt.path.split(|byte| *byte == b':');
        directories
            .map(|directory| join(&join(self.attempt.working_directory, directory), name))
            .filter(|path| walk_to_file(self.files, path).is_some())
            .collect()
    }

    fn program(&self, path: &[u8], scripts: usize) -> Option<Diagnosis> {
        self.access(path).or_else(|| {
            if self.attempt.no_exec && scripts == SCRIPTS {
                return Some(Diagnosis::NoExecMount { path: path.to_vec() });
            }
            self.contents(path, &walk_to_file(self.files, path)?.path, scripts)
        })
    }

    /// What keeps the user from executing a file, whatever is in it.
    fn access(&self, path: &[u8]) -> Option<Diagnosis> {
        let Some(walked) = walk(self.files, path) else { return Some(self.absent(path)) };
        match walked.stat.kind {
            FileKind::Directory => return Some(Diagnosis::IsDirectory { path: path.to_vec() }),
            FileKind::File | FileKind::Symlink | FileKind::Other => {}
        }
        if let Some(diagnosis) = self.unreachable(path, &walked) {
            return Some(diagnosis);
        }
        let mode = walked.stat.mode;
        let not_executable = |uid| Some(Diagnosis::NotExecutable { path: path.to_vec(), mode, uid });
        if mode & 0o111 == 0 {
            return not_executable(None);
        }
        if !self.may_execute(&walked.stat) {
            return not_executable(Some(self.attempt.identity.uid));
        }
        None
    }

    fn unreachable(&self, path: &[u8], walked: &Walked) -> Option<Diagnosis> {
        let (directory, stat) = walked.directories.iter().find(|(_, stat)| !self.may_execute(stat))?;
        Some(Diagnosis::Unreachable {
            path: path.to_vec(),
            directory: directory.clone(),
            mode: stat.mode,
            uid: self.attempt.identity.uid,
        })
    }

    /// path_resolution(7): exactly one of the three classes counts; root needs any bit, for directories none.
    fn may_execute(&self, stat: &FileStat) -> bool {
        let Identity { uid, gids } = &self.attempt.identity;
        if *uid == 0 {
            return stat.kind == FileKind::Directory || stat.mode & 0o111 != 0;
        }
        let bit = if *uid == stat.uid {
            0o100
        } else if gids.contains(&stat.gid) {
            0o010
        } else {
            0o001
        };
        stat.mode & bit != 0
    }

    fn absent(&self, path: &[u8]) -> Diagnosis {
        let path = path.to_vec();
        let (directory, name) = (parent(&path), path.rsplit(|byte| *byte == b'/').next());
        let place = walk(self.files, directory).map(|real| join(&real.path, name.unwrap_or_default()));
        match place.and_then(|place| self.files.link(&place)) {
            Some(target) => Diagnosis::DanglingLink { path, target },
            None => Diagnosis::Missing { path },
        }
    }

    /// What keeps the kernel or the loader from starting an executable file.
    fn contents(&self, path: &[u8], real: &[u8], scripts: usize) -> Option<Diagnosis> {
        let head = self.files.read(real, 0, HEAD_BYTES)?;
        if head.is_empty() {
            return Some(Diagnosis::Empty { path: path.to_vec() });
        }
        if let Some(script) = Script::parse(&head) {
            return self.script(path, &script, scripts);
        }
        let read = |offset, length| self.files.read(real, offset, length);
        match Object::read(&read) {
            Ok(object) => self.object(path, real, &object),
            Err(ObjectError::Malformed { what }) => Some(Diagnosis::Damaged { path: path.to_vec(), what }),
            Err(ObjectError::NotElf) => Some(not_a_program(path, &head)),
        }
    }

    fn script(&self, path: &[u8], script: &Script, scripts: usize) -> Option<Diagnosis> {
        let named = script.through_env().unwrap_or(&script.interpreter);
        if script.carriage_return {
            let (script, interpreter) = (path.to_vec(), named.to_vec());
            return Some(Diagnosis::CrlfShebang { script, interpreter });
        }
        let interpreter = join(self.attempt.working_directory, &script.interpreter);
        let missing = |interpreter: &[u8]| {
            let name = interpreter.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            let instead = self.in_path(name).into_iter().next();
            Diagnosis::ShebangInterpreterMissing {
                script: path.to_vec(),
                interpreter: interpreter.to_vec(),
                instead,
            }
        };
        if walk(self.files, &interpreter).is_none() {
            return Some(missing(&script.interpreter));
        }
        if scripts > 0
            && let Some(diagnosis) = self.program(&interpreter, scripts - 1)
        {
            return Some(diagnosis);
        }
        let through_env = script.through_env()?;
        if through_env.contains(&b'/') {
            return None;
        }
        self.in_path(through_env).is_empty().then(|| missing(through_env))
    }

    fn object(&self, path: &[u8], real: &[u8], object: &Object) -> Option<Diagnosis> {
        let Attempt { host, has_emulator, library_path, .. } = self.attempt;
        if !host.runs(object.machine) && !has_emulator(object.machine) {
            return Some(Diagnosis::WrongArchitecture {
                program: path.to_vec(),
                program_machine: object.machine,
                host: *host,
            });
        }
        let interpreter = object.interpreter.as_deref()?;
        if walk_to_file(self.files, &join(self.attempt.working_directory, interpreter)).is_none() {
            return Some(Diagnosis::InterpreterMissing {
                program: path.to_vec(),
                interpreter: interpreter.to_vec(),
                program_libc: libc_of(interpreter),
                image_libc: self.image_libc(),
            });
        }
        let dependencies = dependencies(self.files, real, object, library_path);
        dependencies.into_iter().find_map(|dependency| {
            let Outcome::Missing { searched } = dependency.outcome else { return None };
            let needed_by = if dependency.needed_by == real { path.to_vec() } else { dependency.needed_by };
            Some(Diagnosis::LibraryMissing {
                program: path.to_vec(),
                unindexed: self.unindexed(interpreter, object.machine, &dependency.name),
                library: dependency.name,
                needed_by,
                searched,
            })
        })
    }

    /// Where ldconfig would find the library: installed below /usr/local, and the cache not rewritten.
    fn unindexed(&self, interpreter: &[u8], machine: Machine, library: &[u8]) -> Option<Vec<u8>> {
        let loader = Loader::of(interpreter);
        if loader != Loader::Glibc || library.contains(&b'/') {
            return None;
        }
        let search = Search::new(self.files, loader, machine, b"");
        Some(search.first_in(&ld_so_conf(self.files), library)?.path)
    }

    fn image_libc(&self) -> Option<Libc> {
        [&b"/lib"[..], b"/lib64", b"/usr/lib", b"/usr/lib64"].iter().find_map(|directory| {
            let real = walk(self.files, directory)?.path;
            self.files.names(&real)?.iter().find_map(|name| libc_of(name))
        })
    }
}

fn libc_of(interpreter: &[u8]) -> Option<Libc> {
    let name = interpreter.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if name.starts_with(b"ld-musl-") {
        Some(Libc::Musl)
    } else if name.starts_with(b"ld-linux") || name.starts_with(b"ld64.so.") || name == b"ld.so.1" {
        Some(Libc::Glibc)
    } else {
        None
    }
}

/// What the first bytes of a file are, if neither ELF nor a usable `#!` line.
fn not_a_program(path: &[u8], head: &[u8]) -> Diagnosis {
    const MAGIC: [(&[u8], ForeignFormat); 12] = [
        (b"MZ", ForeignFormat::Windows),
        (&[0xfe, 0xed, 0xfa, 0xce], ForeignFormat::MacOs),
        (&[0xfe, 0xed, 0xfa, 0xcf], ForeignFormat::MacOs),
        (&[0xce, 0xfa, 0xed, 0xfe], ForeignFormat::MacOs),
        (&[0xcf, 0xfa, 0xed, 0xfe], ForeignFormat::MacOs),
        (&[0xca, 0xfe, 0xba, 0xbe], ForeignFormat::MacOs),
        (b"\0asm", ForeignFormat::WebAssembly),
        (b"PK\x03\x04", ForeignFormat::Zip),
        (&[0x1f, 0x8b], ForeignFormat::Compressed),
        (&[0x28, 0xb5, 0x2f, 0xfd], ForeignFormat::Compressed),
        (b"\xfd7zXZ\0", ForeignFormat::Compressed),
        (b"BZh", ForeignFormat::Compressed),
    ];
    let path = path.to_vec();
    if let Some((_, format)) = MAGIC.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Diagnosis::Foreign { path, format: *format };
    }
    if head.contains(&0) {
        return Diagnosis::Foreign { path, format: ForeignFormat::Unknown };
    }
    Diagnosis::TextWithoutShebang { path, byte_order_mark: head.starts_with(b"\xef\xbb\xbf#!") }
}

#[cfg(test)]
mod tests;
