//! Signals as things to be read instead of interruptions.

use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// Signals that the calling thread does not get while this lives; they wait here to be read.
///
/// Sees what is sent to the process as long as every other thread blocks the same signals, or there is none. Threads and
/// programs started meanwhile inherit the blocking.
#[derive(Debug)]
pub struct SignalQueue {
    fd: OwnedFd,
    before: libc::sigset_t,
    /// The mask to be put back is that of the thread that made this.
    _same_thread: PhantomData<*const ()>,
}

impl SignalQueue {
    /// Blocks signals for the calling thread and collects them.
    ///
    /// # Errors
    /// `EINVAL` for a number that is no signal; no descriptors left.
    pub fn collect(signals: &[i32]) -> io::Result<Self> {
        // SAFETY: all-zero is a valid value of this plain C structure.
        let (mut wanted, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { std::mem::zeroed() };
        for &signal in signals {
            // SAFETY: writes to a set of ours; a number out of range is refused.
            crate::check(unsafe { libc::sigaddset(&raw mut wanted, signal) }.into())?;
        }
        // SAFETY: signalfd reads the initialised set and keeps a copy; -1 asks for a new descriptor.
        let fd = crate::check(
            unsafe { libc::signalfd(-1, &raw const wanted, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) }.into(),
        )?;
        // SAFETY: the call above returned this descriptor, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        // SAFETY: reads one set, writes the other; both are ours and outlive the call.
        let rc = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const wanted, &raw mut before) };
        match rc {
            0 => Ok(Self { fd, before, _same_thread: PhantomData }),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Takes the number of the next signal; `None` if none is waiting.
    ///
    /// # Errors
    /// Those of read(2), which should not happen.
    pub fn next(&self) -> io::Result<Option<i32>> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut info) {
            Ok(length) if length == info.len() => {
                // `ssi_signo`, the first field.
                let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
                Ok(Some(number.cast_signed()))
            }
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// What is said when a bus error ends the process.
static BUS_ERROR_TEXT: std::sync::OnceLock<&'static str> = std::sync::OnceLock::new();

/// From now on a bus error ends the process with exit code 1 and a text on standard error.
///
/// SIGBUS is how Linux reports that a page of a mapped file could not be written or read: no block left for it, or a
/// bad disk. The database's shared memory is such a file. Everything on disk is made for processes that are killed,
/// so ending here is safe. Programs that are executed get the default action back.
///
/// # Errors
/// Those of sigaction(2), which should not happen.
pub fn explain_bus_errors(text: &'static str) -> io::Result<()> {
    extern "C" fn end(_: libc::c_int) {
        let text = BUS_ERROR_TEXT.get().copied().unwrap_or_default();
        // SAFETY: both calls are async-signal-safe; the bytes are static.
        unsafe {
            libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
            libc::_exit(1);
        }
    }
    // Whoever was first has said what to say.
    let _ = BUS_ERROR_TEXT.set(text);
    // SAFETY: all-zero is a valid value of this plain C structure: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = end as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: reads an initialised structure; the handler is a function that never returns to what was interrupted.
    crate::check(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) }.into())?;
    Ok(())
}

impl AsFd for SignalQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SignalQueue {
    fn drop(&mut self) {
        // SAFETY: `before` is what pthread_sigmask gave for this very thread (the type cannot leave it).
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_waits_to_be_read() {
        let queue = SignalQueue::collect(&[libc::SIGUSR1]).unwrap();
        assert_eq!(queue.next().unwrap(), None);
        // SAFETY: raises a signal that is blocked in this thread.
        unsafe { libc::raise(libc::SIGUSR1) };
        assert_eq!(queue.next().unwrap(), Some(libc::SIGUSR1));
        assert_eq!(queue.next().unwrap(), None);
    }
}
