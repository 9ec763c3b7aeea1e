//! What a program needs to start, and why it did not.
//!
//! Here: reading ELF headers and `#!` lines, finding libraries as the dynamic loaders of glibc and musl
//! do, the closure of files a program needs ([`closure()`], behind `mica pack`), and the explanation of a
//! failed exec ([`diagnose`]). Not here: any file system. All questions go through [`Files`], so that the
//! same code looks at the host, at a mounted root file system and at the table of a layer.
//!
//! Everything read is hostile: sizes are bounded, offsets are checked, nothing indexes.

mod advice;
mod bytes;
mod cache;
mod closure;
mod configuration;
mod diagnosis;
mod doctor;
mod files;
mod link;
mod loader;
mod machine;
mod object;
mod path;
mod script;

#[cfg(test)]
mod testing;

pub use closure::{Closure, Item, ItemKind, Missing, Reason, closure};
pub use diagnosis::{Diagnosis, ForeignFormat, Libc};
pub use doctor::{Attempt, Identity, diagnose};
pub use files::{FileKind, FileStat, Files};
pub use machine::Machine;
pub use object::{Object, ObjectError};
pub use script::Script;
