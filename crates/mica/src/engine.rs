//! Which engine answers: the one in this process.

use std::path::PathBuf;

use mica_api::{Engine, Result};
use mica_engine::{Caller, LocalEngine, Proxies, RegistrySettings, enter};

use crate::output::Out;

/// Where and how the engine works, from flags and environment.
#[derive(Debug, Clone)]
pub(crate) struct EngineOptions {
    /// `--root`, `MICA_ROOT` or the default: the store.
    pub root: PathBuf,
    /// Who calls.
    pub caller: Caller,
    /// What web servers are asked through.
    pub proxies: Proxies,
    /// The files that decide about registries.
    pub registries: RegistrySettings,
    /// Whether a store that cannot be opened is to be made usable first.
    pub repair: bool,
}

/// Opens the engine. Called at most once, before this process has a second thread: namespaces are entered here.
///
/// # Errors
/// The store cannot be opened, or the namespaces cannot be made.
pub(crate) fn engine(options: &EngineOptions) -> Result<Box<dyn Engine>> {
    let mode = enter(options.caller.clone())?;
    if options.repair {
        for path in LocalEngine::repair(&options.root, &mode)? {
            // The repair is done, heard or not.
            let _unheard =
                Out::stderr().line(&format!("{}: replaced, because it was damaged", path.display()));
        }
    }
    let network = (options.proxies.clone(), options.registries.clone());
    Ok(Box::new(LocalEngine::open(&options.root, mode, env!("CARGO_PKG_VERSION"), network)?))
}
