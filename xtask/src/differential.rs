//! Comparison with the reference, and the tour.
//!
//! The programs that compare, a sample corpus and the tour live outside the project. They are found at `MICA_ACCEPT`, by
//! default `../shared/accept`. Where they are not, they are skipped. `tests/cases` holds more cases of the same form.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::report::Report;
use crate::run::{command, debian_tar, find, is_root, must, peers_bin, target};
use crate::test::{Tier, follow, heading};

/// Every third case: a sample that takes less than two minutes.
const SAMPLE: &str = "[0-9][0-9][147]-*";
/// Every tenth number of the project's own cases: a sample that takes seconds.
const OWN_SAMPLE: &str = "[0-9][0-9]2-*";
/// The project's own cases.
const OWN_CASES: &str = "tests/cases";
/// The heading in the list of the project's own cases below which the unequal ones stand.
const UNEQUAL: &str = "## Not yet equal";
/// Cases that need what this version does not have, and what that is.
const LATER: [(&str, &str); 3] = [
    ("322-arm64-only", "an emulator registered by hand"),
    ("323-from-platform-const", "an emulator registered by hand"),
    ("335-sde-multi", "several platforms in one build"),
];
/// The parts of the tour that this version is for.
const TOUR: &str = "";

/// Builds the corpus with mica and with the reference, and compares the images.
pub(crate) fn run(report: &mut Report, tier: Tier, binary: &Path) {
    let accept =
        std::env::var_os("MICA_ACCEPT").map_or_else(|| PathBuf::from("../shared/accept"), PathBuf::from);
    heading("differential corpus");
    let corpus = accept.join("diff");
    if let Some(reason) = unable(&corpus) {
        println!("SKIPPED: {reason}");
        return report.skip(format!("differential corpus: {reason}"));
    }
    let state = target().join("diff");
    if let Err(message) = prepare(&corpus, &state, binary) {
        println!("SKIPPED: {message}");
        // No reference is a skip; a mica that cannot load the base images is a failure.
        if message.contains("load-bases") {
            return report.fail(format!("differential corpus: {message}"));
        }
        return report.skip(format!("differential corpus: {message}"));
    }
    compare(report, tier, &corpus, &CaseSet::sample_corpus(&corpus), &state, binary);
    heading(OWN_CASES);
    match CaseSet::own() {
        Ok(own) => compare(report, tier, &corpus, &own, &state, binary),
        Err(message) => report.fail(message),
    }
    let mut stop = command("sh", &[]);
    // Left running, the reference would only be found again by the next run.
    let _ = must(with(stop.arg(corpus.join("stop.sh")), &state, binary));
    if tier == Tier::Long {
        tour(report, &accept, binary);
    }
}

/// Why the corpus cannot run here.
fn unable(corpus: &Path) -> Option<String> {
    if !corpus.join("compare.py").exists() {
        return Some(format!("no {} (MICA_ACCEPT names another place)", corpus.display()));
    }
    if !is_root() {
        return Some("needs root".into());
    }
    let programs = ["python3", "git", "skopeo", "curl", "jq", "busybox", "buildkitd", "docker-buildx"];
    let missing: Vec<&str> = programs.into_iter().filter(|program| find(program).is_none()).collect();
    (!missing.is_empty()).then(|| format!("no {} (`cargo xtask peers` gets them)", missing.join(", ")))
}

fn prepare(corpus: &Path, state: &Path, binary: &Path) -> Result<(), String> {
    std::fs::create_dir_all(state).map_err(|error| format!("{}: {error}", state.display()))?;
    must(with(command("sh", &[]).arg(corpus.join("setup.sh")), state, binary))?;
    must(with(command("sh", &[]).arg(corpus.join("load-bases.sh")), state, binary))
}

/// The variables that the corpus' scripts read.
fn with<'a>(command: &'a mut Command, state: &Path, binary: &Path) -> &'a mut Command {
    command.env("DIFF_STATE", state).env("MICA", binary).env("MICA_ROOT", state.join("mica-root"));
    command.env("PEERS_BIN", peers_bin());
    if let Some(tar) = debian_tar() {
        command.env("DEBIAN_TAR", tar);
    }
    command
}

/// Cases in one directory.
#[derive(Debug)]
struct CaseSet {
    name: &'static str,
    directory: PathBuf,
    /// Which of them the quick tier runs, as a glob.
    sample: &'static str,
    /// Cases that are not run, each with its reason.
    skipped: Vec<(String, String)>,
}

impl CaseSet {
    fn sample_corpus(corpus: &Path) -> Self {
        let skipped =
            LATER.iter().map(|(case, needs)| ((*case).to_owned(), format!("needs {needs}"))).collect();
        Self { name: "differential corpus", directory: corpus.join("cases"), sample: SAMPLE, skipped }
    }

    fn own() -> Result<Self, String> {
        let directory = std::path::absolute(OWN_CASES).map_err(|error| format!("{OWN_CASES}: {error}"))?;
        let list = directory.join("README.md");
        let text = std::fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
        let skipped = unequal(&text);
        // A name without a case would hide that the list is out of date.
        if let Some((case, _)) = skipped.iter().find(|(case, _)| !directory.join(case).is_dir()) {
            return Err(format!("{}: there is no case {case}", list.display()));
        }
        Ok(Self { name: OWN_CASES, directory, sample: OWN_SAMPLE, skipped })
    }
}

/// The lines ``- `case`: reason`` below the heading of the cases that are not yet equal.
fn unequal(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().skip_while(|line| *line != UNEQUAL).skip(1);
    lines
        .take_while(|line| !line.starts_with("## "))
        .filter_map(|line| line.strip_prefix("- `")?.split_once("`: "))
        .map(|(case, reason)| (case.to_owned(), format!("is not yet equal: {reason}")))
        .collect()
}

fn compare(report: &mut Report, tier: Tier, corpus: &Path, set: &CaseSet, state: &Path, binary: &Path) {
    let mut compare = command("python3", &[]);
    compare
        .arg(corpus.join("compare.py"))
        .args(["--candidate", "mica", "--cases"])
        .arg(&set.directory)
        .arg("--json")
        .arg(state.join("result.json"));
    let wanted = if tier == Tier::Every { set.sample } else { "*" };
    let unwanted: String = set.skipped.iter().map(|(case, _)| format!(",!{case}")).collect();
    compare.args(["--only", &format!("{wanted}{unwanted}")]);
    for (case, reason) in &set.skipped {
        println!("SKIPPED: {case} {reason}");
        report.skip(format!("{}: {case} {reason}", set.name));
    }
    let mut cases = Cases::default();
    let ended = follow(with(&mut compare, state, binary), |line| cases.line(line));
    if ended.is_err() || !cases.finished {
        report.fail(format!("{} did not come to its end", set.name));
    }
    report.add(cases.passed, cases.failures);
    for skip in cases.skips {
        report.skip(format!("{}: {skip}", set.name));
    }
}

/// What the comparison says, line by line.
#[derive(Debug, Default)]
struct Cases {
    passed: u64,
    failures: Vec<String>,
    skips: Vec<String>,
    finished: bool,
}

impl Cases {
    /// Takes one line; all of them are shown. `quirk` cases count as nothing.
    fn line(&mut self, line: &str) -> bool {
        let (tag, rest) = line.split_once(' ').unwrap_or((line, ""));
        let name = rest.split_whitespace().next().unwrap_or_default();
        match tag {
            "pass" | "pass*" => self.passed += 1,
            "FAIL" | "BAD" => self.failures.push(format!("differential case {name}")),
            "SKIP" => self.skips.push(rest.trim().to_owned()),
            _ => {}
        }
        self.finished |= line.ends_with(" failed") && line.contains(" passed, ");
        true
    }
}

/// The commands that people learn docker by, as far as this version has them.
fn tour(report: &mut Report, accept: &Path, binary: &Path) {
    heading("tour");
    if TOUR.is_empty() {
        return report.skip("tour: none of its parts belongs to this version");
    }
    let mut tour = command("python3", &[]);
    tour.arg(accept.join("tour.py")).arg("--docker").arg(binary).args(["--only", TOUR]);
    match must(&mut tour) {
        Ok(()) => report.pass(),
        Err(message) => report.fail(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_counts_by_its_tag() {
        let mut cases = Cases::default();
        let output = "pass  002-comments (0.1 s)\npass* 008-lower (0.1 s)  [1 minor]\nFAIL  011-white (0.2 s)\n        fatal mode: x\nquirk 019-args (0 s)\nSKIP  308-debian: needs debian\n-- 3 s, 1 skipped\n";
        for line in output.lines() {
            cases.line(line);
        }
        assert!(!cases.finished);
        cases.line("2 passed, 1 failed");
        assert!(cases.finished);
        assert_eq!((cases.passed, cases.failures.len()), (2, 1));
        assert_eq!(cases.failures, ["differential case 011-white"]);
        assert_eq!(cases.skips, ["308-debian: needs debian"]);
    }

    #[test]
    fn unequal_cases_are_those_below_their_heading() {
        let text = "# Cases\n- `501-not-this`: above\n## Not yet equal\n\n- `502-one`: says `x`: y\n- prose\n## After\n- `503-nor-this`: below\n";
        assert_eq!(unequal(text), [("502-one".to_owned(), "is not yet equal: says `x`: y".to_owned())]);
    }
}
