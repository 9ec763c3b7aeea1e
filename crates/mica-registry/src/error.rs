//! What a refused request is told: a status, a code of the distribution specification, and what to do about it.
//!
//! Nothing here names a path of this machine: `message` and `detail` travel to strangers.

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};

/// The codes of the distribution specification, and docker's where it has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    TagInvalid,
    Unauthorized,
    Denied,
    Unsupported,
    TooManyRequests,
    PaginationNumberInvalid,
    Unknown,
}

impl Code {
    /// As it is spelled in an answer.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// A request that is not answered with what it asked for.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) code: Code,
    pub(crate) message: String,
    /// Facts for programs.
    pub(crate) detail: Option<Box<Value>>,
    /// Headers that belong to this status: `Allow`, `Content-Range`, `WWW-Authenticate`.
    pub(crate) headers: Vec<(hyper::header::HeaderName, String)>,
    /// What went wrong inside; for the log only.
    pub(crate) cause: Option<String>,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, code: Code, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), detail: None, headers: Vec::new(), cause: None }
    }

    pub(crate) fn bad(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub(crate) fn missing(code: Code, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// Something failed here; the caller is told as little as possible.
    pub(crate) fn internal(cause: impl std::fmt::Display) -> Self {
        let mut refusal = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            Code::Unknown,
            "the registry failed; its log says why",
        );
        refusal.cause = Some(cause.to_string());
        refusal
    }

    /// The disk is full.
    pub(crate) fn no_space() -> Self {
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            Code::Denied,
            "the registry's disk is full; delete what is not needed any more, or ask its owner",
        )
    }

    /// The same with another message.
    #[must_use]
    pub(crate) fn because(mut self, message: &str) -> Self {
        message.clone_into(&mut self.message);
        self
    }

    #[must_use]
    pub(crate) fn detail(mut self, detail: Value) -> Self {
        self.detail = Some(Box::new(detail));
        self
    }

    #[must_use]
    pub(crate) fn header(mut self, name: hyper::header::HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The body of the answer.
    pub(crate) fn body(&self) -> Bytes {
        let mut error = json!({ "code": self.code.name(), "message": self.message });
        if let Some(detail) = &self.detail {
            error["detail"] = Value::clone(detail);
        }
        Bytes::from(json!({ "errors": [error] }).to_string())
    }
}

/// An error with all its causes, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_its_code_and_nothing_of_the_cause() {
        let refusal = Refusal::internal("/var/lib/secret: broken");
        let body = String::from_utf8(refusal.body().to_vec()).unwrap();
        assert!(body.starts_with(r#"{"errors":[{"code":"UNKNOWN","message":"#), "{body}");
        assert!(!body.contains("secret"), "{body}");
    }
}
