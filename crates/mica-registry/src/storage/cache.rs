//! Manifests in memory: what most requests ask for, answered without touching the disk.
//!
//! True at every moment: the writer removes entries after it has committed and before it answers, and an entry read
//! from the disk before such a removal is not put in after it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mica_oci::{Digest, Repository};

use crate::route::ManifestName;

/// A manifest as it is served.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
    pub(crate) bytes: Bytes,
}

/// Where the cache was when a read began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u64);

/// Manifests by repository and name.
pub(crate) struct ManifestCache {
    limit_bytes: usize,
    clock: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    entries: HashMap<String, Entry>,
    bytes: usize,
    /// Counts removals.
    moment: u64,
}

struct Entry {
    stored: Arc<Stored>,
    used: u64,
}

/// What an entry costs beside the manifest itself, roughly.
const OVERHEAD_BYTES: usize = 512;

impl ManifestCache {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        Self { limit_bytes, clock: AtomicU64::new(0), inner: Mutex::default() }
    }

    /// The key of a manifest under one of its names. No repository and no name contains a space.
    pub(crate) fn key(repository: &Repository, name: &ManifestName) -> String {
        format!("{repository} {name}")
    }

    /// The manifest, or the moment at which it was not there.
    pub(crate) fn get(&self, key: &str) -> Result<Arc<Stored>, Moment> {
        let mut inner = self.lock();
        let moment = Moment(inner.moment);
        let entry = inner.entries.get_mut(key).ok_or(moment)?;
        entry.used = self.clock.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::clone(&entry.stored))
    }

    /// Keeps what was read from the disk, if nothing has changed since `moment`.
    pub(crate) fn put(&self, key: String, stored: &Arc<Stored>, moment: Moment) {
        let cost = stored.bytes.len() + OVERHEAD_BYTES;
        let mut inner = self.lock();
        if Moment(inner.moment) != moment || cost > self.limit_bytes {
            return;
        }
        let used = self.clock.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { stored: Arc::clone(stored), used };
        if let Some(old) = inner.entries.insert(key, entry) {
            inner.bytes -= old.stored.bytes.len() + OVERHEAD_BYTES;
        }
        inner.bytes += cost;
        if inner.bytes > self.limit_bytes {
            inner.shrink(self.limit_bytes / 2);
        }
    }

    /// Removes entries that are no longer true.
    pub(crate) fn forget(&self, keys: &[String]) {
        if keys.is_empty() {
            return;
        }
        let mut inner = self.lock();
        inner.moment += 1;
        for key in keys {
            if let Some(old) = inner.entries.remove(key) {
                inner.bytes -= old.stored.bytes.len() + OVERHEAD_BYTES;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Drops what was not used for longest. Rare, so a sort is cheap enough.
    fn shrink(&mut self, target_bytes: usize) {
        let mut ages: Vec<(u64, String)> =
            self.entries.iter().map(|(key, entry)| (entry.used, key.clone())).collect();
        ages.sort_unstable();
        for (_, key) in ages {
            if self.bytes <= target_bytes {
                return;
            }
            if let Some(old) = self.entries.remove(&key) {
                self.bytes -= old.stored.bytes.len() + OVERHEAD_BYTES;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(bytes: usize) -> Arc<Stored> {
        let bytes = Bytes::from(vec![0; bytes]);
        Arc::new(Stored { digest: Digest::of(&bytes), media_type: String::new(), bytes })
    }

    #[test]
    fn what_was_read_before_a_change_is_not_kept_after_it() {
        let cache = ManifestCache::new(1 << 20);
        let moment = cache.get("a t").unwrap_err();
        cache.forget(&["b t".to_owned()]);
        cache.put("a t".to_owned(), &stored(1), moment);
        let moment = cache.get("a t").unwrap_err();
        cache.put("a t".to_owned(), &stored(1), moment);
        assert!(cache.get("a t").is_ok());
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let cache = ManifestCache::new(4096);
        for key in ["a", "b", "c"] {
            let moment = cache.get(key).unwrap_err();
            cache.put(key.to_owned(), &stored(500), moment);
        }
        assert!(cache.get("a").is_ok());
        let moment = cache.get("d").unwrap_err();
        cache.put("d".to_owned(), &stored(1000), moment);
        assert!(cache.get("a").is_ok() || cache.get("d").is_ok());
        assert!(cache.get("b").is_err(), "the oldest is still there");
    }
}
