//! What a registry is told when it starts, and what it tells while it runs.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::access::Access;
use crate::proxy::ProxyRule;
use crate::storage::quota::Quota;
use crate::tls::Tls;

/// What to serve, where, and how.
#[derive(Debug)]
pub struct Settings {
    /// The data folder; made if it is not there.
    pub data: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Who may do what.
    pub access: Access,
    /// Speak TLS.
    pub tls: Option<Tls>,
    /// Ask for tokens instead of passwords.
    pub tokens: bool,
    /// What clients reach this registry under, if that is not what they say in `Host`: `https://registry.example.org`.
    pub url: Option<String>,
    /// Whether anything may be deleted over HTTP.
    pub deletes: bool,
    /// How long a blob is kept after the last manifest that needs it has gone, or after its upload.
    pub grace: Duration,
    /// How much may be stored.
    pub quota: Quota,
    /// How long manifests are kept after their last tag has gone; `None` keeps them until they are deleted.
    pub untagged: Option<Duration>,
    /// Registries that are cached.
    pub proxies: Vec<ProxyRule>,
    /// Who is told of pushes and deletions.
    pub webhook: Option<Webhook>,
    /// How long uploads without a new byte are kept.
    pub upload_age: Duration,
    /// How long transfers may go on after a stop was asked for.
    pub drain: Duration,
}

/// Somebody who wants to know what changes.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Gets a `POST` with docker's event envelope.
    pub url: String,
    /// Signs what is sent: `X-Hub-Signature-256: sha256=<HMAC of the body>`.
    pub secret: Option<Vec<u8>>,
}

/// Hears of everything worth a line in a log.
pub trait Observer: Send + Sync {
    /// A request has been answered.
    fn accessed(&self, line: &AccessLine);
    /// Something the owner should know.
    fn notice(&self, text: &str);
}

/// One request.
#[derive(Debug, Clone)]
pub struct AccessLine {
    /// Who asked: address, and name if one was given and proved.
    pub remote: IpAddr,
    /// The user's name.
    pub user: Option<String>,
    /// `GET`.
    pub method: String,
    /// Path and query, as they came.
    pub target: String,
    /// The status of the answer.
    pub status: u16,
    /// The code of the distribution specification, if the request was refused.
    pub code: Option<&'static str>,
    /// What failed inside; never sent.
    pub cause: Option<String>,
    /// Bytes of the answer's body that were sent.
    pub sent_bytes: u64,
    /// Until the last of them.
    pub took: Duration,
    /// In the answer's `X-Request-Id` too.
    pub request_id: String,
    /// `User-Agent`.
    pub agent: Option<String>,
}
