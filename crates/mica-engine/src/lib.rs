//! The engine in process: wires the crates below it into what [`mica_api::Engine`] promises. No algorithm of its own.

mod containers;
mod entry;
mod glob;
mod housekeeping;
mod images;
mod local;
mod names;
mod pack;
mod system;
mod times;
mod transfer;

pub use entry::{Caller, Mode, enter};
pub use local::{LocalEngine, Proxies};
pub use mica_archive::is_tar;
