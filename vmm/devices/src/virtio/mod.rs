//! Virtio devices (virtio 1.2), apart from how they are reached.
//!
//! A device is a [`VirtioDevice`]: identity, features, configuration and, once the driver is ready,
//! [`VirtioDevice::activate`], which hands it its queues and returns a running [`Worker`]. A reset stops
//! the worker; the same device can then be activated again.
//!
//! ```text
//!            activate                 stop (reset, removal)
//!   idle ───────────────► working ───────────────► idle
//! ```

use std::io;
use std::sync::Arc;

use virtio_queue::Queue;
use vmm_sys_util::eventfd::EventFd;

use self::thread::DeviceThread;
use crate::count::Counters;
use crate::ports::Ram;

pub mod balloon;
pub mod block;
pub mod fs;
pub mod mem;
pub mod mem_hotplug;
pub mod net;
pub mod pci;
pub mod queue;
pub mod rng;
pub mod shared;
#[cfg(test)]
pub(crate) mod testing;
pub mod thread;
pub mod uring;
pub mod vsock;

/// Virtio device ids (virtio 1.2, 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum DeviceId {
    /// Network card.
    Net = 1,
    /// Block device.
    Block = 2,
    /// Entropy source.
    Rng = 4,
    /// Memory balloon.
    Balloon = 5,
    /// Socket device.
    Vsock = 19,
    /// File system.
    Fs = 26,
    /// Persistent memory.
    Pmem = 27,
    /// Memory device.
    Mem = 24,
}

impl DeviceId {
    /// What its kind is called: in metrics, and as the name of its thread.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Block => "block",
            Self::Rng => "rng",
            Self::Balloon => "balloon",
            Self::Vsock => "vsock",
            Self::Fs => "fs",
            Self::Pmem => "pmem",
            Self::Mem => "mem",
        }
    }
}

/// `VIRTIO_F_VERSION_1` (virtio 1.2, 6): offered by every device, required of every driver.
pub const F_VERSION_1: u64 = 1 << 32;

/// `VIRTIO_F_EVENT_IDX` (virtio 1.2, 6).
pub const F_EVENT_IDX: u64 = 1 << 29;

/// `VIRTIO_F_INDIRECT_DESC` (virtio 1.2, 6).
pub const F_INDIRECT_DESC: u64 = 1 << 28;

/// Tells the driver that something happened.
pub trait Interrupt: Send + Sync {
    /// Used buffers are in queue `index`.
    fn queue(&self, index: u16);

    /// The configuration changed.
    fn config(&self);

    /// The device met an error it cannot go on after: sets `DEVICE_NEEDS_RESET` (virtio 1.2, 2.1.1).
    fn needs_reset(&self);
}

/// One queue the driver has set up and enabled.
#[derive(Debug)]
pub struct ActiveQueue {
    /// Its number.
    pub index: u16,
    /// Its rings, checked to lie within memory; ready.
    pub queue: Queue,
    /// Signalled when the driver has made buffers available.
    pub doorbell: EventFd,
}

/// What a device gets when the driver is ready (`DRIVER_OK`).
pub struct Activation {
    /// The guest's memory.
    pub ram: Ram,
    /// The features that both sides agreed on.
    pub features: u64,
    /// The enabled queues, by rising number; others are absent.
    pub queues: Vec<ActiveQueue>,
    /// The way back to the driver.
    pub interrupt: Arc<dyn Interrupt>,
    /// The device's threads, [`VirtioDevice::threads`] of them, without work.
    pub threads: Vec<Arc<DeviceThread>>,
}

/// A device that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// The driver left out a queue that the device cannot do without.
    #[error("queue {0} is not enabled")]
    MissingQueue(u16),
    /// The host refused something.
    #[error("{what}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
}

/// A virtio device.
pub trait VirtioDevice: Send {
    /// Its kind.
    fn id(&self) -> DeviceId;

    /// The largest size of each queue, a power of two.
    fn queue_sizes(&self) -> &[u16];

    /// The features it offers. The transport adds [`F_VERSION_1`].
    fn features(&self) -> u64;

    /// Reads its configuration. Bytes outside of it stay zero. `offset + data.len()` does not overflow.
    fn read_config(&self, offset: usize, data: &mut [u8]);

    /// The driver writes the configuration; ignored where it is read-only.
    fn write_config(&mut self, _offset: usize, _data: &[u8]) {}

    /// How many threads it works on.
    fn threads(&self) -> usize;

    /// What it counts from its making on, whatever resets come.
    fn counters(&self) -> Arc<dyn Counters> {
        Arc::new(())
    }

    /// The driver is ready: start.
    ///
    /// # Errors
    /// [`ActivateError`]; the transport then sets `DEVICE_NEEDS_RESET`.
    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError>;
}

/// A device at work.
pub trait Worker: Send {
    /// Stops it. When this returns, nothing of it touches guest memory or raises interrupts any more.
    fn stop(self: Box<Self>);
}
