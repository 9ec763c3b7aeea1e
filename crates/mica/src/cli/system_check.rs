//! `mica system check`: verify the store, and repair it.

use mica_api::{CheckFinding, CheckReport};

use crate::context::Cx;
use crate::failure::{Outcome, Status};
use crate::flags::Verb;

/// Verify everything in the store; exit code 1 if something is damaged
#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// Repair what can be repaired
    #[arg(long)]
    repair: bool,
}

impl Verb for CheckArgs {
    const USAGE: &'static str = "[OPTIONS]";

    fn run(self, cx: &Cx) -> Outcome {
        let engine = if self.repair { cx.repaired_engine()? } else { cx.engine()? };
        let report = engine.check(self.repair, &cx.cancel)?;
        cx.out.text(&describe(&report, &cx.program, self.repair))?;
        let damaged = report.findings.iter().any(|finding| finding.repaired.is_none());
        Ok(Status(u8::from(damaged)))
    }
}

fn describe(report: &CheckReport, program: &str, repair: bool) -> String {
    let mut text: String = report.findings.iter().map(finding).collect();
    if !report.platforms.is_empty() {
        let platforms: Vec<String> = report.platforms.iter().map(ToString::to_string).collect();
        text.push_str(&format!("not complete here, which is no damage: {}\n", platforms.join(", ")));
    }
    let damaged = report.findings.len();
    match damaged {
        0 => text.push_str(&format!("{} objects checked, all well\n", report.checked)),
        _ => text.push_str(&format!("{} objects checked, {damaged} damaged\n", report.checked)),
    }
    if damaged > 0 && !repair {
        text.push_str(&format!(" hint: `{program} system check --repair`\n"));
    }
    text
}

fn finding(finding: &CheckFinding) -> String {
    let mut text = format!("{}: {}\n", finding.object, finding.problem);
    if !finding.needed_by.is_empty() {
        text.push_str(&format!("  needed by: {}\n", finding.needed_by.join(", ")));
    }
    if let Some(repaired) = &finding.repaired {
        text.push_str(&format!("  repaired: {repaired}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::testing::{Bench, golden};

    #[test]
    fn damage_is_named_with_the_images_that_need_it() {
        golden("system-check", &Bench::new().run(&["system", "check"]).text());
        golden("system-check-repair", &Bench::new().run(&["system", "check", "--repair"]).text());
    }
}
