//! Uploads: begun, continued, asked about, finished, given up; and blobs mounted from other repositories.

mod receive;

use std::sync::Arc;

use hyper::header::{self, HeaderName};
use hyper::{Method, StatusCode};
use mica_oci::{Digest, Repository};
use tokio::sync::OwnedMutexGuard;

pub(super) use self::receive::STALL;
use self::receive::{End, Received, receive};
use super::Shared;
use super::exchange::{Answer, Exchange, not_allowed};
use super::reply::Reply;
use crate::access::Right;
use crate::error::{Code, Refusal};
use crate::range::{self, Chunk};
use crate::route::{self, UploadId};
use crate::storage::changes::{self, NewBlob};
use crate::storage::is_full;
use crate::storage::upload::{Upload, UploadKey};

/// Repositories looked at for a blob that may be mounted from anywhere.
const HOLDERS: usize = 64;
/// How long a request waits for another one that works on the same upload.
const TURN: std::time::Duration = std::time::Duration::from_secs(10);

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// `POST`: a mount, a whole blob, or the beginning of an upload.
pub(super) async fn start(exchange: Exchange, repository: Repository) -> Answer {
    if let Some(text) = exchange.query.get("mount") {
        let digest = route::parse_digest(text)?;
        if mount(&exchange, &repository, &digest).await? {
            return Ok(finished(&repository, &digest));
        }
    }
    let expected = exchange.query.get("digest").map(route::parse_digest).transpose()?;
    let id = UploadId::random().map_err(Refusal::internal)?;
    let key = UploadKey::new(&id, &repository, exchange.owner());
    let upload = exchange.shared.storage.uploads.create(&key).map_err(failed)?;
    let Some(digest) = expected else { return Ok(under_way(StatusCode::ACCEPTED, &repository, &id, 0)) };
    let upload = upload.try_lock_owned().map_err(Refusal::internal)?;
    finish(exchange, repository, upload, digest).await
}

/// Whether the blob could be taken over from a repository that the caller may pull from.
async fn mount(exchange: &Exchange, repository: &Repository, digest: &Digest) -> Result<bool, Refusal> {
    let storage = &exchange.shared.storage;
    let sources = match exchange.query.get("from").filter(|from| !from.is_empty()) {
        // A name that is none has no blobs: an upload begins.
        Some(from) => from.parse().into_iter().collect(),
        None => storage.meta.holders(digest, HOLDERS).map_err(Refusal::internal)?,
    };
    let access = &exchange.shared.settings.access;
    let readable = sources.iter().filter(|source| access.allows(&exchange.who, source, Right::Pull));
    for source in readable {
        if storage.meta.blob(source, digest).map_err(Refusal::internal)?.is_some() {
            let (name, wanted, grace) = (repository.clone(), digest.clone(), storage.grace);
            let mounted = storage.writer.commit(move |batch| changes::mount(batch, &name, &wanted, grace));
            return Ok(mounted.await?);
        }
    }
    Ok(false)
}

/// `GET`, `PATCH`, `PUT`, `DELETE` of an upload.
pub(super) async fn go_on(exchange: Exchange, repository: Repository, id: UploadId) -> Answer {
    let method = exchange.method.clone();
    if ![Method::GET, Method::HEAD, Method::PATCH, Method::PUT, Method::DELETE].contains(&method) {
        return Err(not_allowed("GET, HEAD, PATCH, PUT, DELETE"));
    }
    let upload = find(&exchange, &repository, &id).await?;
    match method {
        Method::PATCH => chunk(exchange, repository, &id, upload).await,
        Method::PUT => close(exchange, repository, &id, upload).await,
        Method::DELETE => {
            let mut upload = upload;
            exchange.shared.storage.uploads.end(&mut upload);
            Ok(Reply::new(StatusCode::NO_CONTENT))
        }
        _ => Ok(under_way(StatusCode::NO_CONTENT, &repository, &id, upload.length())),
    }
}

async fn find(
    exchange: &Exchange,
    repository: &Repository,
    id: &UploadId,
) -> Result<OwnedMutexGuard<Upload>, Refusal> {
    let key = UploadKey::new(id, repository, exchange.owner());
    let found = exchange.shared.storage.uploads.find(&key).map_err(failed)?;
    let shared = found.ok_or_else(route::unknown_upload)?;
    let upload = tokio::time::timeout(TURN, shared.lock_owned()).await.map_err(|_| {
        let message = "another request is writing to this upload";
        Refusal::new(StatusCode::CONFLICT, Code::BlobUploadInvalid, message)
    })?;
    if upload.is_over() { Err(route::unknown_upload()) } else { Ok(upload) }
}

/// `PATCH`
async fn chunk(
    exchange: Exchange,
    repository: Repository,
    id: &UploadId,
    upload: OwnedMutexGuard<Upload>,
) -> Answer {
    let announced = announced(&exchange, &repository, id, &upload)?;
    let before = upload.length();
    let Exchange { shared, body, .. } = exchange;
    let received = receive(upload, body, None).await;
    let mut received = received.map_err(|(mut upload, error)| give_up(&shared, &mut upload, error))?;
    shared.counts.received(received.upload.length() - before);
    check_end(&mut received, announced, before)?;
    Ok(under_way(StatusCode::ACCEPTED, &repository, id, received.upload.length()))
}

/// What a `Content-Range` header says, once it fits what is there.
fn announced(
    exchange: &Exchange,
    repository: &Repository,
    id: &UploadId,
    upload: &Upload,
) -> Result<Option<Chunk>, Refusal> {
    let Some(text) = exchange.header(header::CONTENT_RANGE) else { return Ok(None) };
    let invalid = || {
        let message = "Content-Range has to be <first>-<last>, as numbers of bytes";
        Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, message)
    };
    let chunk = range::chunk(text).ok_or_else(invalid)?;
    if chunk.start != upload.length() {
        let message = format!("the upload goes on at byte {}", upload.length());
        return Err(Refusal::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, message)
            .header(header::LOCATION, location(repository, id))
            .header(header::RANGE, held(upload.length())));
    }
    let length = exchange.header(header::CONTENT_LENGTH).and_then(|text| text.parse::<u64>().ok());
    if length.is_some_and(|length| length != chunk.length) {
        return Err(wrong_size(chunk.length));
    }
    Ok(Some(chunk))
}

fn wrong_size(expected: u64) -> Refusal {
    Refusal::bad(
        Code::SizeInvalid,
        format!("Content-Range announces {expected} bytes, which are not what came"),
    )
}

/// What arrived, against how it was announced.
fn check_end(received: &mut Received, announced: Option<Chunk>, before: u64) -> Result<(), Refusal> {
    match &received.end {
        // What arrived stays: the client asks how much it was, and goes on there.
        End::Broken(why) => {
            Err(Refusal::bad(Code::BlobUploadInvalid, format!("the body did not arrive as a whole: {why}")))
        }
        End::Stalled => {
            let message = "no byte for a minute; what arrived is kept";
            Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, Code::BlobUploadInvalid, message))
        }
        End::Whole => {
            let length = received.upload.length() - before;
            if let Some(chunk) = announced.filter(|chunk| chunk.length != length) {
                received.upload.truncate(before).map_err(failed)?;
                return Err(wrong_size(chunk.length));
            }
            Ok(())
        }
    }
}

/// `PUT`
async fn close(
    exchange: Exchange,
    repository: Repository,
    id: &UploadId,
    upload: OwnedMutexGuard<Upload>,
) -> Answer {
    let text = exchange.query.get("digest");
    let text = text.ok_or_else(|| Refusal::bad(Code::DigestInvalid, "the digest of the blob is missing"))?;
    let digest = route::parse_digest(text)?;
    announced(&exchange, &repository, id, &upload)?;
    finish(exchange, repository, upload, digest).await
}

/// The last bytes, the digest, and the name.
async fn finish(
    exchange: Exchange,
    repository: Repository,
    upload: OwnedMutexGuard<Upload>,
    digest: Digest,
) -> Answer {
    let before = upload.length();
    let announced = exchange.header(header::CONTENT_RANGE).and_then(range::chunk);
    let Exchange { shared, body, .. } = exchange;
    let received = receive(upload, body, Some(digest.algorithm())).await;
    let mut received = received.map_err(|(mut upload, error)| give_up(&shared, &mut upload, error))?;
    shared.counts.received(received.upload.length() - before);
    check_end(&mut received, announced, before)?;
    let Received { mut upload, digest: actual, .. } = received;
    if actual.as_ref() != Some(&digest) {
        shared.storage.uploads.end(&mut upload);
        let actual = actual.map_or_else(|| "unknown".to_owned(), |actual| actual.to_string());
        return Err(Refusal::bad(Code::DigestInvalid, format!("the bytes are {actual}, not {digest}")));
    }
    // In a task of its own: a client that goes away now must not leave an upload whose file has become a blob.
    let place = (repository.clone(), digest.clone());
    let task = tokio::spawn(async move { store(&shared, upload, place).await });
    task.await.map_err(Refusal::internal)??;
    Ok(finished(&repository, &digest))
}

async fn store(
    shared: &Arc<Shared>,
    mut upload: OwnedMutexGuard<Upload>,
    (repository, digest): (Repository, Digest),
) -> Result<(), Refusal> {
    let storage = &shared.storage;
    let blob = NewBlob { repository, digest, size: upload.length(), file: upload.path().to_owned() };
    let grace = storage.grace;
    let added = storage.writer.commit(move |batch| changes::add_blob(batch, blob, grace)).await;
    storage.uploads.end(&mut upload);
    Ok(added?)
}

/// After a write that failed: the bytes are of no use, and their space is.
fn give_up(shared: &Shared, upload: &mut Upload, error: std::io::Error) -> Refusal {
    shared.storage.uploads.end(upload);
    failed(error)
}

fn failed(error: std::io::Error) -> Refusal {
    if is_full(&error) { Refusal::no_space() } else { Refusal::internal(error) }
}

fn finished(repository: &Repository, digest: &Digest) -> Reply {
    Reply::new(StatusCode::CREATED)
        .with(header::LOCATION, format!("/v2/{repository}/blobs/{digest}"))
        .digest(digest)
}

/// Relative, so that it is right behind every proxy.
fn location(repository: &Repository, id: &UploadId) -> String {
    format!("/v2/{repository}/blobs/uploads/{}", id.as_str())
}

/// The bytes that are there. The last one counts, so nothing cannot be said: `0-0` is what clients expect.
fn held(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}

fn under_way(status: StatusCode, repository: &Repository, id: &UploadId, length: u64) -> Reply {
    Reply::new(status)
        .with(header::LOCATION, location(repository, id))
        .with(header::RANGE, held(length))
        .with(UPLOAD_ID, id.as_str())
}
