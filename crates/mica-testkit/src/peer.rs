//! Other people's programs that mica is tested against.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Finds a program in `MICA_PEERS_BIN`, in the folder `cargo xtask peers` fills, and in `PATH`.
pub fn find(name: &str) -> Option<PathBuf> {
    let given = std::env::var_os("MICA_PEERS_BIN").map(PathBuf::from);
    let built = crate::target_folder().map(|target| target.join("peers/bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    given
        .into_iter()
        .chain(built)
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|program| executable(program))
}

/// Finds a program, or reports that the test is skipped because it is not there.
pub fn need(name: &str) -> Option<PathBuf> {
    let found = find(name);
    if found.is_none() {
        crate::skip(&format!("no {name} (`cargo xtask peers` gets it)"));
    }
    found
}

/// A static busybox, the usual content of a test's base image.
pub fn busybox() -> Option<PathBuf> {
    need("busybox")
}

fn executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
