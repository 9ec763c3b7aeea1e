//! Layers of a registry: several arrive at once, and each is unpacked while it and the ones above it still arrive.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use mica_api::{Cancel, Class, Error, TransferState};
use mica_archive::View;
use mica_archive::compress::Decompressor;
use mica_distribution::{BlobSink, Repository};
use mica_oci::{Descriptor, DiffId, Digest};
use mica_store::{Feed, LayerRecord, Partial};

use super::pull::shown;
use super::{Tell, Transfers};
use crate::intake::{IntakeError, bring_in_layer, known_layer};

/// How many layers arrive at once.
const DOWNLOADS: usize = 6;
/// How often bytes are told.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// The layers of an image in the store.
pub(super) struct Stack {
    /// Lowest first.
    pub(super) layers: Vec<LayerRecord>,
    /// The blobs they came in, as far as they are here.
    pub(super) blobs: Vec<Digest>,
}

/// Brings layers in that belong to no image; as [`bring`].
///
/// # Errors
/// As [`bring`].
pub(crate) fn bring_layers(
    transfers: Transfers<'_>,
    repository: &Repository<'_>,
    blobs: &[Descriptor],
    diff_ids: &[DiffId],
) -> Result<Vec<LayerRecord>, Error> {
    bring(transfers, repository, blobs, diff_ids).map(|stack| stack.layers)
}

/// One blob to fetch.
struct Job<'a> {
    blob: &'a Descriptor,
    feed: Arc<Feed>,
}

/// Brings layers in, lowest first. Those known by diff ID are not fetched.
///
/// # Errors
/// The first thing that went wrong; layers that were complete by then stay for the next attempt.
pub(super) fn bring(
    transfers: Transfers<'_>,
    repository: &Repository<'_>,
    blobs: &[Descriptor],
    diff_ids: &[DiffId],
) -> Result<Stack, Error> {
    let mut jobs: Vec<Job<'_>> = Vec::new();
    let mut by_diff_id: HashMap<&DiffId, usize> = HashMap::new();
    for (blob, diff_id) in blobs.iter().zip(diff_ids) {
        let is_here = known_layer(transfers.workshop, diff_id, transfers.lease)?.is_some();
        if is_here {
            transfers.tell(&shown(blob), TransferState::AlreadyHere);
        } else if !by_diff_id.contains_key(diff_id) {
            transfers.tell(&shown(blob), TransferState::Queued);
            by_diff_id.insert(diff_id, jobs.len());
            jobs.push(Job { blob, feed: Arc::default() });
        }
    }
    let downloads = Downloads {
        transfers,
        repository,
        jobs: &jobs,
        next: AtomicUsize::new(0),
        stop: transfers.cancel.child(),
        failure: Mutex::default(),
    };
    let unpacked = thread::scope(|scope| {
        for number in 0..DOWNLOADS.min(jobs.len()) {
            let builder = thread::Builder::new().name(format!("download-{number}"));
            builder.spawn_scoped(scope, || downloads.work()).map_err(|error| {
                downloads.stop.cancel();
                Error::new(Class::of_io(&error), "cannot start a thread").why(error.to_string())
            })?;
        }
        let feeds = |diff_id: &DiffId| by_diff_id.get(diff_id).map(|at| jobs[*at].feed.clone());
        let unpacked = unpack_all(transfers, (blobs, diff_ids), &feeds, &downloads.stop);
        if unpacked.is_err() {
            downloads.stop.cancel();
        }
        unpacked
    });
    transfers.cancel.check()?;
    // a layer that did not arrive is why it could not be unpacked
    if let Some(error) = downloads.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let layers = unpacked?;
    let mut kept = Vec::new();
    for blob in blobs {
        if transfers.workshop.store.blob(&blob.digest)?.is_some() {
            kept.push(blob.digest.clone());
        }
    }
    Ok(Stack { layers, blobs: kept })
}

/// Unpacks in order, because a layer may rely on directories of those below.
fn unpack_all(
    transfers: Transfers<'_>,
    (blobs, diff_ids): (&[Descriptor], &[DiffId]),
    feeds: &dyn Fn(&DiffId) -> Option<Arc<Feed>>,
    stop: &Cancel,
) -> Result<Vec<LayerRecord>, Error> {
    let Transfers { workshop, lease, .. } = transfers;
    let mut layers = Vec::with_capacity(blobs.len());
    let mut below = View::empty();
    for (index, (blob, diff_id)) in blobs.iter().zip(diff_ids).enumerate() {
        let record = match (known_layer(workshop, diff_id, lease)?, feeds(diff_id)) {
            (Some(record), _) => record,
            (None, Some(feed)) => {
                let read = |source| IntakeError::Read { index, source };
                let mut tar = Decompressor::detect(feed.reader()).map_err(read)?;
                let record =
                    bring_in_layer(workshop, &mut tar, Some(&below), Some((index, diff_id)), lease, stop)?;
                transfers.tell(&shown(blob), TransferState::Pulled);
                record
            }
            (None, None) => {
                return Err(Error::new(Class::Conflict, format!("layer {diff_id} was removed meanwhile"))
                    .hint("the same command again"));
            }
        };
        below.push(workshop.store.table(record.id)?);
        layers.push(record);
    }
    Ok(layers)
}

/// The threads that fetch.
struct Downloads<'a> {
    transfers: Transfers<'a>,
    repository: &'a Repository<'a>,
    jobs: &'a [Job<'a>],
    next: AtomicUsize,
    stop: Cancel,
    failure: Mutex<Option<Error>>,
}

impl Downloads<'_> {
    fn work(&self) {
        while let Some(job) = self.jobs.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let done = if self.stop.is_cancelled() { Ok(()) } else { self.fetch(job) };
            // whoever reads it must not wait for what will not come; an end that was told before counts
            job.feed.end(false);
            if let Err(error) = done {
                if error.class != Class::Cancelled {
                    let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert(error);
                }
                self.stop.cancel();
            }
        }
    }

    fn fetch(&self, job: &Job<'_>) -> Result<(), Error> {
        let Transfers { workshop, lease, .. } = self.transfers;
        let Some(mut partial) = workshop.store.partial(job.blob, lease, &|| self.stop.is_cancelled())? else {
            let file = workshop.store.open_blob(&job.blob.digest)?;
            job.feed.begin(file, job.blob.size);
            job.feed.end(true);
            self.transfers.tell(&shown(job.blob), TransferState::Downloaded);
            return Ok(());
        };
        partial.feed(&job.feed)?;
        let mut sink = Sink {
            partial: &mut partial,
            id: shown(job.blob),
            total_bytes: job.blob.size,
            tell: self.transfers.tell,
            told: Instant::now(),
        };
        self.repository.download(job.blob, &mut sink, &self.stop)?;
        partial.commit()?;
        self.transfers.tell(&shown(job.blob), TransferState::Downloaded);
        Ok(())
    }
}

/// Passes bytes on to the store, and tells how many now and then.
struct Sink<'a, 'b> {
    partial: &'a mut Partial<'b>,
    id: String,
    total_bytes: u64,
    tell: Tell<'a>,
    told: Instant,
}

impl BlobSink for Sink<'_, '_> {
    fn at(&self) -> u64 {
        self.partial.received_bytes()
    }

    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.partial.append(bytes)?;
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let (current_bytes, total_bytes) = (self.at(), self.total_bytes);
            let state = TransferState::Downloading { current_bytes, total_bytes };
            (self.tell)(mica_api::TransferUpdate { id: self.id.clone(), state });
        }
        Ok(())
    }

    fn restart(&mut self) -> io::Result<()> {
        self.partial.restart().map_err(io::Error::other)
    }
}
