//! What kind of store this is: fixed at creation, because files made one way cannot be read the other way.

use std::fmt;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::files;
use crate::layout::StateDir;

/// The newest layout and database schema this program knows.
pub const SCHEMA: u32 = 3;

/// Everything about a store that cannot change after its creation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flavour {
    /// How root filesystems are assembled, which decides what whiteouts look like on disk.
    pub driver: DriverKind,
    /// The user, as the host sees it, whose store this is.
    pub owner_uid: u32,
    /// How ids in images are represented on disk.
    pub id_map: IdMap,
}

/// A snapshot driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DriverKind {
    /// overlayfs with `trusted.overlay.*` attributes: needs root of the host.
    OverlayTrusted,
    /// overlayfs with `user.overlay.*` attributes: works in a user namespace.
    OverlayUser,
    /// Plain directories; works everywhere.
    Copy,
}

/// How ids in images are represented on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdMap {
    /// As they are: the store of root.
    Host,
    /// Shifted through the ranges of `/etc/subuid` and `/etc/subgid`.
    Mapped {
        /// (inside, outside, length) of user ids.
        uid_ranges: Vec<(u32, u32, u32)>,
        /// (inside, outside, length) of group ids.
        gid_ranges: Vec<(u32, u32, u32)>,
    },
    /// Everything belongs to the one user there is; layer tables know the rest.
    SingleId,
}

impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OverlayTrusted => "overlay-trusted",
            Self::OverlayUser => "overlay-user",
            Self::Copy => "copy",
        })
    }
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host ids"),
            Self::Mapped { uid_ranges, gid_ranges } => {
                write!(f, "user ids {}, group ids {}", Ranges(uid_ranges), Ranges(gid_ranges))
            }
            Self::SingleId => f.write_str("a single id"),
        }
    }
}

struct Ranges<'a>(&'a [(u32, u32, u32)]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (inside, outside, length)) in self.0.iter().enumerate() {
            write!(f, "{}{inside}:{outside}:{length}", if position == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// How a process and a store differ, and which command would work.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mismatch {
    /// The store belongs to another user.
    Owner {
        /// Owner of the store.
        store: u32,
        /// Who asks.
        process: u32,
    },
    /// The subordinate id ranges changed since the store was made.
    IdMap {
        /// What the store was made with.
        store: IdMap,
        /// What the process has.
        process: IdMap,
    },
    /// Another snapshot driver.
    Driver {
        /// What the store was made with.
        store: DriverKind,
        /// What the process would use.
        process: DriverKind,
    },
}

impl Mismatch {
    /// Compares a store with the process that opens it.
    pub fn between(store: &Flavour, process: &Flavour) -> Option<Self> {
        if store.owner_uid != process.owner_uid {
            return Some(Self::Owner { store: store.owner_uid, process: process.owner_uid });
        }
        if store.id_map != process.id_map {
            return Some(Self::IdMap { store: store.id_map.clone(), process: process.id_map.clone() });
        }
        (store.driver != process.driver)
            .then_some(Self::Driver { store: store.driver, process: process.driver })
    }

    /// The command that would work.
    pub fn advice(&self) -> String {
        match self {
            Self::Owner { store: 0, .. } => {
                "run `sudo mica …`, or choose your own store with `--root`".into()
            }
            Self::Owner { store, .. } => {
                format!("run `sudo -u '#{store}' mica …`, or choose another store with `--root`")
            }
            Self::IdMap { .. } => "run `mica system migrate`, or choose another store with `--root`".into(),
            Self::Driver { store, .. } => {
                format!("run with `--storage-driver {store}`, or choose another store with `--root`")
            }
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner { store, process } => write!(f, "it belongs to uid {store}, this is uid {process}"),
            Self::IdMap { store, process } => {
                write!(f, "it was made with {store}, this process has {process}")
            }
            Self::Driver { store, process } => {
                write!(f, "it was made with the driver {store}, this process would use {process}")
            }
        }
    }
}

/// The contents of `store.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreFile {
    /// Layout and schema version; a newer one is refused without writing.
    pub(crate) schema: u32,
    /// A random name, for the run directory.
    pub(crate) id: String,
    #[serde(flatten)]
    pub(crate) flavour: Flavour,
}

/// Why `store.json` cannot be used.
pub(crate) enum StoreFileError {
    Io(io::Error),
    Syntax(serde_json::Error),
}

impl StoreFile {
    /// Returns the file of a store, `None` if there is no store.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, StoreFileError> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(StoreFileError::Syntax),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StoreFileError::Io(error)),
        }
    }

    pub(crate) fn save(&self, state: &StateDir) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).expect("a struct of numbers and names is JSON");
        files::replace(&state.store_json(), &text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flavour() -> Flavour {
        Flavour { driver: DriverKind::Copy, owner_uid: 7, id_map: IdMap::SingleId }
    }

    #[test]
    fn a_mismatch_names_the_command_that_would_work() {
        assert_eq!(Mismatch::between(&flavour(), &flavour()), None);
        let root = Flavour { owner_uid: 0, ..flavour() };
        let owner = Mismatch::between(&root, &flavour()).unwrap();
        assert!(owner.advice().contains("sudo mica"), "{}", owner.advice());
        let mapped =
            IdMap::Mapped { uid_ranges: vec![(0, 7, 1), (1, 100_000, 65_536)], gid_ranges: vec![(0, 7, 1)] };
        let ids = Mismatch::between(&Flavour { id_map: mapped, ..flavour() }, &flavour()).unwrap();
        assert!(ids.advice().contains("system migrate"));
        assert!(ids.to_string().contains("user ids 0:7:1,1:100000:65536"), "{ids}");
        let driver =
            Mismatch::between(&Flavour { driver: DriverKind::OverlayUser, ..flavour() }, &flavour()).unwrap();
        assert!(driver.advice().contains("--storage-driver overlay-user"));
    }
}
