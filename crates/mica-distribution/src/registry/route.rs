//! From a reference to the servers that have it: mirrors, then the registry itself, each with its TLS and the reasons.

use mica_oci::Reference;

use super::certificates;
use super::error::RegistryError;
use super::files::daemon::DaemonFile;
use super::files::hosts::{self, Capability};
use super::files::registries::{MirrorUse, RegistriesFile};
use super::settings::{HUB, RegistrySettings};
use crate::http::TlsProfile;

/// Where docker.io's registry is.
const HUB_HOST: &str = "registry-1.docker.io";

/// How a server is talked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// TLS, whatever happens.
    Https,
    /// No TLS.
    Http,
    /// The loopback: nobody listens there, and nearly nobody has certificates for it.
    HttpFirst,
    /// The user said that it need not be secure, not that it is not.
    HttpsFirst,
}

/// One server that may have a repository.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    /// Host and port, as in references and in files with credentials.
    pub(super) host: String,
    /// Host and port to connect to.
    pub(super) authority: String,
    /// What comes before the repository: `/v2`.
    pub(super) path: String,
    pub(super) scheme: Scheme,
    pub(super) tls: TlsProfile,
    /// The repository's name there.
    pub(super) repository: String,
    /// The registry that a mirror is asked for: `ns=`.
    pub(super) namespace: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    /// `None` for the registry itself.
    pub(super) mirror: Option<MirrorUse>,
    /// Whether tags can be resolved there.
    pub(super) resolves: bool,
    /// What decided it, for people.
    pub(super) reasons: Vec<String>,
}

impl Endpoint {
    /// Whether it is to be asked for a tag or a digest.
    pub(super) fn serves(&self, by_digest: bool) -> bool {
        match (self.mirror, by_digest) {
            (Some(MirrorUse::DigestOnly), by_digest) => by_digest,
            (Some(MirrorUse::TagOnly), by_digest) => !by_digest,
            (_, true) => true,
            (_, false) => self.resolves,
        }
    }
}

/// All servers of a repository, mirrors first; the last is the registry itself.
pub(super) fn route(
    settings: &RegistrySettings,
    reference: &Reference,
) -> Result<Vec<Endpoint>, RegistryError> {
    let registry = reference.registry();
    let conf = RegistriesFile::read(&settings.registries)?;
    let entry = conf.find(registry, reference.repository());
    if let Some(blocked) = entry.as_ref().filter(|entry| entry.blocked) {
        return Err(RegistryError::Blocked { host: registry.to_owned(), by: blocked.file.clone() });
    }
    let daemon = settings.daemon.as_deref().map(DaemonFile::read).transpose()?.flatten();
    let (host, repository) = match &entry {
        Some(entry) => entry.rewritten(registry, reference.repository()),
        None => (registry.to_owned(), reference.repository().to_owned()),
    };
    let mut own = plain(settings, &host, &repository)?;
    if let Some(entry) = &entry {
        own.reasons.push(format!("{}: registry {}", entry.file.display(), entry.prefix));
        if entry.insecure {
            insecure(&mut own, &format!("insecure = true in {}", entry.file.display()));
        }
    }
    if let Some(daemon) = daemon.as_ref().filter(|daemon| daemon.is_insecure(&host)) {
        insecure(&mut own, &format!("insecure-registries in {}", daemon.path.display()));
    }
    if settings.insecure {
        insecure(&mut own, "--insecure");
    }
    let mut endpoints = Vec::new();
    if let Some(file) = hosts::find(&settings.certificates, &host)? {
        endpoints.extend(file.hosts.iter().map(|found| from_hosts(found, &file, &host, &repository)));
        if let Some(server) = &file.server {
            own = from_hosts(server, &file, &host, &repository);
            (own.mirror, own.namespace) = (None, None);
        }
    } else if let Some(entry) = &entry {
        for mirror in &entry.mirrors {
            let (host, repository) = mirror.rewritten(entry, registry, reference.repository());
            let mut found = plain(settings, &host, &repository)?;
            if mirror.insecure {
                insecure(&mut found, &format!("insecure = true in {}", entry.file.display()));
            }
            found.mirror = Some(mirror.used);
            found.reasons.push(format!("{}: mirror of {}", entry.file.display(), entry.prefix));
            endpoints.push(found);
        }
    }
    if endpoints.is_empty()
        && registry == HUB
        && let Some(daemon) = &daemon
    {
        for url in &daemon.mirrors {
            let mut found = from_url(settings, url, &repository)?;
            found.reasons.push(format!("registry-mirrors in {}", daemon.path.display()));
            endpoints.push(found);
        }
    }
    endpoints.push(own);
    Ok(endpoints)
}

/// A server nobody said anything about.
fn plain(settings: &RegistrySettings, host: &str, repository: &str) -> Result<Endpoint, RegistryError> {
    let (tls, mut reasons) = certificates::of_host(&settings.certificates, host)?;
    let mut tls = tls;
    let scheme = if is_loopback(host) {
        reasons.push("loopback: plain HTTP first, then TLS".to_owned());
        tls.unverified = tls.authorities.is_empty();
        Scheme::HttpFirst
    } else {
        Scheme::Https
    };
    let authority = if host == HUB { HUB_HOST.to_owned() } else { host.to_owned() };
    Ok(Endpoint {
        host: host.to_owned(),
        authority,
        path: "/v2".to_owned(),
        scheme,
        tls,
        repository: repository.to_owned(),
        namespace: None,
        headers: Vec::new(),
        mirror: None,
        resolves: true,
        reasons,
    })
}

fn insecure(endpoint: &mut Endpoint, reason: &str) {
    if endpoint.scheme == Scheme::Https {
        endpoint.scheme = Scheme::HttpsFirst;
    }
    endpoint.tls.unverified = true;
    endpoint.reasons.push(format!("{reason}: certificates are not checked, plain HTTP is accepted"));
}

fn from_url(settings: &RegistrySettings, url: &str, repository: &str) -> Result<Endpoint, RegistryError> {
    let (scheme, rest) = match url.strip_prefix("http://") {
        Some(rest) => (Scheme::Http, rest),
        None => (Scheme::Https, url.strip_prefix("https://").unwrap_or(url)),
    };
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut found = plain(settings, host, repository)?;
    found.scheme = scheme;
    let path = path.trim_matches('/');
    if !path.is_empty() {
        found.path = format!("/{path}/v2");
    }
    found.mirror = Some(MirrorUse::All);
    Ok(found)
}

fn from_hosts(found: &hosts::Host, file: &hosts::HostsFile, registry: &str, repository: &str) -> Endpoint {
    Endpoint {
        host: if found.authority == HUB_HOST { HUB.to_owned() } else { found.authority.clone() },
        authority: found.authority.clone(),
        path: found.path.clone(),
        scheme: if found.plain { Scheme::Http } else { Scheme::Https },
        tls: found.tls.clone(),
        repository: repository.to_owned(),
        namespace: (found.authority != registry).then(|| registry.to_owned()),
        headers: found.headers.clone(),
        mirror: Some(MirrorUse::All),
        resolves: found.capabilities.contains(&Capability::Resolve),
        reasons: vec![file.path.display().to_string()],
    }
}

/// Whether a host is this machine: its names and addresses, with or without port.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(settings: &RegistrySettings, name: &str) -> Vec<String> {
        let reference: Reference = name.parse().unwrap();
        route(settings, &reference)
            .unwrap()
            .iter()
            .map(|e| format!("{:?} {}{}/{}", e.scheme, e.authority, e.path, e.repository))
            .collect()
    }

    fn written(files: &[(&str, &str)]) -> (tempfile::TempDir, RegistrySettings) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let settings = RegistrySettings {
            certificates: vec![folder.path().join("certs.d")],
            registries: vec![folder.path().join("registries.conf"), folder.path().join("registries.conf.d")],
            daemon: Some(folder.path().join("daemon.json")),
            ..RegistrySettings::default()
        };
        (folder, settings)
    }

    #[test]
    fn only_the_loopback_is_plain_unless_somebody_says_otherwise() {
        let none = RegistrySettings::default();
        for (name, expected) in [
            ("alpine", "Https registry-1.docker.io/v2/library/alpine"),
            ("localhost:5000/a", "HttpFirst localhost:5000/v2/a"),
            ("127.9.9.9/a", "HttpFirst 127.9.9.9/v2/a"),
            ("[::1]:5000/a", "HttpFirst [::1]:5000/v2/a"),
            ("10.0.0.1:5000/a", "Https 10.0.0.1:5000/v2/a"),
            ("localhost.example:5000/a", "Https localhost.example:5000/v2/a"),
        ] {
            assert_eq!(routed(&none, name), [expected]);
        }
    }

    #[test]
    fn mirrors_of_registries_conf_come_first_and_rewrite_names() {
        let (_folder, settings) = written(&[(
            "registries.conf.d/x.conf",
            "[[registry]]\nprefix='docker.io'\nlocation='docker.io'\n[[registry.mirror]]\nlocation='127.0.0.1:5001'\n\
             insecure=true\n[[registry]]\nprefix='*.corp'\ninsecure=true\n[[registry]]\nprefix='q.io/old'\n\
             location='q.io/new'\n[[registry]]\nlocation='bad.example'\nblocked=true\n",
        )]);
        assert_eq!(
            routed(&settings, "alpine"),
            ["HttpFirst 127.0.0.1:5001/v2/library/alpine", "Https registry-1.docker.io/v2/library/alpine"]
        );
        assert_eq!(routed(&settings, "reg.corp/a"), ["HttpsFirst reg.corp/v2/a"]);
        assert_eq!(routed(&settings, "q.io/old/a"), ["Https q.io/v2/new/a"]);
        assert_eq!(routed(&settings, "q.io/older/a"), ["Https q.io/v2/older/a"]);
        let blocked = route(&settings, &"bad.example/a".parse().unwrap()).unwrap_err();
        assert!(matches!(blocked, RegistryError::Blocked { .. }));
    }

    #[test]
    fn daemon_json_has_mirrors_for_the_hub_alone_and_names_insecure_networks() {
        let (_folder, settings) = written(&[(
            "daemon.json",
            r#"{"registry-mirrors":["http://m:5000/"],"insecure-registries":["10.0.0.0/8","reg:5000"]}"#,
        )]);
        assert_eq!(routed(&settings, "alpine")[0], "Http m:5000/v2/library/alpine");
        assert_eq!(routed(&settings, "q.io/a"), ["Https q.io/v2/a"]);
        assert_eq!(routed(&settings, "10.1.2.3:5000/a"), ["HttpsFirst 10.1.2.3:5000/v2/a"]);
        assert_eq!(routed(&settings, "reg:5000/a"), ["HttpsFirst reg:5000/v2/a"]);
    }

    #[test]
    fn hosts_toml_has_hosts_in_order_and_its_own_server() {
        let (_folder, settings) = written(&[(
            "certs.d/q.io/hosts.toml",
            "server = 'https://up.q.io'\n[host.'http://m1:80']\ncapabilities=['pull']\n[host.'https://a/v2/p']\n\
             override_path=true\nskip_verify=true\n",
        )]);
        assert_eq!(routed(&settings, "q.io/x"), ["Http m1:80/v2/x", "Https a/v2/p/x", "Https up.q.io/v2/x"]);
        let found = route(&settings, &"q.io/x".parse().unwrap()).unwrap();
        assert!(!found[0].serves(false) && found[0].serves(true) && found[1].tls.unverified);
        assert_eq!(found[0].namespace.as_deref(), Some("q.io"));
    }
}
