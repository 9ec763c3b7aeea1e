//! What the tests share: goldens, skips that are counted, peers, the mica binary as users run it, faults.
//!
//! A dev-dependency only. It is the one library that may read the environment and print: a test reports
//! to the person who runs it.
//!
//! | variable | meaning |
//! |---|---|
//! | `MICA_BIN` | the binary under test; default: `mica` beside the tests in the target folder |
//! | `MICA_BLESS=1` | goldens are rewritten instead of compared |
//! | `MICA_SKIP_FILE` | skipped tests are also appended to this file, one line each |
//! | `MICA_PEERS_BIN` | searched for peers before `PATH`; default: `peers/bin` in the target folder |
//! | `MICA_FAULT_ROUNDS` | how often a fault test kills; default 5 |
//! | `MICA_FAULT_SEED` | repeats the delays of one fault test |

pub mod fault;
pub mod golden;
mod mica;
mod output;
pub mod peer;
mod skip;
mod user;

pub use mica::{Mica, Running};
pub use output::Output;
pub use skip::{needs_root, skip};
pub use tempfile::TempDir;
pub use user::User;

/// Makes an empty directory that is removed when dropped; other users may enter it.
///
/// # Panics
/// If the directory for temporary files takes no more.
#[track_caller]
pub fn temp_dir() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::Builder::new().prefix("mica-test-").tempdir().expect("a temporary directory");
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).expect("our own directory");
    directory
}

/// The target folder the running test was built into.
fn target_folder() -> Option<std::path::PathBuf> {
    // <target>/<profile>/deps/<test>
    let test = std::env::current_exe().ok()?;
    Some(test.parent()?.parent()?.parent()?.to_owned())
}
