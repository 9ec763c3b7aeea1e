//! Flags of `docker build` and `docker buildx build` that mica does not have, each with its reason (build.md O8).

use crate::flags::Foreign;

const ATTEST: &str = "attestations come with registries";
const LEGACY: &str = "only docker's legacy builder had it";
const LIMITS: &str = "only docker's legacy builder had it; --resource limits what a RUN uses";

/// All of them.
pub(super) const FLAGS: &[Foreign] = &[
    Foreign::refused("attest", ATTEST),
    Foreign::refused("builder", "there is one builder, this machine"),
    Foreign::refused("call", "build checks come later"),
    Foreign::refused_switch("check", "build checks come later"),
    Foreign::idle_switch("compress", LEGACY),
    Foreign::idle("cpu-period", LIMITS),
    Foreign::idle("cpu-quota", LIMITS),
    Foreign::idle("cpu-shares", LIMITS).short('c'),
    Foreign::idle("cpuset-cpus", LIMITS),
    Foreign::idle("cpuset-mems", LIMITS),
    Foreign::idle_switch("disable-content-trust", "signatures of Notary v1 are not looked at"),
    Foreign::idle_switch("force-rm", LEGACY),
    Foreign::idle("isolation", "only Windows has it"),
    Foreign::idle("memory", LIMITS).short('m'),
    Foreign::idle("memory-swap", LIMITS),
    Foreign::refused("policy", "source policies come with registries"),
    Foreign::refused("print", "build checks come later"),
    Foreign::refused("provenance", ATTEST).optional(),
    Foreign::idle_switch("rm", LEGACY),
    Foreign::refused("root", "it is buildx's; mica's own comes before the verb: mica --root DIR build"),
    Foreign::refused("sbom", ATTEST).optional(),
    Foreign::idle("security-opt", LEGACY),
    Foreign::refused("server-config", "there is no server"),
    Foreign::idle_switch("squash", LEGACY),
];
