//! Time and memory of commands.
//!
//! Time of the processor comes from the kernel's counters of children that ended, 10 ms each; what a daemon needed
//! meanwhile is added. Unlike the time on the wall it hardly depends on what else the machine does.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::{Outcome, command, read, shown};

/// What one round took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Cost {
    /// Seconds, or MiB.
    pub(crate) value: f64,
    /// Seconds of all processors, where time is measured.
    pub(crate) processor: Option<f64>,
}

/// Clock ticks per second in `/proc`: the same on every Linux.
const TICKS: f64 = 100.0;

/// Runs commands one after the other and returns the seconds they and `daemon` took together.
///
/// Everything that waits to be written is written before: otherwise the tool that syncs pays for those that do not.
pub(crate) fn seconds(commands: Vec<Command>, daemon: Option<u32>, log: &Path) -> Outcome<Cost> {
    read(&mut command("sync", &[]))?;
    let mut total = Duration::ZERO;
    let before = processor_seconds(daemon);
    for mut command in commands {
        redirect(&mut command, log)?;
        let started = Instant::now();
        let status = command.status().map_err(|error| format!("`{}`: {error}", shown(&command)))?;
        total += started.elapsed();
        if !status.success() {
            return Err(failed(&command, log));
        }
    }
    let processor = processor_seconds(daemon) - before;
    Ok(Cost { value: total.as_secs_f64(), processor: Some(processor) })
}

/// What our children that ended, and a daemon with its own, have used of the processors so far.
fn processor_seconds(daemon: Option<u32>) -> f64 {
    // Fields of proc(5): 14 and 15 are a process itself, 16 and 17 its children.
    let children = ticks("self", 16..18);
    let daemon = daemon.map_or(0.0, |process| ticks(&process.to_string(), 14..18));
    (children + daemon) / TICKS
}

fn ticks(process: &str, fields: std::ops::Range<usize>) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The second field is the name in parentheses and may contain anything.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let numbers = rest.split_whitespace().skip(fields.start - 3).take(fields.len());
    numbers.filter_map(|number| number.parse::<f64>().ok()).sum()
}

/// Runs commands and returns the largest resident set, in MiB, that one process among them reached.
///
/// The kernel keeps the high-water mark; it is read every few milliseconds until the process ends.
pub(crate) fn peak_mib(commands: Vec<Command>, log: &Path) -> Outcome<f64> {
    let mut peak = 0.0_f64;
    for mut command in commands {
        redirect(&mut command, log)?;
        let mut child = command.spawn().map_err(|error| format!("`{}`: {error}", shown(&command)))?;
        loop {
            for process in family(child.id()) {
                peak = peak.max(high_water_mib(process).unwrap_or(0.0));
            }
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) if status.success() => break,
                Some(_) => return Err(failed(&command, log)),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
    Ok(peak)
}

/// The most memory a process has had so far, in MiB.
pub(crate) fn high_water_mib(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1024.0)
}

/// A process and its descendants.
fn family(process: u32) -> Vec<u32> {
    let mut family = vec![process];
    let mut at = 0;
    while let Some(parent) = family.get(at) {
        let children = format!("/proc/{parent}/task/{parent}/children");
        let children = std::fs::read_to_string(children).unwrap_or_default();
        family.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        at += 1;
    }
    family
}

fn redirect(command: &mut Command, log: &Path) -> Outcome {
    let file = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let copy = file.try_clone().map_err(|error| format!("{}: {error}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file).stderr(copy);
    Ok(())
}

fn failed(command: &Command, log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default();
    format!("`{}` failed:\n      {}", shown(command), tail.join("\n      "))
}
