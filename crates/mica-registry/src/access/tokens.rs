//! Tokens: what docker's clients ask for once and show then, instead of a password with every request.
//!
//! JSON web tokens, signed with a key that never leaves the data folder. Whatever a token says about keys and
//! algorithms is ignored (CVE-2025-24976): there is one key and one algorithm. A token is never worth more than what
//! its user may do at the moment it is shown.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::rules::{Right, Rights};

/// How long a token lasts, in seconds.
pub(crate) const LIFETIME: i64 = 300;
/// What clocks may differ by, in seconds.
const LEEWAY: i64 = 60;
const ISSUER: &str = "mica-registry";
/// Scopes that one token may have.
const SCOPES_MAX: usize = 64;

/// Signs and verifies.
pub(crate) struct Tokens {
    pair: Ed25519KeyPair,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    aud: String,
    /// The user; empty for everybody.
    pub(crate) sub: String,
    iat: i64,
    nbf: i64,
    exp: i64,
    pub(crate) access: Vec<Grant>,
}

/// Rights in one repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Grant {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(crate) name: String,
    pub(crate) actions: Vec<String>,
}

impl Grant {
    /// Reads `repository:<name>:<action>[,<action>]`; `None` for scopes of other things.
    pub(crate) fn parse(scope: &str) -> Option<Self> {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let actions = actions.split(',').map(str::to_owned).collect();
        (kind == "repository").then(|| Self { kind: kind.to_owned(), name: name.to_owned(), actions })
    }

    pub(crate) fn has(&self, right: Right) -> bool {
        self.actions.iter().any(|action| match action.as_str() {
            "*" => true,
            action => action.parse::<Rights>().is_ok_and(|rights| rights.has(right)),
        })
    }
}

/// The scopes of a query: several parameters, or several words in one.
pub(crate) fn grants<'a>(scopes: impl Iterator<Item = &'a str>) -> Vec<Grant> {
    scopes.flat_map(str::split_whitespace).filter_map(Grant::parse).take(SCOPES_MAX).collect()
}

impl Tokens {
    /// Reads the key of a data folder, or makes one.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let broken = |_| io::Error::new(io::ErrorKind::InvalidData, "not a private key");
        let document = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let random = ring::rand::SystemRandom::new();
                let made = Ed25519KeyPair::generate_pkcs8(&random)
                    .map_err(|_| io::Error::other("no random numbers for a key"))?;
                write(path, made.as_ref())?;
                made.as_ref().to_vec()
            }
            Err(error) => return Err(error),
        };
        Ok(Self { pair: Ed25519KeyPair::from_pkcs8(&document).map_err(broken)? })
    }

    /// A token for somebody, good for one service.
    pub(crate) fn issue(&self, user: &str, service: &str, access: Vec<Grant>, now: i64) -> String {
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: service.to_owned(),
            sub: user.to_owned(),
            iat: now,
            nbf: now,
            exp: now + LIFETIME,
            access,
        };
        let head = URL_SAFE_NO_PAD.encode(json!({ "alg": "EdDSA", "typ": "JWT" }).to_string());
        let body = serde_json::to_vec(&claims).expect("texts and numbers are JSON");
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(body));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// What a token says, if it is ours, for this service, and of this moment.
    pub(crate) fn verify(&self, token: &str, service: &str, now: i64) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (head, body) = signed.split_once('.')?;
        let head: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).ok()?).ok()?;
        if head["alg"] != "EdDSA" {
            return None;
        }
        let key = UnparsedPublicKey::new(&ED25519, self.pair.public_key());
        key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        let claims: Claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()?;
        let in_time = claims.nbf <= now + LEEWAY && now < claims.exp + LEEWAY;
        (claims.iss == ISSUER && claims.aud == service && in_time).then_some(claims)
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    io::Write::write_all(&mut file, bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tokens")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> (tempfile::TempDir, Tokens) {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(&folder.path().join("key")).unwrap();
        (folder, tokens)
    }

    fn forged(head: &serde_json::Value, token: &str, signature: &[u8]) -> String {
        let body = token.split('.').nth(1).unwrap();
        format!("{}.{body}.{}", URL_SAFE_NO_PAD.encode(head.to_string()), URL_SAFE_NO_PAD.encode(signature))
    }

    #[test]
    fn a_token_says_what_it_was_issued_for_also_after_a_restart() {
        let (folder, tokens) = tokens();
        let grants = grants(["repository:a/b:pull,push registry:catalog:*"].into_iter());
        let token = tokens.issue("alice", "reg", grants, 1000);
        let again = Tokens::open(&folder.path().join("key")).unwrap();
        let claims = again.verify(&token, "reg", 1100).unwrap();
        assert_eq!((claims.sub.as_str(), claims.access.len()), ("alice", 1));
        assert!(claims.access[0].has(Right::Push) && !claims.access[0].has(Right::Delete));
    }

    #[test]
    fn forged_and_old_tokens_are_worth_nothing() {
        let (_folder, tokens) = tokens();
        let token = tokens.issue("alice", "reg", Vec::new(), 1000);
        assert!(tokens.verify(&token, "other", 1000).is_none(), "another service's");
        assert!(tokens.verify(&token, "reg", 1000 + LIFETIME + LEEWAY).is_none(), "expired");
        assert!(tokens.verify(&token, "reg", 1000 - LEEWAY - 1).is_none(), "of the future");
        let hmac = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, tokens.pair.public_key().as_ref());
        let tag = ring::hmac::sign(&hmac, token.rsplit_once('.').unwrap().0.as_bytes());
        for (head, signature) in [
            (json!({ "alg": "none" }), &b""[..]),
            (json!({ "alg": "HS256" }), tag.as_ref()),
            (json!({ "alg": "EdDSA", "kid": "/dev/null" }), &[0; 64]),
            (json!({ "alg": "EdDSA", "jwk": { "kty": "OKP" } }), &[0; 64]),
        ] {
            assert!(tokens.verify(&forged(&head, &token, signature), "reg", 1000).is_none(), "{head}");
        }
        let (_elsewhere, others) = self::tokens();
        assert!(others.verify(&token, "reg", 1000).is_none(), "another key's");
        for text in ["", ".", "..", "a.b.c"] {
            assert!(tokens.verify(text, "reg", 1000).is_none());
        }
    }
}
