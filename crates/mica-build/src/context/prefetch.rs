//! Listing a whole subtree with two threads: the kernel's directory cache scales, one thread does not.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::scan::{self, Directory, ItemKind, Scanner};
use crate::select::TreeError;

/// Threads per walk. More gain little: most of the time is spent in the kernel on few cores.
const THREADS: usize = 2;
/// Directories waiting before a second thread is worth starting.
const WORTH_A_THREAD: usize = 8;

/// Directories still to be listed.
#[derive(Default)]
struct Queue<'a> {
    waiting: Vec<(&'a Directory, Vec<u8>)>,
    /// Threads that are listing and may add more.
    busy: usize,
    failed: Option<TreeError>,
}

/// Lists `top` and everything below it.
pub(super) fn list_below(scanner: &Scanner, top: &Directory, path: &[u8]) -> Result<(), TreeError> {
    let mut queue = Queue { waiting: vec![(top, path.to_vec())], ..Queue::default() };
    // Small trees are done before a thread would have started.
    while queue.waiting.len() < WORTH_A_THREAD {
        let Some((directory, path)) = queue.waiting.pop() else { return Ok(()) };
        queue.waiting.extend(list_one(scanner, directory, &path)?);
    }
    let (queue, changed) = (Mutex::new(queue), Condvar::new());
    std::thread::scope(|scope| {
        for _ in 1..THREADS {
            // with fewer threads it only takes longer
            let _ = std::thread::Builder::new().spawn_scoped(scope, || work(scanner, &queue, &changed));
        }
        work(scanner, &queue, &changed);
    });
    queue.into_inner().unwrap_or_else(PoisonError::into_inner).failed.map_or(Ok(()), Err)
}

/// Lists directories until none is left and nobody can add one.
fn work<'a>(scanner: &Scanner, queue: &Mutex<Queue<'a>>, changed: &Condvar) {
    let mut held = lock(queue);
    loop {
        if held.failed.is_some() {
            return changed.notify_all();
        }
        let Some((directory, path)) = held.waiting.pop() else {
            if held.busy == 0 {
                return changed.notify_all();
            }
            held = changed.wait(held).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        held.busy += 1;
        drop(held);
        let listed = list_one(scanner, directory, &path);
        held = lock(queue);
        held.busy -= 1;
        match listed {
            Ok(found) => held.waiting.extend(found),
            Err(error) => held.failed = Some(error),
        }
        changed.notify_one();
    }
}

fn lock<'q, 'a>(queue: &'q Mutex<Queue<'a>>) -> MutexGuard<'q, Queue<'a>> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lists one directory and returns those in it.
fn list_one<'a>(
    scanner: &Scanner,
    directory: &'a Directory,
    path: &[u8],
) -> Result<Vec<(&'a Directory, Vec<u8>)>, TreeError> {
    let items = directory.items(scanner, path).map_err(TreeError::io("list", path))?;
    let below = items.iter().filter_map(|item| match &item.kind {
        ItemKind::Directory { listing, .. } => Some((&**listing, scan::child(path, item))),
        _ => None,
    });
    Ok(below.collect())
}
