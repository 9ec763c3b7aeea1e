//! What goes wrong between here and a server.

use mica_api::{Cancelled, Class, Fault};
use reqwest::Url;

/// A request that has no answer. Passwords in URLs are never part of the text.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not a URL that can be fetched.
    #[error("invalid URL {url}: {reason}")]
    Url {
        /// The text.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A header that cannot be sent.
    #[error("invalid value of header {name}")]
    Header {
        /// Its name.
        name: String,
    },
    /// A redirect to where this client does not go.
    #[error("{url} redirects to {target}, which is not followed: {reason}")]
    Redirect {
        /// Who redirects.
        url: String,
        /// Where to.
        target: String,
        /// Why not.
        reason: &'static str,
    },
    /// A loop, or a chain without end.
    #[error("{url} redirects more than {max} times")]
    TooManyRedirects {
        /// The first URL.
        url: String,
        /// The limit.
        max: usize,
    },
    /// No connection, or one that broke.
    #[error("cannot get {url}")]
    Transport {
        /// The URL.
        url: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// A server that says nothing.
    #[error("{url} was silent for {seconds} s")]
    Silent {
        /// The URL.
        url: String,
        /// How long.
        seconds: u64,
    },
    /// TLS roots, proxies or the resolver cannot be used.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] reqwest::Error),
    /// A certificate or key that cannot be used.
    #[error("cannot use the certificate {}", path.display())]
    Certificate {
        /// Its file.
        path: std::path::PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No event loop.
    #[error("cannot start the network's event loop")]
    Runtime(#[source] std::io::Error),
    /// The caller gave up.
    #[error(transparent)]
    Cancelled(Cancelled),
}

impl HttpError {
    pub(crate) fn transport(url: &Url, source: reqwest::Error) -> Self {
        Self::Transport { url: shown(url), source: source.without_url() }
    }

    pub(super) fn redirect(url: &Url, target: &str) -> Self {
        let reason = "only http:// and https:// are";
        Self::Redirect { url: shown(url), target: target.escape_debug().to_string(), reason }
    }

    pub(super) fn inner(url: &Url, target: &Url) -> Self {
        let reason = "a public server may not lead to an address of the inner network";
        Self::Redirect { url: shown(url), target: shown(target), reason }
    }
}

impl Fault for HttpError {
    fn class(&self) -> Class {
        match self {
            Self::Url { .. } | Self::Header { .. } | Self::Certificate { .. } => Class::Invalid,
            Self::Redirect { .. } | Self::TooManyRedirects { .. } => Class::Denied,
            Self::Transport { .. } | Self::Silent { .. } | Self::Setup(_) | Self::Runtime(_) => {
                Class::Internal
            }
            Self::Cancelled(_) => Class::Cancelled,
        }
    }
}

/// A URL without its password.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    if url.password().is_some() {
        // cannot fail: a URL with a password has a host
        let _ = url.set_password(Some("xxxxx"));
    }
    url.to_string()
}
