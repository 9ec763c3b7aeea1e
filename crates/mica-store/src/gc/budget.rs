//! Cutting the build cache back after a build, without anybody noticing.

use std::time::{Duration, Instant};

use mica_api::CacheLimits;
use rusqlite::{OptionalExtension as _, params};

use super::{GcError, GcRequest, PruneCache};
use crate::db::Strength;
use crate::{Store, StoreError, now};

/// How much cache may stay, and how hard to try.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// How much may stay.
    pub limits: CacheLimits,
    /// When to stop.
    pub patience: Duration,
    /// How long to leave it after an attempt that found nothing to remove.
    pub pause: Duration,
}

/// Where the time of the last attempt is that found nothing.
const FOUND_NOTHING: &str = "cache fits";

impl Store {
    /// Removes what was used least recently until the build cache fits; at once done on a disk with room.
    ///
    /// Results of images take no room of their own and stay, as does what running processes use.
    ///
    /// # Errors
    /// [`GcError::Busy`] if another process is collecting: it is not waited for.
    pub fn cut_cache_back(&self, budget: &Budget) -> Result<(), GcError> {
        if !self.may_exceed(&budget.limits)? || self.found_nothing_since(budget.pause)? {
            return Ok(());
        }
        let request = GcRequest {
            cache: Some(PruneCache { limits: budget.limits, ..PruneCache::default() }),
            deadline: Some(Instant::now() + budget.patience),
            ..GcRequest::default()
        };
        if self.collect(&request)?.cache.is_empty() {
            self.note_nothing_found()?;
        }
        Ok(())
    }

    /// Whether the cache may be too large, by what can be told without measuring it.
    fn may_exceed(&self, limits: &CacheLimits) -> Result<bool, StoreError> {
        let space = self.space()?;
        let taken = space.total_bytes.saturating_sub(space.free_bytes);
        let fits = limits.max_used_bytes.is_none_or(|max| taken <= max)
            && limits.min_free_bytes.is_none_or(|min| space.free_bytes >= min);
        if fits {
            return Ok(false);
        }
        let reserved = limits.reserved_bytes.unwrap_or(0);
        let select = "SELECT (SELECT coalesce(sum(disk_bytes), 0) FROM layers) > ?1
            OR EXISTS (SELECT 1 FROM cache_mounts)";
        self.database().read(|sql| {
            sql.prepare_cached(select)?
                .query_row([i64::try_from(reserved).unwrap_or(i64::MAX)], |row| row.get(0))
        })
    }

    fn found_nothing_since(&self, pause: Duration) -> Result<bool, StoreError> {
        let noted: Option<String> = self.database().read(|sql| {
            sql.prepare_cached("SELECT value FROM meta WHERE key = ?1")?
                .query_row([FOUND_NOTHING], |row| row.get(0))
                .optional()
        })?;
        let age = noted.and_then(|time| now().checked_sub(time.parse().ok()?));
        // A time in the future comes from a clock that was set back.
        Ok(age.and_then(|age| u64::try_from(age).ok()).is_some_and(|age| Duration::from_nanos(age) < pause))
    }

    fn note_nothing_found(&self) -> Result<(), StoreError> {
        self.database().write(Strength::Normal, |write| {
            let insert = "INSERT OR REPLACE INTO meta(key, value) VALUES (?1, ?2)";
            write
                .sql(|sql| sql.prepare_cached(insert)?.execute(params![FOUND_NOTHING, now().to_string()]))?;
            Ok(())
        })
    }
}
