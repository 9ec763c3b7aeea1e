//! Time and memory of commands.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::run::{Outcome, shown};

/// Runs commands one after the other and returns the seconds they took together.
pub(crate) fn seconds(commands: Vec<Command>, log: &Path) -> Outcome<f64> {
    let mut total = Duration::ZERO;
    for mut command in commands {
        redirect(&mut command, log)?;
        let started = Instant::now();
        let status = command.status().map_err(|error| format!("`{}`: {error}", shown(&command)))?;
        total += started.elapsed();
        if !status.success() {
            return Err(failed(&command, log));
        }
    }
    Ok(total.as_secs_f64())
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
