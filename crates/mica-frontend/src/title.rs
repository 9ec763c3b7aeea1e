//! How progress names the steps of a stage: `[build 2/4] RUN make` (S3).

use mica_dockerfile::{Command, Instruction};
use mica_oci::Platform;

/// Counts the steps of one stage.
#[derive(Debug, Clone)]
pub(crate) struct Steps {
    /// Name of the stage; nothing if it is the only one.
    pub(crate) stage: Option<String>,
    /// The platform, if several are built.
    pub(crate) platform: Option<String>,
    /// How many there will be.
    pub(crate) total: usize,
    /// How many there were.
    pub(crate) done: usize,
}

impl Steps {
    /// The prefix of the next step. Numbers are as wide as the total, so that they stand below each other.
    pub(crate) fn next(&mut self) -> String {
        self.done += 1;
        let mut prefix = String::from("[");
        for part in [&self.platform, &self.stage].into_iter().flatten() {
            prefix.push_str(part);
            prefix.push(' ');
        }
        let width = self.total.to_string().len();
        prefix.push_str(&format!("{:>width$}/{}] ", self.done, self.total));
        prefix
    }
}

/// Whether an instruction is a step of its own.
pub(crate) fn is_step(command: &Command) -> bool {
    matches!(
        command.instruction,
        Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Workdir(_)
    )
}

/// `linux/arm64`, or `linux/amd64->arm64` for a step that runs on one platform and is told to build for another.
pub(crate) fn platform_prefix(platform: &Platform, told: Option<&str>) -> String {
    let platform = platform.normalised();
    let Some(told) = told.and_then(|text| text.parse::<Platform>().ok()) else {
        return platform.to_string();
    };
    if told.os != platform.os {
        return format!("{platform}->{told}");
    }
    if told.architecture == platform.architecture {
        return platform.to_string();
    }
    match &told.variant {
        Some(variant) => format!("{platform}->{}/{variant}", told.architecture),
        None => format!("{platform}->{}", told.architecture),
    }
}

/// An instruction with its keyword in upper case.
pub(crate) fn upper_case_keyword(text: &str) -> String {
    match text.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_below_each_other() {
        let mut steps = Steps { stage: Some("build".to_owned()), platform: None, total: 12, done: 0 };
        assert_eq!(steps.next(), "[build  1/12] ");
        steps.done = 9;
        assert_eq!(steps.next(), "[build 10/12] ");
    }

    #[test]
    fn a_cross_build_shows_both_platforms() {
        let amd64 = Platform::new("linux", "amd64", None);
        for (told, expected) in [
            (None, "linux/amd64"),
            (Some("linux/amd64"), "linux/amd64"),
            (Some("linux/arm64"), "linux/amd64->arm64"),
            (Some("linux/arm/v6"), "linux/amd64->arm/v6"),
            (Some("windows/amd64"), "linux/amd64->windows/amd64"),
        ] {
            assert_eq!(platform_prefix(&amd64, told), expected);
        }
    }
}
