//! A connection that cannot be held open for nothing.
//!
//! Time is limited where nothing moves, never for a whole transfer: waiting for a request, the head of a request, and
//! a reader that takes nothing. (A request's body is timed where it is read.)

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// Between two requests.
const KEEP_ALIVE: Duration = Duration::from_secs(120);
/// From the first byte of a request to the end of its head.
const HEAD: Duration = Duration::from_secs(10);
/// Without a byte taken by the reader.
const STALL: Duration = Duration::from_secs(60);

/// What a connection is doing, and which of its phases that is: two requests apart, waiting is not the same waiting.
///
/// The kind is in the last two bits, what is above them counts.
#[derive(Debug, Default, Clone)]
pub(super) struct Phase(Arc<AtomicU64>);

const WAITING: u64 = 0;
const READING_HEAD: u64 = 1;
const ANSWERING: u64 = 2;
const KIND: u64 = 3;

impl Phase {
    pub(super) fn answering(&self) {
        self.enter(ANSWERING);
    }

    pub(super) fn waiting(&self) {
        self.enter(WAITING);
    }

    /// Only ever called by what drives the connection, so nothing comes between the two steps.
    fn enter(&self, kind: u64) {
        let next = (self.get() | KIND) + 1;
        self.0.store(next | kind, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream with limits on doing nothing.
pub(super) struct Timed<S> {
    stream: S,
    phase: Phase,
    read_timer: Pin<Box<Sleep>>,
    /// The phase that the timer was set for.
    timed_phase: u64,
    write_timer: Pin<Box<Sleep>>,
    is_stalled: bool,
}

impl<S> Timed<S> {
    pub(super) fn new(stream: S, phase: Phase) -> Self {
        Self {
            stream,
            phase,
            // A fresh connection has to say something soon.
            read_timer: Box::pin(tokio::time::sleep(HEAD)),
            timed_phase: WAITING,
            write_timer: Box::pin(tokio::time::sleep(STALL)),
            is_stalled: false,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Timed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let phase = this.phase.get();
        if read.is_ready() {
            if phase & KIND == WAITING && buffer.filled().len() > before {
                this.phase.enter(READING_HEAD);
            }
            return read;
        }
        if phase & KIND == ANSWERING {
            return Poll::Pending;
        }
        if this.timed_phase != phase {
            this.timed_phase = phase;
            let limit = if phase & KIND == WAITING { KEEP_ALIVE } else { HEAD };
            this.read_timer.as_mut().reset(Instant::now() + limit);
        }
        ready!(this.read_timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> Timed<S> {
    fn progress<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.is_stalled = false;
            return written;
        }
        if !self.is_stalled {
            self.is_stalled = true;
            self.write_timer.as_mut().reset(Instant::now() + STALL);
        }
        ready!(self.write_timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Timed<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(cx, bytes);
        this.progress(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(cx, pieces);
        this.progress(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        this.progress(cx, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.progress(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Reads one byte, or the error that ends the connection.
    async fn read(stream: &mut Timed<tokio::io::DuplexStream>) -> io::Result<u8> {
        stream.read_u8().await
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_in_use_is_not_cut_however_old_it_is() {
        let (mut client, server) = tokio::io::duplex(64);
        let phase = Phase::default();
        let mut stream = Timed::new(server, phase.clone());
        for _ in 0..10 {
            client.write_u8(1).await.unwrap();
            assert_eq!(read(&mut stream).await.unwrap(), 1);
            // Nothing is read while the answer is made.
            phase.answering();
            phase.waiting();
            let next = tokio::time::timeout(KEEP_ALIVE - Duration::from_secs(1), read(&mut stream)).await;
            assert!(next.is_err(), "cut off while it may wait");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_half_is_cut_in_time() {
        let (_client, server) = tokio::io::duplex(64);
        let mut stream = Timed::new(server, Phase::default());
        let began = Instant::now();
        assert_eq!(read(&mut stream).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), HEAD.as_secs());

        let (mut client, server) = tokio::io::duplex(64);
        let phase = Phase::default();
        let mut stream = Timed::new(server, phase.clone());
        phase.answering();
        phase.waiting();
        client.write_u8(1).await.unwrap();
        read(&mut stream).await.unwrap();
        let began = Instant::now();
        assert_eq!(read(&mut stream).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), HEAD.as_secs());
    }
}
