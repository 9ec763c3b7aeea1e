//! `rm`.

use std::time::{Duration, Instant};

use mica_api::{Class, ContainerState, Error, RemoveContainer, Result};
use mica_store::{ContainerError, ContainerId};
use rustix::process::Signal;

use super::control;
use super::list::Container;
use super::state::Process;
use super::volumes;
use crate::LocalEngine;

/// How long a killed container may take to be gone.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often that is looked at.
const KILL_POLL: Duration = Duration::from_millis(5);

/// `rm`: a running container only by force, which kills it.
pub(crate) fn remove(engine: &LocalEngine, request: &RemoveContainer) -> Result<()> {
    let container = Container::find(engine, &request.container)?;
    let mounts = container.spec.volumes.clone();
    remove_container(engine, container, request.force)?;
    if request.volumes {
        volumes::remove_anonymous(engine.store(), &mounts)?;
    }
    Ok(())
}

fn remove_container(engine: &LocalEngine, mut container: Container, force: bool) -> Result<()> {
    let id = container.record.id.clone();
    loop {
        if let Some(process) = container.state.process() {
            if !force {
                return Err(Error::new(
                    Class::Conflict,
                    format!(
                        "cannot remove container \"/{}\": container is running: stop the container before removing \
                         or force remove",
                        container.record.name
                    ),
                ));
            }
            kill(engine, &id, process)?;
        }
        match engine.store().remove_container(&container.record) {
            // Its end has just been recorded, it has just been started, or `run --rm` was faster.
            Err(ContainerError::Changed(_)) => match engine.store().find_container(id.as_str()) {
                Ok(record) => container = Container::of(record)?,
                Err(ContainerError::NotFound(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            },
            other => {
                other?;
                mica_runtime::cgroup::remove_leftovers(id.as_str());
                return Ok(());
            }
        }
    }
}

/// Does what `run` processes that were killed could not: the cgroups of dead containers go, and those containers that
/// were to be removed when they end.
pub(crate) fn bury_the_dead(engine: &LocalEngine) -> Result<()> {
    for record in engine.store().containers()? {
        // A damaged record is for `system check` to name; it stops no collection.
        let Ok(container) = Container::of(record) else { continue };
        let id = container.record.id.as_str();
        match (container.state.truth(), container.spec.remove) {
            (ContainerState::Dead, true) => match remove(engine, &removal(id)) {
                // Its own process was not dead but slow, and has removed it.
                Err(error) if error.class == Class::NotFound => {}
                other => other?,
            },
            (ContainerState::Dead, false) => mica_runtime::cgroup::remove_leftovers(id),
            _ => {}
        }
    }
    Ok(())
}

/// `--rm` takes anonymous volumes along.
fn removal(id: &str) -> RemoveContainer {
    RemoveContainer { container: id.to_owned(), volumes: true, ..RemoveContainer::default() }
}

/// Kills a container and waits until it is gone.
fn kill(engine: &LocalEngine, id: &ContainerId, process: &Process) -> Result<()> {
    let directory = engine.store().state().container(id);
    if control::kill(&directory).is_err() && process.is_alive() {
        // Nobody answers for it any more. The descriptor is taken before the look that confirms whose it is.
        let killed = mica_sys::process::pidfd_open(process.pid).and_then(|pidfd| {
            if !process.is_alive() {
                return Ok(());
            }
            mica_sys::process::pidfd_signal(std::os::fd::AsFd::as_fd(&pidfd), Signal::KILL.as_raw())
        });
        killed.map_err(|error| {
            Error::new(Class::of_io(&error), format!("cannot kill container {}", id.short()))
                .why(error.to_string())
        })?;
    }
    let deadline = Instant::now() + KILL_TIMEOUT;
    while process.is_alive() {
        if Instant::now() > deadline {
            return Err(Error::new(Class::Internal, format!("cannot kill container {}", id.short()))
                .why(format!("process {} is still there after {} s", process.pid, KILL_TIMEOUT.as_secs())));
        }
        std::thread::sleep(KILL_POLL);
    }
    Ok(())
}
