//! Results that the store has recorded.

use mica_api::Error;
use mica_solve::CacheKey;
use mica_store::{CacheHit, LayerId, Lease};

use crate::Workshop;

/// A result of the cache.
#[derive(Debug, Clone)]
pub(crate) struct Hit {
    /// The content key it is recorded under.
    pub(crate) key: CacheKey,
    /// The whole stack, lowest first.
    pub(crate) layers: Vec<LayerId>,
}

impl Hit {
    /// What the store answered.
    pub(crate) fn of(hit: CacheHit) -> Self {
        Self { key: CacheKey::from_bytes(hit.content), layers: hit.layers }
    }
}

/// The result recorded under a key of either kind, protected by the lease.
pub(crate) fn find(workshop: &Workshop, key: CacheKey, lease: &Lease) -> Result<Option<Hit>, Error> {
    let found = workshop.store.cache_lookup_leased(&[*key.as_bytes()], lease)?;
    Ok(found.into_iter().flatten().next().map(Hit::of))
}
