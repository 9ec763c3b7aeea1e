//! What is the case: recorded by whoever changes it, believed only as far as the kernel confirms it.
//!
//! A pid alone proves nothing: ids are reused, and a reboot forgets them all. A process is the recorded one if boot id,
//! pid and start time agree.

use std::fs;

use mica_api::{Class, ContainerState, Error, Result, Timestamp};
use mica_store::{ContainerError, ContainerRecord, Store};
use serde::{Deserialize, Serialize};

/// The exit code of a container that nobody saw ending: as if killed.
const LOST_EXIT_CODE: u8 = 137;

/// The recorded state of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) life: Life,
    pub(super) started: Option<Timestamp>,
    pub(super) finished: Option<Timestamp>,
    pub(super) exit_code: Option<u8>,
    /// Why it could not be started.
    pub(super) error: String,
    /// Paths made only to be mounted on; they are in the writable layer while the container runs.
    #[serde(default)]
    pub(super) mountpoints: Vec<Vec<u8>>,
}

/// How far a container has come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Life {
    /// Made; perhaps about to start.
    #[default]
    Created,
    /// Started.
    Running(Process),
    /// Ended, and its end was seen.
    Exited,
}

/// A process, named for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) boot_id: String,
    pub(super) pid: i32,
    /// Clock ticks since boot.
    pub(super) start_time: u64,
}

impl Process {
    /// Names a process that is running now.
    pub(super) fn now(pid: i32, start_time: u64) -> Self {
        Self { boot_id: boot_id(), pid, start_time }
    }

    /// Whether it still runs.
    pub(super) fn is_alive(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        self.is_confirmed_by(&boot_id(), &stat)
    }

    /// Decides by the current boot id and the text of `/proc/<pid>/stat` (empty if there is none).
    fn is_confirmed_by(&self, boot_id: &str, stat: &str) -> bool {
        // The name in field 2 may contain anything, so fields are counted from its end.
        let Some((_, fields)) = stat.rsplit_once(") ") else { return false };
        let mut fields = fields.split_ascii_whitespace();
        let is_zombie = matches!(fields.next(), None | Some("Z" | "X"));
        let start_time = fields.nth(18).and_then(|field| field.parse::<u64>().ok());
        self.boot_id == boot_id && !is_zombie && start_time == Some(self.start_time)
    }
}

/// The kernel's name for this boot; empty without /proc, and then nothing recorded is believed.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

impl State {
    /// Reads the state of a record.
    ///
    /// # Errors
    /// The record is damaged.
    pub(super) fn of(record: &ContainerRecord) -> Result<Self> {
        serde_json::from_str(&record.state_json).map_err(|error| damaged(record, &error))
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a state has only string keys")
    }

    /// The process, if it runs.
    pub(super) fn process(&self) -> Option<&Process> {
        match &self.life {
            Life::Running(process) if process.is_alive() => Some(process),
            _ => None,
        }
    }

    /// What `ps` shows.
    pub(super) fn truth(&self) -> ContainerState {
        match &self.life {
            Life::Created => ContainerState::Created,
            Life::Exited => ContainerState::Exited,
            Life::Running(process) if process.is_alive() => ContainerState::Running,
            Life::Running(_) => ContainerState::Dead,
        }
    }

    /// The exit code as `truth` has it.
    pub(super) fn shown_exit_code(&self) -> Option<u8> {
        match self.truth() {
            ContainerState::Dead => Some(LOST_EXIT_CODE),
            _ => self.exit_code,
        }
    }
}

/// The error for a record that cannot be read.
pub(super) fn damaged(record: &ContainerRecord, error: &serde_json::Error) -> Error {
    Error::new(Class::Corrupt, format!("the record of container {} is damaged", record.name))
        .why(error.to_string())
}

/// Records a state, whoever else changed the container since it was read: only its runner changes states.
///
/// # Errors
/// The container is gone, or the store refuses.
pub(super) fn record(store: &Store, id: &str, state: &State) -> Result<()> {
    let json = state.to_json();
    loop {
        let seen = store.find_container(id)?;
        match store.update_container(&seen, &json) {
            Err(ContainerError::Changed(_)) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "42 (a) b) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 777 1000 2 18446744073709551615";

    fn process() -> Process {
        Process { boot_id: "b".into(), pid: 42, start_time: 777 }
    }

    #[test]
    fn a_pid_is_believed_only_with_boot_id_and_start_time() {
        assert!(process().is_confirmed_by("b", STAT));
        assert!(!process().is_confirmed_by("c", STAT));
        assert!(!process().is_confirmed_by("b", &STAT.replace(" 777 ", " 778 ")));
        assert!(!process().is_confirmed_by("b", &STAT.replace(") S ", ") Z ")));
        assert!(!process().is_confirmed_by("b", ""));
    }

    #[test]
    fn this_process_runs_and_one_of_another_boot_does_not() {
        let stat = fs::read_to_string("/proc/self/stat").unwrap();
        let start_time = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().parse().unwrap();
        let mut process = Process::now(std::process::id().cast_signed(), start_time);
        assert!(process.is_alive());
        process.boot_id = "another".into();
        let state = State { life: Life::Running(process), ..State::default() };
        assert_eq!((state.truth(), state.shown_exit_code()), (ContainerState::Dead, Some(137)));
    }

    #[test]
    fn a_state_survives_being_recorded() {
        let state = State { life: Life::Running(process()), exit_code: Some(3), ..State::default() };
        assert_eq!(serde_json::from_str::<State>(&state.to_json()).unwrap(), state);
    }
}
