//! Profiles as docker reads them with `--security-opt seccomp=FILE`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::bpf::{Action, Comparison, Condition, Verdict};
use crate::capability::Capability;

/// Why a profile cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// Not JSON, or not of that form.
    #[error("not a seccomp profile")]
    Json(#[from] serde_json::Error),
    /// An action or operator of another version, or one that needs a listener.
    #[error("the seccomp profile uses {0:?}, which is not supported")]
    Unsupported(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    default_action: String,
    default_errno_ret: Option<u16>,
    #[serde(default)]
    syscalls: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(default)]
    names: Vec<String>,
    name: Option<String>,
    action: String,
    errno_ret: Option<u16>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default)]
    includes: Filter,
    #[serde(default)]
    excludes: Filter,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: Option<String>,
}

impl Profile {
    pub(super) fn parse(text: &[u8]) -> Result<Self, ProfileError> {
        Ok(serde_json::from_slice(text)?)
    }

    pub(super) fn default_action(&self) -> Result<Action, ProfileError> {
        action(&self.default_action, self.default_errno_ret)
    }

    /// Returns the verdicts for one architecture (`SCMP_ARCH_*`) and a set of capabilities.
    pub(super) fn verdicts(
        &self,
        arch: &str,
        capabilities: u64,
    ) -> Result<BTreeMap<&str, Verdict>, ProfileError> {
        let mut verdicts: BTreeMap<&str, Verdict> = BTreeMap::new();
        let default = self.default_action()?;
        for group in self.syscalls.iter().filter(|group| group.applies(arch, capabilities)) {
            let action = action(&group.action, group.errno_ret)?;
            let arguments = group.args.as_deref().unwrap_or_default();
            let conditions = arguments.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
            for name in group.names.iter().chain(&group.name) {
                let verdict = verdicts.entry(name).or_insert_with(|| default.into());
                verdict.rules.push((conditions.clone(), action));
            }
        }
        Ok(verdicts)
    }
}

impl Group {
    fn applies(&self, arch: &str, capabilities: u64) -> bool {
        // docker: all of the included capabilities, none of the excluded; any of the included arches.
        let has = |name: &String| {
            name.parse::<Capability>().is_ok_and(|capability| capabilities & capability.bit() != 0)
        };
        let short = match arch {
            "SCMP_ARCH_X86_64" => "amd64",
            "SCMP_ARCH_AARCH64" => "arm64",
            "SCMP_ARCH_ARM" => "arm",
            _ => "x86",
        };
        // The arch of a profile is the machine's, so its 32-bit calls go with it.
        let machine = match short {
            "x86" => "amd64",
            "arm" => "arm64",
            other => other,
        };
        let at = |name: &String| name == short || name == machine;
        let kernel = self.includes.min_kernel.as_deref().is_none_or(kernel_is_at_least);
        let old = self.excludes.min_kernel.as_deref().is_some_and(kernel_is_at_least);
        self.includes.caps.iter().all(has)
            && !self.excludes.caps.iter().any(has)
            && (self.includes.arches.is_empty() || self.includes.arches.iter().any(at))
            && !self.excludes.arches.iter().any(at)
            && kernel
            && !old
    }
}

/// Compares `major.minor` with the running kernel.
fn kernel_is_at_least(version: &str) -> bool {
    let parse = |text: &str| {
        let mut numbers = text.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    };
    let running = rustix::system::uname();
    parse(&running.release().to_string_lossy()) >= parse(version)
}

fn action(name: &str, errno: Option<u16>) -> Result<Action, ProfileError> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(errno.unwrap_or(super::EPERM)),
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_LOG" => Action::Log,
        other => return Err(ProfileError::Unsupported(other.to_owned())),
    })
}

fn condition(argument: &Argument) -> Result<Condition, ProfileError> {
    let (comparison, value) = match argument.op.as_str() {
        "SCMP_CMP_EQ" => (Comparison::MaskedEqual { mask: u64::MAX }, argument.value),
        // libseccomp: `value` is the mask and `valueTwo` what remains.
        "SCMP_CMP_MASKED_EQ" => (Comparison::MaskedEqual { mask: argument.value }, argument.value_two),
        "SCMP_CMP_NE" => (Comparison::NotEqual, argument.value),
        "SCMP_CMP_GT" => (Comparison::Greater, argument.value),
        "SCMP_CMP_GE" => (Comparison::AtLeast, argument.value),
        "SCMP_CMP_LT" => (Comparison::Less, argument.value),
        "SCMP_CMP_LE" => (Comparison::AtMost, argument.value),
        other => return Err(ProfileError::Unsupported(other.to_owned())),
    };
    if argument.index > 5 {
        return Err(ProfileError::Unsupported(format!("argument {}", argument.index)));
    }
    Ok(Condition { argument: argument.index, comparison, value, int: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_profile_gives_rules_by_capability_and_architecture() {
        let text = br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"archMap":[],"syscalls":[
            {"names":["read"],"action":"SCMP_ACT_ALLOW","args":null},
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"op":"SCMP_CMP_MASKED_EQ"}],
             "excludes":{"caps":["CAP_SYS_ADMIN"],"arches":["s390"]}},
            {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}}]}"#;
        let profile = Profile::parse(text).unwrap();
        assert_eq!(profile.default_action().unwrap(), Action::Errno(38));
        let plain = profile.verdicts("SCMP_ARCH_X86_64", 0).unwrap();
        assert_eq!(plain.keys().copied().collect::<Vec<_>>(), ["clone", "ptrace", "read"]);
        let admin = profile.verdicts("SCMP_ARCH_X86_64", 1 << 21).unwrap();
        assert_eq!(admin.keys().copied().collect::<Vec<_>>(), ["mount", "ptrace", "read"]);
        assert!(Profile::parse(b"[]").is_err());
    }
}
