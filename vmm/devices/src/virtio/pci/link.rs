//! What worker threads and the function share: status, interrupts.
//!
//! Invariant: nothing here waits for the function's lock.

use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

use super::super::Interrupt;
use super::common::{DRIVER_OK, NEEDS_RESET};
use crate::pci::msix::Msix;

/// `VIRTIO_MSI_NO_VECTOR`: interrupts go nowhere.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// ISR status: a queue has used buffers; the configuration changed.
const ISR_QUEUE: u8 = 1;
const ISR_CONFIG: u8 = 2;

/// The way from a device to its driver.
pub struct Link {
    msix: Msix,
    pub(super) status: AtomicU8,
    isr: AtomicU8,
    generation: AtomicU8,
    pub(super) config_vector: AtomicU16,
    pub(super) queue_vectors: Vec<AtomicU16>,
}

impl Link {
    /// For `queues` queues, in the state after reset.
    pub(super) fn new(msix: Msix, queues: u16) -> Self {
        Self {
            msix,
            status: AtomicU8::new(0),
            isr: AtomicU8::new(0),
            generation: AtomicU8::new(0),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
        }
    }

    pub(super) fn msix(&self) -> &Msix {
        &self.msix
    }

    /// The ISR status, which reading clears (virtio 1.2, 4.1.4.5).
    pub(super) fn take_isr(&self) -> u8 {
        self.isr.swap(0, Ordering::AcqRel)
    }

    /// How often the configuration has changed.
    pub(super) fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    /// A vector number from the driver: one that does not exist is none.
    pub(super) fn checked_vector(&self, vector: u64) -> u16 {
        u16::try_from(vector).ok().filter(|&v| v < self.msix.vectors()).unwrap_or(NO_VECTOR)
    }

    /// Back to the state after reset. No worker runs.
    pub(super) fn reset(&self) {
        self.isr.store(0, Ordering::Release);
        self.config_vector.store(NO_VECTOR, Ordering::Release);
        self.queue_vectors.iter().for_each(|vector| vector.store(NO_VECTOR, Ordering::Release));
        self.status.store(0, Ordering::Release);
    }

    fn raise(&self, isr: u8, vector: &AtomicU16) {
        self.isr.fetch_or(isr, Ordering::AcqRel);
        // `NO_VECTOR` is beyond every table.
        self.msix.raise(vector.load(Ordering::Acquire));
    }
}

impl Interrupt for Link {
    fn queue(&self, index: u16) {
        if let Some(vector) = self.queue_vectors.get(usize::from(index)) {
            self.raise(ISR_QUEUE, vector);
        }
    }

    fn config(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.raise(ISR_CONFIG, &self.config_vector);
    }

    fn needs_reset(&self) {
        let before = self.status.fetch_or(NEEDS_RESET, Ordering::AcqRel);
        if before & DRIVER_OK != 0 {
            self.raise(ISR_CONFIG, &self.config_vector);
        }
    }
}
