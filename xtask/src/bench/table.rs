//! The figures, for the terminal and for docs/performance.md.

use std::fmt::Write;
use std::path::Path;

use crate::bench::measure::Cost;
use crate::run::{Outcome, command, read, write};

const FILE: &str = "docs/performance.md";
const BEGIN: &str = "<!-- figures: written by `cargo xtask bench --write` -->";
const END: &str = "<!-- end of figures -->";

/// One tool in one workload.
pub(crate) struct Row {
    pub(crate) workload: &'static str,
    pub(crate) tool: &'static str,
    pub(crate) unit: &'static str,
    /// One per round.
    pub(crate) costs: Vec<Cost>,
}

impl Row {
    fn sorted(&self) -> Vec<f64> {
        let mut values: Vec<f64> = self.costs.iter().map(|cost| cost.value).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self) -> f64 {
        let values = self.sorted();
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Seconds of the processors, on average: single rounds are as coarse as the kernel's ticks.
    fn processor(&self) -> Option<f64> {
        let known: Vec<f64> = self.costs.iter().filter_map(|cost| cost.processor).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }

    /// How far the best round is from keeping all processors busy all the time.
    pub(crate) fn parallel(&self) -> Option<String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let over = |cost: &Cost| Some(cost.value / (cost.processor? / cores as f64) - 1.0);
        let best = self.costs.iter().filter_map(over).min_by(f64::total_cmp)?;
        let percent = (best * 100.0).max(0.0);
        Some(format!(
            "{}: the best round of {} took {percent:.0} % longer than its processor time on {cores} cores.",
            self.workload, self.tool
        ))
    }

    /// Median, fastest and slowest, time of the processors.
    pub(crate) fn line(&self) -> String {
        let values = self.sorted();
        let end = |value: Option<&f64>| shown(value.copied().unwrap_or(f64::NAN), self.unit);
        let (median, first, last) =
            (shown(self.median(), self.unit), end(values.first()), end(values.last()));
        let processor = self.processor().map(|seconds| format!(", processors {}", shown(seconds, "s")));
        format!("{:<9} {median} ({first} to {last}){}", self.tool, processor.unwrap_or_default())
    }
}

fn shown(value: f64, unit: &str) -> String {
    match unit {
        "s" if value < 1.0 => format!("{:.1} ms", value * 1000.0),
        "s" => format!("{value:.2} s"),
        unit => format!("{value:.0} {unit}"),
    }
}

/// All rows.
pub(crate) struct Table {
    pub(crate) rows: Vec<Row>,
    /// Sentences below it.
    pub(crate) notes: Vec<String>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new(), notes: Vec::new() }
    }

    /// A Markdown table: the median of each tool, and how many times mica's that is.
    pub(crate) fn text(&self) -> String {
        self.text_with(&[], "")
    }

    /// The same, with what `old` has of those of the `workloads` that were not measured, in their order.
    fn text_with(&self, workloads: &[&str], old: &str) -> String {
        let kept = |workload: &&&str| !self.rows.iter().any(|row| row.workload == **workload);
        let mut lines = self.lines();
        let mut notes = self.notes.clone();
        for workload in workloads.iter().filter(kept) {
            let is_row = |line: &&str| line.starts_with(&format!("| {workload} | "));
            lines.extend(old.lines().filter(is_row).map(|line| (*workload, format!("{line}\n"))));
            let is_note = |line: &&str| line.starts_with(&format!("{workload}: "));
            notes.extend(old.lines().filter(is_note).map(str::to_owned));
        }
        lines.sort_by_key(|(workload, _)| workloads.iter().position(|other| other == workload));
        let mut text = String::from(
            "| workload | tool | median | fastest to slowest | rounds | processors | times mica's | processors, times mica's |\n\
             |---|---|---|---|---|---|---|---|\n",
        );
        text.extend(lines.into_iter().map(|(_, line)| line));
        for note in notes {
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{note}\n");
        }
        text
    }

    /// Each row with its workload.
    fn lines(&self) -> Vec<(&str, String)> {
        let line = |row: &Row| {
            let mica = self.rows.iter().find(|other| other.workload == row.workload && other.tool == "mica");
            let ratio = |of: &dyn Fn(&Row) -> Option<f64>| match (of(row), mica.and_then(of)) {
                (Some(_), Some(_)) if row.tool == "mica" => "1".to_owned(),
                (Some(peer), Some(mica)) if mica > 0.0 => format!("{:.1}", peer / mica),
                _ => "–".to_owned(),
            };
            let values = row.sorted();
            let end = |value: Option<&f64>| shown(value.copied().unwrap_or(f64::NAN), row.unit);
            format!(
                "| {} | {} | {} | {} to {} | {} | {} | {} | {} |\n",
                row.workload,
                row.tool,
                shown(row.median(), row.unit),
                end(values.first()),
                end(values.last()),
                row.costs.len(),
                row.processor().map_or("–".to_owned(), |seconds| shown(seconds, "s")),
                ratio(&|row| Some(row.median())),
                ratio(&Row::processor),
            )
        };
        self.rows.iter().map(|row| (row.workload, line(row))).collect()
    }

    /// Puts the table between the marks of the page, which is begun if it is not there. What it has of `workloads` that
    /// were not measured stays.
    pub(crate) fn write(&self, workloads: &[&str]) -> Outcome {
        let page =
            std::fs::read_to_string(FILE).unwrap_or_else(|_| format!("# Performance\n\n{BEGIN}\n{END}\n"));
        let (before, rest) = page.split_once(BEGIN).ok_or(format!("{FILE} has no line {BEGIN}"))?;
        let (old, after) = rest.split_once(END).ok_or(format!("{FILE} has no line {END}"))?;
        let figures = format!("{}\n\n{}", machine(), self.text_with(workloads, old));
        write(Path::new(FILE), format!("{before}{BEGIN}\n{figures}{END}{after}"))?;
        println!("{FILE} is written");
        Ok(())
    }
}

/// The machine and the versions, without which figures mean nothing.
fn machine() -> String {
    let one_line = |program: &str, arguments: &[&str]| {
        let text = read(&mut command(program, arguments)).unwrap_or_default();
        text.lines().next().unwrap_or_default().trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let information = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        information.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let mut text = format!(
        "{cores} cores ({}), Linux {}; mica at commit {}",
        model.trim_start_matches([' ', '\t', ':']),
        one_line("uname", &["-r"]),
        one_line("git", &["rev-parse", "--short=12", "HEAD"]),
    );
    for peer in ["buildkitd", "buildah", "podman"] {
        if let Some(program) = crate::run::find(peer) {
            let version = one_line(&program.to_string_lossy(), &["--version"]);
            // Writing to a String cannot fail.
            let _ = write!(text, "; {version}");
        }
    }
    text + "."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_to_the_median_of_mica() {
        let row = |tool, values: &[f64]| {
            let costs = values.iter().map(|&value| Cost { value, processor: Some(value / 2.0) }).collect();
            Row { workload: "w", tool, unit: "s", costs }
        };
        let rows = vec![row("mica", &[0.3, 0.01, 0.02]), row("BuildKit", &[0.1])];
        let table = Table { rows, notes: Vec::new() };
        let text = table.text();
        assert!(
            text.contains("| w | mica | 20.0 ms | 10.0 ms to 300.0 ms | 3 | 55.0 ms | 1 | 1 |"),
            "{text}"
        );
        assert!(
            text.contains("| w | BuildKit | 100.0 ms | 100.0 ms to 100.0 ms | 1 | 50.0 ms | 5.0 | 0.9 |"),
            "{text}"
        );
    }

    #[test]
    fn rows_of_other_workloads_stay() {
        let costs = vec![Cost { value: 1.0, processor: None }];
        let rows = vec![Row { workload: "b", tool: "mica", unit: "s", costs }];
        let table = Table { rows, notes: vec!["b: new".into()] };
        let old = "| b | mica | old |\n| a | mica | kept |\n| gone | mica | x |\n\na: kept\n\nb: old\n";
        let text = table.text_with(&["a", "b"], old);
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(rows[0], "| a | mica | kept |");
        assert!(rows[1].starts_with("| b | mica | 1.00 s |"), "{text}");
        assert_eq!(rows[2..], ["", "b: new", "", "a: kept"]);
    }
}
