//! One path of a layer: what it is, who owns it, when it changed.

use std::collections::BTreeMap;

pub use mica_sys::root::Timestamp;

/// BLAKE3 of a file's bytes. Internal to mica's stores; what leaves a machine is named by sha256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContentDigest(pub [u8; 32]);

impl ContentDigest {
    /// Returns the content digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

impl std::fmt::Debug for ContentDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "blake3:{}", blake3::Hash::from(self.0).to_hex())
    }
}

/// One path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Slash path without leading or trailing slash. Empty for the root directory, which is stored only if it changed.
    pub path: Vec<u8>,
    /// What is there.
    pub kind: Kind,
    /// Permission, setuid, setgid and sticky bits (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change. A tar keeps its whole seconds only.
    pub mtime: Timestamp,
    /// Extended attributes by name; `user.*` and `security.capability` only.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a path of a layer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Length.
        size: u64,
        /// Digest of the bytes; absent until the layer was read once ([`crate::finalize`]).
        digest: Option<ContentDigest>,
    },
    /// A directory.
    Directory {
        /// Whether everything below it in lower layers is hidden. Only layers made elsewhere have this.
        opaque: bool,
    },
    /// A symbolic link; its target is bytes, never a path of this machine.
    Symlink {
        /// What it points to.
        target: Vec<u8>,
    },
    /// Another name of a regular file of the same layer.
    Hardlink {
        /// Path of the [`Kind::File`] entry, which sorts earlier.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// The path of the lower layers, and everything below it, is gone.
    Whiteout,
}

impl Kind {
    /// Whether this is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self, Self::Directory { .. })
    }
}

impl Entry {
    /// Returns a whiteout of `path`; a tar shows it with mode 0, owner 0:0 and time 0.
    pub fn whiteout(path: impl Into<Vec<u8>>) -> Self {
        Self::new(path, Kind::Whiteout, 0)
    }

    /// Returns a directory as an engine makes it: owner 0:0, time 0.
    pub fn directory(path: impl Into<Vec<u8>>, mode: u32) -> Self {
        Self::new(path, Kind::Directory { opaque: false }, mode)
    }

    /// Returns an entry with owner 0:0, time 0 and no extended attributes.
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind, mode: u32) -> Self {
        Self {
            path: path.into(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Timestamp::default(),
            xattrs: BTreeMap::new(),
        }
    }

    /// The last component of the path; empty for the root.
    pub fn name(&self) -> &[u8] {
        crate::path::file_name(&self.path)
    }
}

/// Whether an extended attribute belongs into a layer (security.md rows 8 and 10).
///
/// Host labels (`security.selinux`, ACLs) mean nothing elsewhere and `*.overlay.*` would change what overlayfs shows.
pub fn keeps_xattr(name: &[u8]) -> bool {
    // A PAX keyword ends at the first `=`, so such a name cannot be written down.
    let writable = !name.contains(&b'=') && !name.contains(&0) && name.len() <= 255;
    let listed = name == b"security.capability" || (name.starts_with(b"user.") && name.len() > 5);
    writable && listed && !name.starts_with(b"user.overlay.")
}
