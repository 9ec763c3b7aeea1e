//! How many of a kind run at once: operations, and layers being hashed.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// A number of permits; who works holds one.
pub(crate) struct Permits {
    free: Mutex<usize>,
    returned: Condvar,
}

/// The right to work; given back when dropped.
pub(crate) struct Permit<'a>(&'a Permits);

impl Permits {
    pub(crate) fn new(count: usize) -> Self {
        Self { free: Mutex::new(count), returned: Condvar::new() }
    }

    /// Takes a permit if one is free.
    pub(crate) fn try_take(&self) -> Option<Permit<'_>> {
        let mut free = self.lock();
        *free = free.checked_sub(1)?;
        Some(Permit(self))
    }

    /// Waits for a permit.
    pub(crate) fn take(&self) -> Permit<'_> {
        let waited = self.returned.wait_while(self.lock(), |free| *free == 0);
        *waited.unwrap_or_else(PoisonError::into_inner) -= 1;
        Permit(self)
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.lock() += 1;
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_the_number_are_out_and_a_returned_one_is_taken_again() {
        let permits = Permits::new(2);
        let first = permits.take();
        let second = permits.try_take();
        assert!(second.is_some());
        assert!(permits.try_take().is_none());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| drop(permits.take()));
            drop(first);
            waiting.join().unwrap();
        });
        assert!(permits.try_take().is_some());
    }
}
