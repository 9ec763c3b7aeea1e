//! Manifests: by tag or digest, read strictly, sent as they are.

use mica_api::Cancel;
use mica_oci::{Algorithm, Descriptor, Digest, Document, Hasher, Tag, media_type};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Response};

use super::client::{Ask, Repository, Target, read_limited, refusal};
use super::error::{Refusal, RegistryError};
use super::route::Endpoint;
use crate::http::Payload;

/// What is understood, in the order of preference.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// The header with a manifest's digest.
const DIGEST_HEADER: HeaderName = HeaderName::from_static("docker-content-digest");

/// A manifest or index as a registry has it.
#[derive(Debug, Clone)]
pub struct FetchedManifest {
    /// Type, digest and size.
    pub descriptor: Descriptor,
    /// The bytes, unchanged.
    pub bytes: Vec<u8>,
    /// What they say.
    pub document: Document,
}

/// How a manifest is named below a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestName {
    /// By tag.
    Tag(Tag),
    /// By digest.
    Digest(Digest),
}

impl ManifestName {
    fn text(&self) -> String {
        match self {
            Self::Tag(tag) => tag.to_string(),
            Self::Digest(digest) => digest.to_string(),
        }
    }

    fn digest(&self) -> Option<&Digest> {
        match self {
            Self::Tag(_) => None,
            Self::Digest(digest) => Some(digest),
        }
    }
}

impl Repository<'_> {
    /// What the reference itself names: its digest, else its tag, else `latest`.
    pub fn named(&self) -> ManifestName {
        match (self.reference.digest(), self.reference.tag()) {
            (Some(digest), _) => ManifestName::Digest(digest.clone()),
            (None, Some(tag)) => ManifestName::Tag(tag.clone()),
            (None, None) => ManifestName::Tag(Tag::latest()),
        }
    }

    /// Type, digest and size of a manifest without fetching it; `None` if the registry does not say.
    ///
    /// # Errors
    /// There is none, or nobody can be asked.
    pub fn resolve(&self, name: &ManifestName, cancel: &Cancel) -> Result<Option<Descriptor>, RegistryError> {
        let by_digest = name.digest().is_some();
        self.first(by_digest, cancel, async |endpoint| {
            let response = self.ask_for(Method::HEAD, endpoint, name, cancel).await?;
            let headers = response.headers();
            let text = |name: &HeaderName| headers.get(name)?.to_str().ok();
            let kind = media(headers);
            let digest = text(&DIGEST_HEADER).and_then(|text| text.parse().ok());
            let size = text(&reqwest::header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
            Ok(digest.zip(size).map(|(digest, size)| Descriptor::new(kind, digest, size)))
        })
    }

    /// Whether there is a manifest of this digest in the registry itself.
    ///
    /// # Errors
    /// Nobody can be asked.
    pub fn has_manifest(&self, digest: &Digest, cancel: &Cancel) -> Result<bool, RegistryError> {
        let name = ManifestName::Digest(digest.clone());
        let asked = self.own(cancel, async |endpoint| {
            self.ask_for(Method::HEAD, endpoint, &name, cancel).await.map(drop)
        });
        match asked {
            Ok(()) => Ok(true),
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// What the registry itself has under a name, before something else is put there; `None` if nothing, or if it does
    /// not say.
    pub fn current(&self, name: &ManifestName, cancel: &Cancel) -> Result<Option<Digest>, RegistryError> {
        let asked = self.own(cancel, async |endpoint| {
            let response = self.ask_for(Method::HEAD, endpoint, name, cancel).await?;
            Ok(response.headers().get(DIGEST_HEADER).and_then(|value| value.to_str().ok()?.parse().ok()))
        });
        match asked {
            Err(RegistryError::NotFound { .. }) => Ok(None),
            other => other,
        }
    }

    /// Fetches a manifest or index.
    ///
    /// # Errors
    /// There is none, it is refused (too large, ambiguous, another digest), or nobody can be asked.
    pub fn manifest(&self, name: &ManifestName, cancel: &Cancel) -> Result<FetchedManifest, RegistryError> {
        self.first(name.digest().is_some(), cancel, async |endpoint| {
            let response = self.ask_for(Method::GET, endpoint, name, cancel).await?;
            let announced = media(response.headers());
            let header = response.headers().get(DIGEST_HEADER).and_then(|value| value.to_str().ok());
            let promised: Option<Digest> = header.and_then(|text| text.parse().ok());
            let bytes = read_limited(response, Document::LIMIT_BYTES, &endpoint.host).await?;
            self.checked(endpoint, name, (announced, promised), bytes)
        })
    }

    fn checked(
        &self,
        endpoint: &Endpoint,
        name: &ManifestName,
        (announced, promised): (String, Option<Digest>),
        bytes: Vec<u8>,
    ) -> Result<FetchedManifest, RegistryError> {
        let expected = name.digest().or(promised.as_ref());
        let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
        let mut hasher = Hasher::new(algorithm);
        hasher.update(&bytes);
        let digest = hasher.finish();
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            let (host, expected) = (endpoint.host.clone(), expected.clone());
            return Err(RegistryError::Digest { host, expected, actual: digest });
        }
        let known = media_type::is_index(&announced) || media_type::is_manifest(&announced);
        let document = Document::parse(&bytes, if known { &announced } else { "" });
        let document =
            document.map_err(|source| RegistryError::Document { reference: self.shown(name), source })?;
        let own = match &document {
            Document::Manifest(manifest) => &manifest.media_type,
            Document::Index(index) => &index.media_type,
        };
        let kind = match (own.is_empty(), known, &document) {
            (false, _, _) => own.clone(),
            (true, true, _) => announced,
            (true, false, Document::Manifest(_)) => media_type::OCI_MANIFEST.to_owned(),
            (true, false, Document::Index(_)) => media_type::OCI_INDEX.to_owned(),
        };
        let descriptor = Descriptor::new(kind, digest, bytes.len() as u64);
        Ok(FetchedManifest { descriptor, bytes, document })
    }

    /// Puts a manifest under a tag or its digest.
    ///
    /// # Errors
    /// The registry refuses it.
    pub fn put_manifest(
        &self,
        name: &ManifestName,
        media: &str,
        bytes: &[u8],
        cancel: &Cancel,
    ) -> Result<(), RegistryError> {
        let path = format!("/manifests/{}", name.text());
        let doing = format!("cannot push {}", self.shown(name));
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_str(media).unwrap_or(HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, value);
        self.own(cancel, async |endpoint| {
            let ask = Ask {
                method: Method::PUT,
                target: Target::Path(&path),
                headers: headers.clone(),
                payload: Payload::Bytes(bytes.to_vec().into()),
                scopes: self.push_scopes(endpoint),
                retries: true,
            };
            let response = self.registries.ask(endpoint, &ask, cancel).await?;
            match response.status().is_success() {
                true => Ok(()),
                false => Err(self.refused(endpoint, response, &doing, cancel).await),
            }
        })
    }

    async fn ask_for(
        &self,
        method: Method,
        endpoint: &Endpoint,
        name: &ManifestName,
        cancel: &Cancel,
    ) -> Result<Response, RegistryError> {
        let path = format!("/manifests/{}", name.text());
        let doing = format!("cannot pull {}", self.shown(name));
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let response = self.ask_to_pull(method, endpoint, &path, headers, cancel).await?;
        match response.status().as_u16() {
            200..300 => Ok(response),
            404 => {
                let body = read_limited(response, super::client::REASON_LIMIT_BYTES, &endpoint.host).await;
                let refusal = Refusal::parse(404, &body.unwrap_or_default(), false);
                Err(RegistryError::NotFound { reference: self.shown(name), refusal })
            }
            401 | 403 => {
                let name = self.reference.familiar_name();
                let doing = format!(
                    "pull access denied for {name}, repository does not exist or may require 'mica login'"
                );
                Err(self.refused(endpoint, response, &doing, cancel).await)
            }
            _ => Err(self.refused(endpoint, response, &doing, cancel).await),
        }
    }

    /// Asks for something of the repository, with the right to pull.
    pub(super) async fn ask_to_pull(
        &self,
        method: Method,
        endpoint: &Endpoint,
        path: &str,
        headers: HeaderMap,
        cancel: &Cancel,
    ) -> Result<Response, RegistryError> {
        let ask = Ask {
            method,
            target: Target::Path(path),
            headers,
            payload: Payload::None,
            scopes: self.pull_scopes(endpoint),
            retries: true,
        };
        self.registries.ask(endpoint, &ask, cancel).await
    }

    pub(super) async fn refused(
        &self,
        endpoint: &Endpoint,
        response: Response,
        doing: &str,
        cancel: &Cancel,
    ) -> RegistryError {
        let shown = matches!(self.registries.credential(endpoint, cancel), Ok(Some(_)));
        refusal(response, endpoint, doing, shown).await
    }

    /// The reference with what is asked for.
    fn shown(&self, name: &ManifestName) -> String {
        match name {
            ManifestName::Tag(tag) => self.reference.with_tag(tag.clone()).familiar(),
            ManifestName::Digest(digest) => self.reference.with_digest(digest.clone()).familiar(),
        }
    }

    fn pull_scopes(&self, endpoint: &Endpoint) -> Vec<String> {
        vec![format!("repository:{}:pull", endpoint.repository)]
    }

    pub(super) fn push_scopes(&self, endpoint: &Endpoint) -> Vec<String> {
        vec![format!("repository:{}:pull,push", endpoint.repository)]
    }

    /// Asks one server after the other until one has an answer; the registry itself is the last, and its error counts.
    pub(super) fn first<T>(
        &self,
        by_digest: bool,
        cancel: &Cancel,
        ask: impl AsyncFn(&Endpoint) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let (own, mirrors) = self.endpoints.split_last().expect("a route ends at the registry itself");
        for mirror in mirrors.iter().filter(|mirror| mirror.serves(by_digest)) {
            match self.registries.wait(&mirror.host, cancel, ask(mirror)) {
                Err(error) if error.may_try_elsewhere() => {}
                answer => return answer,
            }
        }
        self.registries.wait(&own.host, cancel, ask(own))
    }

    /// Asks the registry itself.
    pub(super) fn own<T>(
        &self,
        cancel: &Cancel,
        ask: impl AsyncFn(&Endpoint) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let own = self.endpoints.last().expect("a route ends at the registry itself");
        self.registries.wait(&own.host, cancel, ask(own))
    }
}

/// The type of an answer, without parameters.
fn media(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_owned()
}
