//! Volumes of a container: which ones, what is in a new one, and when they go.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use mica_api::{Cancel, Class, Error, Result, VolumeMount, VolumeSource};
use mica_archive::{ExtractOptions, OwnerPolicy, extract, path};
use mica_snapshot::Active;
use mica_store::{ContainerId, Store, VolumeError};
use mica_sys::root::Root;
use rustix::fs::FileType;
use serde::{Deserialize, Serialize};

use super::subtree::Subtree;
use crate::{LocalEngine, names};

/// Something mounted into a container, with everything looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mounted {
    /// Name of the volume; `None` for a path of the host.
    pub(super) volume: Option<String>,
    /// Where it is on the host.
    pub(super) source: PathBuf,
    /// Path in the container.
    pub(super) target: String,
    /// Refuse writes.
    pub(super) read_only: bool,
    /// An empty volume gets what the image has at the target.
    pub(super) copies: bool,
    /// Whether it was asked for, or is one that the image wants.
    pub(super) asked_for: bool,
}

/// Looks up what a request mounts, and what its image wants as volumes (`VOLUME`) in places where nothing is mounted.
/// Volumes that do not exist are made.
///
/// # Errors
/// docker's words for a name that is none.
pub(super) fn look_up<T>(
    store: &Store,
    asked: Vec<VolumeMount>,
    wanted: Option<&BTreeMap<String, T>>,
    covered: &[(String, String)],
) -> Result<Vec<Mounted>> {
    let mut mounts = Vec::new();
    for mount in asked {
        mounts.push(one(store, mount, true)?);
    }
    for target in wanted.into_iter().flat_map(BTreeMap::keys) {
        let target = super::spec::cleaned(target);
        let taken = mounts.iter().map(|mount| &mount.target).chain(covered.iter().map(|(path, _)| path));
        if taken.into_iter().any(|path| super::spec::cleaned(path) == target) {
            continue;
        }
        let mount = VolumeMount { source: VolumeSource::Anonymous, target, read_only: false, no_copy: false };
        mounts.push(one(store, mount, false)?);
    }
    Ok(mounts)
}

fn one(store: &Store, mount: VolumeMount, asked_for: bool) -> Result<Mounted> {
    let VolumeMount { source, target, read_only, no_copy } = mount;
    let (volume, source) = match source {
        VolumeSource::Host(path) => (None, path),
        VolumeSource::Named(name) if !names::is_valid(&name) => {
            return Err(Error::new(
                Class::Invalid,
                format!(
                    "create {name}: {name:?} includes invalid characters for a local volume name, only \
                     \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"
                ),
            )
            .hint("a directory of the host needs a slash: ./NAME"));
        }
        VolumeSource::Named(name) => ensured(store, &name, false)?,
        VolumeSource::Anonymous => ensured(store, ContainerId::random().as_str(), true)?,
    };
    let copies = volume.is_some() && !no_copy;
    Ok(Mounted { volume, source, target, read_only, copies, asked_for })
}

fn ensured(store: &Store, name: &str, anonymous: bool) -> Result<(Option<String>, PathBuf)> {
    let volume = store.ensure_volume(name, "{}", anonymous)?;
    Ok((Some(volume.name), store.state().volume_data(volume.id)))
}

/// The names of the volumes among mounts.
pub(super) fn volume_names(mounts: &[Mounted]) -> Vec<String> {
    mounts.iter().filter_map(|mount| mount.volume.clone()).collect()
}

/// Removes the anonymous volumes among mounts of a container that is gone. One that another container has stays.
///
/// # Errors
/// The store.
pub(super) fn remove_anonymous(store: &Store, mounts: &[Mounted]) -> Result<()> {
    for name in volume_names(mounts) {
        if !store.volume(&name)?.is_some_and(|volume| volume.anonymous) {
            continue;
        }
        match store.remove_volume(&name) {
            Ok(()) | Err(VolumeError::NotFound(_) | VolumeError::InUse { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Copies what the image has at the target of an empty volume into it, with owner and mode of the directory.
///
/// # Errors
/// Something cannot be copied; the volume is left as far as it came.
pub(super) fn fill(engine: &LocalEngine, mounts: &[Mounted], active: &Active, cancel: &Cancel) -> Result<()> {
    for mount in mounts.iter().filter(|mount| mount.copies) {
        let Some(name) = &mount.volume else { continue };
        // Two containers may start with the same new volume.
        let _lock = engine.store().lock(&format!("volume-{name}")).wait(&|| cancel.is_cancelled())?;
        if is_empty(&mount.source).map_err(|error| unfilled(mount, &error))? {
            fill_one(engine, mount, active, cancel)?;
        }
    }
    Ok(())
}

fn unfilled(mount: &Mounted, error: &io::Error) -> Error {
    let message = format!("cannot copy {} of the image into its volume", mount.target);
    Error::new(Class::of_io(error), message).why(error.to_string())
}

fn is_empty(directory: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(directory)?.next().is_none())
}

fn fill_one(engine: &LocalEngine, mount: &Mounted, active: &Active, cancel: &Cancel) -> Result<()> {
    let failed = |error: io::Error| unfilled(mount, &error);
    let from = match active.root().resolve(mount.target.as_bytes()) {
        Ok(path) => path,
        // The image has nothing there: the volume stays empty.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(error) => return Err(failed(error)),
    };
    let stat = active.root().lstat(&from).map_err(failed)?;
    if from.is_empty() || FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        return Ok(());
    }
    copy_tree(engine, active.root(), &from, &mount.source, cancel)?;
    let dress = || {
        let made = fs::metadata(&mount.source)?;
        if (made.uid(), made.gid()) != (stat.st_uid, stat.st_gid) {
            std::os::unix::fs::chown(&mount.source, Some(stat.st_uid), Some(stat.st_gid))?;
        }
        fs::set_permissions(&mount.source, fs::Permissions::from_mode(stat.st_mode & 0o7777))
    };
    dress().map_err(failed)
}

/// What is in a directory of a root file system, into a directory of the host: through a tar in a pipe, which is how
/// `cp` copies, so that links, owners and attributes are treated as there.
fn copy_tree(engine: &LocalEngine, root: &Root, from: &[u8], to: &Path, cancel: &Cancel) -> Result<()> {
    let failed = |error: &dyn std::error::Error| {
        let shown = String::from_utf8_lossy(from).into_owned();
        Error::new(Class::Internal, format!("cannot copy /{shown} of the image into its volume"))
            .why(error.to_string())
    };
    let owners = if engine.workshop.is_single_id() { OwnerPolicy::Ledger } else { OwnerPolicy::Exact };
    let to = Root::open(to).map_err(|error| failed(&error))?;
    let (reader, writer) = io::pipe().map_err(|error| failed(&error))?;
    let options = ExtractOptions {
        owners,
        devices: engine.workshop.devices,
        rename: Some((path::file_name(from).to_vec(), Vec::new())),
        ..ExtractOptions::default()
    };
    std::thread::scope(|scope| {
        let write = || Subtree { root, path: from, owners }.write(writer.into(), cancel);
        let written =
            std::thread::Builder::new().spawn_scoped(scope, write).map_err(|error| failed(&error))?;
        let extracted = extract(reader, &to, &options, &|| cancel.is_cancelled());
        let written = written.join().expect("writing a tar does not panic");
        // A writer whose reader gave up only says that.
        extracted.map_err(|error| failed(&error))?;
        written
    })
}
