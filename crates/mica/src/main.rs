//! mica: builds, stores, inspects, runs and moves container images.
//!
//! This crate turns arguments into requests and events into text. It is the only place that prints, reads the
//! environment and picks exit codes; everything else is the engine's.

mod cli;
mod context;
mod docker_config;
mod engine;
mod environment;
mod failure;
mod flags;
mod format;
mod help;
mod output;
mod progress;
mod root;
mod signals;
#[cfg(test)]
mod testing;
mod values;
mod verbs;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// What is said when a page of a mapped file cannot be had: in practice, the store's shared memory on a full disk.
const BUS_ERROR: &str = "error: the store's disk is full, or failing\n  why: a page of a file could not be read or written (SIGBUS)\n hint: free space on the file system of the store\n";

fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let program = program_name(args.next().as_deref());
    let args: Vec<OsString> = args.collect();
    // the executor's helper: before clap, threads, anything
    if args.first().is_some_and(|first| first == mica_runtime::HIDDEN_COMMAND) {
        return exit_code(mica_runtime::run_hidden());
    }
    // If it is refused, such an error ends the process all the same, only without a word.
    let _unexplained = mica_sys::signals::explain_bus_errors(BUS_ERROR);
    let mut cx = context::Cx::of_process(program, engine::engine);
    ExitCode::from(root::run(&mut cx, &args))
}

/// Codes are bytes; everything outside is a plain failure.
fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// `docker` when called by that name, else `mica`.
fn program_name(argv0: Option<&std::ffi::OsStr>) -> String {
    let name = argv0.and_then(|path| Path::new(path).file_name());
    if name == Some("docker".as_ref()) { "docker".to_owned() } else { "mica".to_owned() }
}
