//! Identities of layers, stacks and images.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Digest, DigestError};

macro_rules! digest_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Digest);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                text.parse().map(Self)
            }
        }
    };
}

digest_newtype! {
    /// Digest of a layer's uncompressed tar.
    DiffId
}
digest_newtype! {
    /// Digest of a stack of diff IDs, lowest first.
    ChainId
}
digest_newtype! {
    /// Digest of the image config: what docker prints as IMAGE ID.
    ImageId
}

/// A root file system without layers has no chain ID.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("an empty stack of layers has no chain ID")]
pub struct EmptyStack;

/// Returns the chain ID of a stack of layers, lowest first.
///
/// image-spec `config.md`, "Layer ChainID": one layer's chain ID is its diff ID; above that it is the digest of
/// `"<chain ID below> <diff ID>"`. No I/O; one short hash per layer.
///
/// # Errors
/// [`EmptyStack`] if there is no layer.
pub fn chain_id(layers: &[DiffId]) -> Result<ChainId, EmptyStack> {
    let (first, rest) = layers.split_first().ok_or(EmptyStack)?;
    let chain = rest
        .iter()
        .fold(first.0.clone(), |chain, layer| Digest::of(format!("{chain} {}", layer.0).as_bytes()));
    Ok(ChainId(chain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_of_one_layer_is_its_diff_id() {
        let layer = DiffId(Digest::of(b"a"));
        assert_eq!(chain_id(std::slice::from_ref(&layer)).unwrap().0, layer.0);
        assert_eq!(chain_id(&[]), Err(EmptyStack));
    }

    #[test]
    fn the_chain_depends_on_the_order() {
        let (a, b) = (DiffId(Digest::of(b"a")), DiffId(Digest::of(b"b")));
        assert_ne!(chain_id(&[a.clone(), b.clone()]), chain_id(&[b, a]));
    }
}
