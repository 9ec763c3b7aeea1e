//! Bearer tokens: where they come from, and that nobody else gets our credentials (security.md row 30).

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::client::{Registries, read_limited};
use super::credentials::Credential;
use super::error::{Refusal, RegistryError};
use super::retry;
use super::route::{Endpoint, is_loopback};
use crate::http::{Outgoing, Payload, TlsProfile, is_inner_host};

/// The most a token service may answer.
const ANSWER_LIMIT_BYTES: usize = 1 << 20;
/// How long a token lives when nobody says so.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// What we call ourselves to OAuth2 services.
const CLIENT_ID: &str = "mica";

/// What a token is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct TokenKey {
    pub(super) realm: String,
    pub(super) service: Option<String>,
    /// Sorted.
    pub(super) scopes: Vec<String>,
    pub(super) credential: Option<Credential>,
}

/// A token.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) text: String,
    pub(super) until: Instant,
}

/// The answer of a token service.
#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl TokenAnswer {
    pub(super) fn token(&self) -> Option<Token> {
        let text = self.token.as_ref().or(self.access_token.as_ref()).filter(|text| !text.is_empty())?;
        let life = self.expires_in.filter(|seconds| *seconds > 0).map_or(DEFAULT_LIFE, Duration::from_secs);
        // a tenth of its life for clocks and long ways
        let until = Instant::now() + life.min(Duration::from_secs(24 * 3600)).mul_f64(0.9);
        Some(Token { text: text.clone(), until })
    }
}

/// Checks where a registry sends us with our credentials.
pub(super) fn checked_realm(endpoint: &Endpoint, base: &Url, realm: &str) -> Result<Url, RegistryError> {
    let refused = |reason| RegistryError::Realm {
        host: endpoint.host.clone(),
        realm: realm.escape_debug().to_string(),
        reason,
    };
    let url = Url::parse(realm).map_err(|_| refused("it is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(refused("only http:// and https:// are"));
    }
    if base.scheme() == "https" && url.scheme() == "http" {
        return Err(refused("the registry is met over TLS, its tokens would not be"));
    }
    let same_host = url.host_str() == base.host_str();
    let is_local = |url: &Url| is_inner_host(url) || url.host_str().is_some_and(is_loopback);
    if !same_host && is_local(&url) && !(is_local(base) && is_near(&url, base)) {
        return Err(refused("it is an address of the inner network, and another one than the registry's"));
    }
    Ok(url)
}

/// The loopback's other names and ports belong to the same machine.
fn is_near(url: &Url, base: &Url) -> bool {
    [url, base].iter().all(|url| url.host_str().is_some_and(is_loopback))
}

impl Registries {
    /// A token for `key`, from memory or from its service.
    pub(super) async fn token(
        &self,
        endpoint: &Endpoint,
        base: &Url,
        key: &TokenKey,
    ) -> Result<String, RegistryError> {
        if let Some(known) = self.state.token(key) {
            return Ok(known);
        }
        let answer = self.ask_for_token(endpoint, base, key).await?;
        let token = answer.token().ok_or_else(|| RegistryError::Answer {
            host: endpoint.host.clone(),
            problem: format!("sends clients to {} for tokens, which gives none", key.realm),
        })?;
        self.state.remember_token(key.clone(), token.clone());
        Ok(token.text)
    }

    /// Asks a token service.
    async fn ask_for_token(
        &self,
        endpoint: &Endpoint,
        base: &Url,
        key: &TokenKey,
    ) -> Result<TokenAnswer, RegistryError> {
        let realm = checked_realm(endpoint, base, &key.realm)?;
        if let Some(Credential::Identity { token, .. }) = &key.credential {
            let found = self.post_for_token(endpoint, &realm, key, token).await?;
            if let Some(answer) = found {
                return Ok(answer);
            }
        }
        let mut url = realm;
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &key.service {
                query.append_pair("service", service);
            }
            for scope in &key.scopes {
                query.append_pair("scope", scope);
            }
            if let Some(Credential::Basic { user, .. }) = &key.credential {
                query.append_pair("account", user);
            }
        }
        let mut headers = HeaderMap::new();
        match &key.credential {
            Some(Credential::Basic { user, password } | Credential::Identity { user, token: password }) => {
                headers.insert(AUTHORIZATION, basic(user, password));
            }
            Some(Credential::Bearer(_)) | None => {}
        }
        let answered = self.call_service(endpoint, Method::GET, url, headers, Payload::None).await?;
        let (status, body) = answered;
        match status {
            200 => parse_answer(endpoint, &body),
            _ => Err(refused(endpoint, status, &body, key)),
        }
    }

    /// OAuth2's way; `None` if the service does not know it.
    async fn post_for_token(
        &self,
        endpoint: &Endpoint,
        realm: &Url,
        key: &TokenKey,
        refresh_token: &str,
    ) -> Result<Option<TokenAnswer>, RegistryError> {
        // any URL encodes a form
        let mut form = Url::parse("http://form/").expect("a constant URL");
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", refresh_token)
            .append_pair("service", key.service.as_deref().unwrap_or_default())
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &key.scopes.join(" "));
        let payload = Payload::Bytes(Bytes::from(form.query().unwrap_or_default().to_owned()));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let (status, body) =
            self.call_service(endpoint, Method::POST, realm.clone(), headers, payload).await?;
        match status {
            200 => parse_answer(endpoint, &body).map(Some),
            404 | 405 => Ok(None),
            _ => Err(refused(endpoint, status, &body, key)),
        }
    }

    /// No redirects: whoever is redirected to would get the credentials.
    async fn call_service(
        &self,
        endpoint: &Endpoint,
        method: Method,
        url: Url,
        headers: HeaderMap,
        payload: Payload,
    ) -> Result<(u16, Vec<u8>), RegistryError> {
        let service = url.host_str().unwrap_or_default().to_owned();
        let is_own = endpoint.authority.split(':').next() == url.host_str();
        let tls = if is_own { endpoint.tls.clone() } else { TlsProfile::default() };
        let outgoing = Outgoing { method, url, headers, payload, tls: &tls, follow: false };
        let mut attempt = 1;
        loop {
            self.state.count_request();
            let answered = self.http.exchange(&outgoing).await;
            let pause = match &answered {
                _ if attempt == retry::ATTEMPTS => None,
                Ok(response) if retry::is_passing(response.status().as_u16()) => {
                    let asked = retry::asked(response.headers());
                    Some(retry::pause(attempt, asked, retry::random()))
                }
                Err(error) if retry::is_broken(error) => Some(retry::pause(attempt, None, retry::random())),
                _ => None,
            };
            let Some(pause) = pause else {
                let response = answered.map_err(|error| RegistryError::of_http(&service, error))?;
                let status = response.status().as_u16();
                return Ok((status, read_limited(response, ANSWER_LIMIT_BYTES, &service).await?));
            };
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }
}

/// `Basic` with user and password.
pub(super) fn basic(user: &str, password: &str) -> HeaderValue {
    let text = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    let mut value = HeaderValue::from_str(&text).expect("base64 is ASCII");
    value.set_sensitive(true);
    value
}

fn parse_answer(endpoint: &Endpoint, body: &[u8]) -> Result<TokenAnswer, RegistryError> {
    serde_json::from_slice(body).map_err(|error| RegistryError::Answer {
        host: endpoint.host.clone(),
        problem: format!("has a token service that answers no token: {error}"),
    })
}

fn refused(endpoint: &Endpoint, status: u16, body: &[u8], key: &TokenKey) -> RegistryError {
    let refusal = Refusal::parse(status, body, key.credential.is_some());
    RegistryError::Refused { doing: "cannot get a token".to_owned(), host: endpoint.host.clone(), refusal }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::route::route;
    use crate::registry::settings::RegistrySettings;

    fn verdict(registry: &str, base: &str, realm: &str) -> bool {
        let reference = format!("{registry}/a").parse().unwrap();
        let endpoint = route(&RegistrySettings::default(), &reference).unwrap().remove(0);
        checked_realm(&endpoint, &Url::parse(base).unwrap(), realm).is_ok()
    }

    #[test]
    fn realms_of_the_inner_network_and_without_tls_get_nothing() {
        let hub = |realm: &str| verdict("docker.io", "https://registry-1.docker.io/v2/", realm);
        assert!(hub("https://auth.docker.io/token"));
        for realm in [
            "http://auth.docker.io/token",
            "https://169.254.169.254/latest",
            "https://10.0.0.1/",
            "https://[::1]/",
            "https://localhost/",
            "file:///etc/passwd",
            "token",
        ] {
            assert!(!hub(realm), "{realm}");
        }
        let local = |realm: &str| verdict("127.0.0.1:5000", "http://127.0.0.1:5000/v2/", realm);
        assert!(local("http://127.0.0.1:5000/token") && local("http://localhost:5001/auth"));
        assert!(!local("http://169.254.169.254/x"));
        assert!(verdict("10.0.0.5:443", "https://10.0.0.5/v2/", "https://10.0.0.5:8443/auth"));
    }

    #[test]
    fn answers_of_both_kinds_of_services_have_a_token() {
        let read = |text: &str| serde_json::from_str::<TokenAnswer>(text).unwrap().token().map(|t| t.text);
        assert_eq!(read(r#"{"token":"a","expires_in":300}"#).as_deref(), Some("a"));
        assert_eq!(read(r#"{"access_token":"b","issued_at":"x"}"#).as_deref(), Some("b"));
        assert_eq!(read(r#"{"token":""}"#), None);
    }
}
