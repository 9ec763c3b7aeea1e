//! Where a dynamic loader looks for a library.
//!
//! glibc: ld.so(8), "DESCRIPTION"; `elf/dl-load.c`, `_dl_map_object`. musl: `ldso/dynlink.c`,
//! `load_library`. The two differ in what they inherit from the objects above and in the system's list.

use std::cell::OnceCell;

use crate::cache::{CACHE_BYTES, Cache};
use crate::configuration::musl_path;
use crate::files::Files;
use crate::machine::Machine;
use crate::object::Object;
use crate::path::{join, parent, walk_to_file};

/// The names that musl's loader answers by itself: all of libc is in the loader.
const IN_MUSL: [&[u8]; 7] = [b"c", b"pthread", b"rt", b"m", b"dl", b"util", b"xnet"];

/// Which loader starts a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Loader {
    Glibc,
    /// The architecture as in the loader's name, `x86_64` in `/lib/ld-musl-x86_64.so.1`.
    Musl(Vec<u8>),
}

impl Loader {
    /// The loader that an interpreter's path names; anything unknown behaves like glibc's.
    pub(crate) fn of(interpreter: &[u8]) -> Self {
        let name = interpreter.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        match name.strip_prefix(b"ld-musl-") {
            Some(rest) => Self::Musl(rest.split(|byte| *byte == b'.').next().unwrap_or_default().to_vec()),
            None => Self::Glibc,
        }
    }

    /// Whether the loader has the library in itself.
    pub(crate) fn contains(&self, library: &[u8]) -> bool {
        let Self::Musl(_) = self else { return false };
        library.strip_prefix(b"lib").is_some_and(|rest| {
            IN_MUSL.iter().any(|name| rest.strip_prefix(*name).is_some_and(|rest| rest.starts_with(b".")))
        })
    }
}

/// One object that is loaded, as the search for the libraries it needs sees it.
pub(crate) struct Loaded<'a> {
    pub(crate) path: &'a [u8],
    pub(crate) object: &'a Object,
}

/// A library that was found.
pub(crate) struct Found {
    pub(crate) path: Vec<u8>,
    pub(crate) object: Object,
}

/// The search for libraries on behalf of one program.
pub(crate) struct Search<'a> {
    pub(crate) files: &'a dyn Files,
    pub(crate) loader: Loader,
    pub(crate) machine: Machine,
    /// `LD_LIBRARY_PATH`.
    pub(crate) library_path: &'a [u8],
    cache: OnceCell<Cache>,
    system: OnceCell<Vec<Vec<u8>>>,
}

impl<'a> Search<'a> {
    pub(crate) fn new(
        files: &'a dyn Files,
        loader: Loader,
        machine: Machine,
        library_path: &'a [u8],
    ) -> Self {
        Self { files, loader, machine, library_path, cache: OnceCell::new(), system: OnceCell::new() }
    }

    /// Looks for what the last of `chain` needs; `chain` starts with the program and goes down by need.
    ///
    /// # Errors
    /// The directories that were searched.
    pub(crate) fn find(&self, name: &[u8], chain: &[Loaded<'_>]) -> Result<Found, Vec<Vec<u8>>> {
        if name.contains(&b'/') {
            let origin = chain.last().map(|needing| parent(needing.path)).unwrap_or_default();
            let path = join(b"/", &self.expand(name, origin).pop().unwrap_or_default());
            return self.open(&path).ok_or_else(|| vec![parent(&path).to_vec()]);
        }
        let mut searched = self.own_directories(chain);
        if let Some(found) = self.first_in(&searched, name) {
            return Ok(found);
        }
        if self.loader == Loader::Glibc {
            if chain.last().is_some_and(|needing| needing.object.no_default_libraries) {
                return Err(searched);
            }
            if let Some(found) = self.cache().find(name).iter().find_map(|path| self.open(path)) {
                return Ok(found);
            }
        }
        if let Some(found) = self.first_in(self.system_directories(), name) {
            return Ok(found);
        }
        searched.extend(self.system_directories().iter().cloned());
        Err(searched)
    }

    /// Looks in a list of directories.
    pub(crate) fn first_in(&self, directories: &[Vec<u8>], name: &[u8]) -> Option<Found> {
        directories.iter().find_map(|directory| self.open(&join(directory, name)))
    }

    /// Whether the loader would not look where the library is if there were no `/etc/ld.so.cache`.
    pub(crate) fn only_by_cache(&self, path: &[u8], chain: &[Loaded<'_>]) -> bool {
        let directory = parent(path);
        let listed = |directories: &[Vec<u8>]| directories.iter().any(|listed| listed == directory);
        self.loader == Loader::Glibc
            && !listed(self.system_directories())
            && !listed(&self.own_directories(chain))
            && self
                .cache()
                .find(path.get(directory.len() + 1..).unwrap_or_default())
                .iter()
                .any(|cached| cached == path)
    }

    /// A library of another machine or word size is passed over, as the loaders do.
    fn open(&self, path: &[u8]) -> Option<Found> {
        let real = walk_to_file(self.files, path)?.path;
        let object = Object::read(&|offset, length| self.files.read(&real, offset, length)).ok()?;
        (object.machine == self.machine).then(|| Found { path: path.to_vec(), object })
    }

    /// `RPATH`, `LD_LIBRARY_PATH` and `RUNPATH`, in the loader's order.
    fn own_directories(&self, chain: &[Loaded<'_>]) -> Vec<Vec<u8>> {
        let mut directories = Vec::new();
        let environment = self.list(self.library_path, b"/");
        match self.loader {
            Loader::Glibc => {
                let runpath = chain.last().and_then(|needing| needing.object.runpath.as_ref());
                if runpath.is_none() {
                    for above in chain.iter().rev().filter(|above| above.object.runpath.is_none()) {
                        directories.extend(self.own_list(above.object.rpath.as_ref(), above));
                    }
                }
                directories.extend(environment);
                directories.extend(chain.last().iter().flat_map(|needing| self.own_list(runpath, needing)));
            }
            Loader::Musl(_) => {
                directories.extend(environment);
                for above in chain.iter().rev() {
                    let path = above.object.runpath.as_ref().or(above.object.rpath.as_ref());
                    directories.extend(self.own_list(path, above));
                }
            }
        }
        directories
    }

    fn own_list(&self, list: Option<&Vec<u8>>, of: &Loaded<'_>) -> Vec<Vec<u8>> {
        list.map(|list| self.list(list, parent(of.path))).unwrap_or_default()
    }

    /// Relative directories depend on where the program is started, and are left out.
    fn list(&self, list: &[u8], origin: &[u8]) -> Vec<Vec<u8>> {
        let items = list.split(|byte| matches!(byte, b':' | b';')).filter(|item| !item.is_empty());
        items
            .flat_map(|item| self.expand(item, origin))
            .filter(|directory| directory.starts_with(b"/"))
            .collect()
    }

    /// Replaces `$ORIGIN`, `$PLATFORM` and `$LIB`; `$LIB` is Debian's name or the others', so two results.
    fn expand(&self, text: &[u8], origin: &[u8]) -> Vec<Vec<u8>> {
        let origin = if origin.is_empty() { b"/" } else { origin };
        let text = replace(text, b"ORIGIN", origin);
        let text = replace(&text, b"PLATFORM", self.machine.uname().as_bytes());
        let multiarch = format!("lib/{}", self.machine.multiarch().unwrap_or("unknown"));
        let plain: &[u8] = if self.machine.bits == 64 { b"lib64" } else { b"lib" };
        let (debian, others) = (replace(&text, b"LIB", multiarch.as_bytes()), replace(&text, b"LIB", plain));
        if debian == others { vec![debian] } else { vec![debian, others] }
    }

    fn cache(&self) -> &Cache {
        self.cache.get_or_init(|| {
            let file = walk_to_file(self.files, b"/etc/ld.so.cache");
            let bytes = file.and_then(|file| self.files.read(&file.path, 0, CACHE_BYTES));
            Cache::parse(&bytes.unwrap_or_default())
        })
    }

    /// The directories every program gets, in the loader's order.
    pub(crate) fn system_directories(&self) -> &[Vec<u8>] {
        self.system.get_or_init(|| match &self.loader {
            Loader::Musl(architecture) => musl_path(self.files, architecture).unwrap_or_else(|| {
                [&b"/lib"[..], b"/usr/local/lib", b"/usr/lib"].map(<[u8]>::to_vec).to_vec()
            }),
            Loader::Glibc => {
                let mut directories = Vec::new();
                if let Some(triplet) = self.machine.multiarch() {
                    directories.extend(["/lib/", "/usr/lib/"].map(|lib| format!("{lib}{triplet}")));
                }
                if self.machine.bits == 64 {
                    directories.extend(["/lib64", "/usr/lib64"].map(String::from));
                }
                directories.extend(["/lib", "/usr/lib"].map(String::from));
                directories.into_iter().map(String::into_bytes).collect()
            }
        })
    }
}

/// Replaces `$NAME` and `${NAME}`.
fn replace(text: &[u8], name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let braced = [b"{", name, b"}"].concat();
        let token = if *first == b'$' {
            after.strip_prefix(&braced[..]).or_else(|| {
                let tail = after.strip_prefix(name)?;
                let ends = tail.first().is_none_or(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
                ends.then_some(tail)
            })
        } else {
            None
        };
        match token {
            Some(tail) => {
                out.extend_from_slice(value);
                rest = tail;
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ElfFile, MemoryFiles, cache_file};

    fn object(file: &ElfFile) -> Object {
        let bytes = file.build();
        Object::read(&|offset, length| {
            let from = usize::try_from(offset).ok()?.min(bytes.len());
            Some(bytes[from..(from + length).min(bytes.len())].to_vec())
        })
        .unwrap()
    }

    fn finds(files: &MemoryFiles, loader: Loader, chain: &[(&str, &ElfFile)], library_path: &str) -> String {
        let machine = Machine::from_architecture("amd64").unwrap();
        let objects: Vec<Object> = chain.iter().map(|(_, file)| object(file)).collect();
        let chain: Vec<Loaded<'_>> = chain
            .iter()
            .zip(&objects)
            .map(|((path, _), object)| Loaded { path: path.as_bytes(), object })
            .collect();
        let search = Search::new(files, loader, machine, library_path.as_bytes());
        match search.find(b"libx.so", &chain) {
            Ok(found) => String::from_utf8(found.path).unwrap(),
            Err(_) => "nowhere".into(),
        }
    }

    fn with(paths: &[&str]) -> MemoryFiles {
        let library = ElfFile::new("amd64").build();
        paths.iter().fold(MemoryFiles::new(), |files, path| files.file(path, &library))
    }

    #[test]
    fn the_run_path_wins_over_the_system_and_the_environment_over_the_run_path() {
        let program = ElfFile::new("amd64").runpath("$ORIGIN/../lib");
        let files = with(&["/app/bin/run", "/app/lib/libx.so", "/usr/lib/libx.so", "/env/libx.so"]);
        let chain = [("/app/bin/run", &program)];
        assert_eq!(finds(&files, Loader::Glibc, &chain, ""), "/app/bin/../lib/libx.so");
        assert_eq!(finds(&files, Loader::Glibc, &chain, "/env"), "/env/libx.so");
    }

    #[test]
    fn a_run_path_is_not_inherited_by_libraries_but_an_rpath_is() {
        let library = ElfFile::new("amd64");
        let files = with(&["/opt/libx.so"]);
        let runpath = ElfFile::new("amd64").runpath("/opt");
        assert_eq!(finds(&files, Loader::Glibc, &[("/p", &runpath), ("/l", &library)], ""), "nowhere");
        let rpath = ElfFile::new("amd64").rpath("/opt");
        assert_eq!(finds(&files, Loader::Glibc, &[("/p", &rpath), ("/l", &library)], ""), "/opt/libx.so");
        let musl = Loader::Musl(b"x86_64".to_vec());
        assert_eq!(finds(&files, musl, &[("/p", &runpath), ("/l", &library)], ""), "/opt/libx.so");
    }

    #[test]
    fn libraries_of_another_machine_are_passed_over() {
        let files = with(&["/usr/lib/libx.so"])
            .file("/lib/x86_64-linux-gnu/libx.so", &ElfFile::new("386").build())
            .file("/lib64/libx.so", b"INPUT(-lx)");
        assert_eq!(finds(&files, Loader::Glibc, &[], ""), "/usr/lib/libx.so");
    }

    #[test]
    fn the_cache_is_asked_before_the_default_directories() {
        let files = with(&["/srv/lib/libx.so"])
            .file("/etc/ld.so.cache", &cache_file(&[("libx.so", "/srv/lib/libx.so", 0)]));
        assert_eq!(finds(&files, Loader::Glibc, &[], ""), "/srv/lib/libx.so");
        assert_eq!(finds(&files, Loader::Musl(b"x86_64".to_vec()), &[], ""), "nowhere");
    }

    #[test]
    fn musl_has_its_libc_in_the_loader() {
        let musl = Loader::of(b"/lib/ld-musl-x86_64.so.1");
        assert_eq!(musl, Loader::Musl(b"x86_64".to_vec()));
        assert!(musl.contains(b"libc.musl-x86_64.so.1") && musl.contains(b"libpthread.so.0"));
        assert!(!musl.contains(b"libcrypto.so.3") && !Loader::Glibc.contains(b"libc.so.6"));
    }

    #[test]
    fn variables_are_replaced_whole() {
        assert_eq!(replace(b"$ORIGIN/x:${ORIGIN}y:$ORIGINAL", b"ORIGIN", b"/o"), b"/o/x:/oy:$ORIGINAL");
    }
}
