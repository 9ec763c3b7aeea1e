//! What a run of the tests found, and its last line.

use std::collections::BTreeSet;

/// Counts of one run.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: u64,
    failures: Vec<String>,
    skips: BTreeSet<String>,
    ignored: u64,
}

impl Report {
    /// A check by itself passed.
    pub(crate) fn pass(&mut self) {
        self.passed += 1;
    }

    /// A check by itself failed.
    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        self.failures.push(what.into());
    }

    /// A check could not run here: `<what>: <reason>`.
    pub(crate) fn skip(&mut self, what: impl Into<String>) {
        self.skips.insert(what.into());
    }

    /// Checks that counted by themselves, with the names of those that failed.
    pub(crate) fn add(&mut self, passed: u64, failures: impl IntoIterator<Item = String>) {
        self.passed += passed;
        self.failures.extend(failures);
    }

    /// Takes over what the programs of a `cargo test` said.
    pub(crate) fn take(&mut self, tests: TestOutput) {
        self.passed += tests.passed;
        self.ignored += tests.ignored;
        self.failures.extend(tests.failures);
        // Rust's harness has no skips: a test that skipped itself was counted as passed.
        for skip in tests.skips {
            if self.skips.insert(skip) {
                self.passed = self.passed.saturating_sub(1);
            }
        }
    }

    /// Whether anything failed.
    pub(crate) fn failed(&self) -> bool {
        !self.failures.is_empty()
    }

    /// The list of skips and failures, and the closing line.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for skip in &self.skips {
            text.push_str(&format!("skipped: {skip}\n"));
        }
        if self.ignored > 0 {
            text.push_str(&format!("skipped: {} tests marked #[ignore]\n", self.ignored));
        }
        for failure in &self.failures {
            text.push_str(&format!("failed: {failure}\n"));
        }
        let skipped = self.skips.len() as u64 + self.ignored;
        text.push_str(&format!("{} passed, {} failed, {skipped} skipped", self.passed, self.failures.len()));
        text
    }
}

/// Reads what `cargo test -- --show-output` prints, line by line.
///
/// `--show-output` repeats the output of tests that passed, which is where `SKIP:` lines are; these
/// sections are taken in and not shown.
#[derive(Debug, Default)]
pub(crate) struct TestOutput {
    pub(crate) passed: u64,
    pub(crate) ignored: u64,
    pub(crate) failures: Vec<String>,
    pub(crate) skips: BTreeSet<String>,
    section: Section,
    test: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Section {
    #[default]
    Running,
    Successes,
    Failures,
}

impl TestOutput {
    /// Takes one line; returns whether a person should see it.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        match line {
            "successes:" => self.section = Section::Successes,
            "failures:" => self.section = Section::Failures,
            _ => {}
        }
        if let Some(name) = line.strip_prefix("---- ").and_then(|rest| rest.strip_suffix(" stdout ----")) {
            self.test = name.to_owned();
        }
        if let Some(skip) = line.strip_prefix("SKIP: ") {
            // testkit names the test itself.
            let named = skip.starts_with(&format!("{}: ", self.test));
            self.skips.insert(if named { skip.to_owned() } else { format!("{}: {skip}", self.test) });
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.section = Section::Running;
            self.passed += count(result, " passed");
            self.ignored += count(result, " ignored");
        }
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(format!("test {name}"));
        }
        self.section != Section::Successes
    }
}

/// The number before a word: `3 passed`.
fn count(result: &str, word: &str) -> u64 {
    let before = result.split(word).next().filter(|before| before.len() < result.len());
    before.and_then(|before| before.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 3 tests
test a ... ok
test b ... ok
test c ... FAILED

successes:

---- a stdout ----
SKIP: a: no newuidmap
---- b stdout ----
SKIP: needs root

successes:
    a
    b

failures:

---- c stdout ----
thread 'c' panicked

failures:
    c

test result: FAILED. 2 passed; 1 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    #[test]
    fn a_test_that_skipped_itself_is_counted_as_skipped_only() {
        let mut tests = TestOutput::default();
        let shown: Vec<&str> = OUTPUT.lines().filter(|line| tests.line(line)).collect();
        assert!(!shown.iter().any(|line| line.contains("SKIP")) && shown.contains(&"thread 'c' panicked"));
        let mut report = Report::default();
        report.take(tests);
        report.pass();
        assert!(report.failed());
        assert_eq!(
            report.summary(),
            "skipped: a: no newuidmap\nskipped: b: needs root\nskipped: 4 tests marked #[ignore]\nfailed: test c\n1 passed, 1 failed, 6 skipped"
        );
    }
}
