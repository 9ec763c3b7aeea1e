//! What there is: repositories, tags, referrers.

use hyper::header;
use mica_oci::{Digest, Repository, media_type};
use serde_json::{Value, json};

use super::body::Payload;
use super::exchange::{Answer, Exchange};
use super::reply::Reply;
use crate::access::Right;
use crate::error::{Code, Refusal};
use crate::storage::meta::Referrer;

/// Repositories on a page, if the client says nothing.
const CATALOG_PAGE: usize = 1000;
/// The most of anything on one page: an answer is in memory as a whole.
const PAGE_MAX: usize = 10_000;
/// Referrers on a page: with annotations they are as large as their manifests allow.
const REFERRERS_PAGE: usize = 500;
const REFERRERS_BYTES: usize = 4 << 20;

/// `GET /v2/`: is this a registry, and am I known?
pub(super) fn base(exchange: &Exchange) -> Answer {
    exchange.shared.settings.access.demand_user(&exchange.who)?;
    Ok(Reply::json(&json!({})))
}

/// Whether the metadata can be read.
pub(super) fn ready(exchange: &Exchange) -> Answer {
    exchange.shared.storage.meta.totals().map_err(Refusal::internal)?;
    Ok(Reply::json(&json!({ "status": "ok" })))
}

/// How many the client wants, and after which.
fn page(exchange: &Exchange, default: usize) -> Result<(usize, String), Refusal> {
    let last = exchange.query.get("last").unwrap_or_default().to_owned();
    let Some(text) = exchange.query.get("n").filter(|text| !text.is_empty()) else {
        return Ok((default, last));
    };
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        let message = "n has to be a number that is not negative";
        return Err(Refusal::bad(Code::PaginationNumberInvalid, message).detail(json!({ "n": text })));
    }
    // More digits than fit are more than a page as well.
    Ok((text.parse().unwrap_or(PAGE_MAX).min(PAGE_MAX), last))
}

/// Names of a page; one more than wanted tells that there is another page.
fn listed(key: &str, path: &str, mut names: Vec<String>, limit: usize, rest: &Value) -> Reply {
    let more = names.len() > limit;
    names.truncate(limit);
    let link = names.last().filter(|_| more).map(|last| {
        let last: String = last.bytes().map(escaped).collect();
        format!("<{path}?n={limit}&last={last}>; rel=\"next\"")
    });
    let mut object = rest.clone();
    object[key] = Value::from(names);
    let reply = Reply::json(&object);
    match link {
        Some(link) => reply.with(header::LINK, link),
        None => reply,
    }
}

fn escaped(byte: u8) -> String {
    match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    }
}

/// `GET /v2/_catalog`: what the caller may pull from.
pub(super) fn catalog(exchange: &Exchange) -> Answer {
    let access = &exchange.shared.settings.access;
    access.demand_user(&exchange.who)?;
    let (limit, mut last) = page(exchange, CATALOG_PAGE)?;
    let may_pull = |name: &String| {
        let repository = name.parse::<Repository>();
        repository.is_ok_and(|repository| access.allows(&exchange.who, &repository, Right::Pull))
    };
    let mut names: Vec<String> = Vec::new();
    while limit > 0 && names.len() <= limit {
        let found = exchange.shared.storage.meta.repositories(&last, limit + 1).map_err(Refusal::internal)?;
        let Some(end) = found.last() else { break };
        last.clone_from(end);
        let is_end = found.len() <= limit;
        names.extend(found.into_iter().filter(may_pull));
        if is_end {
            break;
        }
    }
    Ok(listed("repositories", "/v2/_catalog", names, limit, &json!({})))
}

/// `GET /v2/<name>/tags/list`
pub(super) async fn tags(exchange: &Exchange, repository: &Repository) -> Answer {
    let (limit, last) = page(exchange, PAGE_MAX)?;
    if let Some(reply) = upstreams_tags(exchange, repository, limit, &last).await {
        return Ok(reply);
    }
    let meta = &exchange.shared.storage.meta;
    let wanted = if limit == 0 { 0 } else { limit + 1 };
    let names = meta.tags(repository, &last, wanted).map_err(Refusal::internal)?;
    if names.is_empty() && !meta.has_repository(repository).map_err(Refusal::internal)? {
        return Err(unknown_repository(repository));
    }
    let path = format!("/v2/{repository}/tags/list");
    Ok(listed("tags", &path, names, limit, &json!({ "name": repository.as_str() })))
}

/// The tags that the registry behind a cache has; `None` if there is none, or it says nothing: then those are listed
/// that are here.
async fn upstreams_tags(
    exchange: &Exchange,
    repository: &Repository,
    limit: usize,
    last: &str,
) -> Option<Reply> {
    let rest = format!("tags/list?n={limit}&last={}", last.bytes().map(escaped).collect::<String>());
    let list = exchange.shared.proxies.list(repository, &rest).await?.ok()?;
    let tags =
        list["tags"].as_array()?.iter().filter_map(|tag| tag.as_str().map(str::to_owned)).collect::<Vec<_>>();
    // As many as were asked for: there may be more.
    let more = tags.len() >= limit && limit > 0;
    let limit = if more { tags.len() } else { limit };
    let path = format!("/v2/{repository}/tags/list");
    let names = if more { [tags, vec![String::new()]].concat() } else { tags };
    Some(listed("tags", &path, names, limit, &json!({ "name": repository.as_str() })))
}

pub(super) fn unknown_repository(repository: &Repository) -> Refusal {
    Refusal::missing(Code::NameUnknown, format!("there is no repository {repository}"))
}

/// `GET /v2/<name>/referrers/<digest>`: an index, empty if there is nothing, whatever the repository.
pub(super) async fn referrers(exchange: &Exchange, repository: &Repository, subject: &Digest) -> Answer {
    if let Some(Ok(list)) = exchange.shared.proxies.list(repository, &format!("referrers/{subject}")).await {
        return Ok(Reply::new(hyper::StatusCode::OK)
            .with(header::CONTENT_TYPE, media_type::OCI_INDEX)
            .payload(Payload::Bytes(list.to_string().into())));
    }
    let wanted = exchange.query.get("artifactType").filter(|text| !text.is_empty());
    let after = exchange.query.get("last").unwrap_or_default();
    let meta = &exchange.shared.storage.meta;
    let mut found =
        meta.referrers(repository, subject, wanted, after, REFERRERS_PAGE + 1).map_err(Refusal::internal)?;
    let more = fit(&mut found);
    let last = found.last().map(|referrer| referrer.digest.clone());
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": found.iter().map(descriptor).collect::<Vec<_>>(),
    });
    let mut reply = Reply::new(hyper::StatusCode::OK)
        .with(header::CONTENT_TYPE, media_type::OCI_INDEX)
        .payload(Payload::Bytes(index.to_string().into()));
    if wanted.is_some() {
        reply = reply.with(header::HeaderName::from_static("oci-filters-applied"), "artifactType");
    }
    if let Some(last) = last.filter(|_| more) {
        let filter: String = wanted.unwrap_or_default().bytes().map(escaped).collect();
        let filter = if filter.is_empty() { filter } else { format!("&artifactType={filter}") };
        let link = format!("</v2/{repository}/referrers/{subject}?last={last}{filter}>; rel=\"next\"");
        reply = reply.with(header::LINK, link);
    }
    Ok(reply)
}

/// Cuts a page to what may be answered at once; returns whether there is more.
fn fit(found: &mut Vec<Referrer>) -> bool {
    let mut bytes = 0;
    let fits = found.iter().take(REFERRERS_PAGE).take_while(|referrer| {
        bytes += 512 + referrer.annotations.as_ref().map_or(0, String::len);
        bytes <= REFERRERS_BYTES
    });
    // One always fits: a manifest is not larger than a page.
    let count = fits.count().max(1);
    let more = found.len() > count;
    found.truncate(count);
    more
}

fn descriptor(referrer: &Referrer) -> Value {
    let mut descriptor = json!({
        "mediaType": referrer.media_type,
        "digest": referrer.digest,
        "size": referrer.size,
    });
    if let Some(artifact_type) = &referrer.artifact_type {
        descriptor["artifactType"] = Value::from(artifact_type.as_str());
    }
    let annotations = referrer.annotations.as_deref().and_then(|text| serde_json::from_str(text).ok());
    if let Some(annotations) = annotations {
        descriptor["annotations"] = annotations;
    }
    descriptor
}
