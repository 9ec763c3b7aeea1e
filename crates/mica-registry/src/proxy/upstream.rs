//! The client's side towards one upstream: questions, tokens, and what may go wrong.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use mica_oci::{Digest, media_type};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Client, Method, Response, Url};

const CONNECT: Duration = Duration::from_secs(10);
const IDLE: Duration = Duration::from_secs(60);
const REDIRECTS_MAX: usize = 5;
/// A token that says nothing of its end lasts a minute; and none is used in its last seconds.
const TOKEN_LASTS: u64 = 60;
const TOKEN_MARGIN: u64 = 10;
const TOKEN_MAX: usize = 1 << 20;

/// A registry that is cached.
pub(crate) struct Upstream {
    base: Url,
    credentials: Option<(String, String)>,
    client: Client,
    tokens: Mutex<HashMap<String, (String, Instant)>>,
}

/// Why upstream gave nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    #[error("it is not there")]
    Missing,
    #[error("the answer was {0}")]
    Status(u16),
    #[error("there was no answer: {0}")]
    Silent(String),
    #[error("the answer makes no sense: {0}")]
    Broken(String),
}

/// A manifest as it came.
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    pub(super) content_type: String,
}

impl UpstreamError {
    /// Whether another day may be better: then what is here is served.
    pub(super) fn is_theirs(&self) -> bool {
        !matches!(self, Self::Missing)
    }
}

impl From<reqwest::Error> for UpstreamError {
    fn from(error: reqwest::Error) -> Self {
        Self::Silent(crate::error::chain(&error.without_url()))
    }
}

impl Upstream {
    pub(super) fn new(url: &str) -> Result<Self, String> {
        let mut base: Url = url.parse().map_err(|_| "it is no URL".to_owned())?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err("it has to begin with http:// or https://".to_owned());
        }
        let user = base.username().to_owned();
        let password = base.password().unwrap_or_default().to_owned();
        let credentials = (!user.is_empty()).then_some((user, password));
        // A URL with a host can always lose these.
        let _ = (base.set_username(""), base.set_password(None));
        // Fails if it was installed before, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("mica/", env!("CARGO_PKG_VERSION")))
            // Credentials do not follow to another host.
            .redirect(reqwest::redirect::Policy::limited(REDIRECTS_MAX))
            .referer(false)
            .connect_timeout(CONNECT)
            .read_timeout(IDLE)
            .no_proxy()
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { base, credentials, client, tokens: Mutex::default() })
    }

    /// The name of a repository there: docker's official images have a folder that nobody writes.
    pub(super) fn name(&self, name: &str) -> String {
        let is_hub =
            self.base.host_str().is_some_and(|host| host == "docker.io" || host.ends_with(".docker.io"));
        if is_hub && !name.contains('/') { format!("library/{name}") } else { name.to_owned() }
    }

    /// The digest of a tag; `None` if upstream does not say.
    pub(super) async fn resolve(&self, name: &str, tag: &str) -> Result<Option<Digest>, UpstreamError> {
        let path = format!("/v2/{name}/manifests/{tag}");
        let response = self.ask(Method::HEAD, &path, name).await?;
        let header = response.headers().get("docker-content-digest");
        Ok(header.and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok()))
    }

    pub(super) async fn manifest(
        &self,
        name: &str,
        reference: &str,
        limit: usize,
    ) -> Result<Fetched, UpstreamError> {
        let response = self.ask(Method::GET, &format!("/v2/{name}/manifests/{reference}"), name).await?;
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        Ok(Fetched { bytes: read(response, limit).await?, content_type })
    }

    pub(super) async fn json(
        &self,
        path: &str,
        name: &str,
        limit: usize,
    ) -> Result<serde_json::Value, UpstreamError> {
        let response = self.ask(Method::GET, path, name).await?;
        let bytes = read(response, limit).await?;
        serde_json::from_slice(&bytes).map_err(|error| UpstreamError::Broken(error.to_string()))
    }

    pub(super) async fn blob_size(&self, name: &str, digest: &Digest) -> Result<u64, UpstreamError> {
        let response = self.ask(Method::HEAD, &format!("/v2/{name}/blobs/{digest}"), name).await?;
        length(&response).ok_or_else(|| UpstreamError::Broken("no Content-Length".to_owned()))
    }

    /// A blob whose bytes have not been read.
    pub(super) async fn blob(&self, name: &str, digest: &Digest) -> Result<Response, UpstreamError> {
        self.ask(Method::GET, &format!("/v2/{name}/blobs/{digest}"), name).await
    }

    async fn ask(&self, method: Method, path: &str, name: &str) -> Result<Response, UpstreamError> {
        let url = self.base.join(path).map_err(|error| UpstreamError::Broken(error.to_string()))?;
        let mut response = self.send(&method, &url, self.token(name)).await?;
        if response.status() == 401 {
            let challenge = response.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
            let challenge = challenge.unwrap_or_default().to_owned();
            if let Some(header) = self.authorization(&challenge, name).await? {
                response = self.send(&method, &url, Some(header)).await?;
            }
        }
        match response.status().as_u16() {
            200..=299 => Ok(response),
            // What needs a login there does not exist for who has none.
            401 | 403 | 404 => Err(UpstreamError::Missing),
            other => Err(UpstreamError::Status(other)),
        }
    }

    async fn send(
        &self,
        method: &Method,
        url: &Url,
        authorization: Option<String>,
    ) -> Result<Response, UpstreamError> {
        let types = [
            media_type::OCI_INDEX,
            media_type::OCI_MANIFEST,
            media_type::DOCKER_MANIFEST_LIST,
            media_type::DOCKER_MANIFEST,
            "*/*",
        ];
        let mut request = self.client.request(method.clone(), url.clone()).header(ACCEPT, types.join(", "));
        if let Some(header) = authorization {
            request = request.header(AUTHORIZATION, header);
        }
        Ok(request.send().await?)
    }

    fn token(&self, name: &str) -> Option<String> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, (_, until)| *until > Instant::now());
        tokens.get(name).map(|(header, _)| header.clone())
    }

    /// What a challenge asks for: the password, or a token.
    async fn authorization(&self, challenge: &str, name: &str) -> Result<Option<String>, UpstreamError> {
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Ok(self.credentials.as_ref().map(basic));
        }
        let parameters = parameters_of(parameters);
        let Some(mut realm) = parameters.get("realm").and_then(|realm| realm.parse::<Url>().ok()) else {
            return Ok(None);
        };
        realm.query_pairs_mut().append_pair("scope", &format!("repository:{name}:pull"));
        if let Some(service) = parameters.get("service") {
            realm.query_pairs_mut().append_pair("service", service);
        }
        let mut request = self.client.get(realm.clone());
        if let Some(credentials) = self.credentials.as_ref().filter(|_| self.trusts(&realm)) {
            request = request.header(AUTHORIZATION, basic(credentials));
        }
        let response = request.send().await?;
        if !response.status().is_success() {
            return Err(UpstreamError::Status(response.status().as_u16()));
        }
        let answer: serde_json::Value = serde_json::from_slice(&read(response, TOKEN_MAX).await?)
            .map_err(|error| UpstreamError::Broken(error.to_string()))?;
        let token = answer["token"].as_str().or_else(|| answer["access_token"].as_str());
        let Some(token) = token else { return Ok(None) };
        let header = format!("Bearer {token}");
        let lasts = answer["expires_in"].as_u64().unwrap_or(TOKEN_LASTS).clamp(TOKEN_LASTS, 3600);
        let until = Instant::now() + Duration::from_secs(lasts - TOKEN_MARGIN);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(name.to_owned(), (header.clone(), until));
        Ok(Some(header))
    }

    /// Whether the password may go to where a challenge sends it (CVE-2026-33540): the same domain, and not in clear
    /// text where the registry itself is asked by TLS.
    fn trusts(&self, realm: &Url) -> bool {
        let domain = |url: &Url| {
            let host = url.host_str().unwrap_or_default();
            let is_address = url.domain().is_none();
            let mut labels: Vec<&str> =
                host.rsplit('.').take(if is_address { usize::MAX } else { 2 }).collect();
            labels.reverse();
            labels.join(".")
        };
        let is_safe = realm.scheme() == "https" || self.base.scheme() == "http";
        is_safe && domain(realm) == domain(&self.base)
    }
}

/// The length that an answer announces, also one without a body.
pub(super) fn length(response: &Response) -> Option<u64> {
    response.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn read(mut response: Response, limit: usize) -> Result<Vec<u8>, UpstreamError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > limit {
            return Err(UpstreamError::Broken(format!("more than {limit} bytes")));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn basic((user, password): &(String, String)) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {text}")
}

/// `realm="…",service="…"`
fn parameters_of(text: &str) -> HashMap<String, String> {
    let mut parameters = HashMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_start_matches([',', ' ']).trim().to_ascii_lowercase();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        parameters.insert(name, value.to_owned());
        rest = after;
    }
    parameters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let found = parameters_of(r#"realm="https://auth.x/token",service="reg,x", scope=plain"#);
        assert_eq!(found["realm"], "https://auth.x/token");
        assert_eq!((found["service"].as_str(), found["scope"].as_str()), ("reg,x", "plain"));
        assert!(parameters_of("").is_empty());
    }

    #[test]
    fn a_password_goes_to_the_same_domain_only() {
        let upstream = Upstream::new("https://u:p@registry-1.docker.io").unwrap();
        let trusts = |url: &str| upstream.trusts(&url.parse().unwrap());
        assert!(trusts("https://auth.docker.io/token"));
        assert!(!trusts("http://auth.docker.io/token"));
        assert!(!trusts("https://evil.example/token"));
        assert!(!trusts("https://127.0.0.1/token"));
        let local = Upstream::new("http://u:p@127.0.0.1:5000").unwrap();
        assert!(local.trusts(&"http://127.0.0.1:5001/token".parse().unwrap()));
        assert!(!local.trusts(&"http://9.0.0.1/token".parse().unwrap()));
    }
}
