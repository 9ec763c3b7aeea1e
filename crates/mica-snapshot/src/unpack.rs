//! A layer from outside: unpacked into a directory that the driver can stack.

use std::io::Read;
use std::path::Path;

use mica_archive::{Applied, ApplyOptions, Cancelled, View, apply};

use crate::driver::Driver;
use crate::error::SnapshotError;
use crate::workspace::{make_directory, open_root, owner_policy};

/// Unpacks an uncompressed layer to `<workspace>/fs`, with whiteouts and marks as `driver` needs them.
///
/// `below` are the layers under it, if they are known already: directories that the archive only implies get their
/// attributes from there.
///
/// # Errors
/// When the archive is bad or the disk refuses; the workspace is then to be thrown away.
pub fn unpack(
    driver: &dyn Driver,
    tar: impl Read + Send,
    workspace: &Path,
    below: Option<&View>,
    cancelled: Cancelled<'_>,
) -> Result<Applied, SnapshotError> {
    let fs = workspace.join("fs");
    make_directory(&fs, 0o755)?;
    let owners = owner_policy();
    let options = ApplyOptions {
        owners,
        devices: owners == mica_archive::OwnerPolicy::Exact,
        overlay: driver.flavour(),
        keep_recipe: true,
        parent: below,
        ..ApplyOptions::default()
    };
    Ok(apply(tar, &open_root(&fs)?, &options, cancelled)?)
}
