//! A device's thread and how it is stopped.
//!
//! Invariant: after [`Worker::stop`] returns, the thread is gone. A body must come back soon after
//! [`Stop::requested`] turns true; it may wait on [`Stop::event`] among others.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::Worker;

/// Devices do not recurse and keep their buffers on the heap.
const STACK: usize = 256 * 1024;

/// The wish that a thread ends.
pub struct Stop {
    requested: AtomicBool,
    event: EventFd,
}

impl Stop {
    /// A wish that is not yet there.
    ///
    /// # Errors
    /// If the host has no descriptors left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            requested: AtomicBool::new(false),
            event: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        })
    }

    /// Whether to end.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    /// Readable from the moment [`Stop::requested`] is true.
    pub fn event(&self) -> &EventFd {
        &self.event
    }

    /// Asks for the end.
    pub fn request(&self) {
        self.requested.store(true, Ordering::Release);
        // Fails only if the counter is full, and then the event is readable anyway.
        let _full = self.event.write(1);
    }
}

/// A running thread.
struct Thread {
    stop: Arc<Stop>,
    handle: JoinHandle<()>,
}

impl Worker for Thread {
    fn stop(self: Box<Self>) {
        self.stop.request();
        // An error is a panic of the thread: it is gone, which is what was asked for.
        let _panicked = self.handle.join();
    }
}

/// Several workers that are one.
pub struct Workers(pub Vec<Box<dyn Worker>>);

impl Worker for Workers {
    fn stop(self: Box<Self>) {
        self.0.into_iter().for_each(Worker::stop);
    }
}

/// Runs `body` on a new thread called `name` (at most 15 bytes show).
///
/// # Errors
/// If the host refuses a thread or descriptor.
pub fn spawn(name: &str, body: impl FnOnce(&Stop) + Send + 'static) -> io::Result<Box<dyn Worker>> {
    let stop = Arc::new(Stop::new()?);
    let seen = Arc::clone(&stop);
    let builder = Builder::new().name(name.to_owned()).stack_size(STACK);
    let handle = builder.spawn(move || body(&seen))?;
    Ok(Box::new(Thread { stop, handle }))
}
