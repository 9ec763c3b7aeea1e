//! One request to a registry, until it is answered: schemes, credentials, retries.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mica_api::Cancel;
use mica_oci::Reference;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Response, Url};

use super::challenge::{self, Challenge};
use super::credentials::{self, Credential, FoundCredential};
use super::error::{Refusal, RegistryError};
use super::retry;
use super::route::{Endpoint, Scheme, route};
use super::settings::RegistrySettings;
use super::token::{Token, TokenKey, basic};
use crate::HttpClient;
use crate::http::{Outgoing, Payload};

/// The most of an answer that is kept when it is only a reason.
pub(super) const REASON_LIMIT_BYTES: usize = 64 << 10;
/// How long a registry's warning may be.
const WARNING_LIMIT: usize = 300;
/// What servers written in Go say to a request that should have been TLS.
const WANTS_TLS: &str = "HTTP request to an HTTPS server";

/// All registries, as the user's files have them.
pub struct Registries {
    pub(super) http: Arc<HttpClient>,
    pub(super) settings: RegistrySettings,
    pub(super) state: State,
}

/// What was learned in this process.
#[derive(Default)]
pub(super) struct State {
    /// `http` or `https`, by authority.
    schemes: Mutex<HashMap<String, &'static str>>,
    challenges: Mutex<HashMap<String, Challenge>>,
    tokens: Mutex<HashMap<TokenKey, Token>>,
    pub(super) credentials: Mutex<HashMap<(String, String), Option<FoundCredential>>>,
    said: Mutex<HashSet<String>>,
    remarks: Mutex<Vec<String>>,
    requests: AtomicU64,
}

/// A repository of a registry.
pub struct Repository<'a> {
    pub(super) registries: &'a Registries,
    pub(super) reference: Reference,
    /// Mirrors first.
    pub(super) endpoints: Vec<Endpoint>,
}

/// A request below a repository, or to where an answer sent us.
pub(super) struct Ask<'a> {
    pub(super) method: Method,
    pub(super) target: Target<'a>,
    pub(super) headers: HeaderMap,
    pub(super) payload: Payload,
    /// What a token has to allow.
    pub(super) scopes: Vec<String>,
    /// Whether a broken connection is tried again here.
    pub(super) retries: bool,
}

/// Where a request goes.
#[derive(Clone)]
pub(super) enum Target<'a> {
    /// Below `/v2/<repository>`.
    Path(&'a str),
    /// Below `/v2/`.
    Root(&'a str),
    /// A `Location` that the registry gave.
    Url(Url),
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    pub(super) fn token(&self, key: &TokenKey) -> Option<String> {
        let tokens = locked(&self.tokens);
        tokens.get(key).filter(|token| token.until > Instant::now()).map(|token| token.text.clone())
    }

    pub(super) fn remember_token(&self, key: TokenKey, token: Token) {
        locked(&self.tokens).insert(key, token);
    }

    fn forget_tokens(&self) {
        locked(&self.tokens).clear();
    }

    pub(super) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// A remark is made once.
    pub(super) fn remark(&self, text: String) {
        if locked(&self.said).insert(text.clone()) {
            locked(&self.remarks).push(text);
        }
    }
}

impl Registries {
    /// Registries by these files, asked through this client.
    pub fn new(http: Arc<HttpClient>, settings: RegistrySettings) -> Self {
        Self { http, settings, state: State::default() }
    }

    /// The repository of a reference; nobody is asked yet.
    ///
    /// # Errors
    /// The user's files cannot be read, or block the registry.
    pub fn repository(&self, reference: &Reference) -> Result<Repository<'_>, RegistryError> {
        let endpoints = route(&self.settings, reference)?;
        Ok(Repository { registries: self, reference: reference.clone(), endpoints })
    }

    /// What the user should know and has not been told: warnings of registries, helpers that do not work.
    pub fn take_remarks(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.state.remarks))
    }

    /// How many requests were made.
    pub fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::Relaxed)
    }

    /// Runs a request on this thread.
    pub(super) fn wait<T>(
        &self,
        host: &str,
        cancel: &Cancel,
        future: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        self.http.wait(cancel, future).map_err(|error| RegistryError::of_http(host, error))?
    }

    /// What we show to a server, looked up once.
    pub(super) fn credential(
        &self,
        endpoint: &Endpoint,
        cancel: &Cancel,
    ) -> Result<Option<FoundCredential>, RegistryError> {
        let key = (endpoint.host.clone(), endpoint.repository.clone());
        if let Some(known) = locked(&self.state.credentials).get(&key) {
            return Ok(known.clone());
        }
        let remark = |text| self.state.remark(text);
        let found = credentials::find(&self.settings, &key.0, &key.1, &remark, cancel)?;
        locked(&self.state.credentials).insert(key, found.clone());
        Ok(found)
    }

    /// Asks one server until it answers; what it answers may be a refusal.
    pub(super) async fn ask(
        &self,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
        cancel: &Cancel,
    ) -> Result<Response, RegistryError> {
        let mut attempt = 1;
        let mut refreshed = false;
        let mut shown = self.known_authorization(endpoint, ask, cancel).await?;
        loop {
            let answered = self.once(endpoint, ask, shown.clone()).await;
            let again = attempt < retry::ATTEMPTS && ask.retries;
            let pause = match answered {
                Ok(response) if response.status() == 401 && !refreshed && self.is_registry(endpoint, ask) => {
                    refreshed = true;
                    match self.authorization(endpoint, ask, &response, shown.is_some(), cancel).await? {
                        Some(header) => shown = Some(header),
                        None => return Ok(response),
                    }
                    continue;
                }
                Ok(response) if again && retry::is_passing(response.status().as_u16()) => {
                    retry::pause(attempt, retry::asked(response.headers()), retry::random())
                }
                Ok(response) => return Ok(response),
                Err(RegistryError::Http { source, .. }) if again && retry::is_broken(&source) => {
                    retry::pause(attempt, None, retry::random())
                }
                Err(error) => return Err(error),
            };
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    /// A request over the right scheme, which is found out the first time.
    async fn once(
        &self,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let known = locked(&self.state.schemes).get(&endpoint.authority).copied();
        let (first, second) = match (endpoint.scheme, known) {
            (Scheme::Https, _) => ("https", None),
            (Scheme::Http, _) => ("http", None),
            (_, Some(known)) => (known, None),
            (Scheme::HttpFirst, None) => ("http", Some("https")),
            (Scheme::HttpsFirst, None) => ("https", Some("http")),
        };
        let learn = |scheme| {
            locked(&self.state.schemes).insert(endpoint.authority.clone(), scheme);
        };
        let answered = self.over(first, endpoint, ask, authorization.clone()).await;
        let Some(second) = second else { return answered };
        let wrong = match answered {
            Ok(response) if response.status() == 400 && first == "http" => {
                let (status, headers) = (response.status(), response.headers().clone());
                let body = read_limited(response, REASON_LIMIT_BYTES, &endpoint.host).await?;
                if !String::from_utf8_lossy(&body).contains(WANTS_TLS) {
                    learn(first);
                    return Ok(rebuilt(status, headers, body));
                }
                None
            }
            Ok(response) => {
                learn(first);
                return Ok(response);
            }
            Err(error @ (RegistryError::PlainHttp { .. } | RegistryError::Http { .. })) => Some(error),
            Err(error) => return Err(error),
        };
        match self.over(second, endpoint, ask, authorization).await {
            Ok(response) => {
                learn(second);
                Ok(response)
            }
            // what went wrong first is what the user expects to hear about
            Err(error) => Err(wrong.unwrap_or(error)),
        }
    }

    async fn over(
        &self,
        scheme: &str,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let url = url_of(scheme, endpoint, &ask.target)?;
        let mut headers = ask.headers.clone();
        for (name, value) in &endpoint.headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
                headers.insert(name, value);
            }
        }
        if let Some(value) = authorization.filter(|_| self.is_registry(endpoint, ask)) {
            headers.insert(AUTHORIZATION, value);
        }
        let outgoing = Outgoing {
            method: ask.method.clone(),
            url,
            headers,
            payload: ask.payload.clone(),
            tls: &endpoint.tls,
            follow: true,
        };
        self.state.count_request();
        let response = self.http.exchange(&outgoing).await;
        let response = response.map_err(|error| RegistryError::of_http(&endpoint.host, error))?;
        for warning in response.headers().get_all("warning") {
            if let Some(text) = warning.to_str().ok().and_then(warning_text) {
                self.state.remark(format!("{} warns: {text}", endpoint.host));
            }
        }
        Ok(response)
    }

    /// Whether a request goes to the registry itself and not to where it sent us.
    fn is_registry(&self, endpoint: &Endpoint, ask: &Ask<'_>) -> bool {
        match &ask.target {
            Target::Path(_) | Target::Root(_) => true,
            Target::Url(url) => {
                let scheme = locked(&self.state.schemes).get(&endpoint.authority).copied();
                let scheme = scheme.unwrap_or(if endpoint.scheme == Scheme::Http { "http" } else { "https" });
                Url::parse(&format!("{scheme}://{}", endpoint.authority))
                    .is_ok_and(|own| own.origin() == url.origin())
            }
        }
    }

    /// What is shown without being asked, because an earlier request was.
    async fn known_authorization(
        &self,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
        cancel: &Cancel,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let known = locked(&self.state.challenges).get(&endpoint.authority).cloned();
        let Some(challenge) = known else { return Ok(None) };
        let challenge = match challenge {
            // the scope was that of another request
            Challenge::Bearer { realm, service, scope } => {
                Challenge::Bearer { realm, service, scope: scope.filter(|_| ask.scopes.is_empty()) }
            }
            other => other,
        };
        self.answer(endpoint, ask, &challenge, cancel).await
    }

    /// What is shown because the registry wants it; `None` if we have nothing, or nothing new.
    async fn authorization(
        &self,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
        response: &Response,
        was_shown: bool,
        cancel: &Cancel,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let challenges: Vec<Challenge> =
            headers.iter().filter_map(|value| value.to_str().ok()).flat_map(challenge::parse).collect();
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let Some(challenge) = bearer.or(challenges.first()) else { return Ok(None) };
        if was_shown {
            if *challenge == Challenge::Basic {
                return Ok(None);
            }
            // expired, or for less than is needed
            self.state.forget_tokens();
        }
        locked(&self.state.challenges).insert(endpoint.authority.clone(), challenge.clone());
        self.answer(endpoint, ask, challenge, cancel).await
    }

    async fn answer(
        &self,
        endpoint: &Endpoint,
        ask: &Ask<'_>,
        challenge: &Challenge,
        cancel: &Cancel,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        // helpers block; they are asked once per registry
        let credential = self.credential(endpoint, cancel)?.map(|found| found.credential);
        if let Some(Credential::Bearer(token)) = &credential {
            return Ok(Some(bearer(token)?));
        }
        match challenge {
            Challenge::Basic => Ok(match &credential {
                Some(Credential::Basic { user, password }) => Some(basic(user, password)),
                _ => None,
            }),
            Challenge::Bearer { realm, service, scope } => {
                let mut scopes = ask.scopes.clone();
                scopes.extend(scope.iter().flat_map(|text| text.split(' ')).map(str::to_owned));
                let scopes = merged(scopes);
                let key = TokenKey { realm: realm.clone(), service: service.clone(), scopes, credential };
                let base = self.base(endpoint)?;
                self.token(endpoint, &base, &key).await.and_then(|token| bearer(&token)).map(Some)
            }
        }
    }

    /// The registry's own URL, with the scheme that works.
    pub(super) fn base(&self, endpoint: &Endpoint) -> Result<Url, RegistryError> {
        let known = locked(&self.state.schemes).get(&endpoint.authority).copied();
        let scheme = known.unwrap_or(match endpoint.scheme {
            Scheme::Https | Scheme::HttpsFirst => "https",
            Scheme::Http | Scheme::HttpFirst => "http",
        });
        url_of(scheme, endpoint, &Target::Root(""))
    }
}

/// Reads an answer that should be small.
///
/// # Errors
/// It is not, or the connection breaks.
pub(super) async fn read_limited(
    mut response: Response,
    limit_bytes: usize,
    host: &str,
) -> Result<Vec<u8>, RegistryError> {
    let mut body = Vec::new();
    let url = response.url().clone();
    loop {
        let piece = crate::http::unless_silent(response.chunk(), &url).await;
        let piece = piece
            .map_err(|error| RegistryError::of_http(host, error))?
            .map_err(|source| RegistryError::of_http(host, crate::HttpError::transport(&url, source)))?;
        let Some(piece) = piece else { return Ok(body) };
        if body.len() + piece.len() > limit_bytes {
            let problem = format!("answers with more than {limit_bytes} bytes");
            return Err(RegistryError::Answer { host: host.to_owned(), problem });
        }
        body.extend_from_slice(&piece);
    }
}

/// The error that a refusal is.
pub(super) async fn refusal(
    response: Response,
    endpoint: &Endpoint,
    doing: &str,
    with_credentials: bool,
) -> RegistryError {
    let status = response.status().as_u16();
    // a reason that cannot be read is none
    let body = read_limited(response, REASON_LIMIT_BYTES, &endpoint.host).await.unwrap_or_default();
    let refusal = Refusal::parse(status, &body, with_credentials);
    RegistryError::Refused { doing: doing.to_owned(), host: endpoint.host.clone(), refusal }
}

fn rebuilt(status: reqwest::StatusCode, headers: HeaderMap, body: Vec<u8>) -> Response {
    let mut response = http::Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Response::from(response)
}

fn bearer(token: &str) -> Result<HeaderValue, RegistryError> {
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut value = value.map_err(|_| RegistryError::Answer {
        host: "the token service".to_owned(),
        problem: "gives a token that cannot be sent".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Scopes of one repository together, sorted, each action once: services want it so.
fn merged(scopes: Vec<String>) -> Vec<String> {
    let mut by_resource: Vec<(String, Vec<String>)> = Vec::new();
    for scope in scopes {
        let Some((resource, actions)) = scope.rsplit_once(':') else { continue };
        let at = match by_resource.iter().position(|(known, _)| known == resource) {
            Some(at) => at,
            None => {
                by_resource.push((resource.to_owned(), Vec::new()));
                by_resource.len() - 1
            }
        };
        by_resource[at].1.extend(actions.split(',').map(str::to_owned));
    }
    by_resource.sort();
    by_resource
        .into_iter()
        .map(|(resource, mut actions)| {
            actions.sort();
            actions.dedup();
            format!("{resource}:{}", actions.join(","))
        })
        .collect()
}

fn url_of(scheme: &str, endpoint: &Endpoint, target: &Target<'_>) -> Result<Url, RegistryError> {
    let Endpoint { authority, path, repository, .. } = endpoint;
    let text = match target {
        Target::Url(url) => return Ok(url.clone()),
        Target::Path(rest) => format!("{scheme}://{authority}{path}/{repository}{rest}"),
        Target::Root(rest) => format!("{scheme}://{authority}{path}/{rest}"),
    };
    let mut url = Url::parse(&text).map_err(|error| RegistryError::Answer {
        host: endpoint.host.clone(),
        problem: format!("is no host: {error}"),
    })?;
    if let Some(namespace) = &endpoint.namespace {
        url.query_pairs_mut().append_pair("ns", namespace);
    }
    Ok(url)
}

/// `299 - "text"` (RFC 7234).
fn warning_text(header: &str) -> Option<String> {
    let (_, rest) = header.split_once('"')?;
    let text = rest.split('"').next()?;
    Some(text.chars().filter(|letter| !letter.is_control()).take(WARNING_LIMIT).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_of_one_repository_become_one() {
        let scopes = ["repository:b:pull", "repository:a:pull,push", "repository:b:push,pull"];
        let scopes = scopes.into_iter().map(str::to_owned).collect();
        assert_eq!(merged(scopes), ["repository:a:pull,push", "repository:b:pull,push"]);
    }

    #[test]
    fn warnings_are_the_text_between_quotes() {
        assert_eq!(warning_text("299 - \"old tag\"").as_deref(), Some("old tag"));
        assert_eq!(warning_text("299 -"), None);
    }
}
