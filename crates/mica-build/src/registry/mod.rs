//! Images from and to registries.
//!
//! | question | module |
//! |---|---|
//! | which manifest is meant, is it here already? | `pull` |
//! | how its layers come in: several at once, unpacked while others arrive | `layers` |
//! | in which form an image leaves, and under what digest | `push` |
//! | which of its blobs have to be sent | `send` |

mod layers;
mod pull;
mod push;
mod send;

pub(crate) use layers::bring_layers;
pub use pull::{PullOrder, Pulled, WantedPlatform, pull};
pub(crate) use push::{CacheDocuments, push_cache, push_draft};
pub use push::{PushOrder, PushedImage, push};

use mica_api::{Cancel, TransferState, TransferUpdate};
use mica_oci::Digest;
use mica_store::Lease;

use crate::Workshop;

/// Takes word of what moves, from any thread.
pub type Tell<'a> = &'a (dyn Fn(TransferUpdate) + Sync);

/// What transfers work with.
#[derive(Clone, Copy)]
pub struct Transfers<'a> {
    /// The store, and the registries.
    pub workshop: &'a Workshop,
    /// Protects what was brought until it has a name.
    pub lease: &'a Lease,
    /// Whether all of it is still wanted.
    pub cancel: &'a Cancel,
    /// Takes word of every layer.
    pub tell: Tell<'a>,
}

impl Transfers<'_> {
    fn tell(&self, id: &str, state: TransferState) {
        (self.tell)(TransferUpdate { id: id.to_owned(), state });
    }
}

/// As docker shows layers: the first twelve digits.
fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}
