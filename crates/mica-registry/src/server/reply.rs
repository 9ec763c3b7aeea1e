//! Answers before they are sent.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use mica_oci::Digest;
use serde_json::Value;

use super::body::Payload;
use crate::error::Refusal;

/// The digest of what is answered, as docker's clients look for it.
pub(super) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// An answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) payload: Payload,
    /// For the log.
    pub(super) code: Option<&'static str>,
    pub(super) cause: Option<String>,
}

impl Reply {
    pub(super) fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), payload: Payload::Empty, code: None, cause: None }
    }

    pub(super) fn json(value: &Value) -> Self {
        let mut reply = Self::new(StatusCode::OK).with(header::CONTENT_TYPE, "application/json");
        reply.payload = Payload::Bytes(Bytes::from(value.to_string()));
        reply
    }

    #[must_use]
    pub(super) fn with(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        self.headers.insert(name, text(value.as_ref()));
        self
    }

    /// Adds a header that may be there several times.
    #[must_use]
    pub(super) fn and(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        self.headers.append(name, text(value.as_ref()));
        self
    }

    #[must_use]
    pub(super) fn number(mut self, name: HeaderName, value: u64) -> Self {
        self.headers.insert(name, HeaderValue::from(value));
        self
    }

    #[must_use]
    pub(super) fn digest(self, digest: &Digest) -> Self {
        self.with(CONTENT_DIGEST, digest.to_string())
    }

    #[must_use]
    pub(super) fn payload(mut self, payload: Payload) -> Self {
        self.payload = payload;
        self
    }
}

/// Every value is made of names, digests and numbers that were parsed, or of words of ours.
fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("names, digests and numbers are visible ASCII")
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let mut reply = Self::new(refusal.status).with(header::CONTENT_TYPE, "application/json");
        reply.payload = Payload::Bytes(refusal.body());
        for (name, value) in &refusal.headers {
            reply = reply.with(name.clone(), value);
        }
        reply.code = Some(refusal.code.name());
        reply.cause = refusal.cause;
        reply
    }
}
