//! What is told to the webhook: recorded in the transaction of the change itself, so that nothing is told that did not
//! happen, and nothing is forgotten by a crash.

use mica_oci::Repository;
use serde_json::{Value, json};

use super::changes::NewManifest;
use super::writer::{Batch, ChangeError};
use crate::route::ManifestName;

/// Events that wait for somebody who does not answer; older ones are dropped.
const KEPT: i64 = 10_000;

/// A manifest was stored: one event for each tag, or one without.
pub(super) fn pushed(batch: &Batch<'_>, manifest: &NewManifest) -> Result<(), ChangeError> {
    if !batch.terms.records_events {
        return Ok(());
    }
    let mut target = json!({
        "repository": manifest.repository.as_str(),
        "digest": manifest.digest.to_string(),
        "mediaType": manifest.checked.media_type,
        "size": manifest.bytes.len(),
        "length": manifest.bytes.len(),
    });
    if manifest.tags.is_empty() {
        return record(batch, "push", &target);
    }
    for tag in &manifest.tags {
        target["tag"] = Value::from(tag.as_str());
        record(batch, "push", &target)?;
    }
    Ok(())
}

/// A tag or a manifest was removed.
pub(super) fn deleted(
    batch: &Batch<'_>,
    repository: &Repository,
    name: &ManifestName,
) -> Result<(), ChangeError> {
    if !batch.terms.records_events {
        return Ok(());
    }
    let key = if matches!(name, ManifestName::Tag(_)) { "tag" } else { "digest" };
    record(batch, "delete", &json!({ "repository": repository.as_str(), key: name.to_string() }))
}

fn record(batch: &Batch<'_>, action: &str, target: &Value) -> Result<(), ChangeError> {
    let time = jiff::Timestamp::from_second(batch.now).unwrap_or_default();
    let body = json!({ "timestamp": time.to_string(), "action": action, "target": target });
    batch.sql.prepare_cached("INSERT INTO events (body) VALUES (?1)")?.execute([body.to_string()])?;
    let newest = batch.sql.last_insert_rowid();
    batch.sql.prepare_cached("DELETE FROM events WHERE id <= ?1")?.execute([newest - KEPT])?;
    Ok(())
}

/// Forgets what was told.
pub(crate) fn told(batch: &Batch<'_>, last: i64) -> Result<(), ChangeError> {
    batch.sql.prepare_cached("DELETE FROM events WHERE id <= ?1")?.execute([last])?;
    Ok(())
}
