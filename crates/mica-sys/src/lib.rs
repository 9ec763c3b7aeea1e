//! Safe names for system calls: the only crate of mica with `unsafe` code.
//!
//! Here: paths below untrusted roots ([`root`]), the new mount API ([`mount`]), namespaces
//! ([`namespace`]), process attributes ([`process`]) and signals ([`signals`]). Not here: any decision. A function of this
//! crate does what its arguments say and returns what the kernel answered.
//!
//! `rustix` makes the call wherever it has it; `libc` is used for the rest, with the safety argument
//! written at the call.

pub mod mount;
pub mod namespace;
pub mod network;
pub mod process;
pub mod root;
pub mod signals;

use std::io;

/// Turns the return value of a raw system call into a result.
pub(crate) fn check(rc: libc::c_long) -> io::Result<libc::c_long> {
    if rc == -1 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}
