//! A directory outside of every root, that nothing hostile may change.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use mica_testkit::{TempDir, temp_dir};

/// What the secret file says; it may be nowhere else.
pub const SECRET: &str = "canary-of-the-host-7f3a";

/// A directory with one file in it, and everything there is to know about both.
pub struct Canary {
    directory: TempDir,
    before: Vec<String>,
}

impl Canary {
    /// A new one; everybody could write to it.
    ///
    /// # Panics
    /// If there is no room for temporary files.
    #[track_caller]
    pub fn new() -> Self {
        let directory = temp_dir();
        let file = directory.path().join("file");
        std::fs::write(&file, SECRET).expect("our own directory");
        for path in [&file, directory.path()] {
            let mode = if path == file { 0o666 } else { 0o777 };
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("our own file");
        }
        // Not every file system has user attributes.
        let _ = Command::new("setfattr").args(["-n", "user.canary", "-v", "1"]).arg(&file).output();
        let past = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_234_567_890);
        for path in [&file, directory.path()] {
            let opened = std::fs::File::open(path).expect("our own file");
            opened.set_modified(past).expect("our own file");
        }
        let before = state(directory.path());
        Self { directory, before }
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The path as text.
    pub fn text(&self) -> &str {
        self.path().to_str().expect("our own path")
    }

    /// The path without the leading slash, to be put behind `../../..`.
    pub fn relative(&self) -> &str {
        self.text().trim_start_matches('/')
    }

    /// Demands that nothing of it changed: names, content, mode, owner, times, attributes, links.
    ///
    /// # Panics
    /// If it did; `what` names the attack.
    #[track_caller]
    pub fn check(&self, what: &str) {
        assert_eq!(state(self.path()), self.before, "{what} reached the host");
    }
}

impl Default for Canary {
    fn default() -> Self {
        Self::new()
    }
}

fn state(directory: &Path) -> Vec<String> {
    let mut names: Vec<PathBuf> = std::fs::read_dir(directory)
        .expect("our own directory")
        .map(|entry| entry.expect("our own directory").path())
        .collect();
    names.sort();
    names.insert(0, directory.to_owned());
    names.iter().map(|path| describe(path)).collect()
}

fn describe(path: &Path) -> String {
    let found = path.symlink_metadata().expect("our own file");
    let content = if found.is_file() { std::fs::read(path).expect("our own file") } else { Vec::new() };
    let attributes = Command::new("getfattr").args(["-hdm", "-"]).arg(path).output();
    let attributes = attributes.map(|output| output.stdout).unwrap_or_default();
    format!(
        "{} mode {:o} owner {}:{} links {} mtime {}.{} inode {} content {:?} attributes {:?}",
        path.display(),
        found.mode(),
        found.uid(),
        found.gid(),
        found.nlink(),
        found.mtime(),
        found.mtime_nsec(),
        found.ino(),
        String::from_utf8_lossy(&content),
        String::from_utf8_lossy(&attributes),
    )
}
