//! Blobs on their way from upstream: one download each, any number of readers, who get the bytes as they arrive.
//!
//! Readers follow the file that the download writes. The last bytes are given out only when the digest of all of them
//! is known to be right: no reader ever has a whole blob that is not the one asked for.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use mica_oci::{Digest, Repository};
use tokio::sync::{mpsc, watch};

use super::upstream::{Upstream, UpstreamError, length};
use crate::error::{Code, Refusal};
use crate::route::UploadId;
use crate::storage::Storage;
use crate::storage::changes::{self, NewBlob};
use crate::storage::upload::{Shared, UploadKey};

/// Pieces between the network and the file.
const PIECES: usize = 16;
/// Whose the uploads of downloads are: no user has this name.
const OWNER: &str = "\0proxy";

/// How far a download is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// So many bytes are in the file.
    Written(u64),
    /// All of them are, and they are right.
    Done,
    Failed,
}

/// A blob that is being written.
pub(crate) struct Growing {
    pub(crate) file: File,
    /// All bytes, as upstream has announced them.
    pub(crate) length: u64,
    pub(crate) progress: watch::Receiver<Progress>,
}

impl Growing {
    /// Waits until the blob is here.
    pub(crate) async fn arrived(mut self) -> Result<(), Refusal> {
        let is_over = |progress: &Progress| !matches!(progress, Progress::Written(_));
        let last = self.progress.wait_for(is_over).await.map(|progress| *progress);
        match last {
            Ok(Progress::Done) => Ok(()),
            _ => Err(UpstreamError::Broken("the blob did not arrive as it should".to_owned()).into()),
        }
    }
}

/// What has become of a wish for a blob.
pub(crate) enum Joined {
    /// It is here by now.
    Here,
    /// It is on its way.
    Coming(Growing),
}

type Key = (Repository, Digest);

/// A download that is being asked for, or under way: whoever has the lock may begin it.
type Slot = Arc<tokio::sync::Mutex<Option<Download>>>;

/// All downloads under way.
#[derive(Default)]
pub(crate) struct Downloads {
    slots: Arc<Mutex<HashMap<Key, Slot>>>,
}

/// One of them.
struct Download {
    path: PathBuf,
    length: u64,
    progress: watch::Receiver<Progress>,
}

impl Downloads {
    /// A blob's download: the one under way, or a new one.
    pub(super) async fn join(
        &self,
        storage: &Arc<Storage>,
        upstream: &Arc<Upstream>,
        theirs: &str,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Joined, Refusal> {
        let key = (repository.clone(), digest.clone());
        let slot = Arc::clone(locked(&self.slots).entry(key.clone()).or_default());
        let mut download = slot.lock().await;
        if let Some(growing) = download.as_ref().and_then(Download::follow) {
            return Ok(Joined::Coming(growing));
        }
        // Others may have brought it while this one waited.
        if storage.meta.blob(repository, digest).map_err(Refusal::internal)?.is_some() {
            return Ok(Joined::Here);
        }
        let begun = begin(storage, upstream, theirs, &key, Arc::clone(&self.slots)).await;
        match begun {
            Ok((begun, growing)) => {
                *download = Some(begun);
                Ok(Joined::Coming(growing))
            }
            Err(refusal) => {
                locked(&self.slots).remove(&key);
                Err(refusal)
            }
        }
    }
}

impl Download {
    /// Another reader; `None` if the file has just become a blob, or was given up.
    fn follow(&self) -> Option<Growing> {
        let file = File::open(&self.path).ok()?;
        Some(Growing { file, length: self.length, progress: self.progress.clone() })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks upstream, and leaves the rest to a task that goes on when its first reader has gone.
async fn begin(
    storage: &Arc<Storage>,
    upstream: &Upstream,
    theirs: &str,
    key: &Key,
    slots: Arc<Mutex<HashMap<Key, Slot>>>,
) -> Result<(Download, Growing), Refusal> {
    let response = upstream.blob(theirs, &key.1).await.map_err(blob_refusal)?;
    let length = length(&response)
        .ok_or_else(|| Refusal::from(UpstreamError::Broken("no Content-Length".to_owned())))?;
    let id = UploadId::random().map_err(Refusal::internal)?;
    let upload_key = UploadKey::new(&id, &key.0, OWNER);
    let upload = storage.uploads.create(&upload_key).map_err(Refusal::internal)?;
    let path = storage.layout.upload(&upload_key);
    let file = File::open(&path).map_err(Refusal::internal)?;
    let (sender, progress) = watch::channel(Progress::Written(0));
    let download = Download { path, length, progress: progress.clone() };
    let (storage, key) = (Arc::clone(storage), key.clone());
    tokio::spawn(async move {
        let is_right = run(&storage, upload, response, &key, length, &sender).await;
        // Out of the table first: who comes now finds the blob itself, or begins anew.
        locked(&slots).remove(&key);
        sender.send_replace(if is_right { Progress::Done } else { Progress::Failed });
    });
    Ok((download, Growing { file, length, progress }))
}

fn blob_refusal(error: UpstreamError) -> Refusal {
    match error {
        UpstreamError::Missing => {
            Refusal::missing(Code::BlobUnknown, "neither this cache nor the registry behind it has that")
        }
        other => other.into(),
    }
}

/// Writes a blob to its file and gives it its name; `false` if it is not what it should be.
async fn run(
    storage: &Arc<Storage>,
    upload: Shared,
    mut response: reqwest::Response,
    (repository, digest): &(Repository, Digest),
    length: u64,
    progress: &watch::Sender<Progress>,
) -> bool {
    let mut upload = upload.lock_owned().await;
    let (sender, mut receiver) = mpsc::channel::<Bytes>(PIECES);
    let (wanted, progress) = (digest.clone(), progress.clone());
    let writing = tokio::task::spawn_blocking(move || {
        let written = (|| {
            let mut appender = upload.appender()?;
            appender.reserve(length)?;
            let mut count = 0;
            while let Some(piece) = receiver.blocking_recv() {
                appender.append(&piece)?;
                count += piece.len() as u64;
                progress.send_replace(Progress::Written(count));
            }
            upload.seal(wanted.algorithm())
        })();
        (upload, written)
    });
    while let Ok(Some(chunk)) = response.chunk().await {
        // The writer has failed, or upstream sends more than it has announced: the digest tells.
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    drop(sender);
    let Ok((mut upload, written)) = writing.await else { return false };
    let is_right = written.is_ok_and(|actual| actual == *digest) && upload.length() == length;
    let mut is_stored = false;
    if is_right {
        let blob = NewBlob {
            repository: repository.clone(),
            digest: digest.clone(),
            size: length,
            file: upload.path().to_owned(),
        };
        let grace = storage.grace;
        is_stored = storage.writer.commit(move |batch| changes::add_blob(batch, blob, grace)).await.is_ok();
    }
    storage.uploads.end(&mut upload);
    is_stored
}
