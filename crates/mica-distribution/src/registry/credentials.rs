//! Who we are to a registry, from the files of docker and podman (registry.md section 6, build.md Y20, Y21).

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mica_api::Cancel;
use serde_json::{Map, Value};

use super::error::RegistryError;
use super::helper::Helper;
use super::settings::{CredentialFile, CredentialKind, HUB, RegistrySettings, credential_key, server_name};

/// What is shown to a registry.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// User and password.
    Basic {
        /// Who.
        user: String,
        /// The password, or a token in its place.
        password: String,
    },
    /// A token that gets other tokens (OAuth2's refresh token).
    Identity {
        /// Who, if known.
        user: String,
        /// The token.
        token: String,
    },
    /// A token that is shown as it is.
    Bearer(String),
}

impl fmt::Debug for Credential {
    /// Never the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Basic { user, .. } => write!(f, "Basic({user})"),
            Self::Identity { user, .. } => write!(f, "Identity({user})"),
            Self::Bearer(_) => f.write_str("Bearer"),
        }
    }
}

/// A credential, and what decided that it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCredential {
    /// What is shown.
    pub credential: Credential,
    /// Where it is from: a file, or a helper named in a file.
    pub source: String,
}

/// A document with `auths`, `credsStore` and `credHelpers`.
pub(super) struct Document {
    pub(super) root: Map<String, Value>,
    pub(super) kind: CredentialKind,
    pub(super) name: String,
}

impl Document {
    /// Reads a file; `None` if there is none.
    pub(super) fn read(file: &CredentialFile) -> Result<Option<Self>, RegistryError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| RegistryError::Settings {
            path: file.path.clone(),
            source,
        };
        let bytes = match std::fs::read(&file.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error.into())),
        };
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let root = serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
        Ok(Some(Self { root, kind: file.kind, name: file.path.display().to_string() }))
    }

    /// What it says about a repository of a registry.
    fn find(
        &self,
        registry: &str,
        repository: &str,
        cancel: &Cancel,
    ) -> Result<Option<FoundCredential>, RegistryError> {
        if let Some(helper) = self.helper(registry)? {
            let found = helper.get(&credential_key(registry), cancel)?;
            let source = format!("docker-credential-{} (named in {})", helper.name(), self.name);
            if let Some(credential) = found {
                return Ok(Some(FoundCredential { credential, source }));
            }
        }
        let Some(auths) = self.auths() else { return Ok(None) };
        let entry = match self.kind {
            CredentialKind::Containers => most_specific(auths, registry, repository),
            CredentialKind::Docker | CredentialKind::Legacy => None,
        };
        let by_host = || auths.iter().find(|(key, _)| server_name(key) == registry).map(|(_, value)| value);
        let Some(credential) = entry.or_else(by_host).and_then(read_entry) else { return Ok(None) };
        Ok(Some(FoundCredential { credential, source: self.name.clone() }))
    }

    fn auths(&self) -> Option<&Map<String, Value>> {
        match self.kind {
            CredentialKind::Legacy => Some(&self.root),
            CredentialKind::Docker | CredentialKind::Containers => self.root.get("auths")?.as_object(),
        }
    }

    /// `credHelpers` of this registry, else `credsStore`.
    pub(super) fn helper(&self, registry: &str) -> Result<Option<Helper>, RegistryError> {
        let own = self.root.get("credHelpers").and_then(Value::as_object).and_then(|helpers| {
            helpers.iter().find(|(key, _)| server_name(key) == registry).and_then(|(_, name)| name.as_str())
        });
        let store = self.root.get("credsStore").and_then(Value::as_str);
        own.or(store).filter(|name| !name.is_empty()).map(Helper::new).transpose()
    }
}

/// podman's keys: the longest that is a prefix of `host/repository`, on component borders.
fn most_specific<'a>(auths: &'a Map<String, Value>, registry: &str, repository: &str) -> Option<&'a Value> {
    let mut key = format!("{registry}/{repository}");
    loop {
        if let Some(value) = auths.get(&key) {
            return Some(value);
        }
        key.truncate(key.rfind('/')?);
    }
}

/// An entry of `auths`. An empty one stands for "ask the helper", which was done.
fn read_entry(entry: &Value) -> Option<Credential> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if let Some(token) = text("registrytoken") {
        return Some(Credential::Bearer(token.to_owned()));
    }
    let pair = text("auth").and_then(|auth| {
        let bytes = STANDARD.decode(auth.trim()).ok()?;
        let pair = String::from_utf8(bytes).ok()?;
        let (user, password) = pair.split_once(':')?;
        // old dockers padded passwords with zeros
        Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
    });
    if let Some(token) = text("identitytoken") {
        let user = pair.map(|(user, _)| user).unwrap_or_default();
        return Some(Credential::Identity { user, token: token.to_owned() });
    }
    let plain = || Some((text("username")?.to_owned(), text("password")?.to_owned()));
    let (user, password) = pair.or_else(plain)?;
    Some(Credential::Basic { user, password })
}

/// A remark for the user: something that decides nothing but should be known.
pub(super) type Remark<'a> = &'a dyn Fn(String);

/// What the files say about a repository; the first that knows it.
///
/// A helper that fails is told and passed over: others may know, and many registries need nobody's name.
pub(super) fn find(
    settings: &RegistrySettings,
    registry: &str,
    repository: &str,
    remark: Remark<'_>,
    cancel: &Cancel,
) -> Result<Option<FoundCredential>, RegistryError> {
    let given = settings.auth_config.as_deref().and_then(|text| {
        let root = serde_json::from_str(text).ok()?;
        Some(Document { root, kind: CredentialKind::Docker, name: "DOCKER_AUTH_CONFIG".to_owned() })
    });
    let mut documents: Vec<Document> = given.into_iter().collect();
    for file in &settings.credentials {
        documents.extend(Document::read(file)?);
    }
    let registry = if registry.is_empty() { HUB } else { registry };
    for document in documents {
        match document.find(registry, repository, cancel) {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            Err(error @ RegistryError::Helper { .. }) => {
                cancel.check()?;
                remark(format!("{error} (named in {})", document.name));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The file that `login` writes: docker's, or podman's if the environment names one.
pub(super) fn writable(settings: &RegistrySettings) -> Option<&Path> {
    let docker = settings.credentials.iter().find(|file| file.kind == CredentialKind::Docker);
    docker.or(settings.credentials.first()).map(|file| file.path.as_path())
}

/// Which of the files exist, in the order they are asked.
pub(super) fn existing(settings: &RegistrySettings) -> Vec<PathBuf> {
    settings.credentials.iter().map(|file| file.path.clone()).filter(|path| path.exists()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document(kind: CredentialKind, root: Value) -> Document {
        let Value::Object(root) = root else { panic!() };
        Document { root, kind, name: "f".into() }
    }

    fn found(document: &Document, registry: &str, repository: &str) -> Option<Credential> {
        document.find(registry, repository, &Cancel::new()).unwrap().map(|found| found.credential)
    }

    fn basic(user: &str, password: &str) -> Credential {
        Credential::Basic { user: user.into(), password: password.into() }
    }

    #[test]
    fn docker_keys_are_hosts_in_any_spelling() {
        let file = document(
            CredentialKind::Docker,
            json!({"auths": {
                "https://index.docker.io/v1/": {"auth": STANDARD.encode("hub:p:w")},
                "https://reg:5000/v2/": {"auth": STANDARD.encode("u:p\0\0")},
                "ghcr.io": {"auth": STANDARD.encode("u:"), "identitytoken": "T"},
                "r": {"registrytoken": "B"}, "empty": {}
            }}),
        );
        assert_eq!(found(&file, "docker.io", "library/x"), Some(basic("hub", "p:w")));
        assert_eq!(found(&file, "reg:5000", "x"), Some(basic("u", "p")));
        let identity = Credential::Identity { user: "u".into(), token: "T".into() };
        assert_eq!(found(&file, "ghcr.io", "x"), Some(identity));
        assert_eq!(found(&file, "r", "x"), Some(Credential::Bearer("B".into())));
        assert_eq!((found(&file, "empty", "x"), found(&file, "other", "x")), (None, None));
    }

    #[test]
    fn podman_keys_may_be_parts_of_repositories_and_the_longest_wins() {
        let auth = |user: &str| json!({"auth": STANDARD.encode(format!("{user}:p"))});
        let file = document(
            CredentialKind::Containers,
            json!({"auths": {"q.io": auth("host"), "q.io/team": auth("team"), "q.io/team/app": auth("app")}}),
        );
        for (repository, user) in [("team/app", "app"), ("team/other/x", "team"), ("teams/app", "host")] {
            assert_eq!(found(&file, "q.io", repository), Some(basic(user, "p")), "{repository}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let shown = format!("{:?}{:?}", basic("u", "hush"), Credential::Bearer("hush".into()));
        assert!(!shown.contains("hush"), "{shown}");
    }
}
