//! containerd's `certs.d/<host>/hosts.toml`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::read;
use crate::http::TlsProfile;
use crate::registry::error::RegistryError;

/// What a host may be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::registry) enum Capability {
    Pull,
    Resolve,
    Push,
}

/// One or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Several<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> Several<T> {
    fn list(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

/// A file with both certificate and key, or one each.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Client {
    Both(PathBuf),
    Pair(PathBuf, PathBuf),
}

#[derive(Debug, Clone, Default, Deserialize)]
struct HostText {
    capabilities: Option<Vec<Capability>>,
    ca: Option<Several<PathBuf>>,
    client: Option<Several<Client>>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    override_path: bool,
    #[serde(default)]
    header: toml::map::Map<String, toml::Value>,
}

#[derive(Debug, Default, Deserialize)]
struct Text {
    server: Option<String>,
    #[serde(flatten)]
    own: HostText,
    #[serde(default)]
    host: toml::map::Map<String, toml::Value>,
}

/// A server of the file.
#[derive(Debug, Clone)]
pub(in crate::registry) struct Host {
    pub(in crate::registry) authority: String,
    pub(in crate::registry) path: String,
    pub(in crate::registry) plain: bool,
    pub(in crate::registry) tls: TlsProfile,
    pub(in crate::registry) capabilities: Vec<Capability>,
    pub(in crate::registry) headers: Vec<(String, String)>,
}

/// The file.
#[derive(Debug)]
pub(in crate::registry) struct HostsFile {
    pub(in crate::registry) path: PathBuf,
    /// In the order of the file.
    pub(in crate::registry) hosts: Vec<Host>,
    pub(in crate::registry) server: Option<Host>,
}

/// The file of a registry in the first directory that has one, else the `_default`.
pub(in crate::registry) fn find(
    directories: &[PathBuf],
    registry: &str,
) -> Result<Option<HostsFile>, RegistryError> {
    for name in [registry, "_default"] {
        for directory in directories {
            let path = directory.join(name).join("hosts.toml");
            if let Some(file) = read(&path, |text| parse(&path, text))? {
                return Ok(Some(file));
            }
        }
    }
    Ok(None)
}

fn parse(path: &Path, text: &str) -> Result<HostsFile, Box<dyn std::error::Error + Send + Sync>> {
    let text: Text = toml::from_str(text)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut hosts = Vec::new();
    for (url, value) in text.host {
        hosts.push(host(folder, &url, value.try_into()?));
    }
    let server = text.server.map(|url| host(folder, &url, text.own));
    Ok(HostsFile { path: path.to_owned(), hosts, server })
}

fn host(folder: &Path, url: &str, text: HostText) -> Host {
    let plain = url.starts_with("http://");
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")).unwrap_or(url);
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.trim_matches('/');
    let path = match (path.is_empty(), text.override_path || path == "v2" || path.ends_with("/v2")) {
        (true, false) => "/v2".to_owned(),
        (true, true) => String::new(),
        (false, true) => format!("/{path}"),
        (false, false) => format!("/{path}/v2"),
    };
    let identity =
        text.client.and_then(|client| client.list().into_iter().next()).map(|client| match client {
            Client::Both(path) => (folder.join(&path), folder.join(path)),
            Client::Pair(certificate, key) => (folder.join(certificate), folder.join(key)),
        });
    let authorities = text.ca.map(Several::list).unwrap_or_default();
    let headers = text.header.into_iter().flat_map(|(name, value)| {
        let values = match value {
            toml::Value::Array(values) => values,
            one => vec![one],
        };
        values.into_iter().filter_map(move |value| Some((name.clone(), value.as_str()?.to_owned())))
    });
    Host {
        authority: authority.to_owned(),
        path,
        plain,
        tls: TlsProfile {
            authorities: authorities.iter().map(|path| folder.join(path)).collect(),
            identity,
            unverified: text.skip_verify,
        },
        capabilities: text
            .capabilities
            .unwrap_or_else(|| vec![Capability::Pull, Capability::Resolve, Capability::Push]),
        headers: headers.collect(),
    }
}
