//! A registry: serves the OCI distribution specification from a folder.
//!
//! Here: the HTTP server ([`Registry`]), what it keeps and how it collects what nobody needs, who may do what. Not
//! here: the client's side (`mica-distribution`), arguments and printing (`mica`). Nothing here knows mica's own store.
//!
//! This crate has an async runtime of its own, which runs while [`Registry::serve`] lasts.

mod access;
mod error;
mod import;
mod manifest;
mod proxy;
mod range;
mod route;
mod server;
mod settings;
mod storage;
mod tls;

pub use access::{Access, AccessError, Passwords, Right, Rights, Rule, Who};
pub use import::{Check, ImportError, Imported, import_distribution};
pub use proxy::{ProxyError, ProxyRule};
pub use server::{Registry, StartError, Stopper};
pub use settings::{AccessLine, Observer, Settings, Webhook};
pub use storage::OpenError;
pub use storage::collect::Collected;
pub use storage::quota::{Quota, QuotaRule};
pub use tls::{Tls, TlsError};
