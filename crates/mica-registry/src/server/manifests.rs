//! Manifests: read by tag or digest, stored with everything they need, deleted.

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::StatusCode;
use hyper::body::Body as _;
use hyper::header::{self, HeaderName};
use mica_oci::{Digest, Hasher, Repository, Tag};
use serde_json::json;

use super::body::Payload;
use super::exchange::{Answer, Exchange};
use super::reply::Reply;
use super::uploads::STALL;
use crate::error::{Code, Refusal};
use crate::manifest;
use crate::proxy::Freshness;
use crate::route::{self, ManifestName};
use crate::storage::changes::{self, Lack, NewManifest, Parts, Removal};

/// What clients may rely on being taken, and nobody needs more.
const MANIFEST_MAX: usize = 4 << 20;
/// Tags that one request may set.
const TAGS_MAX: usize = 64;

const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");

/// `GET` and `HEAD`. What is stored is what is sent, whatever `Accept` says: its digest is asked for, in the end.
pub(super) async fn get(exchange: &Exchange, repository: &Repository, name: &ManifestName) -> Answer {
    let shared = &exchange.shared;
    let freshness = shared.proxies.ensure_manifest(&shared.storage, repository, name).await?;
    let found = exchange.shared.storage.meta.manifest(repository, name).map_err(Refusal::internal)?;
    let Some(stored) = found else { return Err(unknown(exchange, repository, name)) };
    let tag = format!("\"{}\"", stored.digest);
    let mut reply = Reply::new(StatusCode::OK).digest(&stored.digest).with(header::ETAG, &tag);
    if let Freshness::Stale(why) = freshness {
        let why: String =
            why.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').filter(|c| *c != '"').collect();
        reply = reply.with(header::WARNING, format!("110 - \"this is what was cached before: {why}\""));
    }
    if exchange.header(header::IF_NONE_MATCH).is_some_and(|wanted| is_listed(wanted, &tag)) {
        return Ok(Reply { status: StatusCode::NOT_MODIFIED, ..reply });
    }
    Ok(reply.with(header::CONTENT_TYPE, &stored.media_type).payload(Payload::Bytes(stored.bytes.clone())))
}

/// Whether an `If-None-Match` header names an entity tag.
pub(super) fn is_listed(header: &str, tag: &str) -> bool {
    header.split(',').map(str::trim).any(|word| word == "*" || word.strip_prefix("W/").unwrap_or(word) == tag)
}

fn unknown(exchange: &Exchange, repository: &Repository, name: &ManifestName) -> Refusal {
    let known = exchange.shared.storage.meta.has_repository(repository);
    match known {
        Ok(false) => super::listings::unknown_repository(repository),
        _ => Refusal::missing(Code::ManifestUnknown, format!("{repository} has no manifest {name}"))
            .detail(json!({ "name": repository.as_str(), "reference": name.to_string() })),
    }
}

/// `PUT`
pub(super) async fn put(exchange: Exchange, repository: Repository, name: ManifestName) -> Answer {
    let tags = tags(&exchange, &name)?;
    let content_type = exchange.header(header::CONTENT_TYPE).unwrap_or_default().to_owned();
    let Exchange { shared, body, .. } = exchange;
    let bytes = receive(body).await?;
    let digest = match &name {
        ManifestName::Tag(_) => Digest::of(&bytes),
        ManifestName::Digest(named) => {
            let mut hasher = Hasher::new(named.algorithm());
            hasher.update(&bytes);
            let digest = hasher.finish();
            if digest != *named {
                let message = format!("the manifest is {digest}, not {named}");
                return Err(Refusal::bad(Code::DigestInvalid, message));
            }
            digest
        }
    };
    let checked = manifest::check(&bytes, &content_type)?;
    let subject = checked.subject.clone();
    let location = format!("/v2/{repository}/manifests/{digest}");
    let new = NewManifest {
        repository,
        digest: digest.clone(),
        bytes,
        checked,
        tags: tags.clone(),
        parts: Parts::Present,
    };
    let stored = shared.storage.writer.commit(move |batch| changes::put_manifest(batch, &new)).await?;
    stored.map_err(lacking)?;
    let mut reply = Reply::new(StatusCode::CREATED).with(header::LOCATION, location).digest(&digest);
    if let Some(subject) = subject {
        reply = reply.with(OCI_SUBJECT, subject.to_string());
    }
    for tag in tags {
        reply = reply.and(OCI_TAG, tag.as_str());
    }
    Ok(reply)
}

/// The tags that are to point at the manifest: the one in the path, and those of `tag=`.
fn tags(exchange: &Exchange, name: &ManifestName) -> Result<Vec<Tag>, Refusal> {
    let mut tags = Vec::new();
    if let ManifestName::Tag(tag) = name {
        tags.push(tag.clone());
    }
    for text in exchange.query.all("tag") {
        let tag = route::parse_tag(text)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    if tags.len() > TAGS_MAX {
        let message = format!("at most {TAGS_MAX} tags can be set at once");
        return Err(Refusal::new(StatusCode::URI_TOO_LONG, Code::TagInvalid, message));
    }
    Ok(tags)
}

async fn receive(body: hyper::body::Incoming) -> Result<Vec<u8>, Refusal> {
    let too_large = || {
        let message = format!("a manifest has at most {MANIFEST_MAX} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message)
    };
    if body.size_hint().lower() > MANIFEST_MAX as u64 {
        return Err(too_large());
    }
    let mut body = Limited::new(body, MANIFEST_MAX);
    let mut bytes = Vec::new();
    loop {
        let frame = tokio::time::timeout(STALL, body.frame()).await.map_err(|_| {
            Refusal::new(StatusCode::REQUEST_TIMEOUT, Code::ManifestInvalid, "the manifest did not arrive")
        })?;
        match frame {
            None => return Ok(bytes),
            Some(Ok(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            Some(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
            Some(Err(error)) => {
                return Err(manifest::invalid(format!("the manifest did not arrive: {error}")));
            }
        }
    }
}

fn lacking(lack: Lack) -> Refusal {
    match lack {
        Lack::Missing(digests) => {
            let names: Vec<String> = digests.iter().map(ToString::to_string).collect();
            let message = format!("this repository does not have {}; push it first", names.join(", "));
            Refusal::bad(Code::ManifestBlobUnknown, message).detail(json!({ "digests": names }))
        }
        Lack::Size { digest, says, has } => {
            manifest::invalid(format!("the manifest says that {digest} has {says} bytes, but it has {has}"))
        }
    }
}

/// `DELETE`
pub(super) async fn delete(exchange: &Exchange, repository: Repository, name: ManifestName) -> Answer {
    let storage = &exchange.shared.storage;
    let (gone, wanted, grace) = (repository.clone(), name.clone(), storage.grace);
    let removal = storage
        .writer
        .commit(move |batch| match &wanted {
            ManifestName::Tag(tag) => changes::delete_tag(batch, &gone, tag),
            ManifestName::Digest(digest) => changes::delete_manifest(batch, &gone, digest, grace),
        })
        .await?;
    match removal {
        Removal::Done => Ok(Reply::new(StatusCode::ACCEPTED)),
        Removal::Absent => Err(unknown(exchange, &repository, &name)),
    }
}
