//! `container prune`.

use mica_api::{
    Cancel, Class, ContainerFilter, ContainerState, ContainerSummary, ListContainers, PruneContainers,
    PruneReport, RemoveContainer, Result,
};

use crate::LocalEngine;

/// Removes containers that do not run. One that is started meanwhile stays.
pub(crate) fn prune(engine: &LocalEngine, request: &PruneContainers, cancel: &Cancel) -> Result<PruneReport> {
    let mut report = PruneReport::default();
    let usage = engine.store().disk_usage()?.containers;
    for container in super::list(engine, ListContainers { all: true, sizes: false })? {
        cancel.check()?;
        let chosen = request.filters.iter().all(|filter| holds(filter, &container));
        if !chosen || container.state == ContainerState::Running {
            continue;
        }
        let removal = RemoveContainer { container: container.id.clone(), ..RemoveContainer::default() };
        match super::remove(engine, &removal) {
            Ok(()) => {}
            Err(error) if matches!(error.class, Class::Conflict | Class::NotFound) => continue,
            Err(error) => return Err(error),
        }
        let size = usage.iter().find(|row| row.id.as_str() == container.id);
        report.freed_bytes += size.map_or(0, |row| row.bytes);
        report.containers.push(container.id);
    }
    Ok(report)
}

fn holds(filter: &ContainerFilter, container: &ContainerSummary) -> bool {
    let has = |key: &str, value: Option<&str>| {
        container.labels.iter().any(|(name, text)| name == key && value.is_none_or(|value| value == text))
    };
    match filter {
        ContainerFilter::Until(time) => container.created < *time,
        ContainerFilter::Label(key, value) => has(key, value.as_deref()),
        ContainerFilter::NotLabel(key, value) => !has(key, value.as_deref()),
    }
}
