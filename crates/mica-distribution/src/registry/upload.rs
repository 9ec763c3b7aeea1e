//! Blobs to a registry: mounted where another repository has them, sent in one piece, resumed when that breaks.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use mica_api::Cancel;
use mica_oci::{Descriptor, Digest};
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, Response, Url};

use super::client::{Ask, Repository, Target};
use super::error::RegistryError;
use super::retry;
use super::route::Endpoint;
use crate::http::Payload;

/// From this size on a broken upload is continued instead of repeated.
const RESUMED_FROM_BYTES: u64 = 32 << 20;

/// How a blob came to be in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pushed {
    /// It was sent.
    Sent,
    /// It was there.
    Existed,
    /// It came from another repository of the registry.
    Mounted(String),
}

/// What asking for an upload led to.
#[derive(Debug)]
pub enum Upload {
    /// Nothing has to be sent.
    Done(Pushed),
    /// The registry waits for bytes.
    Session(UploadSession),
}

/// Where the bytes of one blob are to be sent.
#[derive(Debug, Clone)]
pub struct UploadSession(Url);

/// Bytes that can be sent again.
#[derive(Debug, Clone)]
pub enum BlobBytes {
    /// In memory.
    Memory(Bytes),
    /// A whole file.
    File(Arc<File>),
}

impl BlobBytes {
    fn payload(&self, from: u64, size_bytes: u64, sent: &Arc<AtomicU64>) -> Payload {
        match self {
            Self::Memory(bytes) => {
                let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
                Payload::Bytes(bytes.slice(from..))
            }
            Self::File(file) => {
                Payload::File { file: file.clone(), at: from, end: size_bytes, sent: sent.clone() }
            }
        }
    }
}

impl Repository<'_> {
    /// Asks for an upload of a blob, or for its mount from another repository.
    ///
    /// One request either way. Without a known source the repository is asked to mount from itself: that tells
    /// whether the blob is there, and begins an upload if not.
    ///
    /// # Errors
    /// The registry refuses uploads.
    pub fn begin_upload(
        &self,
        digest: &Digest,
        source: Option<&str>,
        cancel: &Cancel,
    ) -> Result<Upload, RegistryError> {
        self.own(cancel, async |endpoint| {
            let from = source.unwrap_or(&endpoint.repository);
            let mut answered = self.ask_for_upload(endpoint, Some((digest, from)), cancel).await?;
            if !matches!(answered.status().as_u16(), 201 | 202) {
                // no right to read there, or no idea of mounts
                answered = self.ask_for_upload(endpoint, None, cancel).await?;
            }
            match answered.status().as_u16() {
                201 if from == endpoint.repository => Ok(Upload::Done(Pushed::Existed)),
                201 => Ok(Upload::Done(Pushed::Mounted(from.to_owned()))),
                202 => session(endpoint, &answered).map(Upload::Session),
                _ => Err(self.refused(endpoint, answered, &self.doing(), cancel).await),
            }
        })
    }

    async fn ask_for_upload(
        &self,
        endpoint: &Endpoint,
        mount: Option<(&Digest, &str)>,
        cancel: &Cancel,
    ) -> Result<Response, RegistryError> {
        let mut scopes = self.push_scopes(endpoint);
        let path = match mount {
            Some((digest, from)) => {
                if from != endpoint.repository {
                    scopes.push(format!("repository:{from}:pull"));
                }
                format!("/blobs/uploads/?mount={digest}&from={from}")
            }
            None => "/blobs/uploads/".to_owned(),
        };
        let ask = Ask {
            method: Method::POST,
            target: Target::Path(&path),
            headers: HeaderMap::new(),
            payload: Payload::Bytes(Bytes::new()),
            scopes,
            retries: true,
        };
        self.registries.ask(endpoint, &ask, cancel).await
    }

    /// Sends the bytes of a blob; `sent` counts them.
    ///
    /// # Errors
    /// The registry refuses them, or every attempt broke.
    pub fn upload(
        &self,
        session: UploadSession,
        descriptor: &Descriptor,
        bytes: &BlobBytes,
        sent: &Arc<AtomicU64>,
        cancel: &Cancel,
    ) -> Result<Pushed, RegistryError> {
        let mut attempt = 1;
        let mut session = Some(session);
        loop {
            let begun = match session.take() {
                Some(session) => session,
                None => match self.begin_upload(&descriptor.digest, None, cancel)? {
                    Upload::Done(_) => return Ok(Pushed::Sent),
                    Upload::Session(session) => session,
                },
            };
            let done = self.own(cancel, async |endpoint| {
                self.send(endpoint, &begun, descriptor, bytes, sent, cancel).await
            });
            match done {
                Ok(()) => return Ok(Pushed::Sent),
                Err(error) if attempt < retry::ATTEMPTS && may_repeat(&error) => {}
                Err(error) => return Err(error),
            }
            let pause = retry::pause(attempt, None, retry::random());
            self.own(cancel, async |_| {
                tokio::time::sleep(pause).await;
                Ok(())
            })?;
            attempt += 1;
        }
    }

    /// One upload; a large one whose connection breaks goes on where the registry stopped receiving.
    async fn send(
        &self,
        endpoint: &Endpoint,
        begun: &UploadSession,
        descriptor: &Descriptor,
        bytes: &BlobBytes,
        sent: &Arc<AtomicU64>,
        cancel: &Cancel,
    ) -> Result<(), RegistryError> {
        let whole = bytes.payload(0, descriptor.size, sent);
        let error = match self.put(endpoint, &begun.0, descriptor, whole, cancel).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if !may_repeat(&error) || descriptor.size < RESUMED_FROM_BYTES {
            return Err(error);
        }
        let Some((received, at)) = self.received(endpoint, begun, cancel).await? else { return Err(error) };
        if received == 0 || received > descriptor.size {
            return Err(error);
        }
        let rest = bytes.payload(received, descriptor.size, sent);
        let mut headers = binary();
        let range = format!("{received}-{}", descriptor.size.saturating_sub(1));
        headers.insert(CONTENT_RANGE, HeaderValue::from_str(&range).expect("digits"));
        let response = self.ask_session(endpoint, Method::PATCH, (at.0, headers), rest, cancel).await?;
        if !response.status().is_success() {
            return Err(self.refused(endpoint, response, &self.doing(), cancel).await);
        }
        let at = self::session(endpoint, &response)?;
        self.put(endpoint, &at.0, descriptor, Payload::Bytes(Bytes::new()), cancel).await
    }

    async fn put(
        &self,
        endpoint: &Endpoint,
        session: &Url,
        descriptor: &Descriptor,
        payload: Payload,
        cancel: &Cancel,
    ) -> Result<(), RegistryError> {
        let mut url = session.clone();
        url.query_pairs_mut().append_pair("digest", &descriptor.digest.to_string());
        let response = self.ask_session(endpoint, Method::PUT, (url, binary()), payload, cancel).await?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(self.refused(endpoint, response, &self.doing(), cancel).await),
        }
    }

    /// How many bytes of an upload arrived, and where it goes on; `None` if the registry forgot it.
    async fn received(
        &self,
        endpoint: &Endpoint,
        begun: &UploadSession,
        cancel: &Cancel,
    ) -> Result<Option<(u64, UploadSession)>, RegistryError> {
        let asked = (begun.0.clone(), HeaderMap::new());
        let response = self.ask_session(endpoint, Method::GET, asked, Payload::None, cancel).await?;
        if !response.status().is_success() {
            return Ok(None);
        }
        let range = response.headers().get(RANGE).and_then(|value| value.to_str().ok());
        let last =
            range.and_then(|text| text.trim_start_matches("bytes=").strip_prefix("0-")?.parse::<u64>().ok());
        Ok(last.zip(session(endpoint, &response).ok()).map(|(last, at)| (last + 1, at)))
    }

    async fn ask_session(
        &self,
        endpoint: &Endpoint,
        method: Method,
        (url, headers): (Url, HeaderMap),
        payload: Payload,
        cancel: &Cancel,
    ) -> Result<Response, RegistryError> {
        let ask = Ask {
            method,
            target: Target::Url(url),
            headers,
            payload,
            scopes: self.push_scopes(endpoint),
            // what arrived of a broken upload is known to the registry alone
            retries: false,
        };
        self.registries.ask(endpoint, &ask, cancel).await
    }

    fn doing(&self) -> String {
        format!("cannot push to {}", self.reference.familiar_name())
    }
}

fn binary() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))])
}

/// Whether a failed upload is worth another one.
fn may_repeat(error: &RegistryError) -> bool {
    match error {
        RegistryError::Http { source, .. } => retry::is_broken(source),
        // 404 and 416: the registry has lost the upload, or a part of it
        RegistryError::Refused { refusal, .. } => {
            retry::is_passing(refusal.status) || matches!(refusal.status, 404 | 416)
        }
        _ => false,
    }
}

/// The `Location` of an upload, which may be relative.
fn session(endpoint: &Endpoint, response: &Response) -> Result<UploadSession, RegistryError> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let url = location.and_then(|text| response.url().join(text).ok());
    let url = url.filter(|url| matches!(url.scheme(), "http" | "https"));
    url.map(UploadSession).ok_or_else(|| RegistryError::Answer {
        host: endpoint.host.clone(),
        problem: "begins an upload without saying where".to_owned(),
    })
}
