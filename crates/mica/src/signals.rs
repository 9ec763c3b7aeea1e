//! Ctrl-C, SIGTERM and SIGHUP ask the running operation to stop.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use mica_api::Cancel;
use mica_sys::signals::SignalQueue;
use rustix::event::{PollFd, PollFlags, poll};

const ENDING: [rustix::process::Signal; 3] =
    [rustix::process::Signal::HUP, rustix::process::Signal::INT, rustix::process::Signal::TERM];

/// The signals that asked this process to end, as a thread of it sees them.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Blocks the signals in the thread that made this, for as long as it lives.
    _queue: SignalQueue,
    last: Arc<AtomicU8>,
}

impl Watch {
    /// From now on the first such signal trips `cancel`; a second one ends the process at once, and what it leaves
    /// behind is cleaned up like after a crash.
    ///
    /// Called when this process has one thread, so that all later ones block the signals too. `None` if the kernel
    /// refuses; then signals end the process as ever.
    pub(crate) fn start(cancel: &Cancel) -> Option<Self> {
        let cancel = cancel.clone();
        Self::start_with(move || cancel.cancel())
    }

    /// The same with something else to do at the first signal.
    pub(crate) fn start_with(end: impl Fn() + Send + 'static) -> Option<Self> {
        let queue = SignalQueue::collect(&ENDING.map(rustix::process::Signal::as_raw)).ok()?;
        let descriptor = queue.as_fd().try_clone_to_owned().ok()?;
        let last = Arc::new(AtomicU8::new(0));
        let seen = Arc::clone(&last);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                while let Some(signal) = wait(&descriptor) {
                    if seen.swap(signal, Ordering::SeqCst) != 0 {
                        std::process::exit(i32::from(128 + signal));
                    }
                    end();
                }
            })
            .ok()?;
        Some(Self { _queue: queue, last })
    }

    /// The last such signal.
    pub(crate) fn last(&self) -> Option<u8> {
        Some(self.last.load(Ordering::SeqCst)).filter(|signal| *signal != 0)
    }
}

/// Waits for the next signal. The descriptor does not block, because the queue's own reader must not.
fn wait(descriptor: &OwnedFd) -> Option<u8> {
    /// `struct signalfd_siginfo`; its first field is the number.
    const INFO_BYTES: usize = 128;
    let mut info = [0_u8; INFO_BYTES];
    loop {
        let mut ready = [PollFd::new(descriptor, PollFlags::IN)];
        match poll(&mut ready, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
        match rustix::io::read(descriptor, &mut info) {
            Ok(INFO_BYTES) => {
                return u8::try_from(u32::from_ne_bytes([info[0], info[1], info[2], info[3]])).ok();
            }
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}
