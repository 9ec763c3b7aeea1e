//! The process environment, read once: everything else of mica gets values, never variables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mica_engine::{Caller, CredentialFile, CredentialKind, Proxies, RegistrySettings};

/// A copy of the environment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The environment of this process. Variables that are not UTF-8 are left out.
    pub(crate) fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    /// A variable, set or not.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A variable that is set to something.
    pub(crate) fn nonempty(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// What web servers are asked through, upper or lower case.
    pub(crate) fn proxies(&self) -> Proxies {
        let first = |names: &[&str]| names.iter().find_map(|name| self.nonempty(name)).map(str::to_owned);
        Proxies {
            http: first(&["HTTP_PROXY", "http_proxy"]),
            https: first(&["HTTPS_PROXY", "https_proxy"]),
            except: first(&["NO_PROXY", "no_proxy"]),
        }
    }

    /// The files that docker, podman and containerd read about registries (registry.md section 6).
    pub(crate) fn registry_settings(&self, docker_config: &Path) -> RegistrySettings {
        let home = self.home();
        let config = self.nonempty("XDG_CONFIG_HOME").map(PathBuf::from);
        let config = config.or_else(|| home.as_ref().map(|home| home.join(".config")));
        let runtime = self.nonempty("XDG_RUNTIME_DIR").map(PathBuf::from);
        let containers = |folder: &Option<PathBuf>| folder.as_ref().map(|folder| folder.join("containers"));
        let own = containers(&config);
        let podman = [
            self.nonempty("REGISTRY_AUTH_FILE").map(PathBuf::from),
            containers(&runtime).map(|folder| folder.join("auth.json")),
            own.as_ref().map(|folder| folder.join("auth.json")),
        ];
        let podman = podman.into_iter().flatten().map(|path| (path, CredentialKind::Containers));
        let docker = [(docker_config.join("config.json"), CredentialKind::Docker)];
        let legacy = home.as_ref().map(|home| (home.join(".dockercfg"), CredentialKind::Legacy));
        let credentials = podman.chain(docker).chain(legacy);
        let system = ["/etc/containers/certs.d", "/etc/docker/certs.d", "/etc/containerd/certs.d"];
        let certificates = own.iter().map(|folder| folder.join("certs.d"));
        let certificates = certificates.chain([docker_config.join("certs.d")]);
        let given = self.nonempty("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from);
        let user = own.as_ref().map(|folder| folder.join("registries.conf")).filter(|path| path.exists());
        let main = given.or(user).unwrap_or_else(|| PathBuf::from("/etc/containers/registries.conf"));
        let additions = [PathBuf::from("/etc/containers/registries.conf.d")];
        let additions =
            additions.into_iter().chain(own.iter().map(|folder| folder.join("registries.conf.d")));
        let rootless = config.map(|folder| folder.join("docker/daemon.json")).filter(|path| path.exists());
        RegistrySettings {
            credentials: credentials.map(|(path, kind)| CredentialFile { path, kind }).collect(),
            auth_config: self.nonempty("DOCKER_AUTH_CONFIG").map(str::to_owned),
            certificates: certificates.chain(system.map(PathBuf::from)).collect(),
            registries: [main].into_iter().chain(additions).collect(),
            daemon: Some(rootless.unwrap_or_else(|| PathBuf::from("/etc/docker/daemon.json"))),
            insecure: false,
        }
    }

    /// Whether colours may be used on a terminal (no-color.org).
    pub(crate) fn colours(&self) -> bool {
        self.nonempty("NO_COLOR").is_none() && self.get("CLICOLOR") != Some("0")
    }

    /// The home directory.
    pub(crate) fn home(&self) -> Option<PathBuf> {
        self.nonempty("HOME").map(PathBuf::from)
    }

    /// Where the store is when nothing says otherwise: `/var/lib/mica` for root, else `$XDG_DATA_HOME/mica`.
    pub(crate) fn default_root(&self) -> PathBuf {
        if rustix::process::geteuid().is_root() {
            return PathBuf::from("/var/lib/mica");
        }
        let data = self.nonempty("XDG_DATA_HOME").map(PathBuf::from);
        data.or_else(|| self.home().map(|home| home.join(".local/share")))
            .unwrap_or_else(|| PathBuf::from("/var/tmp"))
            .join("mica")
    }

    /// Where a registry keeps its data when nothing says otherwise: beside the store.
    pub(crate) fn default_registry(&self) -> PathBuf {
        self.default_root().with_file_name("mica-registry")
    }

    /// Who calls: the ids of this process, and the name that `/etc/passwd` has for them.
    pub(crate) fn caller(&self) -> Caller {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let named = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
        });
        let name = named.or_else(|| self.nonempty("USER").map(str::to_owned)).unwrap_or_default();
        Caller { uid, gid, name }
    }

    #[cfg(test)]
    pub(crate) fn of(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_color_wins_when_it_is_set_to_anything() {
        assert!(!Environment::of(&[("NO_COLOR", "1")]).colours());
        assert!(Environment::of(&[("NO_COLOR", "")]).colours());
    }
}
