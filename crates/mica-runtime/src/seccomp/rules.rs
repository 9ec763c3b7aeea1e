//! Our filters as the `linux.seccomp` section of the runtime specification, for external runtimes.

use serde_json::{Value, json};

use super::bpf::{Action, Comparison, Condition, Verdict};
use super::{ARCHITECTURES, EPERM, Verdicts, json::Profile, json::ProfileError};
use crate::capability::{self, Capability};

/// Returns the default profile as rules. What a rule list cannot say is left out: `ENOSYS` for calls newer
/// than the profile depends on the runtime's libseccomp.
pub(crate) fn as_rules(capabilities: &[Capability]) -> Value {
    let verdicts = super::default_verdicts(capability::mask(capabilities));
    section(&verdicts, Action::Errno(EPERM))
}

/// Returns a profile in docker's form as rules, its conditions decided.
pub(crate) fn profile_as_rules(text: &[u8], capabilities: &[Capability]) -> Result<Value, ProfileError> {
    let profile = Profile::parse(text)?;
    let verdicts = profile.verdicts(ARCHITECTURES[0].docker, capability::mask(capabilities))?;
    Ok(section(&verdicts, profile.default_action()?))
}

fn section(verdicts: &Verdicts<'_>, default: Action) -> Value {
    let mut syscalls = Vec::new();
    for (name, verdict) in verdicts {
        syscalls.extend(rules(name, verdict, default));
    }
    let (action, errno) = action(default);
    let architectures: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.docker).collect();
    json!({"defaultAction": action, "defaultErrnoRet": errno, "architectures": architectures, "syscalls": syscalls})
}

fn rules(name: &str, verdict: &Verdict, default: Action) -> Vec<Value> {
    let rule = |wanted: Action, conditions: &[Condition]| {
        let (action, errno) = action(wanted);
        let args: Vec<Value> = conditions.iter().map(argument).collect();
        json!({"names": [name], "action": action, "errnoRet": errno, "args": args})
    };
    if verdict.rules.is_empty() {
        return if verdict.otherwise == default { vec![] } else { vec![rule(verdict.otherwise, &[])] };
    }
    if verdict.otherwise == default {
        return verdict.rules.iter().map(|(conditions, action)| rule(*action, conditions)).collect();
    }
    // "All but these values": one rule that excludes each.
    let excluded = verdict.rules.iter().filter_map(|(conditions, _)| conditions.first());
    let excluded = excluded.map(|condition| Condition { comparison: Comparison::NotEqual, ..*condition });
    vec![rule(verdict.otherwise, &excluded.collect::<Vec<_>>())]
}

fn action(action: Action) -> (&'static str, Option<u16>) {
    match action {
        Action::Allow => ("SCMP_ACT_ALLOW", None),
        Action::Errno(errno) => ("SCMP_ACT_ERRNO", Some(errno)),
        Action::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
        Action::KillThread => ("SCMP_ACT_KILL", None),
        Action::Trap => ("SCMP_ACT_TRAP", None),
        Action::Log => ("SCMP_ACT_LOG", None),
    }
}

fn argument(condition: &Condition) -> Value {
    let (op, value, second) = match condition.comparison {
        Comparison::MaskedEqual { mask } => ("SCMP_CMP_MASKED_EQ", mask, condition.value),
        Comparison::NotEqual => ("SCMP_CMP_NE", condition.value, 0),
        Comparison::Greater => ("SCMP_CMP_GT", condition.value, 0),
        Comparison::AtLeast => ("SCMP_CMP_GE", condition.value, 0),
        Comparison::Less => ("SCMP_CMP_LT", condition.value, 0),
        Comparison::AtMost => ("SCMP_CMP_LE", condition.value, 0),
    };
    json!({"index": condition.argument, "value": value, "valueTwo": second, "op": op})
}
