//! The nouns of the OCI specifications as types: digests, descriptors, platforms, references, manifests, image
//! configs, chain IDs.
//!
//! Pure: no I/O. Keys that mica does not know survive a round trip, because another tool wrote them for a reason.

mod config;
mod descriptor;
mod digest;
mod layer_id;
mod manifest;
pub mod media_type;
mod platform;
mod reference;
mod repository;
pub mod strict;

pub use config::{ContainerConfig, DEFAULT_PATH, Healthcheck, History, ImageConfig, RootFs};
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use layer_id::{ChainId, DiffId, EmptyStack, ImageId, chain_id};
pub use manifest::{Document, DocumentError, Index, Manifest, annotation};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError, Tag, TagError};
pub use repository::{Repository, RepositoryError};
