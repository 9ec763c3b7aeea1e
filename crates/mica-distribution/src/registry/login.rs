//! `login` and `logout`: credentials that were tried, kept where docker keeps them (build.md Y19, Y20).

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mica_api::Cancel;
use mica_oci::Reference;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde::Serialize as _;
use serde_json::{Map, Value, json};

use super::client::{Ask, Registries, Target, locked, refusal};
use super::credentials::{Credential, Document, FoundCredential, writable};
use super::error::RegistryError;
use super::settings::{CredentialFile, CredentialKind, RegistrySettings, credential_key, server_name};
use crate::http::Payload;

/// Where a credential is kept now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// In a file, readable for whoever can read the file.
    File(PathBuf),
    /// By a helper.
    Helper(String),
}

impl Registries {
    /// Tries a credential at a server.
    ///
    /// # Errors
    /// The server refuses it, or cannot be asked.
    pub fn try_credential(
        &self,
        server: &str,
        credential: Credential,
        cancel: &Cancel,
    ) -> Result<(), RegistryError> {
        let repository = self.repository(&reference_at(server)?)?;
        repository.own(cancel, async |endpoint| {
            let key = (endpoint.host.clone(), endpoint.repository.clone());
            let source = "given".to_owned();
            let found = FoundCredential { credential: credential.clone(), source };
            locked(&self.state.credentials).insert(key, Some(found));
            let ask = Ask {
                method: Method::GET,
                target: Target::Root(""),
                headers: HeaderMap::new(),
                payload: Payload::None,
                scopes: Vec::new(),
                retries: true,
            };
            let response = self.ask(endpoint, &ask, cancel).await?;
            match response.status().is_success() {
                true => Ok(()),
                false => Err(refusal(response, endpoint, &format!("login to {server} failed"), false).await),
            }
        })
    }
}

/// A name below a server, to find the way there.
pub(super) fn reference_at(server: &str) -> Result<Reference, RegistryError> {
    let text = format!("{}/login", server_name(server));
    text.parse().map_err(|_| RegistryError::Answer {
        host: server.escape_debug().to_string(),
        problem: "is no name of a registry".to_owned(),
    })
}

/// Keeps a credential for a server: with the helper that is configured, else in the file.
///
/// # Errors
/// There is no place for it, the file cannot be read or written, the helper fails.
pub fn keep_credential(
    settings: &RegistrySettings,
    server: &str,
    credential: &Credential,
    cancel: &Cancel,
) -> Result<Kept, RegistryError> {
    let (path, mut document) = opened(settings)?;
    let key = credential_key(&server_name(server));
    if let Some(helper) = document.helper(&server_name(server))? {
        helper.store(&key, credential, cancel)?;
        return Ok(Kept::Helper(helper.name().to_owned()));
    }
    let entry = match credential {
        Credential::Basic { user, password } => {
            json!({ "auth": STANDARD.encode(format!("{user}:{password}")) })
        }
        Credential::Identity { user, token } => {
            json!({ "auth": STANDARD.encode(format!("{user}:")), "identitytoken": token })
        }
        Credential::Bearer(token) => json!({ "registrytoken": token }),
    };
    auths(&mut document.root).insert(key, entry);
    write(&path, &document.root)?;
    Ok(Kept::File(path))
}

/// Forgets what is kept for a server, in every spelling of its name.
///
/// # Errors
/// The file cannot be read or written, the helper fails.
pub fn forget_credential(
    settings: &RegistrySettings,
    server: &str,
    cancel: &Cancel,
) -> Result<(), RegistryError> {
    let name = server_name(server);
    let (path, mut document) = opened(settings)?;
    if let Some(helper) = document.helper(&name)? {
        for spelling in [credential_key(&name), format!("https://{name}"), format!("http://{name}")] {
            helper.erase(&spelling, cancel)?;
        }
    }
    let known = auths(&mut document.root);
    let before = known.len();
    known.retain(|key, _| server_name(key) != name);
    if known.len() != before {
        write(&path, &document.root)?;
    }
    Ok(())
}

fn opened(settings: &RegistrySettings) -> Result<(PathBuf, Document), RegistryError> {
    let path = writable(settings).ok_or_else(|| RegistryError::Settings {
        path: PathBuf::from("config.json"),
        source: "there is no home directory to keep it in".into(),
    })?;
    let file = CredentialFile { path: path.to_owned(), kind: CredentialKind::Docker };
    let empty = || Document { root: Map::new(), kind: file.kind, name: path.display().to_string() };
    Ok((path.to_owned(), Document::read(&file)?.unwrap_or_else(empty)))
}

fn auths(root: &mut Map<String, Value>) -> &mut Map<String, Value> {
    let auths = root.entry("auths").or_insert_with(|| Value::Object(Map::new()));
    if !auths.is_object() {
        *auths = Value::Object(Map::new());
    }
    auths.as_object_mut().expect("made one above")
}

/// Replaces the file, or what it is a link to; for its owner alone, tab-indented as docker writes it.
fn write(path: &Path, root: &Map<String, Value>) -> Result<(), RegistryError> {
    let failed = |source: io::Error| RegistryError::Settings { path: path.to_owned(), source: source.into() };
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = target.parent().unwrap_or(Path::new("."));
    if !folder.exists() {
        std::fs::create_dir_all(folder).map_err(failed)?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o700)).map_err(failed)?;
    }
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, indent);
    root.serialize(&mut serializer).map_err(|error| failed(error.into()))?;
    let beside = folder.join(format!(".config.json.{}", std::process::id()));
    let written = (|| {
        // a leftover of a process of the same number is nobody's
        let _ = std::fs::remove_file(&beside);
        let mut options = File::options();
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.write(true).create_new(true).open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&beside, &target)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // what could not be written is of no use
        let _ = std::fs::remove_file(&beside);
    }
    written.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn settings(folder: &Path) -> RegistrySettings {
        let file = CredentialFile { path: folder.join("config.json"), kind: CredentialKind::Docker };
        RegistrySettings { credentials: vec![file], ..RegistrySettings::default() }
    }

    fn basic() -> Credential {
        Credential::Basic { user: "u".into(), password: "p".into() }
    }

    #[test]
    fn a_login_keeps_what_else_is_in_the_file_and_a_logout_takes_every_spelling_away() {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings(folder.path());
        let path = folder.path().join("config.json");
        let real = folder.path().join("real.json");
        std::fs::write(&real, r#"{"psFormat":"x","auths":{"https://r:5000/v1/":{"auth":"eDp5"}}}"#).unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        let kept = keep_credential(&settings, "r:5000", &basic(), &Cancel::new()).unwrap();
        assert_eq!(kept, Kept::File(path.clone()));
        let text = std::fs::read_to_string(&real).unwrap();
        assert!(text.contains("\t\"psFormat\": \"x\"") && text.contains("\"r:5000\""), "{text}");
        assert!(path.is_symlink());
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        forget_credential(&settings, "https://r:5000", &Cancel::new()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("r:5000") && text.contains("psFormat"), "{text}");
    }

    #[test]
    fn a_logout_where_nobody_logged_in_makes_no_file() {
        let folder = tempfile::tempdir().unwrap();
        forget_credential(&settings(folder.path()), "r", &Cancel::new()).unwrap();
        assert!(!folder.path().join("config.json").exists());
    }
}
