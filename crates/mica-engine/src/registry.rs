//! Images from and to registries.

use mica_api::{
    Cancel, Class, Error, Event, EventSink, PullImage, PulledImage, PushImage, PushedImage, Result,
    TransferUpdate,
};
use mica_build::{PullOrder, PushOrder, Transfers, WantedPlatform};
use mica_oci::{Reference, Tag};

use crate::LocalEngine;

/// `pull` of one image.
pub(crate) fn pull(
    engine: &LocalEngine,
    request: &PullImage,
    cancel: &Cancel,
    events: &dyn EventSink,
) -> Result<PulledImage> {
    let lease = engine.store().lease()?;
    let tell = |update: TransferUpdate| events.event(Event::Transfer(update));
    let transfers = Transfers { workshop: &engine.workshop, lease: &lease, cancel, tell: &tell };
    let order = PullOrder {
        reference: &request.reference,
        platform: WantedPlatform::asked(request.platform.as_ref()),
        pinned: false,
    };
    let pulled = mica_build::pull(transfers, order);
    remarks(engine, events);
    let pulled = pulled?;
    Ok(PulledImage { target: pulled.target, is_newer: pulled.is_newer })
}

/// The tags of a repository in its registry.
pub(crate) fn tags(engine: &LocalEngine, repository: &Reference, cancel: &Cancel) -> Result<Vec<Tag>> {
    Ok(engine.workshop.registries.repository(repository)?.tags(cancel)?)
}

/// `push` of one image.
pub(crate) fn push(
    engine: &LocalEngine,
    request: &PushImage,
    cancel: &Cancel,
    events: &dyn EventSink,
) -> Result<PushedImage> {
    let name = request.reference.clone().or_latest();
    let record = engine.store().image_by_name(&name)?.ok_or_else(|| {
        Error::new(
            Class::NotFound,
            format!("An image does not exist locally with the tag: {}", name.familiar_name()),
        )
        .why(format!("no image here is called {}", name.familiar()))
    })?;
    let lease = engine.store().lease()?;
    let tell = |update: TransferUpdate| events.event(Event::Transfer(update));
    let transfers = Transfers { workshop: &engine.workshop, lease: &lease, cancel, tell: &tell };
    let order = PushOrder { image: &record, to: &name, platform: request.platform.as_ref() };
    let pushed = mica_build::push(transfers, order);
    remarks(engine, events);
    let pushed = pushed?;
    Ok(PushedImage {
        target: pushed.target,
        instead_of: pushed.is_part.then(|| record.target.digest.clone()),
    })
}

/// What registries and helpers had to say.
fn remarks(engine: &LocalEngine, events: &dyn EventSink) {
    for remark in engine.workshop.registries.take_remarks() {
        events.event(Event::Notice(format!("WARNING: {remark}")));
    }
}
