//! Content digests of context files: from the stat cache, else by reading, on all cores.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use mica_archive::{ContentDigest, Timestamp};
use rustix::time::{ClockId, clock_gettime};

use super::scan::ItemKind;
use super::{Identity, LocalContext, Made, SETTLED_SECONDS};
use crate::select::TreeError;

const BUFFER_BYTES: usize = 256 << 10;
/// Files to be read before a second thread is worth starting.
const WORTH_A_THREAD: usize = 4;

/// Returns the digests of `files`, in order.
pub(super) fn digests(context: &LocalContext, files: &[Vec<u8>]) -> Result<Vec<ContentDigest>, TreeError> {
    let mut digests = Vec::with_capacity(files.len());
    let mut unknown = Vec::new();
    {
        let made = context.made.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, path) in files.iter().enumerate() {
            let known = match made.get(path) {
                Some(made) => Some(made.digest),
                None => from_cache(context, path)?,
            };
            if known.is_none() {
                unknown.push(index);
            }
            digests.push(known.unwrap_or(ContentDigest([0; 32])));
        }
    }
    let fresh = read_all(context, files, &unknown)?;
    let mut made = context.made.lock().unwrap_or_else(PoisonError::into_inner);
    for (index, result) in fresh {
        digests[index] = result.digest;
        made.insert(files[index].clone(), result);
    }
    Ok(digests)
}

fn from_cache(context: &LocalContext, path: &[u8]) -> Result<Option<ContentDigest>, TreeError> {
    let item = context.find(path).map_err(TreeError::io("read", path))?;
    Ok(match item.map(|item| &item.kind) {
        Some(ItemKind::File { digest, .. }) => *digest,
        _ => None,
    })
}

/// Reads the files with these indexes, in parallel if there are many.
fn read_all(
    context: &LocalContext,
    files: &[Vec<u8>],
    wanted: &[usize],
) -> Result<Vec<(usize, Made)>, TreeError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(wanted.len() / WORTH_A_THREAD).max(1);
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Ok(Vec::with_capacity(wanted.len())));
    let work = || {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut done = Vec::new();
        let mut failed = None;
        while let Some(&index) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            match read_one(context, &files[index], &mut buffer) {
                Ok(made) => done.push((index, made)),
                Err(error) => {
                    next.store(wanted.len(), Ordering::Relaxed);
                    failed = Some(error);
                }
            }
        }
        let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
        match (failed, results.as_mut()) {
            (Some(error), Ok(_)) => *results = Err(error),
            (None, Ok(all)) => all.append(&mut done),
            (_, Err(_)) => {}
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // with fewer threads it only takes longer
            let _ = std::thread::Builder::new().spawn_scoped(scope, work);
        }
        work();
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Reads one file. Its identity is taken before the first byte and after the last.
fn read_one(context: &LocalContext, path: &[u8], buffer: &mut [u8]) -> Result<Made, TreeError> {
    let mut read = || {
        let mut file = context.root().open_file_nofollow(path)?;
        let before = Identity::of(&rustix::fs::fstat(&file)?);
        let mut hasher = blake3::Hasher::new();
        loop {
            context.scanner.check()?;
            match file.read(buffer)? {
                0 => break,
                length => drop(hasher.update(&buffer[..length])),
            }
        }
        let identity = Identity::of(&rustix::fs::fstat(&file)?);
        let settled = before == identity && identity.is_settled(now(), SETTLED_SECONDS);
        Ok(Made { identity, digest: ContentDigest(*hasher.finalize().as_bytes()), settled })
    };
    read().map_err(TreeError::io("read", path))
}

fn now() -> Timestamp {
    let now = clock_gettime(ClockId::Realtime);
    Timestamp { seconds: now.tv_sec, nanoseconds: now.tv_nsec as u32 }
}
