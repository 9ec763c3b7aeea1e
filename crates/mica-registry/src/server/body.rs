//! Bodies of answers: nothing, bytes, or a part of a file.
//!
//! Files are read with `preadv2(RWF_NOWAIT)`: what is in the page cache costs no thread, what is not is fetched by a
//! thread that may block. At most two pieces per reader are in memory, however slow it is.

use std::fs::File;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use rustix::io::ReadWriteFlags;
use tokio::task::JoinHandle;

use crate::proxy::{Growing, Progress};

/// Read and sent at once.
pub(super) const PIECE_BYTES: usize = 64 << 10;

/// What is sent.
#[derive(Debug)]
pub(super) enum Payload {
    Empty,
    Bytes(Bytes),
    File(FilePart),
    Growing(GrowingPart),
}

/// A file that is still being written.
pub(super) struct GrowingPart {
    growing: Growing,
    offset: u64,
    more: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// A part of a file on its way.
pub(super) struct FilePart {
    file: Arc<File>,
    offset: u64,
    left: u64,
    spares: Spares,
    fetching: Option<JoinHandle<Read>>,
}

/// A buffer, and how much of it was filled.
type Read = io::Result<(Vec<u8>, usize)>;

/// Buffers that were sent and can be filled again.
type Spares = Arc<Mutex<Vec<Vec<u8>>>>;

/// A filled buffer; goes back to the spares when it was sent.
struct Filled {
    buffer: Vec<u8>,
    length: usize,
    spares: Spares,
}

impl Payload {
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(part) => part.left,
            Self::Growing(part) => part.growing.length - part.offset,
        }
    }
}

impl FilePart {
    pub(super) fn new(file: File, offset: u64, length: u64) -> Self {
        Self { file: Arc::new(file), offset, left: length, spares: Arc::default(), fetching: None }
    }

    fn buffer(&self) -> Vec<u8> {
        let spare = self.spares.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let size = usize::try_from(self.left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        spare.unwrap_or_else(|| vec![0; size])
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        let (buffer, length) = match &mut self.fetching {
            Some(task) => {
                let outcome = ready!(Pin::new(task).poll(cx));
                self.fetching = None;
                outcome.map_err(io::Error::other)??
            }
            None => {
                let mut buffer = self.buffer();
                let want = usize::try_from(self.left).map_or(buffer.len(), |left| left.min(buffer.len()));
                match read_cached(&self.file, &mut buffer[..want], self.offset) {
                    Some(length) => (buffer, length),
                    None => {
                        self.fetch(buffer, want);
                        return self.poll_piece(cx);
                    }
                }
            }
        };
        if length == 0 {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.offset += length as u64;
        self.left -= length as u64;
        Poll::Ready(Ok(Bytes::from_owner(Filled { buffer, length, spares: Arc::clone(&self.spares) })))
    }

    fn fetch(&mut self, mut buffer: Vec<u8>, want: usize) {
        let (file, offset) = (Arc::clone(&self.file), self.offset);
        self.fetching = Some(tokio::task::spawn_blocking(move || {
            let length = std::os::unix::fs::FileExt::read_at(&*file, &mut buffer[..want], offset)?;
            Ok((buffer, length))
        }));
    }
}

impl GrowingPart {
    pub(super) fn new(growing: Growing) -> Self {
        Self { growing, offset: 0, more: None }
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        loop {
            let available = match *self.growing.progress.borrow_and_update() {
                Progress::Done => self.growing.length,
                // The last byte is given out when all of them are known to be right.
                Progress::Written(bytes) => bytes.min(self.growing.length - 1),
                Progress::Failed => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            };
            if self.offset < available {
                return Poll::Ready(self.read(available - self.offset));
            }
            let more = self.more.get_or_insert_with(|| {
                let mut progress = self.growing.progress.clone();
                Box::pin(async move {
                    // A writer that is gone has said how it ended.
                    let _gone = progress.changed().await;
                })
            });
            ready!(more.as_mut().poll(cx));
            self.more = None;
            if self.growing.progress.has_changed().is_err()
                && matches!(*self.growing.progress.borrow(), Progress::Written(_))
            {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// What was written a moment ago is in the page cache: this does not wait for a disk.
    fn read(&mut self, available: u64) -> io::Result<Bytes> {
        let mut piece =
            vec![0; usize::try_from(available).map_or(PIECE_BYTES, |bytes| bytes.min(PIECE_BYTES))];
        let length = std::os::unix::fs::FileExt::read_at(&self.growing.file, &mut piece, self.offset)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        piece.truncate(length);
        self.offset += length as u64;
        Ok(Bytes::from(piece))
    }
}

impl std::fmt::Debug for GrowingPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GrowingPart").field("offset", &self.offset).finish_non_exhaustive()
    }
}

/// What the page cache has, or `None`: then somebody has to wait for the disk, or find the error.
fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> Option<usize> {
    let mut pieces = [io::IoSliceMut::new(buffer)];
    rustix::io::preadv2(file, &mut pieces, offset, ReadWriteFlags::NOWAIT).ok().filter(|length| *length > 0)
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        &self.buffer[..self.length]
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        self.spares.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

impl std::fmt::Debug for FilePart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilePart").field("left", &self.left).finish_non_exhaustive()
    }
}

/// A payload, and what is done when it has been sent, or its reader has gone.
pub(super) struct Outgoing<D: FnOnce(u64)> {
    payload: Payload,
    sent: u64,
    done: Option<D>,
}

impl<D: FnOnce(u64)> Outgoing<D> {
    pub(super) fn new(payload: Payload, done: D) -> Self {
        Self { payload, sent: 0, done: Some(done) }
    }
}

impl<D: FnOnce(u64) + Unpin> Body for Outgoing<D> {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.get_mut();
        let piece = match &mut this.payload {
            Payload::Empty => return Poll::Ready(None),
            Payload::Bytes(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Payload::Bytes(bytes) => Ok(std::mem::take(bytes)),
            Payload::File(part) if part.left == 0 => return Poll::Ready(None),
            Payload::File(part) => ready!(part.poll_piece(cx)),
            Payload::Growing(part) if part.offset == part.growing.length => return Poll::Ready(None),
            Payload::Growing(part) => ready!(part.poll_piece(cx)),
        };
        Poll::Ready(Some(piece.map(|piece| {
            this.sent += piece.len() as u64;
            Frame::data(piece)
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.payload.length() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.payload.length())
    }
}

impl<D: FnOnce(u64)> Drop for Outgoing<D> {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(self.sent);
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_part_of_a_file_arrives_whole_and_ends_where_it_should() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        let bytes: Vec<u8> = (0..300_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        std::fs::write(&path, &bytes).unwrap();
        let part = FilePart::new(File::open(&path).unwrap(), 1000, 200_000);
        let body = Outgoing::new(Payload::File(part), |sent| assert_eq!(sent, 200_000));
        let collected = body.collect().await.unwrap().to_bytes();
        assert_eq!(collected, bytes[1000..201_000]);
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_breaks_the_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("blob");
        std::fs::write(&path, b"short").unwrap();
        let part = FilePart::new(File::open(&path).unwrap(), 0, 10);
        let body = Outgoing::new(Payload::File(part), |_| ());
        assert!(body.collect().await.is_err());
    }
}
