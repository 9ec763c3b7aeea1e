//! A cache of other registries: what is not here is fetched, kept, and served while it arrives.
//!
//! Manifests by digest are kept for ever, as nothing else can have that digest. A tag is asked about upstream each time
//! with `HEAD` (which costs nothing where pulls are counted), but not twice within some seconds; when upstream does not
//! answer, what was there last time is served, with a warning. Each blob is fetched once, however many wait for it.

mod download;
mod upstream;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use mica_oci::{Digest, Repository, Tag};

use self::download::Downloads;
pub(crate) use self::download::{Growing, Joined, Progress};
use self::upstream::{Upstream, UpstreamError};
use crate::error::{Code, Refusal};
use crate::manifest;
use crate::route::{ManifestName, Route};
use crate::storage::Storage;
use crate::storage::changes::{self, NewManifest};

/// How long what upstream said about a tag is believed.
const FRESH: Duration = Duration::from_secs(15);
/// Answers about tags that are remembered.
const REMEMBERED: usize = 10_000;
/// The largest manifest that is taken.
const MANIFEST_MAX: usize = 4 << 20;
/// The largest list that is passed on.
const LIST_MAX: usize = 8 << 20;

/// What is cached, as the owner says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRule {
    /// Repositories below this are upstream's; empty for all.
    pub prefix: String,
    /// `https://[user:password@]registry.example.org`
    pub url: String,
}

/// Why a rule cannot be followed.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {url} as upstream: {why}")]
pub struct ProxyError {
    url: String,
    why: String,
}

/// All upstreams.
#[derive(Default)]
pub(crate) struct Proxies {
    upstreams: Vec<(String, Arc<Upstream>)>,
    downloads: Downloads,
    asked: Mutex<HashMap<(Repository, Tag), Instant>>,
}

/// Whether what is served is what upstream has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Freshness {
    Current,
    /// Upstream did not say, for this reason.
    Stale(String),
}

impl mica_api::Fault for ProxyError {
    fn class(&self) -> mica_api::Class {
        mica_api::Class::Invalid
    }
}

impl Proxies {
    pub(crate) fn new(rules: &[ProxyRule]) -> Result<Self, ProxyError> {
        let mut upstreams = Vec::new();
        for rule in rules {
            let error = |why: String| ProxyError { url: without_password(&rule.url), why };
            upstreams.push((rule.prefix.clone(), Arc::new(Upstream::new(&rule.url).map_err(error)?)));
        }
        // The longest prefix first.
        upstreams.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.len()));
        Ok(Self { upstreams, ..Self::default() })
    }

    /// The upstream of a repository, and its name there.
    pub(crate) fn find(&self, repository: &Repository) -> Option<(Arc<Upstream>, String)> {
        self.upstreams.iter().find_map(|(prefix, upstream)| {
            let name = match prefix.as_str() {
                "" => repository.as_str(),
                prefix => repository.as_str().strip_prefix(prefix)?.strip_prefix('/')?,
            };
            Some((Arc::clone(upstream), upstream.name(name)))
        })
    }

    /// Mirrors are asked for `name?ns=registry`, which is `registry/name` here.
    pub(crate) fn rename(&self, route: Route, namespace: Option<&str>) -> Route {
        let known = namespace.filter(|wanted| self.upstreams.iter().any(|(prefix, _)| prefix == wanted));
        let Some(namespace) = known else { return route };
        let below = |name: &Repository| format!("{namespace}/{name}").parse::<Repository>().ok();
        let Some(renamed) = route.repository().and_then(below) else { return route };
        match route {
            Route::Tags(_) => Route::Tags(renamed),
            Route::Manifest(_, name) => Route::Manifest(renamed, name),
            Route::Blob(_, digest) => Route::Blob(renamed, digest),
            Route::Referrers(_, digest) => Route::Referrers(renamed, digest),
            other => other,
        }
    }

    /// Brings a manifest here, if it is not, or is another one by now.
    pub(crate) async fn ensure_manifest(
        &self,
        storage: &Storage,
        repository: &Repository,
        name: &ManifestName,
    ) -> Result<Freshness, Refusal> {
        let Some((upstream, theirs)) = self.find(repository) else { return Ok(Freshness::Current) };
        let local = storage.meta.manifest(repository, name).map_err(Refusal::internal)?;
        if local.is_some() && self.is_known_to_be_current(repository, name) {
            return Ok(Freshness::Current);
        }
        let stale = |error: UpstreamError| match &local {
            Some(_) if error.is_theirs() => Ok(Freshness::Stale(error.to_string())),
            _ => Err(error.into()),
        };
        let digest = match name {
            ManifestName::Digest(digest) => Some(digest.clone()),
            ManifestName::Tag(tag) => match upstream.resolve(&theirs, tag.as_str()).await {
                Ok(digest) => digest,
                Err(error) => return stale(error),
            },
        };
        let is_here = local.as_ref().is_some_and(|stored| Some(&stored.digest) == digest.as_ref());
        if !is_here {
            match self.bring(storage, (&upstream, &theirs), repository, name, digest).await? {
                Ok(()) => {}
                Err(error) => return stale(error),
            }
        }
        if let ManifestName::Tag(tag) = name {
            self.remember(repository, tag);
        }
        Ok(Freshness::Current)
    }

    fn is_known_to_be_current(&self, repository: &Repository, name: &ManifestName) -> bool {
        let ManifestName::Tag(tag) = name else { return true };
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.get(&(repository.clone(), tag.clone())).is_some_and(|since| since.elapsed() < FRESH)
    }

    fn remember(&self, repository: &Repository, tag: &Tag) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.len() >= REMEMBERED {
            asked.retain(|_, since| since.elapsed() < FRESH);
        }
        asked.insert((repository.clone(), tag.clone()), Instant::now());
    }

    /// Fetches a manifest and stores it, though its blobs are still to come.
    async fn bring(
        &self,
        storage: &Storage,
        (upstream, theirs): (&Upstream, &str),
        repository: &Repository,
        name: &ManifestName,
        digest: Option<Digest>,
    ) -> Result<Result<(), UpstreamError>, Refusal> {
        let reference = digest.as_ref().map_or_else(|| name.to_string(), ToString::to_string);
        let fetched = match upstream.manifest(theirs, &reference, MANIFEST_MAX).await {
            Ok(fetched) => fetched,
            Err(error) => return Ok(Err(error)),
        };
        let algorithm = digest.as_ref().map_or(mica_oci::Algorithm::Sha256, Digest::algorithm);
        let mut hasher = mica_oci::Hasher::new(algorithm);
        hasher.update(&fetched.bytes);
        let actual = hasher.finish();
        if digest.is_some_and(|digest| digest != actual) {
            return Ok(Err(UpstreamError::Broken(format!("{reference} arrived as {actual}"))));
        }
        let checked = match manifest::check(&fetched.bytes, &fetched.content_type) {
            Ok(checked) => checked,
            Err(refusal) => return Ok(Err(UpstreamError::Broken(refusal.message))),
        };
        let tags = match name {
            ManifestName::Tag(tag) => vec![tag.clone()],
            ManifestName::Digest(_) => Vec::new(),
        };
        let new = NewManifest {
            repository: repository.clone(),
            digest: actual,
            bytes: fetched.bytes,
            checked,
            tags,
            parts: changes::Parts::Later,
        };
        let stored = storage.writer.commit(move |batch| changes::put_manifest(batch, &new)).await?;
        stored.map_err(|_| Refusal::internal("a cached manifest was asked for its blobs"))?;
        Ok(Ok(()))
    }

    /// A list that upstream keeps, as it is there.
    pub(crate) async fn list(
        &self,
        repository: &Repository,
        rest: &str,
    ) -> Option<Result<serde_json::Value, Refusal>> {
        let (upstream, theirs) = self.find(repository)?;
        let fetched = upstream.json(&format!("/v2/{theirs}/{rest}"), &theirs, LIST_MAX).await;
        Some(fetched.map_err(Refusal::from))
    }

    /// The size of a blob that is not here.
    pub(crate) async fn blob_size(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Option<Result<u64, Refusal>> {
        let (upstream, theirs) = self.find(repository)?;
        Some(upstream.blob_size(&theirs, digest).await.map_err(Refusal::from))
    }

    /// A blob on its way here.
    pub(crate) async fn blob(
        &self,
        storage: &Arc<Storage>,
        repository: &Repository,
        digest: &Digest,
    ) -> Option<Result<Joined, Refusal>> {
        let (upstream, theirs) = self.find(repository)?;
        Some(self.downloads.join(storage, &upstream, &theirs, repository, digest).await)
    }
}

/// A URL as it may be shown.
fn without_password(url: &str) -> String {
    match url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.split_once('@')?.1))) {
        Some((scheme, host)) => format!("{scheme}://{host}"),
        None => url.to_owned(),
    }
}

impl From<UpstreamError> for Refusal {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Missing => {
                Self::missing(Code::ManifestUnknown, "neither this cache nor the registry behind it has that")
            }
            UpstreamError::Status(429) => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                Code::TooManyRequests,
                "the registry behind this cache wants fewer requests",
            ),
            other => {
                let mut refusal = Self::new(
                    StatusCode::BAD_GATEWAY,
                    Code::Unknown,
                    "the registry behind this cache does not answer as it should",
                );
                refusal.cause = Some(other.to_string());
                refusal
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies() -> Proxies {
        let rule = |prefix: &str, url: &str| ProxyRule { prefix: prefix.to_owned(), url: url.to_owned() };
        Proxies::new(&[
            rule("docker.io", "https://registry-1.docker.io"),
            rule("docker.io/a", "http://127.0.0.1:1"),
        ])
        .unwrap()
    }

    #[test]
    fn repositories_lead_to_the_upstream_with_the_longest_prefix() {
        let found = |name: &str| proxies().find(&name.parse().unwrap()).map(|(_, theirs)| theirs);
        assert_eq!(found("docker.io/library/alpine").as_deref(), Some("library/alpine"));
        assert_eq!(found("docker.io/alpine").as_deref(), Some("library/alpine"));
        assert_eq!(found("docker.io/a/b").as_deref(), Some("b"));
        assert_eq!(found("docker.iot/x"), None);
        assert_eq!(found("own/app"), None);
    }

    #[test]
    fn the_namespace_of_a_mirror_is_a_prefix_here() {
        let route = Route::Tags("library/alpine".parse().unwrap());
        let renamed = Route::Tags("docker.io/library/alpine".parse().unwrap());
        assert_eq!(proxies().rename(route.clone(), Some("docker.io")), renamed);
        assert_eq!(proxies().rename(route.clone(), Some("quay.io")), route);
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_password("https://a:b@example.org"), "https://example.org");
        let error = Proxies::new(&[ProxyRule { prefix: String::new(), url: "ftp://a:secret@x".to_owned() }]);
        assert!(!error.err().unwrap().to_string().contains("secret"));
    }
}
