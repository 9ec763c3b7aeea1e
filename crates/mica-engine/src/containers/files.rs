//! The files of a container, running or not.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mica_api::{Cancel, Class, Error, Result};
use mica_archive::{Kind, Table, View};
use mica_snapshot::{Active, LayerDir};
use mica_store::LockFile;
use mica_sys::root::Root;

use super::control;
use super::list::Container;
use crate::LocalEngine;

/// How often the files of a container are looked at until none vanishes meanwhile.
const READ_ATTEMPTS: u32 = 10;

/// A container's root file system, for as long as this lives.
pub(super) enum Files {
    /// The mount of the process that runs it.
    Running(Root),
    /// A mount of our own; the lock keeps others from mounting the same layer.
    Stopped { active: Active, _lock: LockFile },
}

impl Files {
    /// Opens the files of a container.
    ///
    /// # Errors
    /// They cannot be mounted, or the process that has them mounted does not answer.
    pub(super) fn open(engine: &LocalEngine, container: &Container, cancel: &Cancel) -> Result<Self> {
        let directory = directory(engine, container);
        if container.state.process().is_some() {
            return control::root(&directory).map(Self::Running).map_err(|error| {
                Error::new(Class::Internal, format!("cannot reach into container {}", container.record.name))
                    .why(format!("the mica that runs it does not answer: {error}"))
            });
        }
        let lock = engine
            .store()
            .lock(&format!("container-{}", container.record.id))
            .wait(&|| cancel.is_cancelled())?;
        let parents = parents(engine, container)?;
        let driver = &engine.workshop.driver;
        // A container that could not be started may have no files of its own yet.
        let active = match driver.upper(&directory).exists() {
            true => driver.resume(&directory, &parents)?,
            false => driver.prepare(&directory, &parents)?,
        };
        Ok(Self::Stopped { active, _lock: lock })
    }

    pub(super) fn root(&self) -> &Root {
        match self {
            Self::Running(root) => root,
            Self::Stopped { active, .. } => active.root(),
        }
    }
}

/// What a container changed, and what it was made of.
pub(super) struct Changes {
    pub(super) table: Table,
    /// The image.
    pub(super) parent: View,
    /// Where the changed files are.
    pub(super) upper: PathBuf,
}

impl Changes {
    /// Reads the changes of a container.
    ///
    /// # Errors
    /// They cannot be read.
    pub(super) fn read(engine: &LocalEngine, container: &Container) -> Result<Self> {
        let upper = engine.workshop.driver.upper(&directory(engine, container));
        let parent = engine.workshop.view(&engine.store().container_layers(&container.record.id)?)?;
        let table = match upper.exists() {
            true => changed(engine, container, &upper)?,
            false => Table::default(),
        };
        let table = without_mountpoints(table, &container.state.mountpoints, &parent)
            .map_err(|error| Error::new(Class::Internal, "cannot list the changes").why(error.to_string()))?;
        Ok(Self { table, parent, upper })
    }

    /// The container's whole tree.
    pub(super) fn merged(self) -> View {
        let mut view = self.parent;
        view.push(Arc::new(self.table));
        view
    }
}

/// Reads an upper directory. Files may vanish under a running container; then it is read again.
fn changed(engine: &LocalEngine, container: &Container, upper: &Path) -> Result<Table> {
    let parents = parents(engine, container)?;
    let mut attempt = 1;
    loop {
        match engine.workshop.driver.changes(upper, &parents).map_err(Error::from) {
            Err(error) if error.class == Class::NotFound && attempt < READ_ATTEMPTS => attempt += 1,
            other => return other,
        }
    }
}

/// Leaves out what was made only to be mounted on, and directories that changed in nothing but that.
fn without_mountpoints(
    table: Table,
    mountpoints: &[Vec<u8>],
    parent: &View,
) -> std::result::Result<Table, mica_archive::TableError> {
    if mountpoints.is_empty() {
        return Ok(table);
    }
    let mut entries = table.into_entries();
    entries.retain(|entry| !mountpoints.contains(&entry.path) || has_content(entry));
    let mut above: Vec<&[u8]> =
        mountpoints.iter().filter_map(|path| mica_archive::path::parent(path)).collect();
    // Innermost first: one that goes may leave the one around it without a reason.
    above.sort_unstable_by_key(|path| std::cmp::Reverse(path.len()));
    for directory in above {
        let is_needed = entries.iter().any(|entry| mica_archive::path::is_below(&entry.path, directory));
        let untouched = |entry: &mica_archive::Entry| {
            parent.get(directory).is_some_and(|old| {
                old.kind.is_directory() && (old.mode, old.uid, old.gid) == (entry.mode, entry.uid, entry.gid)
            })
        };
        entries.retain(|entry| is_needed || entry.path != directory || !untouched(entry));
    }
    Table::from_entries(entries)
}

/// The container may have put something at a mountpoint after all.
fn has_content(entry: &mica_archive::Entry) -> bool {
    match entry.kind {
        Kind::File { size, .. } => size > 0,
        Kind::Directory { .. } => false,
        _ => true,
    }
}

pub(super) fn directory(engine: &LocalEngine, container: &Container) -> PathBuf {
    engine.store().state().container(&container.record.id)
}

fn parents(engine: &LocalEngine, container: &Container) -> Result<Vec<LayerDir>> {
    Ok(engine.workshop.layer_dirs(&engine.store().container_layers(&container.record.id)?)?)
}

/// Bytes of the files in a container's own layer.
///
/// # Errors
/// They cannot be read.
pub(super) fn size_bytes(engine: &LocalEngine, container: &Container) -> std::io::Result<u64> {
    let root = Root::open(&engine.workshop.driver.upper(&directory(engine, container)))?;
    let mut waiting = vec![Vec::new()];
    let mut total = 0;
    while let Some(directory) = waiting.pop() {
        for item in root.read_dir(&directory)? {
            let path = mica_archive::path::join(&directory, &item.name);
            match item.file_type {
                rustix::fs::FileType::Directory => waiting.push(path),
                rustix::fs::FileType::RegularFile => total += root.lstat(&path)?.st_size.cast_unsigned(),
                _ => {}
            }
        }
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use mica_archive::Entry;

    use super::*;

    fn paths(table: &Table) -> Vec<String> {
        table.entries().iter().map(|entry| String::from_utf8_lossy(&entry.path).into_owned()).collect()
    }

    #[test]
    fn what_was_made_to_be_mounted_on_is_no_change() {
        let empty = |path: &str| Entry::new(path, Kind::File { size: 0, digest: None }, 0o644);
        let image = Table::from_entries(vec![Entry::directory("etc", 0o755), Entry::directory("srv", 0o755)])
            .unwrap();
        let parent = View::stack([Arc::new(image)]);
        let changed = Table::from_entries(vec![
            Entry::directory("dev", 0o755),
            Entry::directory("etc", 0o755),
            empty("etc/hosts"),
            Entry::directory("srv", 0o755),
            empty("srv/mine"),
            Entry::directory("srv/data", 0o755),
        ])
        .unwrap();
        let mountpoints: Vec<Vec<u8>> =
            ["dev", "etc/hosts", "srv/data"].iter().map(|path| path.as_bytes().to_vec()).collect();
        let left = without_mountpoints(changed, &mountpoints, &parent).unwrap();
        assert_eq!(paths(&left), ["srv", "srv/mine"]);
    }
}
