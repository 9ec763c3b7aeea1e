//! Caches elsewhere, in BuildKit's container format (build.md 6.3): brought in before a build, written after it.
//!
//! An import only answers keys; its layers are unpacked when a step of this build needs them. Whatever is wrong with
//! one is told and costs the hit, never the build.

mod export;
mod format;
mod import;

use mica_solve::CacheKey;
use mica_store::LayerId;

pub(crate) use export::{embed, write_local, write_registry};
pub(crate) use import::{CacheKeys, Imports};

/// A result of this build that a cache can hold.
#[derive(Debug, Clone)]
pub(crate) struct CacheEntry {
    pub(crate) content: CacheKey,
    pub(crate) definition: CacheKey,
    /// The whole stack, lowest first.
    pub(crate) layers: Vec<LayerId>,
}
