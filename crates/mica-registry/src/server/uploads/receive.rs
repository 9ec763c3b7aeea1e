//! From a request's body to the end of an upload's file.
//!
//! The network is read here, the file is written and hashed by a thread that may block; a few pieces are between them.
//! A small body is collected first, and costs one such thread once.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use mica_oci::{Algorithm, Digest};
use tokio::sync::OwnedMutexGuard;
use tokio::sync::mpsc;

use crate::storage::upload::Upload;

/// Without a byte from the client.
pub(in crate::server) const STALL: Duration = Duration::from_secs(60);
/// Bodies up to this size are collected before anything is written.
const SMALL_BYTES: u64 = 64 << 10;
/// Pieces between the network and the file: at most 64 KiB each.
const PIECES: usize = 16;

/// What has become of a body.
pub(super) struct Received {
    pub(super) upload: OwnedMutexGuard<Upload>,
    pub(super) end: End,
    /// Of everything in the file, if it was asked for and the body arrived.
    pub(super) digest: Option<Digest>,
}

/// How a body ended.
#[derive(Debug)]
pub(super) enum End {
    Whole,
    /// The client went away, or sent what is no body.
    Broken(hyper::Error),
    Stalled,
}

/// The upload comes back, so that it can be given up.
pub(super) type Failed = (OwnedMutexGuard<Upload>, io::Error);

/// Appends a body to an upload. With an algorithm, the file is made durable and hashed.
pub(super) async fn receive(
    upload: OwnedMutexGuard<Upload>,
    mut body: Incoming,
    seal: Option<Algorithm>,
) -> Result<Received, Failed> {
    let announced = body.size_hint().exact();
    if announced.is_some_and(|length| length <= SMALL_BYTES) {
        let mut pieces = Vec::new();
        let end = loop {
            match next(&mut body).await {
                Ok(Some(piece)) => pieces.push(piece),
                Ok(None) => break End::Whole,
                Err(end) => break end,
            }
        };
        return write(upload, None, pieces.into_iter(), end, seal).await;
    }
    let (sender, receiver) = mpsc::channel(PIECES);
    let writing = tokio::spawn(write(upload, announced, Queue(receiver), End::Whole, None));
    let end = loop {
        match next(&mut body).await {
            Ok(Some(piece)) => {
                // The writer has failed: it says why.
                if sender.send(piece).await.is_err() {
                    break End::Whole;
                }
            }
            Ok(None) => break End::Whole,
            Err(end) => break end,
        }
    };
    drop(sender);
    let received = writing.await.expect("the writing task neither panics nor is aborted")?;
    write(received.upload, None, std::iter::empty(), end, seal).await
}

async fn next(body: &mut Incoming) -> Result<Option<Bytes>, End> {
    loop {
        let frame = tokio::time::timeout(STALL, body.frame()).await.map_err(|_| End::Stalled)?;
        match frame {
            None => return Ok(None),
            Some(Err(error)) => return Err(End::Broken(error)),
            // Trailers are of no interest.
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
        }
    }
}

/// Pieces as they come; for a thread that may block.
struct Queue(mpsc::Receiver<Bytes>);

impl Iterator for Queue {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.0.blocking_recv()
    }
}

async fn write(
    mut upload: OwnedMutexGuard<Upload>,
    reserve: Option<u64>,
    pieces: impl Iterator<Item = Bytes> + Send + 'static,
    end: End,
    seal: Option<Algorithm>,
) -> Result<Received, Failed> {
    let written = tokio::task::spawn_blocking(move || {
        let seal = seal.filter(|_| matches!(end, End::Whole));
        match append(&mut upload, reserve, pieces)
            .and_then(|()| seal.map(|seal| upload.seal(seal)).transpose())
        {
            Ok(digest) => Ok(Received { upload, end, digest }),
            Err(error) => Err((upload, error)),
        }
    });
    written.await.expect("writing a file does not panic, and nobody aborts it")
}

fn append(upload: &mut Upload, reserve: Option<u64>, pieces: impl Iterator<Item = Bytes>) -> io::Result<()> {
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return Ok(());
    }
    let mut appender = upload.appender()?;
    if let Some(bytes) = reserve {
        appender.reserve(bytes)?;
    }
    for piece in pieces {
        appender.append(&piece)?;
    }
    Ok(())
}
