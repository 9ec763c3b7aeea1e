//! The files of other tools, read and never written.

pub(super) mod daemon;
pub(super) mod hosts;
pub(super) mod registries;

use std::path::Path;

use super::error::RegistryError;

/// Reads a file and makes something of it; `None` if there is none.
fn read<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<Option<T>, RegistryError> {
    let failed = |source| RegistryError::Settings { path: path.to_owned(), source };
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).map(Some).map_err(failed),
        Err(error)
            if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        Err(error) => Err(failed(error.into())),
    }
}
