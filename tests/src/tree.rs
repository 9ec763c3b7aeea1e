//! The files of an image, as another tool unpacks them.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use mica_testkit::{TempDir, temp_dir};

/// An unpacked root file system.
pub struct Tree {
    directory: TempDir,
}

impl Tree {
    /// Unpacks a tar with the system's `tar`, as root: owners, modes, times and attributes are kept.
    ///
    /// # Panics
    /// If `tar` refuses it.
    #[track_caller]
    pub fn extract(tar: &Path) -> Self {
        let directory = temp_dir();
        let done = Command::new("tar")
            .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
            .arg(tar)
            .arg("-C")
            .arg(directory.path())
            .output()
            .expect("the system has tar");
        assert!(done.status.success(), "tar: {}", String::from_utf8_lossy(&done.stderr));
        Self { directory }
    }

    /// Where a path of the image is on this machine. Links in it are not followed.
    pub fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path.trim_start_matches('/'))
    }

    /// The text of a file.
    #[track_caller]
    pub fn text(&self, path: &str) -> String {
        self.lstat(path);
        std::fs::read_to_string(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Whether there is something at the path.
    pub fn has(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// What is at the path, not following a link.
    #[track_caller]
    pub fn lstat(&self, path: &str) -> Metadata {
        self.path(path)
            .symlink_metadata()
            .unwrap_or_else(|error| panic!("{path}: {error}; the root holds {:?}", self.names("/")))
    }

    /// The permission bits.
    #[track_caller]
    pub fn mode(&self, path: &str) -> u32 {
        self.lstat(path).mode() & 0o7777
    }

    /// User and group.
    #[track_caller]
    pub fn owner(&self, path: &str) -> (u32, u32) {
        let found = self.lstat(path);
        (found.uid(), found.gid())
    }

    /// Where a symbolic link leads.
    #[track_caller]
    pub fn link(&self, path: &str) -> String {
        let target = std::fs::read_link(self.path(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        target.to_string_lossy().into_owned()
    }

    /// The sorted names in a directory.
    #[track_caller]
    pub fn names(&self, path: &str) -> Vec<String> {
        Self::names_in(&self.path(path))
    }

    /// The sorted names in a directory of this machine.
    #[track_caller]
    pub fn names_in(path: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.expect("a readable directory").file_name().to_string_lossy().into_owned()
        };
        let mut names: Vec<String> = entries.map(name).collect();
        names.sort();
        names
    }

    /// All files below a directory, sorted, as paths relative to it; directories are not listed.
    #[track_caller]
    pub fn files(&self, path: &str) -> Vec<String> {
        let mut found = Vec::new();
        let mut pending = vec![String::new()];
        while let Some(inner) = pending.pop() {
            for name in self.names(&format!("{path}/{inner}")) {
                let relative = if inner.is_empty() { name } else { format!("{inner}/{name}") };
                if self.lstat(&format!("{path}/{relative}")).is_dir() {
                    pending.push(relative);
                } else {
                    found.push(relative);
                }
            }
        }
        found.sort();
        found
    }
}
