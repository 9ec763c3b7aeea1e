//! A blocking HTTP client with the rules that foreign servers need: its own redirects, a limit on waiting, no address
//! of the inner network for a redirect from outside (security.md rows 29, 31, 32).
//!
//! Tokio runs inside and only while a call lasts; callers see plain functions and `Read`.

mod addresses;
mod error;

use std::future::Future;
use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mica_api::{Cancel, Cancelled};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Client, Url};

pub use error::HttpError;

/// How long a connection may take to come about (security.md section 5).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a server may be silent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// How many redirects are followed.
const REDIRECTS_MAX: usize = 5;
/// How often a waiting call looks whether it is still wanted.
const CANCEL_POLL: Duration = Duration::from_millis(50);

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
    anywhere: OnceLock<Client>,
    outside: OnceLock<Client>,
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
        Self { proxies, runtime: OnceLock::new(), anywhere: OnceLock::new(), outside: OnceLock::new() }
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
        let url = parse(url)?;
        let headers = header_map(headers)?;
        let response = self.wait(cancel, self.follow(url, headers))??;
        Ok(HttpResponse { http: self, cancel: cancel.clone(), response, chunk: Vec::new(), read: 0 })
    }

    async fn follow(&self, mut url: Url, headers: HeaderMap) -> Result<reqwest::Response, HttpError> {
        let mut client = self.anywhere()?;
        let first = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let request = client.get(url.clone()).headers(headers.clone());
            let response = request.send().await.map_err(|source| HttpError::transport(&url, source))?;
            let Some(location) = redirect(&response) else { return Ok(response) };
            let target = url.join(&location).map_err(|_| HttpError::redirect(&url, &location))?;
            if !matches!(target.scheme(), "http" | "https") {
                return Err(HttpError::redirect(&url, &location));
            }
            let from_outside = response.remote_addr().is_some_and(|addr| !addresses::is_inner(addr.ip()));
            if from_outside && !self.is_proxied(&url) {
                client = self.outside()?;
                let literal = target.host_str().and_then(|host| host.trim_matches(['[', ']']).parse().ok());
                if literal.is_some_and(|ip: IpAddr| addresses::is_inner(ip)) {
                    return Err(HttpError::inner(&url, &target));
                }
            }
            url = target;
        }
        Err(HttpError::TooManyRedirects { url: error::shown(&first), max: REDIRECTS_MAX })
    }

    fn is_proxied(&self, url: &Url) -> bool {
        let proxy = if url.scheme() == "https" { &self.proxies.https } else { &self.proxies.http };
        proxy.is_some()
    }

    fn anywhere(&self) -> Result<&Client, HttpError> {
        get_or_try(&self.anywhere, || self.builder()?.build().map_err(HttpError::Setup))
    }

    /// A client that connects to no inner address, whatever names resolve to.
    fn outside(&self) -> Result<&Client, HttpError> {
        get_or_try(&self.outside, || {
            let resolver = Arc::new(addresses::OuterOnly);
            self.builder()?.dns_resolver(resolver).build().map_err(HttpError::Setup)
        })
    }

    fn builder(&self) -> Result<reqwest::ClientBuilder, HttpError> {
        // fails if it was installed before, which is as good
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(concat!("mica/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(IDLE_TIMEOUT)
            .no_proxy();
        let except = self.proxies.except.as_deref().and_then(reqwest::NoProxy::from_string);
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
    fn wait<F: Future>(&self, cancel: &Cancel, future: F) -> Result<F::Output, HttpError> {
        let runtime = get_or_try(&self.runtime, || {
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(HttpError::Runtime)
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
            let next = self.http.wait(&self.cancel, self.response.chunk()).map_err(io::Error::other)?;
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
