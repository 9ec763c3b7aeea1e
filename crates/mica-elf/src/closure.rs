//! Everything a set of programs needs to start somewhere else: what `mica pack` puts into an image.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::files::{FileKind, Files};
use crate::link::{Outcome, dependencies};
use crate::object::Object;
use crate::path::{Walked, join, shown, walk};
use crate::script::{HEAD_BYTES, Script};

/// The search path for `#!/usr/bin/env NAME`: what an image without a `PATH` gets.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bounds what one directory can pull in.
const ITEMS: usize = 1_000_000;

/// The files that programs need, sorted by path, and what could not be found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closure {
    /// What to take along. Every item's directory is an item before it; no item is below a link.
    pub items: Vec<Item>,
    /// What the programs need and the tree does not have.
    pub missing: Vec<Missing>,
}

/// One thing to take along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Where it is, absolute.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: ItemKind,
    /// Why it is needed.
    pub reason: Reason,
}

/// What an [`Item`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemKind {
    /// A regular file.
    File,
    /// A symbolic link, and where it points.
    Symlink {
        /// The text of the link.
        target: Vec<u8>,
    },
    /// A directory.
    Directory,
}

/// Why an [`Item`] is part of a closure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It was asked for, or is below a directory that was.
    Requested,
    /// It loads a dynamic program.
    Interpreter {
        /// The program.
        of: Vec<u8>,
    },
    /// A program or library needs it.
    Library {
        /// The name in the ELF file.
        name: Vec<u8>,
        /// What needs it.
        needed_by: Vec<u8>,
    },
    /// It runs a script.
    ScriptInterpreter {
        /// The script.
        of: Vec<u8>,
    },
    /// The loader finds a library only through it.
    LibraryIndex {
        /// The library.
        of: Vec<u8>,
    },
    /// The path to something needed goes through it.
    OnTheWay {
        /// What is needed.
        to: Vec<u8>,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested => f.write_str("asked for"),
            Self::Interpreter { of } => write!(f, "loads {}", shown(of)),
            Self::Library { needed_by, .. } => write!(f, "library of {}", shown(needed_by)),
            Self::ScriptInterpreter { of } => write!(f, "runs the script {}", shown(of)),
            Self::LibraryIndex { of } => write!(f, "leads the loader to {}", shown(of)),
            Self::OnTheWay { to } => write!(f, "on the way to {}", shown(to)),
        }
    }
}

/// Something a closure lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// What was asked for is not there.
    Requested {
        /// The path asked for.
        path: Vec<u8>,
    },
    /// A program's loader is not there.
    Interpreter {
        /// The program.
        of: Vec<u8>,
        /// The loader.
        interpreter: Vec<u8>,
    },
    /// What runs a script is not there.
    ScriptInterpreter {
        /// The script.
        of: Vec<u8>,
        /// The program in its `#!` line.
        interpreter: Vec<u8>,
    },
    /// A library is in none of the loader's directories.
    Library {
        /// Its name in the ELF file.
        name: Vec<u8>,
        /// What needs it.
        needed_by: Vec<u8>,
        /// The directories searched.
        searched: Vec<Vec<u8>>,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested { path } => write!(f, "{} does not exist", shown(path)),
            Self::Interpreter { of, interpreter } => {
                write!(f, "{}, which loads {}, does not exist", shown(interpreter), shown(of))
            }
            Self::ScriptInterpreter { of, interpreter } => {
                write!(f, "{}, which runs the script {}, does not exist", shown(interpreter), shown(of))
            }
            Self::Library { name, needed_by, .. } => {
                write!(f, "library {}, needed by {}, was not found", shown(name), shown(needed_by))
            }
        }
    }
}

/// Finds everything that the programs at these absolute paths need, transitively.
///
/// Loaders, libraries, the programs in `#!` lines, and every directory and link on the way to them. A
/// directory among `programs` stands for all files below it. What is loaded at run time by name
/// (plug-ins, dlopen) is not visible in the files and has to be asked for.
pub fn closure(files: &dyn Files, programs: &[Vec<u8>]) -> Closure {
    let mut collector = Collector {
        files,
        items: BTreeMap::new(),
        missing: Vec::new(),
        seen: BTreeSet::new(),
        pending: programs.iter().rev().map(|path| (path.clone(), Reason::Requested)).collect(),
    };
    while let Some((path, reason)) = collector.pending.pop() {
        collector.take(&path, reason);
    }
    Closure { items: collector.items.into_values().collect(), missing: collector.missing }
}

struct Collector<'a> {
    files: &'a dyn Files,
    items: BTreeMap<Vec<u8>, Item>,
    missing: Vec<Missing>,
    /// Programs looked into, links replaced.
    seen: BTreeSet<Vec<u8>>,
    pending: Vec<(Vec<u8>, Reason)>,
}

impl Collector<'_> {
    fn take(&mut self, path: &[u8], reason: Reason) {
        let Some(walked) = self.add(path, &reason) else {
            self.lacks(path, reason);
            return;
        };
        if !self.seen.insert(walked.path.clone()) {
            return;
        }
        match walked.stat.kind {
            FileKind::Directory => self.below(&walked.path),
            FileKind::File => self.look_into(&walked.path),
            FileKind::Symlink | FileKind::Other => {}
        }
    }

    /// Adds what a path leads to and all that is on the way.
    fn add(&mut self, path: &[u8], reason: &Reason) -> Option<Walked> {
        let walked = walk(self.files, path)?;
        let way = || Reason::OnTheWay { to: path.to_vec() };
        for (directory, _) in &walked.directories {
            self.item(directory, ItemKind::Directory, way());
        }
        for (link, target) in &walked.links {
            self.item(link, ItemKind::Symlink { target: target.clone() }, way());
        }
        match walked.stat.kind {
            FileKind::File => self.item(&walked.path, ItemKind::File, reason.clone()),
            FileKind::Directory => self.item(&walked.path, ItemKind::Directory, reason.clone()),
            FileKind::Symlink | FileKind::Other => return None,
        }
        Some(walked)
    }

    fn item(&mut self, path: &[u8], kind: ItemKind, reason: Reason) {
        if path != b"/" && self.items.len() < ITEMS {
            let item = || Item { path: path.to_vec(), kind, reason };
            self.items.entry(path.to_vec()).or_insert_with(item);
        }
    }

    fn lacks(&mut self, path: &[u8], reason: Reason) {
        let path = path.to_vec();
        self.missing.push(match reason {
            Reason::Interpreter { of } => Missing::Interpreter { of, interpreter: path },
            Reason::ScriptInterpreter { of } => Missing::ScriptInterpreter { of, interpreter: path },
            // A library was found before it was asked for.
            Reason::Library { name, needed_by } => Missing::Library { name, needed_by, searched: Vec::new() },
            Reason::Requested | Reason::LibraryIndex { .. } | Reason::OnTheWay { .. } => {
                Missing::Requested { path }
            }
        });
    }

    /// Asks for everything in a directory. A link is taken as it is: where it leads need not be wanted.
    fn below(&mut self, directory: &[u8]) {
        let mut names = self.files.names(directory).unwrap_or_default();
        names.sort();
        for name in names.iter().rev() {
            let path = join(directory, name);
            match self.files.stat(&path).map(|stat| stat.kind) {
                Some(FileKind::Symlink) => {
                    let target = self.files.link(&path).unwrap_or_default();
                    self.item(&path, ItemKind::Symlink { target }, Reason::Requested);
                }
                Some(FileKind::File | FileKind::Directory) if self.items.len() < ITEMS => {
                    self.pending.push((path, Reason::Requested));
                }
                _ => {}
            }
        }
    }

    /// Asks for what a file needs to start; a file that is no program needs nothing.
    fn look_into(&mut self, path: &[u8]) {
        let head = self.files.read(path, 0, HEAD_BYTES).unwrap_or_default();
        if let Some(script) = Script::parse(&head) {
            return self.script(path, &script);
        }
        let read = |offset, length| self.files.read(path, offset, length);
        let Ok(object) = Object::read(&read) else { return };
        if let Some(interpreter) = &object.interpreter {
            self.pending.push((join(b"/", interpreter), Reason::Interpreter { of: path.to_vec() }));
        }
        for dependency in dependencies(self.files, path, &object, b"") {
            let (name, needed_by) = (dependency.name, dependency.needed_by);
            match dependency.outcome {
                Outcome::Found { path, only_by_cache } => {
                    if only_by_cache {
                        self.add(b"/etc/ld.so.cache", &Reason::LibraryIndex { of: path.clone() });
                    }
                    self.add(&path, &Reason::Library { name, needed_by });
                }
                Outcome::Missing { searched } => {
                    let missing = Missing::Library { name, needed_by, searched };
                    if !self.missing.contains(&missing) {
                        self.missing.push(missing);
                    }
                }
            }
        }
    }

    fn script(&mut self, path: &[u8], script: &Script) {
        let of = path.to_vec();
        let reason = Reason::ScriptInterpreter { of: of.clone() };
        self.pending.push((join(b"/", &script.interpreter), reason.clone()));
        let Some(name) = script.through_env() else { return };
        let mut candidates = DEFAULT_PATH.split(|byte| *byte == b':').map(|directory| join(directory, name));
        match candidates.find(|candidate| crate::path::walk_to_file(self.files, candidate).is_some()) {
            Some(candidate) => self.pending.push((candidate, reason)),
            None => self.missing.push(Missing::ScriptInterpreter { of, interpreter: name.to_vec() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ElfFile, MemoryFiles, cache_file};

    fn debian() -> MemoryFiles {
        let libc = ElfFile::new("amd64").soname("libc.so.6").needed("ld-linux-x86-64.so.2");
        let program = ElfFile::new("amd64").interpreter("/lib64/ld-linux-x86-64.so.2").needed("libc.so.6");
        MemoryFiles::new()
            .link("/bin", "usr/bin")
            .link("/lib", "usr/lib")
            .link("/lib64", "usr/lib64")
            .link("/usr/lib64/ld-linux-x86-64.so.2", "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2")
            .file("/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", &ElfFile::new("amd64").build())
            .file("/usr/lib/x86_64-linux-gnu/libc.so.6", &libc.build())
            .file("/usr/bin/dash", &program.build())
            .link("/usr/bin/sh", "dash")
            .file("/srv/run", b"#!/bin/sh -e\n")
    }

    fn listed(closure: &Closure) -> Vec<String> {
        closure
            .items
            .iter()
            .map(|item| match &item.kind {
                ItemKind::File => shown(&item.path),
                ItemKind::Directory => shown(&item.path) + "/",
                ItemKind::Symlink { target } => format!("{} -> {}", shown(&item.path), shown(target)),
            })
            .collect()
    }

    #[test]
    fn a_script_brings_its_shell_its_loader_its_libraries_and_the_links_between_them() {
        let closure = closure(&debian(), &[b"/srv/run".to_vec()]);
        assert_eq!(
            listed(&closure),
            [
                "/bin -> usr/bin",
                "/lib -> usr/lib",
                "/lib64 -> usr/lib64",
                "/srv/",
                "/srv/run",
                "/usr/",
                "/usr/bin/",
                "/usr/bin/dash",
                "/usr/bin/sh -> dash",
                "/usr/lib/",
                "/usr/lib/x86_64-linux-gnu/",
                "/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
                "/usr/lib/x86_64-linux-gnu/libc.so.6",
                "/usr/lib64/",
                "/usr/lib64/ld-linux-x86-64.so.2 -> /lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            ]
        );
        assert_eq!(closure.missing, []);
        let dash = closure.items.iter().find(|item| item.path == b"/usr/bin/dash").unwrap();
        assert_eq!(dash.reason.to_string(), "runs the script /srv/run");
    }

    #[test]
    fn a_directory_stands_for_what_is_below_it() {
        let files = debian()
            .file("/opt/app/bin/run", b"#!/usr/bin/dash\n")
            .file("/opt/app/data", b"text")
            .directory("/opt/app/empty")
            .link("/opt/app/current", "/nowhere");
        let closure = closure(&files, &[b"/opt/app".to_vec()]);
        let listed = listed(&closure);
        for path in ["/opt/app/data", "/opt/app/empty/", "/opt/app/current -> /nowhere", "/usr/bin/dash"] {
            assert!(listed.iter().any(|item| item == path), "{path} in {listed:?}");
        }
        assert_eq!(closure.missing, []);
    }

    #[test]
    fn a_library_that_only_the_cache_leads_to_brings_the_cache() {
        let program = ElfFile::new("amd64").needed("libx.so.1").build();
        let files = MemoryFiles::new()
            .file("/run", &program)
            .file("/opt/x/libx.so.1", &ElfFile::new("amd64").build())
            .file("/etc/ld.so.cache", &cache_file(&[("libx.so.1", "/opt/x/libx.so.1", 0)]));
        let closure = closure(&files, &[b"/run".to_vec()]);
        let index = closure.items.iter().find(|item| item.path == b"/etc/ld.so.cache").unwrap();
        assert_eq!(index.reason.to_string(), "leads the loader to /opt/x/libx.so.1");
    }

    #[test]
    fn what_is_missing_is_named_with_what_needs_it() {
        let program = ElfFile::new("amd64").interpreter("/lib64/ld.so").needed("libgone.so.3").build();
        let files = MemoryFiles::new()
            .file("/run", &program)
            .file("/tool", b"#!/usr/bin/env python3\n")
            .file("/usr/bin/env", b"\0");
        let programs = ["/run", "/none", "/tool"].map(|path| path.as_bytes().to_vec());
        let missing: Vec<String> =
            closure(&files, &programs).missing.iter().map(ToString::to_string).collect();
        assert_eq!(
            missing,
            [
                "library libgone.so.3, needed by /run, was not found",
                "/lib64/ld.so, which loads /run, does not exist",
                "/none does not exist",
                "python3, which runs the script /tool, does not exist",
            ]
        );
    }
}
