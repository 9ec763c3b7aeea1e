//! Whole-program workloads, mica beside the peers found on this machine.
//!
//! Every round runs all tools one after the other, so that a noisy moment hits all of them; what is
//! reported is the median. Each tool gets a store of its own that is thrown away afterwards.

mod measure;
mod table;
mod tools;
mod workloads;

use std::path::PathBuf;

use crate::run::{Outcome, cargo, command, is_root, must, target};
use measure::Cost;
use table::{Row, Table};
use tools::Tool;
use workloads::{WORKLOADS, Workload};

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Names of workloads; all if empty.
    only: Vec<String>,
    /// Instead of each workload's own number.
    rounds: Option<usize>,
    /// The table goes to docs/performance.md too.
    write: bool,
}

impl Options {
    /// Reads the arguments after `bench`.
    pub(crate) fn parse(mut words: &[&str]) -> Outcome<Self> {
        let mut options = Self::default();
        loop {
            words = match words {
                [] => return Ok(options),
                ["--write", rest @ ..] => {
                    options.write = true;
                    rest
                }
                ["--only", names, rest @ ..] => {
                    options.only = names.split(',').map(String::from).collect();
                    rest
                }
                ["--rounds", number, rest @ ..] => {
                    options.rounds = Some(number.parse().map_err(|_| format!("not a number: {number}"))?);
                    rest
                }
                [other, ..] => {
                    let names: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
                    return Err(format!("bench: unknown argument {other}; workloads: {}", names.join(", ")));
                }
            }
        }
    }

    fn wants(&self, workload: &Workload) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == workload.name)
    }
}

/// Set in the process that has mounts of its own.
const OWN_MOUNTS: &str = "MICA_BENCH_OWN_MOUNTS";

/// Runs the workloads and prints the table.
pub(crate) fn run(options: &Options) -> Outcome {
    if is_root() && std::env::var_os(OWN_MOUNTS).is_none() {
        // buildah and podman leave mounts behind; in a namespace of their own these end with it.
        let itself = std::env::current_exe().map_err(|error| format!("our own program: {error}"))?;
        let mut again = command("unshare", &["--mount", "--propagation", "private"]);
        return must(again.arg(itself).args(std::env::args_os().skip(1)).env(OWN_MOUNTS, "1"));
    }
    let folder = std::path::absolute(target().join("bench")).map_err(|error| error.to_string())?;
    // It may not be there.
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut tools = tools::all(&folder, binary()?)?;
    let mut table = Table::new();
    for workload in WORKLOADS.iter().filter(|workload| options.wants(workload)) {
        let rounds = options.rounds.unwrap_or(workload.rounds);
        match workload.prepare(&folder) {
            Ok(context) => {
                rows(&mut tools, workload, &context, rounds, &mut table);
                if options.write {
                    // At once: a run takes long, and what is interrupted is not lost.
                    table.write(&WORKLOADS.map(|workload| workload.title))?;
                }
            }
            Err(message) => eprintln!("SKIPPED {}: {message}", workload.name),
        }
    }
    drop(tools);
    // Stores of several gigabytes are of no use afterwards.
    let _ = std::fs::remove_dir_all(&folder);
    println!("\n{}", table.text());
    Ok(())
}

/// The binary that is measured: `MICA_BIN`, or a release build.
fn binary() -> Outcome<PathBuf> {
    if let Some(binary) = std::env::var_os("MICA_BIN") {
        return Ok(binary.into());
    }
    must(&mut cargo(&["build", "--release", "--package", "mica"]))?;
    std::path::absolute(target().join("release/mica")).map_err(|error| error.to_string())
}

fn rows(
    tools: &mut [Tool],
    workload: &Workload,
    context: &std::path::Path,
    rounds: usize,
    table: &mut Table,
) {
    eprintln!("== {} ({rounds} rounds)", workload.name);
    let mut taking_part: Vec<(&mut Tool, Vec<Cost>)> = Vec::new();
    for tool in tools.iter_mut().filter(|tool| workload.suits(tool)) {
        match workload.warm(tool, context) {
            Ok(()) => taking_part.push((tool, Vec::new())),
            Err(message) => eprintln!("   {} drops out: {message}", tool.name()),
        }
    }
    for _ in 0..rounds {
        taking_part.retain_mut(|(tool, values)| match workload.measure(tool, context) {
            Ok(value) => {
                values.push(value);
                true
            }
            Err(message) => {
                eprintln!("   {} drops out: {message}", tool.name());
                false
            }
        });
    }
    for (tool, costs) in taking_part {
        let row = Row { workload: workload.title, tool: tool.name(), unit: workload.unit(), costs };
        eprintln!("   {}", row.line());
        if workload.is_parallel() {
            table.notes.extend(row.parallel());
        }
        table.rows.push(row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_in_any_order() {
        let options = Options::parse(&["--rounds", "3", "--write", "--only", "run30,noop500"]).unwrap();
        assert_eq!(
            options,
            Options { only: vec!["run30".into(), "noop500".into()], rounds: Some(3), write: true }
        );
        assert!(Options::parse(&["--rounds", "x"]).is_err() && Options::parse(&["fast"]).is_err());
    }
}
