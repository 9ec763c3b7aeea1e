//! `ps`: what containers there are.

use mica_api::{ContainerState, ContainerSummary, ListContainers, NetworkMode, Result, Timestamp};
use mica_oci::Digest;
use mica_store::{ContainerRecord, StoreError};

use super::files;
use super::spec::Spec;
use super::state::{State, damaged};
use super::volumes::Mounted;
use crate::LocalEngine;

/// A container's record, read.
pub(super) struct Container {
    pub(super) record: ContainerRecord,
    pub(super) spec: Spec,
    pub(super) state: State,
}

impl Container {
    /// Reads a record.
    ///
    /// # Errors
    /// It is damaged.
    pub(super) fn of(record: ContainerRecord) -> Result<Self> {
        let spec = serde_json::from_str(&record.config_json).map_err(|error| damaged(&record, &error))?;
        let state = State::of(&record)?;
        Ok(Self { record, spec, state })
    }

    /// Finds a container by name, ID or ID prefix.
    ///
    /// # Errors
    /// docker's words if there is none.
    pub(super) fn find(engine: &LocalEngine, query: &str) -> Result<Self> {
        Self::of(engine.store().find_container(query)?)
    }
}

/// `ps`.
pub(crate) fn list(engine: &LocalEngine, request: ListContainers) -> Result<Vec<ContainerSummary>> {
    let mut rows = Vec::new();
    for record in engine.store().containers()? {
        let container = Container::of(record)?;
        if request.all || container.state.truth() == ContainerState::Running {
            let size_bytes = match request.sizes {
                true => files::size_bytes(engine, &container).ok(),
                false => None,
            };
            rows.push(ContainerSummary { size_bytes, ..summary(engine, container)? });
        }
    }
    Ok(rows)
}

fn summary(engine: &LocalEngine, container: Container) -> Result<ContainerSummary> {
    let image_id = image_id(&container);
    let Container { record, spec, state } = container;
    Ok(ContainerSummary {
        id: record.id.to_string(),
        image: shown_image(engine, &record, &spec, &image_id)?,
        image_id,
        command: spec.command_line(),
        created: Timestamp(record.created),
        state: state.truth(),
        started: state.started,
        finished: state.finished,
        exit_code: state.shown_exit_code(),
        labels: spec.process.labels.clone().into_iter().collect(),
        mounts: spec.volumes.iter().map(shown_mount).collect(),
        volumes: spec.volumes.iter().filter(|mount| mount.volume.is_some()).count() as u64,
        networks: vec![network_name(spec.network).to_owned()],
        size_bytes: None,
        name: record.name,
    })
}

fn shown_mount(mount: &Mounted) -> String {
    mount.volume.clone().unwrap_or_else(|| mount.source.display().to_string())
}

/// The image's ID; the manifest stands in for records of an older kind.
pub(super) fn image_id(container: &Container) -> Digest {
    container.record.image_id.as_ref().map_or_else(|| container.spec.manifest.clone(), |id| id.0.clone())
}

/// The image as the user wrote it, as long as that name still means it.
fn shown_image(
    engine: &LocalEngine,
    record: &ContainerRecord,
    spec: &Spec,
    image_id: &Digest,
) -> std::result::Result<String, StoreError> {
    let Some(name) = &record.image_name else { return Ok(spec.image.clone()) };
    let named = engine.store().image_by_name(&name.clone().or_latest())?;
    let moved = named.is_none_or(|image| Some(&image.image_id) != record.image_id.as_ref());
    Ok(if moved && name.digest().is_none() { image_id.short().to_owned() } else { spec.image.clone() })
}

/// docker's name of a network mode.
pub(super) fn network_name(mode: NetworkMode) -> &'static str {
    match mode {
        NetworkMode::None => "none",
        NetworkMode::Default | NetworkMode::Host => "host",
    }
}
