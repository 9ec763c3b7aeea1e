//! Which processor a program is for.

use std::fmt;

use crate::bytes::Endian;

/// A kind of processor, as an ELF header names it: machine number, word size and byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Machine {
    pub(crate) number: u16,
    pub(crate) bits: u8,
    pub(crate) endian: Endian,
}

/// ELF machine number, word size, byte order, the OCI architecture and Debian's multiarch triplet.
type Known = (u16, u8, Endian, &'static str, &'static str);

/// What has a name. gABI "e_machine"; the names are those of Go, which the OCI platforms use.
const KNOWN: [Known; 15] = [
    (62, 64, Endian::Little, "amd64", "x86_64-linux-gnu"),
    (3, 32, Endian::Little, "386", "i386-linux-gnu"),
    (62, 32, Endian::Little, "amd64 (x32)", "x86_64-linux-gnux32"),
    (183, 64, Endian::Little, "arm64", "aarch64-linux-gnu"),
    (40, 32, Endian::Little, "arm", "arm-linux-gnueabihf"),
    (243, 64, Endian::Little, "riscv64", "riscv64-linux-gnu"),
    (21, 64, Endian::Little, "ppc64le", "powerpc64le-linux-gnu"),
    (21, 64, Endian::Big, "ppc64", "powerpc64-linux-gnu"),
    (22, 64, Endian::Big, "s390x", "s390x-linux-gnu"),
    (258, 64, Endian::Little, "loong64", "loongarch64-linux-gnu"),
    (8, 64, Endian::Little, "mips64le", "mips64el-linux-gnuabi64"),
    (8, 64, Endian::Big, "mips64", "mips64-linux-gnuabi64"),
    (8, 32, Endian::Little, "mipsle", "mipsel-linux-gnu"),
    (8, 32, Endian::Big, "mips", "mips-linux-gnu"),
    (20, 32, Endian::Big, "ppc", "powerpc-linux-gnu"),
];

impl Machine {
    fn known(self) -> Option<&'static Known> {
        KNOWN.iter().find(|known| (known.0, known.1, known.2) == (self.number, self.bits, self.endian))
    }

    /// The machine of an OCI architecture (`amd64`, `arm64`, `386`, …).
    pub fn from_architecture(architecture: &str) -> Option<Self> {
        let known = KNOWN.iter().find(|known| known.3 == architecture)?;
        Some(Self { number: known.0, bits: known.1, endian: known.2 })
    }

    /// The machine this program was compiled for.
    pub fn of_this_program() -> Option<Self> {
        Self::from_architecture(match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            same => same,
        })
    }

    /// The OCI architecture, if the machine has one.
    pub fn architecture(self) -> Option<&'static str> {
        self.known().map(|known| known.3)
    }

    /// Whether a kernel for this machine starts programs for `program` without an emulator.
    ///
    /// 64-bit arm is not counted as able to run 32-bit arm: many of its processors cannot.
    pub fn runs(self, program: Machine) -> bool {
        let amd64 = self.number == 62 && self.bits == 64;
        self == program || (amd64 && matches!((program.number, program.bits), (3, 32) | (62, 32)))
    }

    /// Debian's name of the directory of this machine's libraries (`x86_64-linux-gnu`).
    pub(crate) fn multiarch(self) -> Option<&'static str> {
        self.known().map(|known| known.4)
    }

    /// What the loaders put for `$PLATFORM`: the name of the machine that uname(2) gives.
    pub(crate) fn uname(self) -> &'static str {
        self.multiarch().and_then(|triplet| triplet.split('-').next()).unwrap_or("unknown")
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.architecture() {
            Some(name) => f.write_str(name),
            None => write!(f, "machine {} ({} bit)", self.number, self.bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_64_bit_pc_also_runs_32_bit_programs_but_nothing_else() {
        let of = |name| Machine::from_architecture(name).unwrap();
        assert!(of("amd64").runs(of("386")));
        assert!(!of("amd64").runs(of("arm64")));
        assert!(!of("386").runs(of("amd64")));
        assert!(!of("ppc64").runs(of("ppc64le")));
    }

    #[test]
    fn this_program_has_a_machine() {
        assert!(Machine::of_this_program().is_some());
    }
}
