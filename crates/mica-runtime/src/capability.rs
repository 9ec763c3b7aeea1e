//! Linux capabilities by name.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One capability, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capability(u8);

/// Names in the order of their numbers (capabilities(7)), without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The eleven a container has by default (mask 800405fb). Docker adds AUDIT_WRITE, MKNOD and NET_RAW.
pub const DEFAULT: [Capability; 11] = [
    Capability(0),
    Capability(1),
    Capability(3),
    Capability(4),
    Capability(5),
    Capability(6),
    Capability(7),
    Capability(8),
    Capability(10),
    Capability(18),
    Capability(31),
];

/// Not the name of a capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub struct UnknownCapability(String);

impl Capability {
    /// All capabilities this version knows.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..NAMES.len() as u8).map(Self)
    }

    /// Returns its bit in a capability mask.
    pub fn bit(self) -> u64 {
        1 << self.0
    }

    /// Returns its name with `CAP_`.
    pub fn name(self) -> String {
        format!("CAP_{}", NAMES[usize::from(self.0)])
    }
}

impl FromStr for Capability {
    type Err = UnknownCapability;

    /// Reads a name in any case, with or without `CAP_`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = NAMES.iter().position(|known| *known == name);
        number.map(|number| Self(number as u8)).ok_or_else(|| UnknownCapability(text.to_owned()))
    }
}

/// Returns the mask of a set of capabilities.
pub fn mask(capabilities: &[Capability]) -> u64 {
    capabilities.iter().fold(0, |mask, capability| mask | capability.bit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_set_is_that_of_the_contract() {
        assert_eq!(mask(&DEFAULT), 0x8004_05fb);
    }

    #[test]
    fn names_are_read_in_every_spelling() {
        let mknod: Capability = "cap_mknod".parse().unwrap();
        assert_eq!(mknod, "MKNOD".parse().unwrap());
        assert_eq!(mknod.name(), "CAP_MKNOD");
        assert!("CAP_FOO".parse::<Capability>().is_err());
    }
}
