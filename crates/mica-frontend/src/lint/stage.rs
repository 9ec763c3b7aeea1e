//! Rules that need values, or the stages that one is built from: they see the stages that are converted.

use mica_dockerfile::ignore::Patterns;
use mica_dockerfile::ports::Ports;
use mica_dockerfile::{Command, Instruction, KeyValue, Location, ShellOrExec};

use super::Findings;
use crate::paths;

/// Parts of names that hold what nobody else should know.
const SECRETS: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
/// A part of names that hold the other half of it.
const PUBLIC: &str = "public";

/// What has been seen of a stage, and of those it is built from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// Whether the working directory is known: it does not depend on the base any more.
    workdir: bool,
    cmd: Option<Location>,
    entrypoint: Option<Location>,
    healthcheck: Option<Location>,
}

impl Seen {
    /// What a stage built from this one starts with.
    pub(crate) fn handed_on(&self) -> Self {
        Self { workdir: self.workdir, ..Self::default() }
    }

    /// Looks at an instruction that is about to be converted.
    ///
    /// `has_shell`: whether the image says which shell it wants; then shell forms are meant.
    pub(crate) fn look(&mut self, findings: &mut Findings, command: &Command, has_shell: bool) {
        let at = command.origin.location;
        let keyword = command.origin.keyword.as_str();
        match &command.instruction {
            Instruction::Env(pairs) => {
                legacy(findings, at, keyword, pairs);
                pairs.iter().for_each(|pair| secret(findings, at, "ENV", &pair.key));
            }
            Instruction::Label(pairs) => legacy(findings, at, keyword, pairs),
            Instruction::Arg(items) => items.iter().for_each(|item| secret(findings, at, "ARG", &item.name)),
            Instruction::Workdir(path) => self.workdir(findings, at, path),
            Instruction::Cmd(words) => {
                once(findings, &mut self.cmd, at, keyword);
                shell_form(findings, at, keyword, words, has_shell);
            }
            Instruction::Entrypoint(words) => {
                once(findings, &mut self.entrypoint, at, keyword);
                shell_form(findings, at, keyword, words, has_shell);
            }
            Instruction::Healthcheck(_) => once(findings, &mut self.healthcheck, at, keyword),
            _ => {}
        }
    }

    fn workdir(&mut self, findings: &mut Findings, at: Location, path: &str) {
        if !self.workdir && !path.starts_with('/') && !path.starts_with('$') {
            let message =
                format!("Relative workdir {path:?} can have unexpected results if the base image changes");
            findings.report("WorkdirRelativePath", at, message);
        }
        self.workdir = true;
    }
}

fn legacy(findings: &mut Findings, at: Location, name: &str, pairs: &[KeyValue]) {
    if pairs.iter().any(|pair| pair.legacy) {
        let message =
            format!("\"{name} key=value\" should be used instead of legacy \"{name} key value\" format");
        findings.report("LegacyKeyValueFormat", at, message);
    }
}

fn secret(findings: &mut Findings, at: Location, instruction: &str, name: &str) {
    let parts: Vec<String> = name.split('_').map(str::to_lowercase).collect();
    let is_secret = parts.iter().any(|part| SECRETS.contains(&part.as_str()));
    if is_secret && !parts.iter().any(|part| part == PUBLIC) {
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({instruction} {name:?})");
        findings.report("SecretsUsedInArgOrEnv", at, message);
    }
}

/// The earlier one is told: it is the one that does not count.
fn once(findings: &mut Findings, earlier: &mut Option<Location>, at: Location, name: &str) {
    if let Some(earlier) = earlier.replace(at) {
        let message = format!(
            "Multiple {name} instructions should not be used in the same stage because only the last one will be used"
        );
        findings.report("MultipleInstructionsDisallowed", earlier, message);
    }
}

fn shell_form(findings: &mut Findings, at: Location, name: &str, words: &ShellOrExec, has_shell: bool) {
    if matches!(words, ShellOrExec::Shell(_)) && !has_shell {
        let message = format!(
            "JSON arguments recommended for {name} to prevent unintended behavior related to OS signals"
        );
        findings.report("JSONArgsRecommended", at, message);
    }
}

/// Looks at the words of EXPOSE.
pub(crate) fn exposed(findings: &mut Findings, at: Location, words: &[(String, Ports)]) {
    for (word, ports) in words {
        if ports.has_host_part {
            let message = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
            );
            findings.report("ExposeInvalidFormat", at, message);
        }
        if ports.has_upper_case_protocol {
            let message = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
            findings.report("ExposeProtoCasing", at, message);
        }
    }
}

/// Looks at a path of COPY or ADD in the main context. With exceptions, patterns say too little about what is below.
pub(crate) fn copied(findings: &mut Findings, at: Location, keyword: &str, source: &str, ignored: &Patterns) {
    let path = paths::clean(&format!("/{source}"));
    let path = match path.trim_start_matches('/') {
        "" => ".",
        path => path,
    };
    if !ignored.has_negations() && ignored.matches(path) {
        let message = format!(
            "Attempting to {} file {source:?} that is excluded by .dockerignore",
            keyword.to_uppercase()
        );
        findings.report("CopyIgnoredFile", at, message);
    }
}
