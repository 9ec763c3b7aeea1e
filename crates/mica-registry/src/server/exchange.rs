//! One request: who asks, for what, whether they may, and which handler answers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::body::{Outgoing, Payload};
use super::connection::Phase;
use super::reply::Reply;
use super::{Shared, blobs, listings, manifests, metrics, page, tokens, uploads};
use crate::access::{BASIC, Credentials, Identity, Right};
use crate::error::{Code, Refusal};
use crate::route::{self, Query, Route};
use crate::settings::{AccessLine, Settings};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// How long a request's path may be; hyper refuses what is far beyond.
const TARGET_MAX: usize = 8 << 10;

/// The other end of a connection.
pub(super) struct Caller {
    pub(super) shared: Arc<Shared>,
    pub(super) phase: Phase,
    pub(super) remote: SocketAddr,
}

/// A request whose sender is known.
pub(super) struct Exchange {
    pub(super) shared: Arc<Shared>,
    pub(super) who: Identity,
    pub(super) method: Method,
    pub(super) query: Query,
    pub(super) headers: hyper::HeaderMap,
    pub(super) front: Front,
    pub(super) body: Incoming,
}

/// What clients reach this registry under.
#[derive(Debug, Clone)]
pub(super) struct Front {
    /// `https://registry.example.org`
    pub(super) url: String,
}

impl Front {
    /// As the owner says, else as the client says: it only ever misleads itself.
    fn of(settings: &Settings, headers: &hyper::HeaderMap) -> Self {
        if let Some(url) = &settings.url {
            return Self { url: url.trim_end_matches('/').to_owned() };
        }
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:[]_-".contains(&byte);
        let host = if !host.is_empty() && host.bytes().all(is_plain) { host } else { "localhost" };
        Self { url: format!("{scheme}://{host}") }
    }

    /// `registry.example.org`
    pub(super) fn host(&self) -> &str {
        self.url.split_once("://").map_or(self.url.as_str(), |(_, host)| host)
    }
}

/// What a handler says.
pub(super) type Answer = Result<Reply, Refusal>;

/// Called when an answer was sent.
type Done = Box<dyn FnOnce(u64) + Send>;

/// Answers a request. Never fails: what goes wrong is an answer as well.
pub(super) async fn answer(
    caller: Arc<Caller>,
    request: Request<Incoming>,
) -> Result<Response<Outgoing<Done>>, Infallible> {
    caller.phase.answering();
    let began = Instant::now();
    let mut line = access_line(&caller, &request);
    let is_head = request.method() == Method::HEAD;
    let is_api = request.uri().path().starts_with("/v2");
    let reply = handle(&caller.shared, request, &mut line).await;
    caller.shared.counts.answered(reply.as_ref().map_or_else(|refusal| refusal.status, |reply| reply.status));
    let mut reply = reply.unwrap_or_else(Reply::from);
    line.status = reply.status.as_u16();
    (line.code, line.cause) = (reply.code, reply.cause.take());
    reply = reply.with(REQUEST_ID, &line.request_id);
    if is_api {
        // Old clients take nothing else for a registry, not even with 401.
        reply = reply.with(API_VERSION, "registry/2.0");
    }
    if is_head {
        let length = reply.payload.length();
        reply.headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
        reply.payload = Payload::Empty;
    }
    let done: Done = Box::new(move |sent_bytes| {
        caller.phase.waiting();
        (line.sent_bytes, line.took) = (sent_bytes, began.elapsed());
        caller.shared.counts.sent(sent_bytes);
        caller.shared.observer.accessed(&line);
    });
    let mut response = Response::new(Outgoing::new(reply.payload, done));
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    Ok(response)
}

fn access_line(caller: &Caller, request: &Request<Incoming>) -> AccessLine {
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    AccessLine {
        remote: caller.remote.ip().to_canonical(),
        user: None,
        method: request.method().to_string(),
        target: target.chars().take(TARGET_MAX).collect(),
        status: 0,
        code: None,
        cause: None,
        sent_bytes: 0,
        took: std::time::Duration::ZERO,
        request_id: request_id(),
        agent: agent.map(str::to_owned),
    }
}

/// Unique enough to find a line in a log by.
fn request_id() -> String {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("{:x}-{number:x}", std::process::id())
}

/// Route, then who, then whether they may, then the handler: in this order for every request.
async fn handle(shared: &Arc<Shared>, request: Request<Incoming>, line: &mut AccessLine) -> Answer {
    let (head, body) = request.into_parts();
    if head.uri.path_and_query().is_some_and(|target| target.as_str().len() > TARGET_MAX) {
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, Code::NameInvalid, "the path is too long"));
    }
    let query = Query::parse(head.uri.query().unwrap_or_default());
    let route = shared.proxies.rename(route::parse(head.uri.path())?, query.get("ns"));
    let authorization =
        head.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap_or_default());
    let front = Front::of(&shared.settings, &head.headers);
    let scope = scope(&route, &head.method);
    let credentials = Credentials { header: authorization, host: front.host() };
    let who = shared.settings.access.authenticate(&credentials).await;
    let who = who.map_err(|refusal| challenge(shared, refusal, &front, &scope, &route))?;
    line.user.clone_from(&who.user);
    let exchange = Exchange {
        shared: Arc::clone(shared),
        who,
        method: head.method,
        query,
        headers: head.headers,
        front: front.clone(),
        body,
    };
    let reply = dispatch(exchange, route.clone()).await;
    reply.map_err(|refusal| challenge(shared, refusal, &front, &scope, &route))
}

/// What a client would need a token for, as docker writes it.
fn scope(route: &Route, method: &Method) -> Option<String> {
    let actions = match *method {
        Method::GET | Method::HEAD => "pull",
        Method::DELETE => "delete",
        _ => "pull,push",
    };
    route.repository().map(|repository| format!("repository:{repository}:{actions}"))
}

/// Says how to log in to whoever is refused for not having done so.
fn challenge(
    shared: &Shared,
    refusal: Refusal,
    front: &Front,
    scope: &Option<String>,
    route: &Route,
) -> Refusal {
    let is_asked = refusal.headers.iter().any(|(name, _)| *name == header::WWW_AUTHENTICATE);
    if refusal.status != StatusCode::UNAUTHORIZED || is_asked {
        return refusal;
    }
    // People and the token's own door want a password.
    let wants_password =
        matches!(route, Route::Token | Route::Overview | Route::Contents(_) | Route::Metrics);
    if !shared.settings.tokens || wants_password {
        return refusal.header(header::WWW_AUTHENTICATE, BASIC);
    }
    let mut text = format!("Bearer realm=\"{}/token\",service=\"{}\"", front.url, front.host());
    if let Some(scope) = scope {
        text.push_str(&format!(",scope=\"{scope}\""));
    }
    refusal.header(header::WWW_AUTHENTICATE, text)
}

async fn dispatch(exchange: Exchange, route: Route) -> Answer {
    let method = exchange.method.clone();
    let reads = method == Method::GET || method == Method::HEAD;
    match route {
        Route::Base if reads => listings::base(&exchange),
        Route::Catalog if reads => listings::catalog(&exchange),
        Route::Tags(repository) if reads => {
            exchange.demand(&repository, Right::Pull)?;
            listings::tags(&exchange, &repository).await
        }
        Route::Referrers(repository, digest) if reads => {
            exchange.demand(&repository, Right::Pull)?;
            listings::referrers(&exchange, &repository, &digest).await
        }
        Route::Manifest(repository, name) => match method {
            Method::GET | Method::HEAD => {
                exchange.demand(&repository, Right::Pull)?;
                manifests::get(&exchange, &repository, &name).await
            }
            Method::PUT => {
                exchange.demand_push(&repository)?;
                manifests::put(exchange, repository, name).await
            }
            Method::DELETE => {
                exchange.demand_delete(&repository)?;
                manifests::delete(&exchange, repository, name).await
            }
            _ => Err(not_allowed("GET, HEAD, PUT, DELETE")),
        },
        Route::Blob(repository, digest) => match method {
            Method::GET | Method::HEAD => {
                exchange.demand(&repository, Right::Pull)?;
                blobs::get(&exchange, repository, digest).await
            }
            Method::DELETE => {
                exchange.demand_delete(&repository)?;
                blobs::delete(&exchange, repository, digest).await
            }
            _ => Err(not_allowed("GET, HEAD, DELETE")),
        },
        Route::Uploads(repository) if method == Method::POST => {
            exchange.demand_push(&repository)?;
            uploads::start(exchange, repository).await
        }
        Route::Uploads(_) => Err(not_allowed("POST")),
        Route::Upload(repository, id) => {
            exchange.demand_push(&repository)?;
            uploads::go_on(exchange, repository, id).await
        }
        Route::Token if reads => tokens::issue(&exchange),
        Route::Metrics if reads => metrics::show(&exchange),
        Route::Overview if reads => page::overview(&exchange),
        Route::Contents(repository) if reads => {
            exchange.demand(&repository, Right::Pull)?;
            page::contents(&exchange, &repository)
        }
        Route::Live => Ok(Reply::json(&serde_json::json!({ "status": "ok" }))),
        Route::Ready => listings::ready(&exchange),
        _ => Err(not_allowed("GET, HEAD")),
    }
}

pub(super) fn not_allowed(methods: &str) -> Refusal {
    let message = format!("this can only be asked for with {methods}");
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, Code::Unsupported, message).header(header::ALLOW, methods)
}

impl Exchange {
    pub(super) fn demand(&self, repository: &mica_oci::Repository, right: Right) -> Result<(), Refusal> {
        self.shared.settings.access.demand(&self.who, repository, right)
    }

    /// Nothing is pushed to what is upstream's.
    fn demand_push(&self, repository: &mica_oci::Repository) -> Result<(), Refusal> {
        self.demand(repository, Right::Push)?;
        match self.shared.proxies.find(repository) {
            None => Ok(()),
            Some(_) => {
                Err(not_allowed("GET, HEAD, DELETE")
                    .because("this repository is a cache of another registry's"))
            }
        }
    }

    /// The one gate of everything that deletes (CVE-2026-41888).
    fn demand_delete(&self, repository: &mica_oci::Repository) -> Result<(), Refusal> {
        self.demand(repository, Right::Delete)?;
        match self.shared.settings.deletes {
            true => Ok(()),
            false => Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                Code::Unsupported,
                "this registry deletes nothing",
            )
            .header(header::ALLOW, "GET, HEAD")),
        }
    }

    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap_or_default())
    }

    /// The name that uploads belong to.
    pub(super) fn owner(&self) -> &str {
        self.who.user.as_deref().unwrap_or_default()
    }
}
