//! What a running machine tells its owner: that drivers have started, and why it ended.
//!
//! Invariant: the first reason to end wins; a later one is dropped.

use std::io;
use std::sync::OnceLock;

use cofferdam_vmm_api::ExitReason;
use cofferdam_vmm_devices::ports::{PowerControl, PowerEvent};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::stages::now_ns;

/// Filled in by vCPU threads, read by the machine's owner.
#[derive(Debug)]
pub struct Outcome {
    reason: OnceLock<ExitReason>,
    drivers_started: OnceLock<u64>,
    changed: EventFd,
}

impl Outcome {
    /// Of a machine that has not started.
    ///
    /// # Errors
    /// If the host has no eventfd left.
    pub fn new() -> io::Result<Self> {
        let changed = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { reason: OnceLock::new(), drivers_started: OnceLock::new(), changed })
    }

    /// The machine ends.
    pub fn end(&self, reason: ExitReason) {
        if self.reason.set(reason).is_ok() {
            self.wake();
        }
    }

    /// A driver has taken a device into use.
    pub(super) fn driver_started(&self) {
        if self.drivers_started.get().is_none() && self.drivers_started.set(now_ns()).is_ok() {
            self.wake();
        }
    }

    /// Why it ended, once it has.
    #[must_use]
    pub fn reason(&self) -> Option<&ExitReason> {
        self.reason.get()
    }

    /// When the first driver started, in nanoseconds of `CLOCK_MONOTONIC`.
    #[must_use]
    pub fn drivers_started(&self) -> Option<u64> {
        self.drivers_started.get().copied()
    }

    /// Readable after each change, until [`Outcome::seen`].
    #[must_use]
    pub fn changed(&self) -> &EventFd {
        &self.changed
    }

    /// Makes [`Outcome::changed`] unreadable.
    pub fn seen(&self) {
        let _ = self.changed.read();
    }

    fn wake(&self) {
        // Fails only if it is readable already.
        let _ = self.changed.write(1);
    }
}

impl PowerControl for Outcome {
    fn signal(&self, event: PowerEvent) {
        self.end(match event {
            PowerEvent::PowerOff => ExitReason::PowerOff,
            PowerEvent::Reset => ExitReason::Reboot,
            PowerEvent::Panic => ExitReason::Panic,
        });
    }
}
