//! Runs builds: opens the sources, decides what is known already, runs what is not, and makes an image of the result.
//!
//! The meeting point of the crates below it: the frontend's graph, the store's records, snapshots and the executor.
//!
//! # The way of a build
//! ```text
//! request ─inputs─► Dockerfile, contexts ─convert─► graph ─plan─► what is cached
//!                                                             └► execute ─► layers ─► image ─► outputs
//! ```

mod build;
mod cache;
pub mod context;
mod contexts;
mod doctor;
mod execute;
mod export;
pub mod fileop;
mod fresh;
mod hit;
mod inputs;
mod intake;
mod keys;
mod layers;
mod lookup;
mod operation;
mod permits;
mod progress;
mod publish;
mod registry;
mod remote;
mod rendition;
mod resolve;
pub mod select;
mod ssh;
mod workshop;

pub use build::build;
pub use doctor::{RootFiles, check_command, explain};
pub use export::{Exported, OutputFile, archive_images, rootfs_tar};
pub use intake::{IntakeError, LocalManifest, bring_in, bring_in_layer};
pub use layers::{Draft, finish_layer};
pub use publish::{
    ImageDraft, PublishedImage, local_manifest, publish_index, publish_manifest, write_manifest,
};
pub use registry::{PullOrder, Pulled, PushOrder, PushedImage, Tell, Transfers, WantedPlatform, pull, push};
pub use workshop::Workshop;
