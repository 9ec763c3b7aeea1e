//! Giving up: a flag that every long function polls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A request to stop, shared by all threads of one operation.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    asked: Arc<AtomicBool>,
    parent: Option<Arc<AtomicBool>>,
}

/// The caller gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("context canceled")]
pub struct Cancelled;

impl Cancel {
    /// One that nobody has asked for yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything that holds a clone to stop.
    pub fn cancel(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    /// Whether somebody asked.
    pub fn is_cancelled(&self) -> bool {
        let asked = |flag: &Arc<AtomicBool>| flag.load(Ordering::Relaxed);
        asked(&self.asked) || self.parent.as_ref().is_some_and(asked)
    }

    /// A part that can be stopped alone, and stops with the whole. Parts have no parts of their own: a part of a part
    /// stops with the part.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { asked: Arc::default(), parent: Some(self.asked.clone()) }
    }

    /// Returns [`Cancelled`] if somebody asked.
    ///
    /// # Errors
    /// [`Cancelled`].
    pub fn check(&self) -> Result<(), Cancelled> {
        if self.is_cancelled() { Err(Cancelled) } else { Ok(()) }
    }
}

impl crate::Fault for Cancelled {
    fn class(&self) -> crate::Class {
        crate::Class::Cancelled
    }
}
