//! A connection that cannot be held open for nothing.
//!
//! Time is limited where nothing moves, never for a whole transfer: waiting for a request, the head of a request, and
//! a reader that takes nothing. (A request's body is timed where it is read.)

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
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

/// What a connection is doing.
#[derive(Debug, Default, Clone)]
pub(super) struct Phase(Arc<AtomicU8>);

const WAITING: u8 = 0;
const READING_HEAD: u8 = 1;
const ANSWERING: u8 = 2;

impl Phase {
    pub(super) fn answering(&self) {
        self.0.store(ANSWERING, Ordering::Relaxed);
    }

    pub(super) fn waiting(&self) {
        self.0.store(WAITING, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A stream with limits on doing nothing.
pub(super) struct Timed<S> {
    stream: S,
    phase: Phase,
    read_timer: Pin<Box<Sleep>>,
    /// The phase that the timer was set for.
    timed_phase: u8,
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
            if phase == WAITING && buffer.filled().len() > before {
                this.phase.0.store(READING_HEAD, Ordering::Relaxed);
            }
            return read;
        }
        if phase == ANSWERING {
            this.timed_phase = ANSWERING;
            return Poll::Pending;
        }
        if this.timed_phase != phase {
            this.timed_phase = phase;
            let limit = if phase == WAITING { KEEP_ALIVE } else { HEAD };
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
