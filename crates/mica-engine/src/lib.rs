//! The engine in process: wires the crates below it into what [`mica_api::Engine`] promises. No algorithm of its own.

mod containers;
mod entry;
mod glob;
mod housekeeping;
mod images;
mod local;
mod names;
mod pack;
mod registry;
mod system;
mod times;
mod transfer;

pub use entry::{Caller, Mode, enter};
pub use local::LocalEngine;
pub use mica_archive::is_tar;
pub use mica_distribution::{
    Credential, CredentialFile, CredentialKind, Explanation, FetchedManifest, HttpClient, Kept, ListItem,
    ManifestLists, ManifestName, Proxies, Registries, RegistryError, RegistrySettings, Repository,
    SearchResult, Upload, credential_key, forget_credential, keep_credential, server_name,
};
