//! The project's test command: every check there is, and one summary.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::differential;
use crate::report::{Report, TestOutput};
use crate::run::{Outcome, cargo, command, find, must, read, shown, target};

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tier {
    /// What every change has to pass.
    Every,
    /// All of it, hours if need be.
    Long,
}

/// How often a fault test kills in the long tier.
const LONG_FAULT_ROUNDS: &str = "200";

/// Runs the checks, all of them even if some fail.
pub(crate) fn run(tier: Tier) -> Outcome {
    let started = Instant::now();
    let mut report = Report::default();
    let lints = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    check(&mut report, "format", &mut cargo(&["fmt", "--all", "--check"]));
    check(&mut report, "lints", &mut cargo(&lints));
    heading("layer edges");
    match crate::edges::run() {
        Ok(()) => report.pass(),
        Err(message) => fail(&mut report, "layer edges", &message),
    }
    let binary = build(&mut report);
    tests(&mut report, tier, binary.as_deref());
    let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
    check(
        &mut report,
        "documentation",
        doc.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links"),
    );
    match &binary {
        Some(binary) => differential::run(&mut report, tier, binary),
        None => report.skip("differential corpus: the binary was not built"),
    }
    if tier == Tier::Long {
        dependencies(&mut report);
        fuzz(&mut report);
    }
    println!("\n{} s", started.elapsed().as_secs());
    println!("{}", report.summary());
    // The summary has said it all, and stays the last line.
    if report.failed() { Err(String::new()) } else { Ok(()) }
}

/// Announces a check.
pub(crate) fn heading(what: &str) {
    println!("\n== {what}");
}

fn fail(report: &mut Report, what: &str, message: &str) {
    eprintln!("{message}");
    report.fail(what);
}

fn check(report: &mut Report, what: &str, command: &mut Command) {
    heading(what);
    match must(command) {
        Ok(()) => report.pass(),
        Err(message) => fail(report, what, &message),
    }
}

/// The binary that black-box tests drive.
fn build(report: &mut Report) -> Option<PathBuf> {
    heading("the binary");
    match must(&mut cargo(&["build", "--package", "mica"])) {
        Ok(()) => Some(target().join("debug/mica")),
        Err(message) => {
            fail(report, "the binary", &message);
            None
        }
    }
}

fn tests(report: &mut Report, tier: Tier, binary: Option<&std::path::Path>) {
    heading("tests");
    let skip_file = target().join("skips.txt");
    // It may not be there.
    let _ = std::fs::remove_file(&skip_file);
    let mut command = cargo(&["test", "--workspace", "--no-fail-fast", "--", "--show-output"]);
    command.env("MICA_SKIP_FILE", &skip_file).env("MICA_PEERS_BIN", crate::run::peers_bin());
    if let Some(binary) = binary {
        command.env("MICA_BIN", binary);
    }
    if tier == Tier::Long {
        command.env("MICA_FAULT_ROUNDS", LONG_FAULT_ROUNDS);
    }
    let mut output = TestOutput::default();
    let succeeded = follow(&mut command, |line| output.line(line));
    let text = std::fs::read_to_string(&skip_file).unwrap_or_default();
    output.skips.extend(text.lines().filter_map(|line| line.strip_prefix("SKIP: ")).map(String::from));
    // A test program that does not build, or dies, has no line of its own.
    let unexplained = succeeded != Ok(true) && output.failures.is_empty();
    report.take(output);
    if unexplained {
        report.fail("cargo test ended badly: a test program did not build, or died");
    }
}

/// Runs a command, gives each line of its standard output to `each`, and shows those it returns true for.
pub(crate) fn follow(command: &mut Command, mut each: impl FnMut(&str) -> bool) -> Outcome<bool> {
    let shown = shown(command);
    eprintln!("+ {shown}");
    let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| format!("`{shown}`: {error}"))?;
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout);
        let mut bytes = Vec::new();
        while lines.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
            let line = String::from_utf8_lossy(&bytes);
            let line = line.trim_end_matches('\n');
            if each(line) {
                println!("{line}");
            }
            bytes.clear();
        }
    }
    let status = child.wait().map_err(|error| format!("`{shown}`: {error}"))?;
    Ok(status.success())
}

/// Licences, sources, dependencies nobody uses. Advisories need a network that tests may not have.
fn dependencies(report: &mut Report) {
    for (tool, arguments) in [
        ("cargo-deny", &["deny", "check", "bans", "licenses", "sources"][..]),
        ("cargo-machete", &["machete"][..]),
    ] {
        match find(tool) {
            // cargo-machete takes this variable for a sign that cargo did not call it.
            Some(_) => check(report, tool, cargo(arguments).env_remove("CARGO_PKG_NAME")),
            None => report.skip(format!("{tool}: not installed (cargo install {tool})")),
        }
    }
}

/// The fuzz targets build; running them is another chore.
fn fuzz(report: &mut Report) {
    if !std::path::Path::new("fuzz/Cargo.toml").exists() {
        return report.skip("fuzz targets: there is no fuzz/");
    }
    let toolchains = read(&mut command("rustup", &["toolchain", "list"])).unwrap_or_default();
    if !toolchains.contains("nightly") {
        return report.skip("fuzz targets: no nightly toolchain");
    }
    let mut build =
        command("rustup", &["run", "nightly", "cargo", "check", "--manifest-path", "fuzz/Cargo.toml"]);
    check(report, "fuzz targets", build.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN"));
}
