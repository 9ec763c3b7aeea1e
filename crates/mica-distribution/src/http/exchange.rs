//! One request and its answer: redirects, what is trusted, bodies from files.

use std::fs::File;
use std::future::Future;
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use reqwest::header::{AUTHORIZATION, COOKIE, HeaderMap, PROXY_AUTHORIZATION};
use reqwest::{Body, Certificate, ClientBuilder, Identity, Method, Response, Url};

use super::{HttpClient, HttpError, IDLE_TIMEOUT, REDIRECTS_MAX, addresses, redirect, shown};

/// How much of a file is read at once.
const PIECE_BYTES: u64 = 256 << 10;
/// How often an upload is looked at.
const UPLOAD_POLL: Duration = Duration::from_secs(1);

/// What a client trusts, and what it shows of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsProfile {
    /// Certificate authorities beside those of the system: PEM files.
    pub authorities: Vec<PathBuf>,
    /// Certificate and key: PEM files.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether any certificate will do.
    pub unverified: bool,
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Payload,
    /// Holds for the host of `url`; others are met with the system's.
    pub(crate) tls: &'a TlsProfile,
    /// Whether redirects are followed.
    pub(crate) follow: bool,
}

/// What is sent along; can be sent again.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    None,
    Bytes(Bytes),
    /// A part of a file.
    File {
        file: Arc<File>,
        at: u64,
        end: u64,
        /// Counts what was handed to the network.
        sent: Arc<AtomicU64>,
    },
}

impl TlsProfile {
    pub(super) fn apply(&self, mut builder: ClientBuilder) -> Result<ClientBuilder, HttpError> {
        let read = |path: &PathBuf| {
            std::fs::read(path)
                .map_err(|source| HttpError::Certificate { path: path.clone(), source: source.into() })
        };
        let mut extra = Vec::new();
        for path in &self.authorities {
            let bundle = Certificate::from_pem_bundle(&read(path)?);
            extra.extend(
                bundle
                    .map_err(|source| HttpError::Certificate { path: path.clone(), source: source.into() })?,
            );
        }
        if !extra.is_empty() {
            builder = builder.tls_certs_merge(extra);
        }
        if let Some((certificate, key)) = &self.identity {
            let pem = [read(certificate)?, b"\n".to_vec(), read(key)?].concat();
            let identity = Identity::from_pem(&pem).map_err(|source| HttpError::Certificate {
                path: certificate.clone(),
                source: source.into(),
            })?;
            builder = builder.identity(identity);
        }
        Ok(builder.tls_danger_accept_invalid_certs(self.unverified))
    }
}

impl Payload {
    fn body(&self) -> Option<Body> {
        match self {
            Self::None => None,
            Self::Bytes(bytes) => Some(Body::from(bytes.clone())),
            Self::File { file, at, end, sent } => {
                sent.store(0, Ordering::Relaxed);
                let part = FilePart { file: file.clone(), at: *at, end: *end, sent: sent.clone() };
                Some(Body::wrap(part))
            }
        }
    }
}

/// A part of a file as a body.
struct FilePart {
    file: Arc<File>,
    at: u64,
    end: u64,
    sent: Arc<AtomicU64>,
}

impl HttpBody for FilePart {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.at >= self.end {
            return Poll::Ready(None);
        }
        let length = usize::try_from((self.end - self.at).min(PIECE_BYTES)).unwrap_or(usize::MAX);
        let mut piece = vec![0; length];
        // blocks for as long as a local disk takes, which is what a thread of the network may
        if let Err(error) = self.file.read_exact_at(&mut piece, self.at) {
            return Poll::Ready(Some(Err(error)));
        }
        self.at += piece.len() as u64;
        self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.at >= self.end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.end.saturating_sub(self.at))
    }
}

impl HttpClient {
    /// Sends a request and follows redirects; any status is an answer.
    ///
    /// What says who asks goes to the origin of the request and nowhere else (security.md row 29).
    pub(crate) async fn exchange(&self, outgoing: &Outgoing<'_>) -> Result<Response, HttpError> {
        let mut url = outgoing.url.clone();
        let mut headers = outgoing.headers.clone();
        let mut tls = outgoing.tls.clone();
        let mut outside = false;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.send(outgoing, &url, &headers, (&tls, outside)).await?;
            let Some(location) = followed(&outgoing.method, &response).filter(|_| outgoing.follow) else {
                return Ok(response);
            };
            let target = url.join(&location).map_err(|_| HttpError::redirect(&url, &location))?;
            if !matches!(target.scheme(), "http" | "https") {
                return Err(HttpError::redirect(&url, &location));
            }
            let from_outside = response.remote_addr().is_some_and(|addr| !addresses::is_inner(addr.ip()));
            if from_outside && !self.is_proxied(&url) {
                outside = true;
                if is_inner_host(&target) {
                    return Err(HttpError::inner(&url, &target));
                }
            }
            if target.origin() != url.origin() {
                for name in [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE] {
                    headers.remove(name);
                }
                tls = TlsProfile::default();
            }
            url = target;
        }
        Err(HttpError::TooManyRedirects { url: shown(&outgoing.url), max: REDIRECTS_MAX })
    }

    async fn send(
        &self,
        outgoing: &Outgoing<'_>,
        url: &Url,
        headers: &HeaderMap,
        (tls, outside): (&TlsProfile, bool),
    ) -> Result<Response, HttpError> {
        // without TLS there is nothing to trust, and the roots of the system take milliseconds to read
        let none = TlsProfile { unverified: true, ..TlsProfile::default() };
        let tls = if url.scheme() == "http" { &none } else { tls };
        let client = self.client(tls, outside)?;
        let mut request = client.request(outgoing.method.clone(), url.clone()).headers(headers.clone());
        if let Some(body) = outgoing.payload.body() {
            request = request.body(body);
        }
        let answer = async { request.send().await.map_err(|source| HttpError::transport(url, source)) };
        match &outgoing.payload {
            Payload::File { sent, .. } => unless_stuck(answer, sent, url).await,
            _ => unless_silent(answer, url).await?,
        }
    }
}

/// Waits for an answer, but not for a server that is silent.
pub(crate) async fn unless_silent<F: Future>(answer: F, url: &Url) -> Result<F::Output, HttpError> {
    let answer = tokio::time::timeout(IDLE_TIMEOUT, answer).await;
    answer.map_err(|_| HttpError::Silent { url: shown(url), seconds: IDLE_TIMEOUT.as_secs() })
}

/// Waits for the answer to an upload as long as something is being sent.
async fn unless_stuck(
    answer: impl Future<Output = Result<Response, HttpError>>,
    sent: &AtomicU64,
    url: &Url,
) -> Result<Response, HttpError> {
    tokio::pin!(answer);
    let (mut last, mut since) = (0, tokio::time::Instant::now());
    loop {
        tokio::select! {
            output = &mut answer => return output,
            () = tokio::time::sleep(UPLOAD_POLL) => {}
        }
        let now = sent.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, tokio::time::Instant::now());
        } else if since.elapsed() > IDLE_TIMEOUT {
            return Err(HttpError::Silent { url: shown(url), seconds: IDLE_TIMEOUT.as_secs() });
        }
    }
}

/// Where an answer sends the client, if that may be followed: a body is only sent again when the server says so.
fn followed(method: &Method, response: &Response) -> Option<String> {
    let location = redirect(response)?;
    let asks = matches!(*method, Method::GET | Method::HEAD);
    (asks || matches!(response.status().as_u16(), 307 | 308)).then_some(location)
}

/// Whether a URL names an address of the inner network by number.
pub(crate) fn is_inner_host(url: &Url) -> bool {
    let literal = url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse().ok());
    literal.is_some_and(|ip: IpAddr| addresses::is_inner(ip))
}
