//! Reads, decompresses and hashes on a thread of its own, a few buffers ahead of whoever parses.
//!
//! Decompression and sha256 take as long as creating the files; beside each other they cost half.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use sha2::{Digest as _, Sha256};

use crate::tar::{BUFFER_BYTES, TarError};

/// Buffers read ahead.
const AHEAD: usize = 6;

/// sha256 and length of a whole stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamId {
    pub(crate) sha256: [u8; 32],
    pub(crate) bytes: u64,
}

/// Runs `parse` on the bytes of `source`; returns its result, and the identity of the stream if `parse` succeeded.
///
/// `parse` has to read to the end, or what it leaves is not hashed.
pub(crate) fn hashed<T, E: From<TarError>>(
    source: impl Read + Send,
    parse: impl FnOnce(ReadAhead) -> Result<T, E>,
) -> Result<(T, StreamId), E> {
    let (full_sender, full) = sync_channel(AHEAD);
    let (empty_sender, empty) = sync_channel(AHEAD + 2);
    std::thread::scope(|scope| {
        let read = move || read_all(source, &full_sender, &empty);
        let reading = std::thread::Builder::new().spawn_scoped(scope, read).map_err(TarError::Io)?;
        // Dropping the reader ends the thread at its next buffer.
        let parsed = parse(ReadAhead { full, empty: empty_sender, current: Vec::new(), position: 0 });
        let id = reading.join().expect("reading does not panic");
        parsed.map(|value| (value, id))
    })
}

fn read_all(
    mut source: impl Read,
    full: &SyncSender<io::Result<Vec<u8>>>,
    empty: &Receiver<Vec<u8>>,
) -> StreamId {
    let mut hash = Sha256::new();
    let mut bytes = 0;
    loop {
        let mut block = empty.try_recv().unwrap_or_default();
        block.resize(BUFFER_BYTES, 0);
        let read = fill(&mut source, &mut block);
        let failed = read.is_err();
        let message = read.map(|length| {
            block.truncate(length);
            hash.update(&block);
            bytes += length as u64;
            block
        });
        let ended = failed || message.as_ref().is_ok_and(Vec::is_empty);
        if full.send(message).is_err() || ended {
            return StreamId { sha256: hash.finalize().into(), bytes };
        }
    }
}

/// Reads until the buffer is full or the stream ends.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The bytes as they arrive from the reading thread.
pub(crate) struct ReadAhead {
    full: Receiver<io::Result<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
}

impl BufRead for ReadAhead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.len() {
            // After the end the channel is closed: that is the end, again.
            let next = self.full.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
            let used = std::mem::replace(&mut self.current, next);
            self.position = 0;
            // The other side may have enough buffers, or be done: then this one is dropped.
            let _ = self.empty.try_send(used);
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, length: usize) {
        self.position = (self.position + length).min(self.current.len());
    }
}

impl Read for ReadAhead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}
