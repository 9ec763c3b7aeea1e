//! The blobs of an image on their way to a registry: what is there is not sent, what is elsewhere there is mounted, the
//! rest is compressed while other layers are already under way.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use mica_api::{Cancel, Class, Error, TransferState};
use mica_distribution::{BlobBytes, Pushed, Upload};
use mica_oci::{Descriptor, Document, media_type};
use mica_store::LayerRecord;

use super::push::{PushForm, Pusher};
use super::short;
use crate::export::packed_layer;
use crate::permits::Permits;

/// How many blobs are under way at once.
const UPLOADS: usize = 8;
/// How many layers are compressed at once; each uses all processors, but small ones only one.
const COMPRESSED_AT_ONCE: usize = 2;
/// How often bytes are told.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// What is known of a layer before it leaves.
#[derive(Debug, Clone)]
pub(super) enum Plan {
    /// It came in this form, which names it.
    Original {
        descriptor: Descriptor,
        /// A repository of the same registry that may have it.
        source: Option<String>,
    },
    /// It had this form elsewhere, or before.
    Known { descriptor: Descriptor, source: Option<String> },
    /// It never left.
    New {
        /// What its descriptor says besides the digest.
        like: Descriptor,
    },
}

impl Plan {
    pub(super) fn is_original(&self) -> bool {
        matches!(self, Self::Original { .. })
    }
}

/// All that is to be sent of one image.
pub(super) struct Outgoing<'a> {
    pub(super) form: PushForm,
    /// The type of layers that get a new form.
    pub(super) media: &'a str,
    pub(super) plans: Vec<Plan>,
    /// What is sent beside them.
    pub(super) config: Option<(Descriptor, BlobBytes)>,
}

/// A repository of the same registry whose images have a layer.
pub(super) fn source(pusher: &Pusher<'_>, layer: &LayerRecord) -> Result<Option<String>, Error> {
    let uses = pusher.transfers.workshop.store.layer_uses(layer.id)?;
    let names = uses.into_iter().flat_map(|found| found.names);
    let mut near = names.filter(|name| {
        name.registry() == pusher.to.registry() && name.repository() != pusher.to.repository()
    });
    Ok(near.next().map(|name| name.repository().to_owned()))
}

/// The form in which a layer came, or left with another image.
pub(super) fn known_form(
    pusher: &Pusher<'_>,
    layer: &LayerRecord,
    form: PushForm,
) -> Result<Option<Descriptor>, Error> {
    let store = &pusher.transfers.workshop.store;
    for found in store.layer_uses(layer.id)? {
        let Ok(bytes) = store.read_blob(&found.manifest, Document::LIMIT_BYTES as u64) else { continue };
        let Ok(Document::Manifest(manifest)) = Document::parse(&bytes, "") else { continue };
        let original = manifest.layers.get(found.position).filter(|known| known.digest != layer.diff_id.0);
        let docker = manifest.media_type == media_type::DOCKER_MANIFEST;
        let descriptor = match original {
            Some(original) => Some(original.clone()),
            None => {
                let left = store.form(&found.manifest, &form.key(docker))?;
                left.and_then(|left| left.layers.get(found.position).cloned())
            }
        };
        if descriptor.is_some() {
            return Ok(descriptor);
        }
    }
    Ok(None)
}

/// Sends a config by itself.
///
/// # Errors
/// The registry refuses it, the network.
pub(super) fn small(pusher: &Pusher<'_>, media: &str, bytes: Vec<u8>, cancel: &Cancel) -> Result<(), Error> {
    let descriptor = Descriptor::of(media, &bytes);
    send_small(pusher, &descriptor, &BlobBytes::Memory(bytes.into()), cancel)
}

fn send_small(
    pusher: &Pusher<'_>,
    descriptor: &Descriptor,
    bytes: &BlobBytes,
    cancel: &Cancel,
) -> Result<(), Error> {
    if let Upload::Session(session) = pusher.repository.begin_upload(&descriptor.digest, None, cancel)? {
        pusher.repository.upload(session, descriptor, bytes, &Arc::default(), cancel)?;
    }
    Ok(())
}

/// Sends config and layers; returns the layers as they are there, lowest first.
///
/// # Errors
/// The first thing that went wrong.
pub(super) fn send(
    pusher: &Pusher<'_>,
    layers: &[LayerRecord],
    outgoing: Outgoing<'_>,
) -> Result<Vec<Descriptor>, Error> {
    let scratch = pusher.transfers.lease.scratch()?;
    let sender = Sender {
        pusher,
        layers,
        outgoing: &outgoing,
        scratch: &scratch,
        // small ones first: they are many, and the large ones take their time anyway
        order: order(layers),
        next: AtomicUsize::new(0),
        sent: (0..layers.len()).map(|_| Mutex::default()).collect(),
        compressing: Permits::new(COMPRESSED_AT_ONCE),
        stop: pusher.transfers.cancel.child(),
        failure: Mutex::default(),
    };
    thread::scope(|scope| -> Result<(), Error> {
        for number in 0..UPLOADS.min(sender.order.len() + 1) {
            let builder = thread::Builder::new().name(format!("upload-{number}"));
            builder.spawn_scoped(scope, || sender.work()).map_err(|error| {
                sender.stop.cancel();
                Error::new(Class::of_io(&error), "cannot start a thread").why(error.to_string())
            })?;
        }
        Ok(())
    })?;
    pusher.transfers.cancel.check()?;
    if let Some(error) = sender.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let position =
        |layer: &LayerRecord| layers.iter().position(|other| other.id == layer.id).unwrap_or_default();
    let sent = layers.iter().map(|layer| {
        let sent = sender.sent[position(layer)].lock().unwrap_or_else(PoisonError::into_inner);
        sent.clone()
            .ok_or_else(|| Error::new(Class::Internal, format!("layer {} was not sent", layer.diff_id)))
    });
    sent.collect()
}

/// Each layer once, small ones first.
fn order(layers: &[LayerRecord]) -> Vec<usize> {
    let is_first = |index: &usize| layers[..*index].iter().all(|layer| layer.id != layers[*index].id);
    let mut order: Vec<usize> = (0..layers.len()).filter(is_first).collect();
    order.sort_by_key(|index| layers[*index].tar_bytes);
    order
}

struct Sender<'a> {
    pusher: &'a Pusher<'a>,
    layers: &'a [LayerRecord],
    outgoing: &'a Outgoing<'a>,
    scratch: &'a Path,
    order: Vec<usize>,
    next: AtomicUsize,
    sent: Vec<Mutex<Option<Descriptor>>>,
    compressing: Permits,
    stop: Cancel,
    failure: Mutex<Option<Error>>,
}

impl Sender<'_> {
    fn work(&self) {
        loop {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            if turn > self.order.len() || self.stop.is_cancelled() {
                return;
            }
            let done = match turn.checked_sub(1) {
                None => self.send_config(),
                Some(turn) => self.send_layer(self.order[turn]),
            };
            if let Err(error) = done {
                if error.class != Class::Cancelled {
                    let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(error);
                }
                self.stop.cancel();
            }
        }
    }

    fn send_config(&self) -> Result<(), Error> {
        match &self.outgoing.config {
            Some((descriptor, bytes)) => send_small(self.pusher, descriptor, bytes, &self.stop),
            None => Ok(()),
        }
    }

    fn send_layer(&self, index: usize) -> Result<(), Error> {
        let layer = &self.layers[index];
        let (descriptor, pushed) = match &self.outgoing.plans[index] {
            Plan::Original { descriptor, source } | Plan::Known { descriptor, source } => {
                self.send_known(layer, descriptor, source.as_deref())?
            }
            Plan::New { like } => self.send_new(layer, like)?,
        };
        let state = match pushed {
            Pushed::Sent => TransferState::Pushed,
            Pushed::Existed => TransferState::AlreadyThere,
            Pushed::Mounted(from) => TransferState::Mounted(from),
        };
        self.pusher.transfers.tell(&short(&layer.diff_id.0), state);
        *self.sent[index].lock().unwrap_or_else(PoisonError::into_inner) = Some(descriptor);
        Ok(())
    }

    /// A layer whose digest is known: it is asked for first, its bytes are made only if they are needed.
    fn send_known(
        &self,
        layer: &LayerRecord,
        descriptor: &Descriptor,
        source: Option<&str>,
    ) -> Result<(Descriptor, Pushed), Error> {
        let repository = self.pusher.repository;
        let session = match repository.begin_upload(&descriptor.digest, source, &self.stop)? {
            Upload::Done(pushed) => return Ok((descriptor.clone(), pushed)),
            Upload::Session(session) => session,
        };
        let store = &self.pusher.transfers.workshop.store;
        if store.blob(&descriptor.digest)?.is_some() {
            let bytes = BlobBytes::File(Arc::new(store.open_blob(&descriptor.digest)?));
            let pushed = self.upload(layer, session, descriptor, &bytes)?;
            return Ok((descriptor.clone(), pushed));
        }
        let (made, path) = self.compress(layer)?;
        let descriptor = match made.digest == descriptor.digest {
            true => descriptor.clone(),
            // another compressor made it: the layer is the same, the blob is not
            false => Descriptor { annotations: descriptor.annotations.clone(), ..made },
        };
        let pushed = self.upload(layer, session, &descriptor, &file(&path)?)?;
        self.discard(&path);
        Ok((descriptor, pushed))
    }

    fn send_new(&self, layer: &LayerRecord, like: &Descriptor) -> Result<(Descriptor, Pushed), Error> {
        let (made, path) = self.compress(layer)?;
        let descriptor = Descriptor { annotations: like.annotations.clone(), ..made };
        let pushed = match self.pusher.repository.begin_upload(&descriptor.digest, None, &self.stop)? {
            Upload::Done(pushed) => pushed,
            Upload::Session(session) => self.upload(layer, session, &descriptor, &file(&path)?)?,
        };
        self.discard(&path);
        Ok((descriptor, pushed))
    }

    fn compress(&self, layer: &LayerRecord) -> Result<(Descriptor, PathBuf), Error> {
        let _permit = self.compressing.take();
        self.stop.check()?;
        let Outgoing { form, media, .. } = *self.outgoing;
        packed_layer(
            self.pusher.transfers.workshop,
            layer,
            (form.compression, media),
            self.scratch,
            &self.stop,
        )
    }

    /// Sends bytes, and tells how many now and then.
    fn upload(
        &self,
        layer: &LayerRecord,
        session: mica_distribution::UploadSession,
        descriptor: &Descriptor,
        bytes: &BlobBytes,
    ) -> Result<Pushed, Error> {
        let sent = Arc::new(AtomicU64::new(0));
        let (id, total_bytes) = (short(&layer.diff_id.0), descriptor.size);
        let done = AtomicUsize::new(0);
        thread::scope(|scope| {
            let watch = thread::Builder::new().spawn_scoped(scope, || {
                while done.load(Ordering::Relaxed) == 0 {
                    thread::park_timeout(TELL_EVERY);
                    let current_bytes = sent.load(Ordering::Relaxed);
                    if done.load(Ordering::Relaxed) == 0 && current_bytes > 0 {
                        let state = TransferState::Uploading { current_bytes, total_bytes };
                        self.pusher.transfers.tell(&id, state);
                    }
                }
            });
            let pushed = self.pusher.repository.upload(session, descriptor, bytes, &sent, &self.stop);
            done.store(1, Ordering::Relaxed);
            if let Ok(watch) = watch {
                watch.thread().unpark();
            }
            Ok(pushed?)
        })
    }

    /// Room for the next one; what cannot be removed goes with the lease.
    fn discard(&self, path: &Path) {
        let _ = std::fs::remove_file(path);
    }
}

fn file(path: &Path) -> Result<BlobBytes, Error> {
    let file = File::open(path).map_err(|error| {
        Error::new(Class::of_io(&error), format!("cannot open {}", path.display())).why(error.to_string())
    })?;
    Ok(BlobBytes::File(Arc::new(file)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mica_oci::{DiffId, Digest};
    use mica_store::LayerId;

    fn record(id: LayerId, tar_bytes: u64) -> LayerRecord {
        let diff_id = DiffId(Digest::of(&tar_bytes.to_le_bytes()));
        LayerRecord { id, diff_id, tar_bytes, content_bytes: 0, disk_bytes: 0, recipe: None, created: 0 }
    }

    #[test]
    fn each_layer_is_sent_once_and_small_ones_first() {
        let (one, two) = (LayerId::random(), LayerId::random());
        assert_eq!(order(&[record(one, 9), record(two, 3), record(one, 9)]), [1, 0]);
    }
}
