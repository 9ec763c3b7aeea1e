//! System call filters: mica's default profile, docker's JSON profiles, and their compilation.

pub mod bpf;
mod json;
mod rules;
mod table;

use std::collections::BTreeMap;

use mica_sys::process::FilterInstruction;

use crate::capability::{self, Capability};
use bpf::{Action, Comparison, Condition, Section, Verdict};
pub use json::ProfileError;
pub(crate) use rules::{as_rules, profile_as_rules};

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

/// One architecture's view of system calls: its audit number and the calls by name.
struct Architecture {
    audit: u32,
    /// Name as in docker's profiles.
    docker: &'static str,
    calls: fn() -> Vec<(u32, &'static str)>,
}

macro_rules! calls_of {
    ($module:ident) => {
        || syscalls::$module::Sysno::iter().map(|call| (call.id() as u32, call.name())).collect()
    };
}

/// The machine's own architecture first, then the 32-bit one its kernel also runs.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [Architecture; 2] = [
    Architecture { audit: 0xc000_003e, docker: "SCMP_ARCH_X86_64", calls: calls_of!(x86_64) },
    Architecture { audit: 0x4000_0003, docker: "SCMP_ARCH_X86", calls: calls_of!(x86) },
];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [Architecture; 2] = [
    Architecture { audit: 0xc000_00b7, docker: "SCMP_ARCH_AARCH64", calls: calls_of!(aarch64) },
    Architecture { audit: 0x4000_0028, docker: "SCMP_ARCH_ARM", calls: calls_of!(arm) },
];

/// Verdicts by name; a name without verdict is refused.
type Verdicts<'a> = BTreeMap<&'a str, Verdict>;

/// Returns the default filter for a process with these capabilities.
pub fn default_filter(capabilities: &[Capability]) -> Vec<FilterInstruction> {
    let verdicts = default_verdicts(capability::mask(capabilities));
    let refused = |number| Action::Errno(if number > table::NEWEST { ENOSYS } else { EPERM }).into();
    let beyond = Action::Errno(ENOSYS);
    let section = |architecture| section(architecture, &verdicts, beyond, refused);
    bpf::compile(&ARCHITECTURES.iter().map(section).collect::<Vec<_>>())
}

/// Returns the filter of a profile in docker's JSON form.
pub fn profile_filter(
    text: &[u8],
    capabilities: &[Capability],
) -> Result<Vec<FilterInstruction>, ProfileError> {
    let profile = json::Profile::parse(text)?;
    let default = profile.default_action()?;
    let mut sections = Vec::new();
    for architecture in &ARCHITECTURES {
        let verdicts = profile.verdicts(architecture.docker, capability::mask(capabilities))?;
        sections.push(section(architecture, &verdicts, default, |_| default.into()));
    }
    Ok(bpf::compile(&sections))
}

fn section(
    architecture: &Architecture,
    verdicts: &Verdicts<'_>,
    beyond: Action,
    refused: impl Fn(u32) -> Verdict,
) -> Section {
    let mut calls = (architecture.calls)();
    calls.sort_unstable();
    // arm keeps a few private calls (set_tls, cacheflush) far above the rest.
    let near = calls.partition_point(|call| call.0 < 0x1000);
    let end = near.checked_sub(1).map_or(0, |last| calls[last].0 + 1);
    let mut list: Vec<Verdict> = (0..end).map(&refused).collect();
    for (number, name) in &calls[..near] {
        if let (Some(slot), Some(verdict)) = (list.get_mut(*number as usize), verdicts.get(name)) {
            slot.clone_from(verdict);
        }
    }
    let far = |(number, name): &(u32, &str)| Some((*number, verdicts.get(name)?.clone()));
    let far = calls[near..].iter().filter_map(far).collect();
    Section { arch: architecture.audit, verdicts: list, far, beyond }
}

fn default_verdicts(capabilities: u64) -> Verdicts<'static> {
    let mut verdicts = Verdicts::new();
    for name in table::ALWAYS {
        verdicts.insert(name, Action::Allow.into());
    }
    for name in table::NOT_THERE {
        verdicts.insert(name, Action::Errno(ENOSYS).into());
    }
    let has = |name: &str| {
        let capability: Result<Capability, _> = name.parse();
        capability.is_ok_and(|capability| capabilities & capability.bit() != 0)
    };
    for (capability, names) in table::WITH_CAPABILITY {
        if has(capability) {
            verdicts.extend(names.iter().map(|name| (*name, Action::Allow.into())));
        }
    }
    let refuse = Action::Errno(EPERM);
    let no_namespaces = Condition {
        argument: 0,
        comparison: Comparison::MaskedEqual { mask: table::NAMESPACE_FLAGS.into() },
        value: 0,
        int: true,
    };
    let clone_rules = if has("SYS_ADMIN") { vec![] } else { vec![no_namespaces] };
    verdicts.insert("clone", Verdict { rules: vec![(clone_rules, Action::Allow)], otherwise: refuse });
    let equal = |value: u32| Condition {
        argument: 0,
        comparison: Comparison::MaskedEqual { mask: u32::MAX.into() },
        value: value.into(),
        int: true,
    };
    let personalities = table::PERSONALITIES.iter().map(|&value| (vec![equal(value)], Action::Allow));
    verdicts.insert("personality", Verdict { rules: personalities.collect(), otherwise: refuse });
    let families = table::REFUSED_FAMILIES.iter().map(|&value| (vec![equal(value)], refuse));
    verdicts.insert("socket", Verdict { rules: families.collect(), otherwise: Action::Allow });
    verdicts
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: u32 = 0x7fff_0000;

    fn number(architecture: &Architecture, name: &str) -> u32 {
        (architecture.calls)().into_iter().find(|call| call.1 == name).unwrap().0
    }

    fn outcome(capabilities: &[Capability], compat: usize, name: &str, first: u64) -> u32 {
        let program = default_filter(capabilities);
        let architecture = &ARCHITECTURES[compat];
        let number = number(architecture, name);
        bpf::simulate(&program, architecture.audit, number, [first, 0, 0, 0, 0, 0])
    }

    fn denied(errno: u16) -> u32 {
        0x0005_0000 | u32::from(errno)
    }

    #[test]
    fn names_are_sorted_and_known_to_some_architecture() {
        assert!(table::ALWAYS.is_sorted());
    }

    #[test]
    fn the_contract_of_the_default_profile_holds() {
        let default = &capability::DEFAULT;
        for compat in 0..2 {
            let check = |name: &str, first: u64, expected: u32| {
                assert_eq!(outcome(default, compat, name, first), expected, "{name}({first:#x}) on {compat}");
            };
            for name in ["execve", "setuid", "capset", "prctl", "ptrace", "openat2", "fchmodat2", "mseal"] {
                check(name, 0, ALLOW);
            }
            for name in [
                "mount",
                "umount2",
                "pivot_root",
                "fsopen",
                "open_tree",
                "move_mount",
                "mount_setattr",
                "setns",
                "unshare",
                "kcmp",
                "pidfd_getfd",
                "keyctl",
                "add_key",
                "request_key",
                "bpf",
                "perf_event_open",
                "userfaultfd",
                "io_uring_setup",
                "init_module",
                "reboot",
                "acct",
                "swapon",
                "quotactl",
                "syslog",
                "vhangup",
                "fanotify_init",
                "clock_settime",
                "kexec_load",
            ] {
                check(name, 0, denied(EPERM));
            }
            check("clone3", 0, denied(ENOSYS));
            check("clone", 17, ALLOW);
            check("clone", 0x1000_0011, denied(EPERM));
            check("clone", 0x1_1000_0011, denied(EPERM));
            check("socket", 2, ALLOW);
            check("socket", 38, denied(EPERM));
            check("socket", 0x5_0000_0028, denied(EPERM));
            check("personality", 0x4_0000, denied(EPERM));
            check("personality", 0xffff_ffff, ALLOW);
        }
    }

    #[test]
    fn capabilities_open_the_calls_they_are_for() {
        let admin: Capability = "SYS_ADMIN".parse().unwrap();
        assert_eq!(outcome(&[admin], 0, "mount", 0), ALLOW);
        assert_eq!(outcome(&[admin], 0, "clone", 0x1000_0000), ALLOW);
        assert_eq!(outcome(&[], 0, "chroot", 0), denied(EPERM));
    }

    #[test]
    fn calls_newer_than_the_profile_do_not_exist() {
        let program = default_filter(&capability::DEFAULT);
        for number in [table::NEWEST + 1, 1000, 0x4000_0000] {
            assert_eq!(bpf::simulate(&program, ARCHITECTURES[0].audit, number, [0; 6]), denied(ENOSYS));
        }
    }

    #[test]
    fn the_program_fits_the_kernels_limit() {
        assert!(default_filter(&capability::DEFAULT).len() < 4096);
    }
}
