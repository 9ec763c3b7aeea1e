//! Gives a layer its identity: one pass over its files computes the diff ID and every content digest.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use mica_oci::{DiffId, Digest};
use mica_sys::root::Root;
use sha2::{Digest as _, Sha256};

use crate::limits::Cancelled;
use crate::table::Table;
use crate::tar::{Blocks, Streaming, WriteError, emit};

/// Below this much content a second thread costs more than it gains.
const THREAD_FROM_BYTES: u64 = 4 << 20;
/// Buffers on their way to the hashing thread.
const BLOCKS_UNDER_WAY: usize = 4;

/// A layer that has its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finalized {
    /// The table, every file with its content digest.
    pub table: Table,
    /// Digest of the tar that [`crate::write_tar`] gives for it.
    pub diff_id: DiffId,
    /// Length of that tar.
    pub tar_bytes: u64,
}

/// Reads every file of a layer once; returns its diff ID and the table with content digests.
///
/// sha256 runs on a thread of its own when there is much to hash: it takes longer than reading and BLAKE3 together.
///
/// # Errors
/// [`WriteError`] if a file is missing, has another length or digest than the table says, or cannot be read.
pub fn finalize(mut table: Table, fs: &Root, cancel: Cancelled<'_>) -> Result<Finalized, WriteError> {
    let (digest, tar_bytes, digests) = if table.content_bytes() < THREAD_FROM_BYTES {
        let mut hash = HashHere(Sha256::new());
        let (tar_bytes, digests) = stream(&table, fs, &mut hash, cancel)?;
        (hash.0.finalize().into(), tar_bytes, digests)
    } else {
        hash_beside(&table, fs, cancel)?
    };
    for (index, digest) in digests {
        table.set_digest(index, digest).map_err(WriteError::Damaged)?;
    }
    Ok(Finalized { table, diff_id: DiffId(Digest::from_sha256(digest)), tar_bytes })
}

type Digests = Vec<(usize, crate::ContentDigest)>;

fn stream(
    table: &Table,
    fs: &Root,
    out: &mut dyn Blocks,
    cancel: Cancelled<'_>,
) -> Result<(u64, Digests), WriteError> {
    let mut streaming = Streaming::new(fs, out, cancel);
    streaming.digests = Some(Vec::new());
    emit(table, &mut streaming)?;
    let digests = streaming.digests.take().unwrap_or_default();
    Ok((streaming.finish()?, digests))
}

fn hash_beside(
    table: &Table,
    fs: &Root,
    cancel: Cancelled<'_>,
) -> Result<([u8; 32], u64, Digests), WriteError> {
    let (full_sender, full) = sync_channel::<Vec<u8>>(BLOCKS_UNDER_WAY);
    let (empty_sender, empty) = sync_channel::<Vec<u8>>(BLOCKS_UNDER_WAY + 2);
    std::thread::scope(|scope| {
        let hashing = std::thread::Builder::new().spawn_scoped(scope, move || {
            let mut hash = Sha256::new();
            while let Ok(mut block) = full.recv() {
                hash.update(&block);
                block.clear();
                // The other side may have enough buffers, or be gone: then this one is dropped.
                let _ = empty_sender.try_send(block);
            }
            hash.finalize().into()
        });
        let hashing = hashing.map_err(WriteError::Output)?;
        let mut hand_over = HandOver { full: full_sender, empty };
        let streamed = stream(table, fs, &mut hand_over, cancel);
        drop(hand_over);
        let digest = hashing.join().expect("hashing does not panic");
        streamed.map(|(tar_bytes, digests)| (digest, tar_bytes, digests))
    })
}

/// Hashes on this thread.
struct HashHere(Sha256);

impl Blocks for HashHere {
    fn put(&mut self, mut block: Vec<u8>) -> io::Result<Vec<u8>> {
        self.0.update(&block);
        block.clear();
        Ok(block)
    }
}

/// Hands buffers to the hashing thread and takes used ones back.
struct HandOver {
    full: SyncSender<Vec<u8>>,
    empty: Receiver<Vec<u8>>,
}

impl Blocks for HandOver {
    fn put(&mut self, block: Vec<u8>) -> io::Result<Vec<u8>> {
        let capacity = block.capacity();
        self.full.send(block).map_err(|_| io::Error::other("hashing thread ended"))?;
        Ok(self.empty.try_recv().unwrap_or_else(|_| Vec::with_capacity(capacity)))
    }
}
