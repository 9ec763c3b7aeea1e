//! Where the user's words about registries are: files that docker, containerd and podman read too.

use std::path::PathBuf;

/// The files; none of them has to be there.
#[derive(Debug, Clone, Default)]
pub struct RegistrySettings {
    /// Credentials, asked in this order.
    pub credentials: Vec<CredentialFile>,
    /// `DOCKER_AUTH_CONFIG`: the text of a `config.json`, asked before the files.
    pub auth_config: Option<String>,
    /// `certs.d` directories with one directory per registry: `*.crt`, `*.cert` with `*.key`, `hosts.toml`.
    pub certificates: Vec<PathBuf>,
    /// `registries.conf` and the directories of its additions, earlier ones first.
    pub registries: Vec<PathBuf>,
    /// docker's `daemon.json`.
    pub daemon: Option<PathBuf>,
    /// `--insecure`: certificates are not checked, and plain HTTP is accepted, everywhere.
    pub insecure: bool,
}

/// One file with credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFile {
    /// Where.
    pub path: PathBuf,
    /// How it is to be read.
    pub kind: CredentialKind,
}

/// The forms of files with credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// docker's `config.json`: keys are hosts or URLs.
    Docker,
    /// podman's `auth.json`: keys may also be a host and the beginning of a repository.
    Containers,
    /// `~/.dockercfg`: the hosts at the top.
    Legacy,
}

/// The key of docker.io in credential stores.
pub(super) const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The name of docker.io in references.
pub(super) const HUB: &str = "docker.io";

/// The key that docker uses for a registry.
pub fn credential_key(registry: &str) -> String {
    match registry {
        HUB | "index.docker.io" | "registry-1.docker.io" | "" => HUB_KEY.to_owned(),
        other => other.to_owned(),
    }
}

/// A server as a user writes it, without scheme and path.
pub fn server_name(text: &str) -> String {
    if text == HUB_KEY {
        return HUB.to_owned();
    }
    let text = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = text.split('/').next().unwrap_or_default().to_ascii_lowercase();
    if matches!(host.as_str(), "index.docker.io" | "registry-1.docker.io") { HUB.to_owned() } else { host }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_has_one_key_however_it_is_written() {
        for text in ["https://reg.example:5000/v2/", "http://reg.example:5000", "reg.example:5000"] {
            assert_eq!(server_name(text), "reg.example:5000");
        }
        for text in [HUB_KEY, "index.docker.io", "docker.io", "https://registry-1.docker.io"] {
            assert_eq!(credential_key(&server_name(text)), HUB_KEY, "{text}");
        }
    }
}
