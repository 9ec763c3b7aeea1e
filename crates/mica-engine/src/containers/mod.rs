//! Containers: run, look, change, remove.
//!
//! # Who knows what
//! The store has a row per container: what was asked for ([`spec`]) and what is the case ([`state`]). While a container
//! runs, the `mica run` that started it has its mounts and answers other processes on a socket ([`control`]). Nothing
//! else survives it: a container whose `mica run` was killed is dead, and its files are as it left them.
//!
//! # In a container's directory
//! ```text
//! containers/<id>/
//! ├── fs/ work/ merged/   its writable layer (mica-snapshot)
//! ├── <id>-json.log       what it printed, docker's json-file format
//! └── control             socket, while it runs
//! ```

mod changes;
mod commit;
mod control;
mod copy;
mod environment;
mod files;
mod inspect;
mod json_text;
mod list;
mod log;
mod logs;
mod options;
mod plan;
mod prune;
mod relay;
mod remove;
mod run;
mod spec;
mod start;
mod state;
mod subtree;
mod volumes;

pub(crate) use changes::{changes, export};
pub(crate) use commit::commit;
pub(crate) use copy::{copy_from, copy_into};
pub(crate) use inspect::inspect;
pub(crate) use list::list;
pub(crate) use logs::logs;
pub(crate) use prune::prune;
pub(crate) use remove::{bury_the_dead, remove};
pub(crate) use run::run;
