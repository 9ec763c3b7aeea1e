//! One layer: its directory, its table, its recipe, and every file against the table.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mica_archive::{Entry, Kind, Table};
use mica_sys::root::Root;
use rustix::fs::{FileType, Stat};

use super::Problem;
use crate::error::{IoContext as _, StoreError};
use crate::flavour::IdMap;
use crate::layout::names;
use crate::{LayerRecord, Store, files};

/// How something is put right.
pub(super) type Restore = Box<dyn Fn(&Store) -> Result<(), StoreError>>;

/// Something wrong with a layer.
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) problem: Problem,
    /// `None` if the layer is lost.
    pub(super) restore: Option<Restore>,
}

impl Found {
    fn lost(path: PathBuf, problem: Problem) -> Self {
        Self { path, problem, restore: None }
    }
}

/// Compares a layer with what was adopted.
pub(super) fn check(store: &Store, record: &LayerRecord) -> Result<Vec<Found>, StoreError> {
    let state = store.state();
    let directory = state.layer(record.id);
    if !directory.is_dir() {
        return Ok(vec![Found::lost(directory, Problem::Missing)]);
    }
    let mut found = foreign_names(&directory, record)?;
    let table = match store.read_table(record.id) {
        Ok(table) => table,
        Err(StoreError::Damaged { path, problem }) => {
            found.push(Found::lost(path, Problem::Altered(problem)));
            return Ok(found);
        }
        Err(error) => return Err(error),
    };
    found.extend(wrong_mode(&state.layer_table(record.id)));
    if let Some(digest) = record.recipe {
        found.extend(recipe_problem(&state.layer_recipe(record.id), digest)?);
        found.extend(wrong_mode(&state.layer_recipe(record.id)));
    }
    let fs_path = state.layer_fs(record.id);
    let Ok(root) = Root::open(&fs_path) else {
        found.push(Found::lost(fs_path, Problem::Missing));
        return Ok(found);
    };
    let checks_modes = store.flavour().id_map != IdMap::SingleId;
    for entry in table.entries() {
        found.extend(entry_problem(&root, &fs_path, &table, entry, checks_modes)?);
    }
    found.extend(unlisted(&root, &fs_path, &table)?);
    Ok(found)
}

fn foreign_names(directory: &Path, record: &LayerRecord) -> Result<Vec<Found>, StoreError> {
    let expected = [names::FS, names::TABLE, names::RECIPE];
    let count = if record.recipe.is_some() { 3 } else { 2 };
    let listed = files::list(directory).context("list", directory)?;
    let foreign = listed.into_iter().filter(|name| !expected[..count].contains(&name.as_str()));
    let found = foreign.map(|name| {
        let path = directory.join(name);
        let victim = path.clone();
        Found {
            path,
            problem: Problem::Foreign,
            restore: Some(Box::new(move |store| store.discard(&victim))),
        }
    });
    Ok(found.collect())
}

fn wrong_mode(path: &Path) -> Option<Found> {
    use std::os::unix::fs::PermissionsExt as _;
    const PRIVATE: u32 = 0o600;
    let mode = fs::symlink_metadata(path).ok()?.permissions().mode() & 0o7777;
    let victim = path.to_owned();
    let restore: Restore = Box::new(move |_| {
        fs::set_permissions(&victim, fs::Permissions::from_mode(PRIVATE))
            .context("change the mode of", &victim)
    });
    let problem = Problem::Mode { found: mode, expected: PRIVATE };
    (mode & !PRIVATE != 0 || mode & PRIVATE != PRIVATE).then(|| Found {
        path: path.to_owned(),
        problem,
        restore: Some(restore),
    })
}

fn recipe_problem(path: &Path, digest: [u8; 32]) -> Result<Option<Found>, StoreError> {
    match fs::read(path) {
        Ok(bytes) if *blake3::hash(&bytes).as_bytes() == digest => Ok(None),
        Ok(_) => Ok(Some(Found::lost(path.to_owned(), Problem::Altered("its bytes were changed".into())))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Ok(Some(Found::lost(path.to_owned(), Problem::Missing)))
        }
        Err(error) => Err(error).context("read", path),
    }
}

/// Compares one entry of the table with the disk.
///
/// Nodes and whiteouts are not compared: a rootless store has no nodes, and each driver has its own whiteouts.
fn entry_problem(
    root: &Root,
    fs_path: &Path,
    table: &Table,
    entry: &Entry,
    checks_modes: bool,
) -> Result<Option<Found>, StoreError> {
    let is_node =
        |kind: &Kind| matches!(kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Whiteout);
    if is_node(&entry.kind) {
        return Ok(None);
    }
    let path = host_path(fs_path, &entry.path);
    let stat = match root.lstat(&entry.path) {
        Ok(stat) => stat,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Some(Found::lost(path, Problem::Missing)));
        }
        Err(error) => return Err(error).context("inspect", &path),
    };
    if let Some(text) = content_problem(root, table.content_of(entry), entry, &stat) {
        return Ok(Some(Found::lost(path, Problem::Altered(text))));
    }
    let found = stat.st_mode & 0o7777;
    if !checks_modes || found == entry.mode || matches!(entry.kind, Kind::Symlink { .. }) {
        return Ok(None);
    }
    let (relative, mode, fs_path) = (entry.path.clone(), entry.mode, fs_path.to_owned());
    let restore: Restore = Box::new(move |_| {
        let root = Root::open(&fs_path).context("open", &fs_path)?;
        root.set_mode(&relative, mode).context("change the mode of", &host_path(&fs_path, &relative))
    });
    Ok(Some(Found { path, problem: Problem::Mode { found, expected: mode }, restore: Some(restore) }))
}

/// What is wrong with the content of an entry; `content` is the entry that a hard link names.
fn content_problem(root: &Root, content: &Entry, entry: &Entry, stat: &Stat) -> Option<String> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    let other_kind = || Some(format!("it is a {kind:?}"));
    match &content.kind {
        Kind::File { size, digest } => {
            let found = u64::try_from(stat.st_size).unwrap_or(0);
            if kind != FileType::RegularFile {
                return other_kind();
            }
            if found != *size {
                return Some(format!("it has {found} bytes instead of {size}"));
            }
            let expected = digest.filter(|_| !matches!(entry.kind, Kind::Hardlink { .. }))?;
            let mut hasher = blake3::Hasher::new();
            let read = root.open_file_nofollow(&entry.path).and_then(|file| {
                hasher.update_reader(file)?;
                Ok(())
            });
            match read {
                Err(error) => Some(format!("it cannot be read: {error}")),
                Ok(()) if *hasher.finalize().as_bytes() != expected.0 => {
                    Some("its content was changed".into())
                }
                Ok(()) => None,
            }
        }
        Kind::Directory { .. } => {
            if kind == FileType::Directory {
                None
            } else {
                other_kind()
            }
        }
        Kind::Symlink { target } => match root.read_link(&entry.path) {
            Ok(found) if found == *target => None,
            _ => Some("it points elsewhere".into()),
        },
        Kind::Fifo => {
            if kind == FileType::Fifo {
                None
            } else {
                other_kind()
            }
        }
        _ => None,
    }
}

/// Files on disk that the table does not have: they would show up in containers.
fn unlisted(root: &Root, fs_path: &Path, table: &Table) -> Result<Vec<Found>, StoreError> {
    let mut found = Vec::new();
    let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(directory) = todo.pop() {
        for item in root.read_dir(&directory).context("list", &host_path(fs_path, &directory))? {
            let mut path = directory.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&item.name);
            // Parents of changes need not be in the table, and whiteouts of opaque directories are not.
            let may_be_implied = matches!(item.file_type, FileType::Directory | FileType::CharacterDevice);
            if !may_be_implied && table.get(&path).is_none() {
                let (victim, fs_path) = (path.clone(), fs_path.to_owned());
                let host = host_path(&fs_path, &path);
                let restore: Restore = Box::new(move |_| {
                    let root = Root::open(&fs_path).context("open", &fs_path)?;
                    root.remove(&victim).context("remove", &host_path(&fs_path, &victim))
                });
                found.push(Found { path: host, problem: Problem::Foreign, restore: Some(restore) });
            }
            if item.file_type == FileType::Directory {
                todo.push(path);
            }
        }
    }
    Ok(found)
}

/// For messages only.
fn host_path(fs_path: &Path, relative: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    fs_path.join(std::ffi::OsStr::from_bytes(relative))
}
