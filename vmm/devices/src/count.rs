//! What devices count.
//!
//! Invariant: a counter has one writer, so counting costs two plain memory accesses; anyone may read.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that its one writer makes grow.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `more`; called by one thread at a time.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// What was counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All counters of a device.
pub trait Counters: Send + Sync {
    /// Each with its name, in a fixed order.
    fn read(&self) -> Vec<(&'static str, u64)>;
}

/// A device that counts nothing.
impl Counters for () {
    fn read(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}
