//! Tests that cannot run here say so, and are counted.

use std::io::Write;

/// Reports that the running test cannot run here: prints `SKIP: <test>: <reason>`, and appends the line to
/// the file that `MICA_SKIP_FILE` names, from which `cargo xtask test` makes its summary.
///
/// The test returns right after it: `return skip("no newuidmap")`.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIP: {}: {reason}\n", thread.name().unwrap_or("a test"));
    eprint!("{line}");
    let Some(path) = std::env::var_os("MICA_SKIP_FILE") else { return };
    let appended = std::fs::OpenOptions::new().create(true).append(true).open(&path);
    // One write: several test programs may append at the same time.
    let written = appended.and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        panic!("a skip could not be counted in {}: {error}", path.display());
    }
}

/// Whether the test runs as root; reports the skip if not.
pub fn needs_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}
