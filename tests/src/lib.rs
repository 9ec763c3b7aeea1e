//! Black-box tests of the mica binary.
//!
//! Every test runs the real program on a store of its own. The base image `base` is made once per test
//! program, by `mica pack` and one small build; stores that start with it are copies.

mod base;
mod build;
mod canary;
mod disk;
mod distribution;
mod fault;
mod image;
mod native;
pub mod registry;
mod tar;
mod tree;
mod users;
mod web;

pub use base::{copy_store, empty, with_base, with_base_as, with_base_on};
pub use build::{Build, Built, step_was_cached};
pub use canary::{Canary, SECRET};
pub use disk::Disk;
pub use distribution::{Distribution, REGISTRY_PASSWORD, REGISTRY_USER};
pub use fault::{Watched, explained, has_strace, nothing_runs, until_shown};
pub use image::{ImageArchive, descriptor};
pub use native::{compile, measured};
pub use tar::{Member, TarMaker};
pub use tree::Tree;
pub use users::{empty_stores, with_ids, without_ids};
pub use web::{Answer, Web};

use mica_testkit::Output;

/// Reads a text with one JSON object per line.
///
/// # Panics
/// If a line is no JSON.
#[track_caller]
pub fn json_lines(output: &Output) -> Vec<serde_json::Value> {
    let text = output.stdout_text();
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"));
    text.lines().map(parse).collect()
}

/// Demands that a text holds all of some parts, in any order.
///
/// # Panics
/// If a part is missing, with the whole text.
#[track_caller]
pub fn holds(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = std::time::Instant::now();
    while !done() {
        assert!(started.elapsed().as_secs() < 20, "{what}: not within 20 s");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
