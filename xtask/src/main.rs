//! The project's own chores: `cargo xtask <chore>`.
//!
//! Everything runs from the root of the workspace, needs no terminal and no input, and reports in text.

mod bench;
mod differential;
mod dist;
mod edges;
mod peers;
mod report;
mod run;
mod test;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask <chore>

  test [--all]      format, lints, layer edges, tests, documentation, a sample of the differential
                    corpus; ends with `N passed, M failed, K skipped`. --all: the long tier too
  edges             only the check of who uses whom (crates/edges.toml)
  peers             installs the programs that the tests compare with; says loudly what it could not get
  dist              static binaries for x86_64 and aarch64 in dist/
  bench [--only NAME,…] [--rounds N] [--write]
                    whole-program workloads beside the peers found; --write: docs/performance.md";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let Err(error) = std::env::set_current_dir(run::workspace()) {
        eprintln!("xtask: cannot enter the workspace: {error}");
        return ExitCode::FAILURE;
    }
    let outcome = match words[..] {
        ["test"] => test::run(test::Tier::Every),
        ["test", "--all"] => test::run(test::Tier::Long),
        ["edges"] => edges::run(),
        ["peers"] => peers::run(),
        ["dist"] => dist::run(),
        ["bench", ref rest @ ..] => bench::Options::parse(rest).and_then(|options| bench::run(&options)),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            if !message.is_empty() {
                eprintln!("{message}");
            }
            ExitCode::FAILURE
        }
    }
}
