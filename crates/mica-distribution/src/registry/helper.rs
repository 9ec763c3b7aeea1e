//! Credential helpers: programs `docker-credential-NAME` that are asked on standard input (build.md Y21).

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mica_api::Cancel;
use serde::{Deserialize, Serialize};

use super::credentials::Credential;
use super::error::RegistryError;

/// The most a helper may say.
const ANSWER_LIMIT_BYTES: u64 = 1 << 20;
/// How long one may take: it may ask the user for a passphrase.
const PATIENCE: Duration = Duration::from_secs(120);
/// The user name that stands for "the secret is an identity token".
const TOKEN_USER: &str = "<token>";
/// How helpers say that they know nothing.
const UNKNOWN: &str = "credentials not found in native keychain";

/// What helpers are told and tell.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stored {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// A helper, its name checked (security.md row 33).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Helper {
    name: String,
}

impl Helper {
    /// # Errors
    /// A name that could lead to another program.
    pub(super) fn new(name: &str) -> Result<Self, RegistryError> {
        let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !name.is_empty() && name.bytes().all(valid) {
            return Ok(Self { name: name.to_owned() });
        }
        let problem = "not a name of a credential helper".to_owned();
        Err(RegistryError::Helper { name: name.escape_debug().to_string(), problem })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the helper knows about a server; `None` if nothing.
    pub(super) fn get(&self, server: &str, cancel: &Cancel) -> Result<Option<Credential>, RegistryError> {
        let answer = match self.run("get", server, cancel) {
            Ok(answer) => answer,
            Err(RegistryError::Helper { problem, .. }) if problem.contains(UNKNOWN) => return Ok(None),
            Err(error) => return Err(error),
        };
        let stored: Stored =
            serde_json::from_slice(&answer).map_err(|error| self.failed(format!("it answers {error}")))?;
        Ok(Some(match stored.username.as_str() {
            TOKEN_USER => Credential::Identity { user: String::new(), token: stored.secret },
            _ => Credential::Basic { user: stored.username, password: stored.secret },
        }))
    }

    /// Keeps a credential.
    pub(super) fn store(
        &self,
        server: &str,
        credential: &Credential,
        cancel: &Cancel,
    ) -> Result<(), RegistryError> {
        let (username, secret) = match credential {
            Credential::Basic { user, password } => (user.clone(), password.clone()),
            Credential::Identity { token, .. } => (TOKEN_USER.to_owned(), token.clone()),
            Credential::Bearer(_) => return Err(self.failed("registry tokens cannot be stored".to_owned())),
        };
        let stored = Stored { server_url: server.to_owned(), username, secret };
        let input = serde_json::to_string(&stored).expect("plain strings");
        self.run("store", &input, cancel).map(drop)
    }

    /// Forgets a server; that it was not known is fine.
    pub(super) fn erase(&self, server: &str, cancel: &Cancel) -> Result<(), RegistryError> {
        match self.run("erase", server, cancel) {
            Err(RegistryError::Helper { problem, .. }) if problem.contains(UNKNOWN) => Ok(()),
            other => other.map(drop),
        }
    }

    fn failed(&self, problem: String) -> RegistryError {
        RegistryError::Helper { name: self.name.clone(), problem }
    }

    fn run(&self, action: &str, input: &str, cancel: &Cancel) -> Result<Vec<u8>, RegistryError> {
        if input.chars().any(|letter| letter.is_control()) {
            return Err(self.failed("a server's name has control characters".to_owned()));
        }
        let program = format!("docker-credential-{}", self.name);
        let mut child = Command::new(&program)
            .arg(action)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| self.failed(error.to_string()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // one that does not read its input says why in its answer
            let _ = stdin.write_all(input.as_bytes());
        }
        let stdout = child.stdout.take().expect("it was asked for");
        let reader = std::thread::spawn(move || {
            let mut answer = Vec::new();
            // a broken pipe ends the answer, which is then not valid
            let _ = stdout.take(ANSWER_LIMIT_BYTES).read_to_end(&mut answer);
            answer
        });
        let begun = Instant::now();
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if begun.elapsed() < PATIENCE && cancel.check().is_ok() => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                _ => {
                    // whatever became of it, it is not waited for any more
                    let _ = child.kill();
                    let _ = child.wait();
                    cancel.check()?;
                    return Err(self.failed("it does not answer".to_owned()));
                }
            }
        };
        let answer = reader.join().unwrap_or_default();
        if status.success() {
            return Ok(answer);
        }
        // what a helper prints when it fails is a message and never the secret
        let text: String = String::from_utf8_lossy(&answer).trim().chars().take(300).collect();
        Err(self.failed(if text.is_empty() { status.to_string() } else { text }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_no_helper() {
        for name in ["", "../x", "a/b", "a b", "a\nb", "a;b"] {
            assert!(Helper::new(name).is_err(), "{name:?}");
        }
        assert!(Helper::new("ecr-login").is_ok());
    }
}
