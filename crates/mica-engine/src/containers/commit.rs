//! `commit`: an image of a container's changes.
//!
//! The changes are read as the tar that the new layer is, from the files as they lie on disk: nothing of the new layer
//! is shared with the container, which goes on changing its files.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use mica_api::{Cancel, Class, CommitContainer, Error, Result, Timestamp};
use mica_archive::{TarFormat, WriteError, write_tar};
use mica_build::{bring_in_layer, publish_manifest, write_manifest};
use mica_oci::{History, Reference};
use mica_store::{LayerId, Lease};
use mica_sys::root::Root;

use super::control;
use super::files::{self, Changes};
use super::list::Container;
use crate::LocalEngine;
use crate::images::PlatformImage;
use crate::times::rfc3339;

/// `commit`.
pub(crate) fn commit(engine: &LocalEngine, request: CommitContainer, cancel: &Cancel) -> Result<String> {
    let container = Container::find(engine, &request.container)?;
    let base = base(engine, &container)?;
    let mut config = base.config;
    config.config = container.spec.process.clone();
    mica_frontend::change_configs(&mut config, request.changes.iter().map(String::as_str))
        .map_err(|error| Error::new(Class::Invalid, error.to_string()))?;
    let lease = engine.store().lease()?;
    lease.protect_layers(&base.layers)?;
    let pause = match request.pause && container.state.process().is_some() {
        true => Some(pause(engine, &container)?),
        false => None,
    };
    let layer = layer_of_changes(engine, &container, &lease, cancel)?;
    drop(pause);
    let now = rfc3339(Timestamp::now().0);
    config.created = Some(now.clone());
    if !request.author.is_empty() {
        config.author = Some(request.author.clone());
    }
    config.history.get_or_insert_default().push(History {
        created: Some(now),
        created_by: container.spec.argv().join(" "),
        author: request.author,
        comment: request.message,
        ..History::default()
    });
    let mut stack = base.layers;
    stack.push(layer);
    let draft = write_manifest(&engine.workshop, config, &stack, &lease)?;
    let names: Vec<Reference> = request.name.into_iter().map(Reference::or_latest).collect();
    Ok(publish_manifest(&engine.workshop, &draft, &names, &lease)?.image_id.to_string())
}

/// The image the container was made of, which stays as long as the container does.
fn base(engine: &LocalEngine, container: &Container) -> Result<PlatformImage> {
    let target = container.record.image.as_ref().unwrap_or(&container.spec.manifest);
    let mut images = engine.platforms(target)?;
    let position = images.iter().position(|image| image.digest == container.spec.manifest);
    match position {
        Some(position) => Ok(images.swap_remove(position)),
        None => Err(Error::new(Class::NotFound, format!("No such image: {target}"))
            .why(format!("container {} was made of it", container.record.name))
            .hint("`mica export` still gives the container's files")),
    }
}

fn pause(engine: &LocalEngine, container: &Container) -> Result<Paused> {
    let paused = control::pause(&files::directory(engine, container));
    paused.map(|connection| Paused { _connection: connection }).map_err(|error| {
        Error::new(Class::Internal, format!("cannot pause container {}", container.record.name))
            .why(error.to_string())
            .hint("--pause=false commits it while it runs")
    })
}

/// A container that goes on when this is dropped.
struct Paused {
    _connection: UnixStream,
}

/// Makes a layer of what a container changed: one thread writes it as tar, this one takes it in.
fn layer_of_changes(
    engine: &LocalEngine,
    container: &Container,
    lease: &Lease,
    cancel: &Cancel,
) -> Result<LayerId> {
    let changes = Changes::read(engine, container)?;
    let failed = |error: io::Error| {
        Error::new(
            Class::of_io(&error),
            format!("cannot read the changes of container {}", container.record.name),
        )
        .why(error.to_string())
    };
    let upper = match changes.upper.exists() {
        true => Root::open(&changes.upper).map_err(failed)?,
        // A container that never started changed nothing.
        false => Root::open(&files::directory(engine, container)).map_err(failed)?,
    };
    let (mut reader, writer) = io::pipe().map_err(failed)?;
    std::thread::scope(|scope| {
        let table = &changes.table;
        let writing = std::thread::Builder::new().spawn_scoped(scope, move || {
            let mut out = io::BufWriter::with_capacity(1 << 16, File::from(OwnedFd::from(writer)));
            write_tar(table, &upper, &mut out, TarFormat::V1, &|| cancel.is_cancelled())?;
            io::Write::flush(&mut out).map_err(WriteError::Output)
        });
        let writing = writing.map_err(failed)?;
        let layer = bring_in_layer(&engine.workshop, &mut reader, None, None, lease, cancel);
        drop(reader);
        match (writing.join().expect("writing a tar does not panic"), layer) {
            (_, Ok(layer)) => Ok(layer.id),
            // The reason is on the side that read the files, unless that only lost its reader.
            (Err(error), Err(_)) if !matches!(error, WriteError::Output(_)) => {
                Err(failed(io::Error::other(error)))
            }
            (_, Err(error)) => Err(error.into()),
        }
    })
}
