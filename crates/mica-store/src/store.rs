//! Opening and creating a store.
//!
//! Opening must be quick: it reads `store.json`, opens the database, and touches nothing. Creation happens once,
//! under a lock, and is complete when `store.json` appears: every earlier step can be repeated.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mica_archive::Table;
use mica_sys::root::Root;

use crate::db::{BootToken, Database};
use crate::error::{IoContext as _, OpenError, StoreError};
use crate::flavour::{Flavour, Mismatch, SCHEMA, StoreFile, StoreFileError};
use crate::layout::StateDir;
use crate::lock::Lock;
use crate::migrate::migrate;
use crate::salvage::{is_sound, salvage};
use crate::{LayerId, LeaseId, files};

/// An open store: cheap to clone, usable from every thread.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    state: StateDir,
    file: StoreFile,
    database: Database,
    boot: BootToken,
    /// The root directory, held open from the start: syncfs(2) reports write-back errors since then.
    root: OwnedFd,
    tables: Mutex<HashMap<LayerId, Arc<Table>>>,
    touched: Mutex<BTreeSet<i64>>,
}

/// The disk that a store is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Its size.
    pub total_bytes: u64,
    /// What this user may still write.
    pub free_bytes: u64,
}

impl Store {
    /// Opens the store at `root`, making it first if there is none.
    ///
    /// # Errors
    /// [`OpenError::Flavour`] if it was made for another kind of process; nothing is written then.
    pub fn open(root: &Path, flavour: &Flavour) -> Result<Self, OpenError> {
        let state = StateDir::new(root);
        let mut file = match load(&state)? {
            Some(file) => file,
            None => create(&state, flavour)?,
        };
        if file.schema > SCHEMA {
            return Err(OpenError::Newer { root: root.to_owned(), found: file.schema, known: SCHEMA });
        }
        if let Some(mismatch) = Mismatch::between(&file.flavour, flavour) {
            return Err(OpenError::Flavour { root: root.to_owned(), mismatch });
        }
        let root_directory: OwnedFd = File::open(root).context("open", root)?.into();
        let database = open_database(&state, &root_directory)?;
        let found = database.schema()?;
        if found > SCHEMA {
            return Err(OpenError::Newer { root: root.to_owned(), found, known: SCHEMA });
        }
        migrate(&state, &database, &mut file)?;
        let inner = Inner {
            boot: BootToken::current(&root_directory),
            state,
            file,
            database,
            root: root_directory,
            tables: Mutex::default(),
            touched: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Reads the flavour of the store at `root` without opening it; `None` if there is no store.
    pub fn flavour_at(root: &Path) -> Result<Option<Flavour>, OpenError> {
        Ok(load(&StateDir::new(root))?.map(|file| file.flavour))
    }

    /// Where everything lies.
    pub fn state(&self) -> &StateDir {
        &self.inner.state
    }

    /// What kind of store this is.
    pub fn flavour(&self) -> &Flavour {
        &self.inner.file.flavour
    }

    /// How large the disk is that the store is on, and what is free of it.
    pub fn space(&self) -> Result<Space, StoreError> {
        let root = self.state().root();
        let found = rustix::fs::fstatvfs(&self.inner.root).map_err(std::io::Error::from);
        let found = found.context("ask for the free space of", root)?;
        Ok(Space {
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        })
    }

    /// A random name that this store keeps for ever, for the run directory.
    pub fn id(&self) -> &str {
        &self.inner.file.id
    }

    /// Whether nothing can be written: looking still works.
    pub fn is_read_only(&self) -> bool {
        self.inner.database.is_read_only()
    }

    pub(crate) fn file(&self) -> &StoreFile {
        &self.inner.file
    }

    pub(crate) fn database(&self) -> &Database {
        &self.inner.database
    }

    pub(crate) fn boot(&self) -> &BootToken {
        &self.inner.boot
    }

    pub(crate) fn root_directory(&self) -> &OwnedFd {
        &self.inner.root
    }

    pub(crate) fn tables(&self) -> &Mutex<HashMap<LayerId, Arc<Table>>> {
        &self.inner.tables
    }

    pub(crate) fn touched(&self) -> &Mutex<BTreeSet<i64>> {
        &self.inner.touched
    }

    /// Moves something of the store into the trash, so that its name is free at once; `None` if there was nothing.
    pub(crate) fn trash(&self, path: &Path) -> Result<Option<String>, StoreError> {
        let name = LeaseId::random().to_string();
        let moved =
            files::move_into(path, &self.state().trash().join(&name)).context("move to the trash", path)?;
        Ok(moved.then_some(name))
    }

    /// Unlinks something in the trash.
    pub(crate) fn empty_trash(&self, name: &str) -> Result<(), StoreError> {
        let trash = self.state().trash();
        let root = Root::open(&trash).context("open", &trash)?;
        root.remove_all(name.as_bytes()).context("remove", &trash.join(name))
    }

    /// Removes a file or directory of the store: into the trash first, because unlinking a tree takes long.
    pub(crate) fn discard(&self, path: &Path) -> Result<(), StoreError> {
        match self.trash(path)? {
            Some(name) => self.empty_trash(&name),
            None => Ok(()),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        crate::cache::write_touched(&self.database, &self.touched);
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("root", &self.state().root()).finish_non_exhaustive()
    }
}

fn load(state: &StateDir) -> Result<Option<StoreFile>, StoreError> {
    let path = state.store_json();
    StoreFile::load(&path).map_err(|error| match error {
        StoreFileError::Io(source) => StoreError::Io { action: "read", path, source },
        StoreFileError::Syntax(error) => StoreError::Damaged { path, problem: error.to_string() },
    })
}

/// Opens the metadata, and refuses a file that lost its tables: an empty database would look like an empty store, and
/// the next collection would remove everything.
fn open_database(state: &StateDir, root: &OwnedFd) -> Result<Database, StoreError> {
    let path = state.database();
    let damaged = |problem: &str| StoreError::Damaged { path: path.clone(), problem: problem.into() };
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.len() == 0 => return Err(damaged("the metadata is empty")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damaged("the metadata is missing"));
        }
        _ => {}
    }
    let read_only = rustix::fs::fstatvfs(root)
        .is_ok_and(|status| status.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let database = if read_only { Database::open_read_only(state)? } else { Database::open(state)? };
    match database.schema()? {
        0 => Err(damaged("the metadata has no tables")),
        _ => Ok(database),
    }
}

/// Makes a store; if another process does the same, waits for it and takes its store.
fn create(state: &StateDir, flavour: &Flavour) -> Result<StoreFile, OpenError> {
    let root = state.root();
    let fail = |source| OpenError::Create { root: root.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(fail)?;
    // The root may have been there already, readable by all: what is inside is for its owner only.
    std::fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(fail)?;
    state.skeleton().iter().try_for_each(|path| files::ensure_directory(path)).map_err(fail)?;
    // Creation takes milliseconds; a living process never holds this lock for longer.
    let _held = Lock::at(state.locks().join("create")).wait(&|| false)?;
    if let Some(file) = load(state)? {
        return Ok(file);
    }
    // With a database and without `store.json`, either a creation was interrupted or the file was lost: the database
    // has a copy, and everything else about the store is still true.
    let file = match state.database().exists() {
        true => Database::open(state)?.store_file()?,
        false => {
            let id = LeaseId::random().to_string();
            let file = StoreFile { schema: SCHEMA, id, flavour: flavour.clone() };
            create_database(state, &file)?;
            file
        }
    };
    file.save(state).map_err(fail)?;
    Ok(file)
}

/// Builds the database beside its place, so that it is complete as soon as it has its name.
fn create_database(state: &StateDir, file: &StoreFile) -> Result<(), StoreError> {
    let building = state.tmp().join("mica.db.new");
    files::remove_file(&building).context("remove", &building)?;
    Database::create(&building, file)?;
    let path = state.database();
    std::fs::rename(&building, &path).context("rename", &path)?;
    files::sync_directory(state.root()).context("sync", state.root())
}

/// Makes a store that cannot be opened usable again, for `system check --repair`.
///
/// A damaged `store.json` comes back from the database. Of a damaged database what can be read is kept; if that is not
/// enough, it is moved into the trash, with the names of all images: nothing else knows them. Returns what was replaced.
pub fn repair_unopenable(root: &Path, flavour: &Flavour) -> Result<Vec<PathBuf>, OpenError> {
    let state = StateDir::new(root);
    let mut replaced = Vec::new();
    if let Err(StoreError::Damaged { path, .. }) = load(&state) {
        files::remove_file(&path).context("remove", &path)?;
        replaced.push(path);
    }
    match Store::open(root, flavour) {
        Ok(store) => {
            let (sound, file) = (is_sound(store.database()), store.file().clone());
            drop(store);
            if sound {
                return Ok(replaced);
            }
            if salvage(&state, &file)? {
                replaced.push(state.database());
                return Ok(replaced);
            }
        }
        Err(OpenError::Store(StoreError::Damaged { .. })) => {}
        Err(error) => return Err(error),
    }
    for path in [state.database_wal(), state.database_shm(), state.database()] {
        let target = state.trash().join(LeaseId::random().to_string());
        if files::move_into(&path, &target).context("move to the trash", &path)? {
            replaced.push(path);
        }
    }
    files::remove_file(&state.store_json()).context("remove", &state.store_json())?;
    create(&state, flavour)?;
    Ok(replaced)
}
