//! Blobs: whole or in part, or only whether they are there.

use hyper::{Method, StatusCode, header};
use mica_oci::{Digest, Repository};
use serde_json::json;

use super::body::{FilePart, GrowingPart, Payload};
use super::exchange::{Answer, Exchange};
use super::manifests::is_listed;
use super::reply::Reply;
use crate::error::{Code, Refusal};
use crate::proxy::Joined;
use crate::range::{self, Ranged};
use crate::storage::changes::{self, Removal};
use crate::storage::writer;

/// `GET` and `HEAD`
pub(super) async fn get(exchange: &Exchange, repository: Repository, digest: Digest) -> Answer {
    let storage = &exchange.shared.storage;
    let entry = storage.meta.blob(&repository, &digest).map_err(Refusal::internal)?;
    let Some(entry) = entry else { return from_upstream(exchange, repository, digest).await };
    let tag = format!("\"{digest}\"");
    let reply = described(&digest);
    if exchange.header(header::IF_NONE_MATCH).is_some_and(|wanted| is_listed(wanted, &tag)) {
        return Ok(Reply { status: StatusCode::NOT_MODIFIED, ..reply });
    }
    let reply = reply.with(header::CONTENT_TYPE, "application/octet-stream");
    if exchange.method == Method::HEAD {
        hold(exchange, &repository, &digest, entry.expires).await?;
        return Ok(reply.number(header::CONTENT_LENGTH, entry.size));
    }
    let file = match storage.open_blob(&digest) {
        Ok(file) => file,
        // Deleted since the question was asked; if not, the folder is damaged.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let gone = storage.meta.blob(&repository, &digest).map_err(Refusal::internal)?.is_none();
            let damage = || Refusal::internal(format!("the file of {digest} is missing"));
            return Err(if gone { unknown(&repository, &digest) } else { damage() });
        }
        Err(error) => return Err(Refusal::internal(error)),
    };
    let part = |start, length| Payload::File(FilePart::new(file, start, length));
    let wanted =
        exchange.header(header::RANGE).map_or(Ranged::Whole, |text| range::requested(text, entry.size));
    match wanted {
        Ranged::Whole => Ok(reply.payload(part(0, entry.size))),
        Ranged::Part { start, length } => {
            let end = start + length - 1;
            let reply = reply.with(header::CONTENT_RANGE, format!("bytes {start}-{end}/{}", entry.size));
            Ok(Reply { status: StatusCode::PARTIAL_CONTENT, ..reply }.payload(part(start, length)))
        }
        Ranged::Unsatisfiable => Err(Refusal::new(
            StatusCode::RANGE_NOT_SATISFIABLE,
            Code::SizeInvalid,
            format!("the blob has {} bytes", entry.size),
        )
        .header(header::CONTENT_RANGE, format!("bytes */{}", entry.size))),
    }
}

fn described(digest: &Digest) -> Reply {
    Reply::new(StatusCode::OK)
        .digest(digest)
        .with(header::ETAG, format!("\"{digest}\""))
        .with(header::ACCEPT_RANGES, "bytes")
        .with(header::CACHE_CONTROL, "max-age=31536000, immutable")
}

/// A blob that is not here may be behind this cache.
async fn from_upstream(exchange: &Exchange, repository: Repository, digest: Digest) -> Answer {
    let shared = &exchange.shared;
    let reply = described(&digest).with(header::CONTENT_TYPE, "application/octet-stream");
    if exchange.method == Method::HEAD {
        let size = shared.proxies.blob_size(&repository, &digest).await;
        let size = size.ok_or_else(|| unknown(&repository, &digest))??;
        return Ok(reply.number(header::CONTENT_LENGTH, size));
    }
    let joined = shared.proxies.blob(&shared.storage, &repository, &digest).await;
    let Joined::Coming(growing) = joined.ok_or_else(|| unknown(&repository, &digest))?? else {
        return Box::pin(get(exchange, repository, digest)).await;
    };
    if exchange.headers.contains_key(header::RANGE) {
        // Parts are for blobs that are whole.
        growing.arrived().await?;
        return Box::pin(get(exchange, repository, digest)).await;
    }
    Ok(reply.payload(Payload::Growing(GrowingPart::new(growing))))
}

/// Somebody who is told that a blob is there may leave it out of a push: it has to stay until the manifest comes.
async fn hold(
    exchange: &Exchange,
    repository: &Repository,
    digest: &Digest,
    expires: Option<i64>,
) -> Result<(), Refusal> {
    let storage = &exchange.shared.storage;
    let grace = storage.grace;
    // Most are needed by a manifest, or held for long enough: then nothing is written.
    if expires.is_none_or(|expires| expires - writer::now() >= grace.lease) {
        return Ok(());
    }
    let (name, held) = (repository.clone(), digest.clone());
    match storage.writer.commit(move |batch| changes::lease(batch, &name, &held, grace)).await? {
        true => Ok(()),
        false => Err(unknown(repository, digest)),
    }
}

fn unknown(repository: &Repository, digest: &Digest) -> Refusal {
    Refusal::missing(Code::BlobUnknown, format!("{repository} has no blob {digest}"))
        .detail(json!({ "digest": digest.to_string() }))
}

/// `DELETE`
pub(super) async fn delete(exchange: &Exchange, repository: Repository, digest: Digest) -> Answer {
    let (name, gone) = (repository.clone(), digest.clone());
    let writer = &exchange.shared.storage.writer;
    match writer.commit(move |batch| changes::delete_blob(batch, &name, &gone)).await? {
        Removal::Done => Ok(Reply::new(StatusCode::ACCEPTED)),
        Removal::Absent => Err(unknown(&repository, &digest)),
    }
}
