//! What goes wrong between here and a registry, in words that say why and what to do.

use std::fmt;
use std::path::PathBuf;

use mica_api::{Cancelled, Class, Fault};
use mica_oci::{Digest, DocumentError};
use serde::Deserialize;

use crate::HttpError;

/// Why a registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// It said no.
    #[error("{doing}: {host} answers {refusal}")]
    Refused {
        /// What was being done: `cannot pull x`.
        doing: String,
        /// Who.
        host: String,
        /// What it said.
        refusal: Refusal,
    },
    /// There is no such manifest.
    #[error("manifest for {reference} not found: manifest unknown")]
    NotFound {
        /// What was asked for.
        reference: String,
        /// What the registry said.
        refusal: Refusal,
    },
    /// The registry speaks plain HTTP.
    #[error("cannot talk to {host}: http: server gave HTTP response to HTTPS client")]
    PlainHttp {
        /// Who.
        host: String,
    },
    /// Its certificate is not trusted.
    #[error("cannot talk to {host}: its certificate is not trusted")]
    Untrusted {
        /// Who.
        host: String,
        /// Why not.
        source: HttpError,
    },
    /// No connection, or one that broke.
    #[error("cannot talk to {host}")]
    Http {
        /// Who.
        host: String,
        /// Why.
        source: HttpError,
    },
    /// An answer that no registry should give.
    #[error("{host} {problem}")]
    Answer {
        /// Who.
        host: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Bytes with another digest than they were asked for by.
    #[error("{host} sends {actual} for {expected}")]
    Digest {
        /// Who.
        host: String,
        /// Asked for.
        expected: Digest,
        /// Sent.
        actual: Digest,
    },
    /// A manifest that is refused.
    #[error("the manifest of {reference} is refused")]
    Document {
        /// What was asked for.
        reference: String,
        /// Why.
        source: DocumentError,
    },
    /// A realm that gets no credentials (security.md row 30).
    #[error("{host} sends clients to {realm} for tokens, which is not followed: {reason}")]
    Realm {
        /// Who.
        host: String,
        /// Where to.
        realm: String,
        /// Why not.
        reason: &'static str,
    },
    /// A file of the user's that decides about registries.
    #[error("cannot use {}", path.display())]
    Settings {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A credential helper that failed.
    #[error("credential helper docker-credential-{name}: {problem}")]
    Helper {
        /// Its name.
        name: String,
        /// What it said.
        problem: String,
    },
    /// The user does not want this registry.
    #[error("registry {host} is blocked")]
    Blocked {
        /// Who.
        host: String,
        /// The file that says so.
        by: PathBuf,
    },
    /// The disk.
    #[error("cannot {action} a blob")]
    Disk {
        /// `read` or `write`.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The caller gave up.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// How a registry says no.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// What its JSON says.
    pub answers: Vec<RefusalDetail>,
    /// Whether credentials were shown.
    pub with_credentials: bool,
}

/// One entry of a registry's list of errors.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RefusalDetail {
    /// `MANIFEST_UNKNOWN`.
    pub code: String,
    /// In words.
    pub message: String,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    errors: Vec<RefusalDetail>,
    /// Some proxies and older registries answer with one text.
    #[serde(default, alias = "details", alias = "error_description")]
    message: Option<String>,
}

impl Refusal {
    /// Reads the body of an answer; whatever is not the JSON of registries is left out.
    pub(super) fn parse(status: u16, body: &[u8], with_credentials: bool) -> Self {
        let body: Option<Body> = serde_json::from_slice(body).ok();
        let answers = body.map_or_else(Vec::new, |body| {
            let single = body.message.map(|message| RefusalDetail { code: String::new(), message });
            if body.errors.is_empty() { single.into_iter().collect() } else { body.errors }
        });
        Self { status, answers, with_credentials }
    }

    /// Whether one of the answers has this code.
    pub fn has_code(&self, code: &str) -> bool {
        self.answers.iter().any(|answer| answer.code == code)
    }

    fn says(&self, text: &str) -> bool {
        self.answers.iter().any(|answer| answer.message.to_ascii_lowercase().contains(text))
    }

    fn is_expired(&self) -> bool {
        self.says("token has expired") || self.says("token is expired")
    }
}

impl fmt::Display for Refusal {
    /// docker's words: `unauthorized: authentication required`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reason = reqwest::StatusCode::from_u16(self.status).ok().and_then(|s| s.canonical_reason());
        if self.answers.is_empty() {
            return write!(f, "{} {}", self.status, reason.unwrap_or("status"));
        }
        for (index, answer) in self.answers.iter().enumerate() {
            let code = answer.code.to_ascii_lowercase().replace('_', " ");
            let message: String = answer.message.chars().take(500).collect();
            let between = if index == 0 { "" } else { "; " };
            match (code.is_empty(), message.is_empty()) {
                (false, false) => write!(f, "{between}{code}: {message}")?,
                (false, true) => write!(f, "{between}{code}")?,
                (true, _) => write!(f, "{between}{message}")?,
            }
        }
        Ok(())
    }
}

impl RegistryError {
    /// Sorts a failed connection by what can be done about it.
    pub(super) fn of_http(host: &str, source: HttpError) -> Self {
        let host = host.to_owned();
        if let HttpError::Cancelled(cancelled) = source {
            return Self::Cancelled(cancelled);
        }
        let text = causes(&source);
        if text.contains("InvalidContentType") {
            return Self::PlainHttp { host };
        }
        if text.contains("certificate") && matches!(source, HttpError::Transport { .. }) {
            return Self::Untrusted { host, source };
        }
        Self::Http { host, source }
    }

    /// Whether another endpoint of the same repository may do better.
    pub(super) fn may_try_elsewhere(&self) -> bool {
        !matches!(self, Self::Cancelled(_) | Self::Disk { .. } | Self::Blocked { .. })
    }

    /// The status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { refusal, .. } | Self::NotFound { refusal, .. } => Some(refusal.status),
            _ => None,
        }
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

impl Fault for RegistryError {
    fn class(&self) -> Class {
        match self {
            Self::Refused { refusal, .. } => match refusal.status {
                400 | 405 | 413 | 415 => Class::Invalid,
                401 | 403 => Class::Denied,
                404 => Class::NotFound,
                409 | 412 => Class::Conflict,
                429 | 507 => Class::Exhausted,
                _ => Class::Internal,
            },
            Self::NotFound { .. } => Class::NotFound,
            Self::PlainHttp { .. } | Self::Settings { .. } => Class::Invalid,
            Self::Untrusted { .. } | Self::Realm { .. } | Self::Blocked { .. } | Self::Helper { .. } => {
                Class::Denied
            }
            Self::Http { source, .. } => source.class(),
            Self::Answer { .. } | Self::Digest { .. } | Self::Document { .. } => Class::Corrupt,
            Self::Disk { source, .. } => Class::of_io(source),
            Self::Cancelled(_) => Class::Cancelled,
        }
    }

    fn advice(&self) -> Option<String> {
        match self {
            Self::Refused { host, refusal, .. } => refusal.advice(host),
            Self::NotFound { .. } | Self::Cancelled(_) | Self::Disk { .. } => None,
            Self::PlainHttp { host } => Some(format!(
                "if {host} is to be used without TLS, say so in /etc/containers/registries.conf.d/{}.conf: \
                 [[registry]] location = \"{host}\" insecure = true (or in \"insecure-registries\" of \
                 /etc/docker/daemon.json)",
                host.replace([':', '/'], "-")
            )),
            Self::Untrusted { host, .. } => {
                Some(format!("put the certificate of its authority into /etc/docker/certs.d/{host}/ca.crt"))
            }
            Self::Http { host, .. } => Some(format!("`mica registry explain {host}` shows what was tried")),
            _ => None,
        }
    }
}

impl Refusal {
    fn advice(&self, host: &str) -> Option<String> {
        match self.status {
            _ if self.is_expired() && host.contains(".ecr.") => Some(format!(
                "tokens of ECR live 12 hours: aws ecr get-login-password | mica login -u AWS --password-stdin {host}"
            )),
            _ if self.is_expired() => Some(format!("`mica login {host}` again")),
            401 | 403 if self.with_credentials => Some(format!(
                "the credentials for {host} were not accepted for this; `mica registry explain {host}` shows where \
                 they come from"
            )),
            401 | 403 => Some(format!("`mica login {host}`")),
            429 => Some(format!("the limit is per account or address: `mica login {host}`, or wait")),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_shown_in_dockers_words() {
        let body =
            br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":null}]}"#;
        assert_eq!(Refusal::parse(401, body, false).to_string(), "unauthorized: authentication required");
        assert_eq!(Refusal::parse(503, b"<html>", false).to_string(), "503 Service Unavailable");
        let body = br#"{"message":"Your authorization token has expired. Reauthenticate."}"#;
        let refusal = Refusal::parse(403, body, true);
        assert!(refusal.advice("1.dkr.ecr.eu-west-1.amazonaws.com").unwrap().contains("12 hours"));
    }

    #[test]
    fn a_registry_without_tls_is_named_with_the_setting() {
        let advice = RegistryError::PlainHttp { host: "reg:5000".into() }.advice().unwrap();
        assert!(advice.contains("insecure = true") && advice.contains("reg-5000.conf"), "{advice}");
    }
}
