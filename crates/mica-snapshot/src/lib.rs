//! Snapshots: root file systems assembled from layers, and what was changed in them.
//!
//! A committed snapshot is nothing but a list of layers, lowest first ([`LayerDir`]). An active one ([`Active`]) is a
//! directory that shows them merged and can be written; [`Driver::commit`] makes the changes a layer of their own.
//! Two drivers: [`Overlay`] mounts, [`struct@Copy`] copies where mounting is impossible. Both give the same layers, to the
//! byte: the contract suite in `tests/contract.rs` demands equal diff IDs.
//!
//! # In a workspace (a directory of the caller's, empty at first)
//! ```text
//! <workspace>/
//! ├── fs/       what was changed; after `commit` exactly the layer's files
//! ├── work/     overlay's own, gone after `commit`
//! └── merged/   the root file system: a mount, or the tree itself for the copy driver; gone after `commit`
//! ```
//!
//! # Invariants
//! 1. Mounts are made in the caller's mount namespace, which must be mica's own: the kernel cleans up after a kill.
//! 2. A layer's files say everything overlayfs needs: whiteouts are 0:0 devices, and nothing is opaque.
//! 3. Layers are never written again once committed.

mod copy;
mod driver;
mod error;
mod overlay;
mod tidy;
mod unpack;
mod workspace;

pub use copy::Copy;
pub use driver::{Active, Draft, Driver, LayerDir, Mounted};
pub use error::SnapshotError;
pub use overlay::{Overlay, overlay_works};
pub use unpack::unpack;
