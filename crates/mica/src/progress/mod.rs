//! Build progress on standard error (build.md 6.8): plain, for terminals, as JSON, or none.
//!
//! A [`Display`] takes events from any thread and never makes the sender wait: they go through a channel to a thread
//! that keeps a [`trace::Trace`] and writes what a renderer makes of it. A slow terminal slows only that thread.

mod colours;
mod display;
mod plain;
mod rawjson;
mod tail;
mod trace;
mod transfer;
mod tty;

pub(crate) use display::{Display, Mode};
#[cfg(test)]
pub(crate) use display::{Phase, Renderer};
pub(crate) use tail::warnings;
#[cfg(test)]
pub(crate) use trace::Trace;
pub(crate) use transfer::TransferDisplay;
