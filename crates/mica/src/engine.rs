//! Which engine answers.

use std::path::PathBuf;

use mica_api::{Class, Engine, Error, Result};

/// Where and how the engine works, from flags and environment.
#[derive(Debug, Clone)]
pub(crate) struct EngineOptions {
    /// `--root`, `MICA_ROOT` or the default: the store.
    pub root: PathBuf,
    /// `--debug`.
    pub debug: bool,
}

/// Opens the engine. Called at most once, before this process has a second thread.
///
/// # Errors
/// The store cannot be opened.
pub(crate) fn engine(options: &EngineOptions) -> Result<Box<dyn Engine>> {
    Err(Error::new(Class::Unsupported, "this build of mica has no engine")
        .why(format!("nothing would open {} (debug: {})", options.root.display(), options.debug)))
}
