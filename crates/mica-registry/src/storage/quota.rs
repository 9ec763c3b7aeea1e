//! How much may be stored: in all, and per repository.

use std::fmt;

use hyper::StatusCode;
use mica_oci::Repository;
use rusqlite::OptionalExtension;

use super::changes::find_repository;
use super::writer::{Batch, ChangeError};
use crate::access::matches;
use crate::error::{Code, Refusal};

/// Limits on what is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Quota {
    /// Each blob counts once.
    pub total_bytes: Option<u64>,
    /// For a repository, the first that fits it; each blob that can be pulled from it counts.
    pub repositories: Vec<QuotaRule>,
}

/// A limit for each repository of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaRule {
    /// `*` stands for what has no slash, `**` for anything.
    pub repositories: String,
    /// The limit of each.
    pub bytes: u64,
}

/// A blob that would be too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuotaError {
    limit: u64,
    /// `None`: the whole registry's.
    repository: Option<Repository>,
}

impl fmt::Display for QuotaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repository {
            Some(repository) => {
                write!(f, "{repository} may hold {} bytes, and this would be more", self.limit)
            }
            None => write!(f, "this registry may hold {} bytes, and this would be more", self.limit),
        }
    }
}

impl From<&QuotaError> for Refusal {
    fn from(error: &QuotaError) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::Denied, error.to_string())
    }
}

/// Refuses a blob that is too much; `added_bytes` is what the registry does not have yet.
pub(super) fn check(
    batch: &Batch<'_>,
    name: &Repository,
    digest: &str,
    added_bytes: u64,
) -> Result<(), ChangeError> {
    if let Some(limit) = batch.terms.quota.total_bytes.filter(|_| added_bytes > 0) {
        let held: u64 =
            batch.sql.prepare_cached("SELECT bytes FROM totals")?.query_row([], |row| row.get(0))?;
        if held + added_bytes > limit {
            return Err(ChangeError::Quota(QuotaError { limit, repository: None }));
        }
    }
    let rule = batch.terms.quota.repositories.iter().find(|rule| matches(&rule.repositories, name.as_str()));
    let Some(rule) = rule else { return Ok(()) };
    let held = held_without(batch, name, digest)?;
    let size: Option<u64> = batch
        .sql
        .prepare_cached("SELECT size FROM blobs WHERE digest = ?1")?
        .query_row([digest], |row| row.get(0))
        .optional()?;
    if held + size.unwrap_or(added_bytes) > rule.bytes {
        return Err(ChangeError::Quota(QuotaError { limit: rule.bytes, repository: Some(name.clone()) }));
    }
    Ok(())
}

/// Bytes of a repository's blobs but one.
fn held_without(batch: &Batch<'_>, name: &Repository, digest: &str) -> Result<u64, ChangeError> {
    const SQL: &str = "SELECT coalesce(sum(blobs.size), 0) FROM links JOIN blobs USING (digest) \
         WHERE links.repository = ?1 AND links.digest != ?2";
    let Some(repository) = find_repository(batch, name)? else { return Ok(0) };
    Ok(batch.sql.prepare_cached(SQL)?.query_row((repository, digest), |row| row.get(0))?)
}
