//! After a build: the cache is cut back to its budget, and old journals go.
//!
//! It must not be noticed: nothing is waited for, it takes seconds at most, and what goes wrong is left to the next
//! build or to `builder prune`, which says so.

use std::time::Duration;

use mica_api::{CacheLimits, Result};
use mica_store::{Budget, GcError, Space};

use crate::LocalEngine;

/// How long cutting back may take; what is forgotten by then and not yet unlinked is in the trash.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long nobody tries again after an attempt that had nothing to remove.
const PAUSE: Duration = Duration::from_secs(600);
/// How many journals are kept: the newest ones.
const JOURNALS_KEPT: usize = 100;
/// Journals above that, before a build looks which ones are old.
const JOURNALS_SLACK: usize = 20;

/// BuildKit's budget for a disk: 80 % of it or 100 GB, and 20 % of it stay free; 10 % of it or 10 GB stay anyway.
fn limits(space: Space) -> CacheLimits {
    let percent = |percent: u64| space.total_bytes / 100 * percent;
    CacheLimits {
        reserved_bytes: Some(percent(10).min(10_000_000_000)),
        max_used_bytes: Some(percent(80).min(100_000_000_000)),
        min_free_bytes: Some(percent(20)),
    }
}

impl LocalEngine {
    /// Cuts the build cache back if the disk says that it may be too large.
    pub(crate) fn tidy_up_after_build(&self) {
        if self.store().is_read_only() {
            return;
        }
        // None of this is what the user asked for; what fails here fails again, aloud, when it is asked for.
        let _ = self.trim_journals(JOURNALS_SLACK);
        let _ = self.cut_cache_back();
    }

    fn cut_cache_back(&self) -> std::result::Result<(), GcError> {
        let budget = Budget { limits: limits(self.store().space()?), patience: PATIENCE, pause: PAUSE };
        self.store().cut_cache_back(&budget)
    }

    /// Removes old journals once there are more than `slack` of them; those of running builds stay.
    pub(crate) fn trim_journals(&self, slack: usize) -> Result<()> {
        if self.store().journal_count()? <= JOURNALS_KEPT + slack {
            return Ok(());
        }
        let mut journals = self.store().journals()?;
        journals.sort_by_key(|journal| std::cmp::Reverse(journal.modified));
        let old = journals.iter().skip(JOURNALS_KEPT);
        old.map(|journal| self.store().remove_journal(&journal.id))
            .try_for_each(|removed| removed.map(drop))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_grows_with_the_disk_up_to_a_point() {
        let limits_of = |total_bytes| limits(Space { total_bytes, free_bytes: 0 });
        let of = |limits: CacheLimits| {
            (limits.reserved_bytes.unwrap(), limits.max_used_bytes.unwrap(), limits.min_free_bytes.unwrap())
        };
        assert_eq!(of(limits_of(1_000_000)), (100_000, 800_000, 200_000));
        assert_eq!(of(limits_of(1_000_000_000_000)), (10_000_000_000, 100_000_000_000, 200_000_000_000));
    }
}
