//! A blocking HTTP client with the rules that foreign servers need: its own redirects, a limit on waiting, no address
//! of the inner network for a redirect from outside (security.md rows 29, 31, 32).
//!
//! Tokio runs inside and only while a call lasts; callers see plain functions and `Read`.

mod addresses;
mod error;
mod exchange;

use std::future::Future;
use std::io::{self, Read};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use mica_api::{Cancel, Cancelled};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Method, Url};

pub use error::HttpError;
pub(crate) use error::shown;
pub use exchange::TlsProfile;
pub(crate) use exchange::{Outgoing, Payload, is_inner_host, unless_silent};

/// How long a connection may take to come about (security.md section 5).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a server may be silent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How many redirects are followed.
const REDIRECTS_MAX: usize = 5;
/// How often a waiting call looks whether it is still wanted.
const CANCEL_POLL: Duration = Duration::from_millis(50);
/// What is never asked for through a proxy.
const LOOPBACK: &str = "localhost,127.0.0.0/8,::1";
/// Threads that drive connections: transfers run on the threads of their callers.
const NETWORK_THREADS: usize = 2;

/// Proxies, as the environment or the client's config names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://`.
    pub http: Option<String>,
    /// For `https://`.
    pub https: Option<String>,
    /// Hosts that are asked directly, comma-separated.
    pub except: Option<String>,
}

/// The client. Cheap until the first request: TLS roots are read then.
pub struct HttpClient {
    proxies: Proxies,
    runtime: OnceLock<tokio::runtime::Runtime>,
    /// By what they trust, and whether they connect to outer addresses only.
    clients: Mutex<Vec<((TlsProfile, bool), Client)>>,
}

/// An answer whose body has not been read.
pub struct HttpResponse<'a> {
    http: &'a HttpClient,
    cancel: Cancel,
    response: reqwest::Response,
    chunk: Vec<u8>,
    read: usize,
}

impl HttpClient {
    /// A client that uses these proxies.
    pub fn new(proxies: Proxies) -> Self {
        Self { proxies, runtime: OnceLock::new(), clients: Mutex::default() }
    }

    /// Asks for a URL and follows redirects. Any status is an answer.
    ///
    /// # Errors
    /// URLs that are none or not http(s), too many or forbidden redirects, connections that fail, cancellation.
    pub fn get(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        cancel: &Cancel,
    ) -> Result<HttpResponse<'_>, HttpError> {
        let outgoing = Outgoing {
            method: Method::GET,
            url: parse(url)?,
            headers: header_map(headers)?,
            payload: Payload::None,
            tls: &TlsProfile::default(),
            follow: true,
        };
        let response = self.wait(cancel, self.exchange(&outgoing))??;
        Ok(HttpResponse { http: self, cancel: cancel.clone(), response, chunk: Vec::new(), read: 0 })
    }

    fn is_proxied(&self, url: &Url) -> bool {
        let proxy = if url.scheme() == "https" { &self.proxies.https } else { &self.proxies.http };
        proxy.is_some()
    }

    /// The client for what is trusted; with `outside`, one that connects to no inner address, whatever names resolve to.
    fn client(&self, tls: &TlsProfile, outside: bool) -> Result<Client, HttpError> {
        let key = (tls.clone(), outside);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = clients.iter().find(|(known, _)| *known == key) {
            return Ok(client.clone());
        }
        let mut builder = tls.apply(self.builder()?)?;
        if outside {
            builder = builder.dns_resolver(std::sync::Arc::new(addresses::OuterOnly));
        }
        let client = builder.build().map_err(HttpError::Setup)?;
        clients.push((key, client.clone()));
        Ok(client)
    }

    fn builder(&self) -> Result<reqwest::ClientBuilder, HttpError> {
        // fails if it was installed before, which is as good
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("mica/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy();
        // as every program of this field: a proxy elsewhere cannot reach this machine's own servers
        let except = format!("{},{LOOPBACK}", self.proxies.except.as_deref().unwrap_or_default());
        let except = reqwest::NoProxy::from_string(&except);
        if let Some(url) = &self.proxies.http {
            let proxy = reqwest::Proxy::http(url).map_err(HttpError::Setup)?;
            builder = builder.proxy(proxy.no_proxy(except.clone()));
        }
        if let Some(url) = &self.proxies.https {
            let proxy = reqwest::Proxy::https(url).map_err(HttpError::Setup)?;
            builder = builder.proxy(proxy.no_proxy(except));
        }
        Ok(builder)
    }

    /// Runs a future unless the caller gives up.
    pub(crate) fn wait<F: Future>(&self, cancel: &Cancel, future: F) -> Result<F::Output, HttpError> {
        let runtime = get_or_try(&self.runtime, || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(NETWORK_THREADS)
                .thread_name("mica-network")
                .enable_all()
                .build()
                .map_err(HttpError::Runtime)
        })?;
        runtime.block_on(async {
            tokio::pin!(future);
            loop {
                tokio::select! {
                    output = &mut future => return Ok(output),
                    () = tokio::time::sleep(CANCEL_POLL) => cancel.check()?,
                }
            }
        })
    }
}

/// `OnceLock::get_or_try_init`, which is not stable; two threads may both make one, and one of them is dropped.
fn get_or_try<T, E>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
    if cell.get().is_none() {
        // the other thread's is as good
        let _ = cell.set(make()?);
    }
    Ok(cell.get().expect("set above"))
}

impl HttpResponse<'_> {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// A header's value, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// How long the body is, if the server says so.
    pub fn length(&self) -> Option<u64> {
        self.response.content_length()
    }
}

impl Read for HttpResponse<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.chunk.len() {
            let url = self.response.url().clone();
            let next = unless_silent(self.response.chunk(), &url);
            let next = self.http.wait(&self.cancel, next).and_then(|next| next).map_err(io::Error::other)?;
            match next.map_err(io::Error::other)? {
                Some(chunk) => (self.chunk, self.read) = (chunk.into(), 0),
                None => return Ok(0),
            }
        }
        let part = &self.chunk[self.read..];
        let count = part.len().min(buffer.len());
        buffer[..count].copy_from_slice(&part[..count]);
        self.read += count;
        Ok(count)
    }
}

fn parse(url: &str) -> Result<Url, HttpError> {
    let parsed = Url::parse(url)
        .map_err(|source| HttpError::Url { url: url.to_owned(), reason: source.to_string() })?;
    if matches!(parsed.scheme(), "http" | "https") && parsed.has_host() {
        return Ok(parsed);
    }
    Err(HttpError::Url {
        url: error::shown(&parsed),
        reason: "only http:// and https:// can be fetched".to_owned(),
    })
}

fn header_map(headers: &[(&str, &str)]) -> Result<HeaderMap, HttpError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let bad = |_| HttpError::Header { name: (*name).to_owned() };
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad(()))?;
        map.insert(key, HeaderValue::from_str(value).map_err(|_| bad(()))?);
    }
    Ok(map)
}

/// Where an answer sends the client, if it does.
fn redirect(response: &reqwest::Response) -> Option<String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    response.headers().get(LOCATION)?.to_str().ok().map(str::to_owned)
}

impl From<Cancelled> for HttpError {
    fn from(cancelled: Cancelled) -> Self {
        Self::Cancelled(cancelled)
    }
}
