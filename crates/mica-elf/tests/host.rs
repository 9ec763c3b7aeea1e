//! The closure of real programs of this machine, compared with what its own loader says.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use mica_elf::{FileKind, FileStat, Files, closure};

/// The files of this machine.
struct Host;

fn host(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

impl Files for Host {
    fn stat(&self, path: &[u8]) -> Option<FileStat> {
        let metadata = host(path).symlink_metadata().ok()?;
        let kind = match metadata.file_type() {
            kind if kind.is_file() => FileKind::File,
            kind if kind.is_dir() => FileKind::Directory,
            kind if kind.is_symlink() => FileKind::Symlink,
            _ => FileKind::Other,
        };
        Some(FileStat { kind, mode: metadata.mode() & 0o7777, uid: metadata.uid(), gid: metadata.gid() })
    }

    fn link(&self, path: &[u8]) -> Option<Vec<u8>> {
        Some(host(path).read_link().ok()?.into_os_string().into_vec())
    }

    fn read(&self, path: &[u8], offset_bytes: u64, length_bytes: usize) -> Option<Vec<u8>> {
        let file = std::fs::File::open(host(path)).ok()?;
        let rest = file.metadata().ok()?.len().saturating_sub(offset_bytes);
        let length = usize::try_from(rest).unwrap_or(usize::MAX).min(length_bytes);
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, offset_bytes).ok()?;
        Some(bytes)
    }

    fn names(&self, path: &[u8]) -> Option<Vec<Vec<u8>>> {
        let entries = std::fs::read_dir(host(path)).ok()?;
        entries.map(|entry| Some(entry.ok()?.file_name().into_vec())).collect()
    }
}

/// The files ldd names, links replaced; `None` where there is no ldd or it does not know the program.
fn by_ldd(program: &str) -> Option<BTreeSet<Vec<u8>>> {
    let output = Command::new("ldd").arg(program).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    Some(paths.map(|path| Path::new(path).canonicalize().unwrap().into_os_string().into_vec()).collect())
}

#[test]
fn the_closure_of_programs_on_this_machine_is_what_ldd_says() {
    let mut compared = 0;
    for program in ["/bin/ls", "/bin/sh", "/usr/bin/git", "/usr/bin/python3", "/usr/bin/curl"] {
        let Some(expected) = by_ldd(program) else { continue };
        let closure = closure(&Host, &[program.as_bytes().to_vec()]);
        assert_eq!(closure.missing, [], "{program}");
        let itself = Path::new(program).canonicalize().unwrap().into_os_string().into_vec();
        let found: BTreeSet<Vec<u8>> = closure
            .items
            .iter()
            .map(|item| item.path.clone())
            .filter(|path| {
                *path != itself
                    && path != b"/etc/ld.so.cache"
                    && Host.stat(path).unwrap().kind == FileKind::File
            })
            .collect();
        assert_eq!(found, expected, "{program}");
        compared += 1;
    }
    if compared == 0 {
        eprintln!("SKIP: no ldd that knows this machine's programs");
    }
}
