//! Where everything of a store lies: the only place that makes a path of the state directory.
//!
//! ```text
//! <state>/                             0700
//! ├── store.json                       schema and flavour; written last at creation, so its presence means "complete"
//! ├── mica.db  mica.db-wal  mica.db-shm  metadata; opened by SQLite and nobody else
//! ├── reserve                          blocks that removing on a full disk needs; made by a collection
//! ├── content/
//! │   ├── blobs/sha256/<64 hex>        0444; complete, verified, never changed (sha512 beside it)
//! │   ├── ingest/<lease>-<n>           0600; belongs to the lease in its name
//! │   └── partial/<algorithm>-<hex>    0600; a blob being fetched, kept when that is interrupted; flock: its writer
//! ├── layers/<layer id>/               a committed layer
//! │   ├── fs/                          the change set as a directory
//! │   ├── table                        what the layer is: the truth for tar, diff and COPY keys
//! │   └── recipe                       only if our tar writer would not reproduce the pulled bytes
//! ├── active/<lease>-<n>/              a writable snapshot of a build: fs/, work/, merged/
//! ├── containers/<container id>/       a container's writable files, bundle and log
//! ├── volumes/<volume id>/             data/
//! ├── cache-mounts/<blake3 of the id>/ one directory per `RUN --mount=type=cache` id
//! │   ├── <slot>/                      data; slot 0 is the shared and the locked one
//! │   └── <slot>.lock                  flock: shared, or exclusive
//! ├── contexts/<blake3 of the root>.stat  stat cache of one build context, replaced atomically
//! ├── journals/<id>                    events of one build
//! ├── leases/<lease>                   flock held while the lease lives
//! ├── locks/<name>                     flock held while the name is locked; the holder's pid is inside
//! ├── tmp/<lease>-<n>                  scratch space of a lease
//! └── trash/<id>                       forgotten by the metadata, waiting to be unlinked
//! ```
//!
//! Names made of text that a user or an image chose are hashed, or parsed into a type that cannot climb.

use std::path::{Path, PathBuf};

use mica_oci::Digest;

use crate::{ContainerId, LayerId, VolumeId};

/// The fixed names of the layout, for tests and for `system check`.
pub mod names {
    /// Schema and flavour.
    pub const STORE_JSON: &str = "store.json";
    /// Metadata.
    pub const DATABASE: &str = "mica.db";
    /// Room set aside for a full disk.
    pub const RESERVE: &str = "reserve";
    /// What SQLite puts beside the metadata.
    pub const DATABASE_SIDE_FILES: [&str; 2] = ["mica.db-wal", "mica.db-shm"];
    /// Directories of the top level that hold one entry per object.
    pub const DIRECTORIES: [&str; 12] = [
        "content",
        "layers",
        "active",
        "containers",
        "volumes",
        "cache-mounts",
        "contexts",
        "journals",
        "leases",
        "locks",
        "tmp",
        "trash",
    ];
    /// Directories below `content`.
    pub const CONTENT_DIRECTORIES: [&str; 4] = ["blobs", "blobs/sha256", "blobs/sha512", "ingest"];
    /// The change set of a layer, and the writable directory of a snapshot.
    pub const FS: &str = "fs";
    /// The layer table.
    pub const TABLE: &str = "table";
    /// The recipe of a foreign tar.
    pub const RECIPE: &str = "recipe";
    /// The files of a volume.
    pub const VOLUME_DATA: &str = "data";
    /// What a lock file beside a cache mount slot ends with.
    pub const LOCK_SUFFIX: &str = ".lock";
    /// What a stat cache ends with.
    pub const STAT_SUFFIX: &str = ".stat";
}

/// The root of a store; makes every path below it.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// Names the store at `root`; no I/O.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The root itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Schema and flavour.
    pub fn store_json(&self) -> PathBuf {
        self.root.join(names::STORE_JSON)
    }

    /// The metadata.
    pub fn database(&self) -> PathBuf {
        self.root.join(names::DATABASE)
    }

    /// The write-ahead log of the metadata.
    pub fn database_wal(&self) -> PathBuf {
        self.root.join(names::DATABASE_SIDE_FILES[0])
    }

    /// Room set aside for a full disk.
    pub fn reserve(&self) -> PathBuf {
        self.root.join(names::RESERVE)
    }

    /// The shared memory of the metadata's users.
    pub fn database_shm(&self) -> PathBuf {
        self.root.join(names::DATABASE_SIDE_FILES[1])
    }

    /// The blobs of one algorithm.
    pub fn blobs(&self, algorithm: mica_oci::Algorithm) -> PathBuf {
        self.root.join("content/blobs").join(algorithm.name())
    }

    /// A complete blob.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs(digest.algorithm()).join(digest.hex())
    }

    /// Blobs being written.
    pub fn ingests(&self) -> PathBuf {
        self.root.join("content/ingest")
    }

    /// Blobs being fetched; made with the first.
    pub fn partials(&self) -> PathBuf {
        self.root.join("content/partial")
    }

    /// A blob being fetched.
    pub fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
    }

    /// All committed layers.
    pub fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// One committed layer.
    pub fn layer(&self, id: LayerId) -> PathBuf {
        self.layers().join(id.to_string())
    }

    /// The change set of a layer.
    pub fn layer_fs(&self, id: LayerId) -> PathBuf {
        self.layer(id).join(names::FS)
    }

    /// The table of a layer.
    pub fn layer_table(&self, id: LayerId) -> PathBuf {
        self.layer(id).join(names::TABLE)
    }

    /// The recipe of a foreign layer; often absent.
    pub fn layer_recipe(&self, id: LayerId) -> PathBuf {
        self.layer(id).join(names::RECIPE)
    }

    /// Writable snapshots of running builds.
    pub fn actives(&self) -> PathBuf {
        self.root.join("active")
    }

    /// All containers.
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// What belongs to one container.
    pub fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers().join(id.as_str())
    }

    /// All volumes.
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// One volume.
    pub fn volume(&self, id: VolumeId) -> PathBuf {
        self.volumes().join(id.to_string())
    }

    /// The files of one volume.
    pub fn volume_data(&self, id: VolumeId) -> PathBuf {
        self.volume(id).join(names::VOLUME_DATA)
    }

    /// All cache mounts.
    pub fn cache_mounts(&self) -> PathBuf {
        self.root.join("cache-mounts")
    }

    /// The directory of one cache mount id; the id is hashed because a Dockerfile chose it.
    pub fn cache_mount(&self, id: &str) -> PathBuf {
        self.cache_mounts().join(hash_name(id.as_bytes()))
    }

    /// All stat caches.
    pub fn contexts(&self) -> PathBuf {
        self.root.join("contexts")
    }

    /// The stat cache of the build context at `context_root`.
    pub fn stat_cache(&self, context_root: &Path) -> PathBuf {
        use std::os::unix::ffi::OsStrExt as _;
        let name = hash_name(context_root.as_os_str().as_bytes());
        self.contexts().join(format!("{name}{}", names::STAT_SUFFIX))
    }

    /// All journals.
    pub fn journals(&self) -> PathBuf {
        self.root.join("journals")
    }

    /// Lease files.
    pub fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    /// Lock files.
    pub fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// Scratch space of leases.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// What waits to be unlinked.
    pub fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// Every directory that creation makes, parents first.
    pub(crate) fn skeleton(&self) -> Vec<PathBuf> {
        let top = names::DIRECTORIES.iter().map(|name| self.root.join(name));
        let content = names::CONTENT_DIRECTORIES.iter().map(|name| self.root.join("content").join(name));
        top.chain(content).collect()
    }
}

/// A file name for text that somebody else chose.
pub(crate) fn hash_name(text: &[u8]) -> String {
    blake3::hash(text).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_cache_mount_id_stays_one_component() {
        let state = StateDir::new("/s");
        let path = state.cache_mount("../../etc");
        assert_eq!(path.parent(), Some(Path::new("/s/cache-mounts")));
        assert_eq!(path.file_name().unwrap().len(), 64);
    }
}
