//! From a request to a recorded container: its image, its name, its directory.

use std::path::{Path, PathBuf};

use mica_api::{Class, Error, Result, RunRequest};
use mica_oci::{Reference, ReferenceError};
use mica_store::{ContainerError, ContainerId, ImageError, ImageRecord, LayerId, Lease, NewContainer};

use super::spec::{Base, Spec};
use super::state::State;
use super::volumes;
use crate::{LocalEngine, names};

/// How many random names are tried before one is taken to be taken.
const NAME_ATTEMPTS: u32 = 10;

/// A container that is recorded and not started.
pub(super) struct Created {
    pub(super) id: ContainerId,
    pub(super) spec: Spec,
    pub(super) layers: Vec<LayerId>,
    /// Where everything of it is.
    pub(super) directory: PathBuf,
}

/// Records a new container.
///
/// # Errors
/// No such image, a name that is taken or makes no sense, options that make no sense.
pub(super) fn create(engine: &LocalEngine, request: RunRequest, lease: &Lease) -> Result<Created> {
    if let Some(name) = request.name.as_deref().filter(|name| !names::is_valid(name)) {
        return Err(Error::new(
            Class::Invalid,
            format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
        ));
    }
    let record = find_image(engine, &request.image)?;
    let image = engine.platform_image(&record, request.platform.as_ref())?;
    let id = ContainerId::random();
    let name = request.name.clone();
    let base = Base {
        manifest: image.digest.clone(),
        platform: image.config.platform(),
        config: &image.config.config,
    };
    let mut request = request;
    let asked = std::mem::take(&mut request.volumes);
    let mut spec = Spec::new(request, base, id.short())?;
    super::plan::check(&spec)?;
    spec.volumes = volumes::look_up(engine.store(), asked, spec.process.volumes.as_ref(), &spec.tmpfs)?;
    let volume_names = volumes::volume_names(&spec.volumes);
    let config_json = serde_json::to_string(&spec)
        .map_err(|error| Error::new(Class::Internal, "cannot record the container").why(error.to_string()))?;
    let state_json = State::default().to_json();
    let image_name = spec.image.parse::<Reference>().ok().filter(|_| record.name.is_some());
    let create = |name: &str| {
        let new = NewContainer {
            id: id.clone(),
            name,
            image_name: image_name.as_ref(),
            image: Some(&record.target.digest),
            image_id: Some(&record.image_id),
            layers: &image.layers,
            volumes: &volume_names,
            config_json: &config_json,
            state_json: &state_json,
        };
        engine.store().create_container(&new, lease)
    };
    let recorded = match &name {
        Some(name) => create(name),
        None => with_random_name(&id, create),
    };
    if let Err(error) = recorded {
        volumes::remove_anonymous(engine.store(), &spec.volumes)?;
        return Err(error.into());
    }
    let directory = engine.store().state().container(&id);
    if let Some(file) = &spec.cid_file {
        write_cid_file(file, &id)?;
    }
    Ok(Created { layers: image.layers.clone(), id, spec, directory })
}

/// Tries names made of the ID's own randomness until one is free.
fn with_random_name(
    id: &ContainerId,
    mut attempt: impl FnMut(&str) -> std::result::Result<(), ContainerError>,
) -> std::result::Result<(), ContainerError> {
    for number in 0.. {
        let (first, second) = numbers(id, number);
        match attempt(&names::from_random(first, second, number)) {
            Err(ContainerError::NameTaken { .. }) if number < NAME_ATTEMPTS => {}
            other => return other,
        }
    }
    unreachable!("the last attempt returns")
}

/// Two numbers of an ID, others for each attempt.
fn numbers(id: &ContainerId, attempt: u32) -> (u64, u64) {
    let digits = |start: usize| u64::from_str_radix(&id.as_str()[start..start + 12], 16).unwrap_or_default();
    let start = 2 * (attempt as usize % 16);
    (digits(start), digits(start + 16))
}

/// The image in this store; whoever asks pulls it before, if it may be pulled.
fn find_image(engine: &LocalEngine, query: &str) -> Result<ImageRecord> {
    match engine.store().find_image(query) {
        Err(ImageError::NotFound { .. }) => {
            let name: Reference = query
                .parse()
                .map_err(|error: ReferenceError| Error::new(Class::Invalid, error.to_string()))?;
            let name = name.or_latest().familiar();
            Err(Error::new(Class::NotFound, format!("No such image: {name}"))
                .hint(format!("`mica pull {name}`, or `mica images` for what is here")))
        }
        other => Ok(other?),
    }
}

/// Refuses before anything is made; the file is written once the container exists.
pub(super) fn check_cid_file(file: Option<&Path>) -> Result<()> {
    match file {
        Some(file) if file.exists() => Err(Error::new(
            Class::Conflict,
            format!(
                "container ID file found, make sure the other container isn't running or delete {}",
                file.display()
            ),
        )),
        _ => Ok(()),
    }
}

fn write_cid_file(file: &Path, id: &ContainerId) -> Result<()> {
    std::fs::write(file, id.as_str()).map_err(|error| {
        Error::new(Class::of_io(&error), format!("failed to create the container ID file {}", file.display()))
            .why(error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_names_are_tried_until_one_is_free() {
        let id = ContainerId::random();
        let mut tried = Vec::new();
        with_random_name(&id, |name| {
            tried.push(name.to_owned());
            match tried.len() {
                3 => Ok(()),
                _ => Err(ContainerError::NameTaken { name: name.to_owned(), holder: ContainerId::random() }),
            }
        })
        .unwrap();
        assert_eq!(tried.len(), 3);
        let always = with_random_name(&id, |name| {
            Err(ContainerError::NameTaken { name: name.to_owned(), holder: ContainerId::random() })
        });
        assert!(matches!(always, Err(ContainerError::NameTaken { .. })));
    }
}
