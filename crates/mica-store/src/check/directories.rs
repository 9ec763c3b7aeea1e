//! The directories of the store: modes, and names that mica would never give.

use std::fs;
use std::path::PathBuf;

use super::{Check, Outcome, Problem};
use crate::error::{IoContext as _, StoreError};
use crate::layout::names;
use crate::{ContainerId, LayerId, LeaseId, VolumeId, files, lease};

/// The mode of every directory of the layout.
const PRIVATE_DIRECTORY: u32 = 0o700;

/// Whether a name may be in a directory; what has no row is garbage, not foreign.
type Rule = fn(&str) -> bool;

impl Check<'_> {
    pub(super) fn directories(&mut self) -> Result<(), StoreError> {
        let state = self.store.state().clone();
        self.mode_of(state.root(), PRIVATE_DIRECTORY)?;
        for path in state.skeleton() {
            if path.is_dir() {
                self.mode_of(&path, PRIVATE_DIRECTORY)?;
                continue;
            }
            if self.repairs() {
                files::ensure_directory(&path).context("create", &path)?;
            }
            let outcome = self.outcome(Outcome::Restored);
            self.found(&path, Problem::Missing, Vec::new(), outcome);
        }
        self.mode_of(&state.store_json(), 0o600)?;
        let rules: [(PathBuf, Rule); 13] = [
            (state.root().to_owned(), is_top_level),
            (state.root().join("content"), |name| matches!(name, "blobs" | "ingest" | "partial")),
            (state.root().join("content/blobs"), |name| matches!(name, "sha256" | "sha512")),
            (state.blobs(mica_oci::Algorithm::Sha256), |name| is_hex(name, 64)),
            (state.blobs(mica_oci::Algorithm::Sha512), |name| is_hex(name, 128)),
            (state.ingests(), is_scratch),
            (state.partials(), is_partial),
            (state.layers(), |name| name.parse::<LayerId>().is_ok()),
            (state.actives(), is_scratch),
            (state.containers(), |name| name.parse::<ContainerId>().is_ok()),
            (state.volumes(), |name| name.parse::<VolumeId>().is_ok()),
            (state.leases(), |name| name.parse::<LeaseId>().is_ok()),
            (state.cache_mounts(), |name| is_hex(name, 64)),
        ];
        for (directory, is_ours) in rules {
            self.foreign_names(directory, is_ours)?;
        }
        self.data_directories()
    }

    fn foreign_names(&mut self, directory: PathBuf, is_ours: Rule) -> Result<(), StoreError> {
        let Ok(entries) = fs::read_dir(&directory) else { return Ok(()) };
        for entry in entries {
            let name = entry.context("list", &directory)?.file_name();
            if name.to_str().is_some_and(is_ours) {
                continue;
            }
            let path = directory.join(name);
            if self.repairs() {
                self.store.discard(&path)?;
            }
            let outcome = self.outcome(Outcome::Removed);
            self.found(&path, Problem::Foreign, Vec::new(), outcome);
        }
        Ok(())
    }

    /// Containers and volumes whose directory is gone: their files are lost, but they can be used and removed again.
    fn data_directories(&mut self) -> Result<(), StoreError> {
        for path in self.data_paths()?.into_iter().filter(|path| !path.is_dir()) {
            // Somebody may have removed it since the rows were read: the row goes first, then the files.
            if !self.data_paths()?.contains(&path) {
                continue;
            }
            if self.repairs() {
                files::ensure_directory(&path).context("create", &path)?;
            }
            let outcome = self.outcome(Outcome::Restored);
            self.found(&path, Problem::Missing, Vec::new(), outcome);
        }
        Ok(())
    }

    /// Every directory that a container or a volume has by its row.
    fn data_paths(&self) -> Result<Vec<PathBuf>, StoreError> {
        let state = self.store.state();
        let mut paths: Vec<PathBuf> =
            self.store.containers()?.iter().map(|container| state.container(&container.id)).collect();
        for volume in self.store.volumes()? {
            paths.push(state.volume(volume.id));
            paths.push(state.volume_data(volume.id));
        }
        Ok(paths)
    }
}

fn is_partial(name: &str) -> bool {
    name.split_once('-').is_some_and(|(algorithm, hex)| match algorithm {
        "sha256" => is_hex(hex, 64),
        "sha512" => is_hex(hex, 128),
        _ => false,
    })
}

fn is_top_level(name: &str) -> bool {
    name == names::STORE_JSON
        || name == names::RESERVE
        || name == names::DATABASE
        || names::DATABASE_SIDE_FILES.contains(&name)
        || names::DIRECTORIES.contains(&name)
}

fn is_scratch(name: &str) -> bool {
    lease::owner_of(name).is_some()
}

fn is_hex(name: &str, length: usize) -> bool {
    name.len() == length && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
