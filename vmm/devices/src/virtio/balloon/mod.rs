//! The memory balloon (virtio 1.2, 5.5): guest memory that is not in use goes back to the host.
//!
//! Above all by free page reporting: the driver reports free memory by itself, in blocks of some MiB, and
//! takes it back by touching it. The balloon proper can be inflated by the driver, too, but the device
//! never asks for it: its target size is zero.
//!
//! Invariant: what the guest names is only ever a range for [`Reclaim`], which takes care that it is the
//! guest's own memory.

use std::sync::Arc;

use super::queue::{Ring, serve_all};
use super::{
    ActivateError, Activation, DeviceId, F_EVENT_IDX, F_INDIRECT_DESC, VirtioDevice, Worker, thread,
};
use crate::ports::Reclaim;

mod request;

/// Inflate and deflate queue, then the reporting queue: the driver numbers only the queues that the
/// features agreed on make exist (virtio 1.2, 5.5.2, as Linux reads it).
const QUEUE_SIZES: [u16; 3] = [128, 128, 128];
const INFLATE: u16 = 0;
const DEFLATE: u16 = 1;

/// `VIRTIO_BALLOON_F_REPORTING`.
const F_REPORTING: u64 = 1 << 5;

/// The memory balloon.
pub struct Balloon {
    reclaim: Arc<dyn Reclaim>,
}

impl Balloon {
    /// A balloon that gives memory back through `reclaim`.
    #[must_use]
    pub fn new(reclaim: Arc<dyn Reclaim>) -> Self {
        Self { reclaim }
    }
}

impl VirtioDevice for Balloon {
    fn id(&self) -> DeviceId {
        DeviceId::Balloon
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn threads(&self) -> usize {
        1
    }

    fn features(&self) -> u64 {
        F_REPORTING | F_EVENT_IDX | F_INDIRECT_DESC
    }

    /// `num_pages`, the target, is zero; what the driver writes to `actual` is of no interest.
    fn read_config(&self, _offset: usize, _data: &mut [u8]) {}

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError> {
        let Activation { ram, queues, interrupt, threads, .. } = activation;
        for needed in [INFLATE, DEFLATE] {
            if !queues.iter().any(|queue| queue.index == needed) {
                return Err(ActivateError::MissingQueue(needed));
            }
        }
        let rings = queues.into_iter();
        let rings = rings.map(|queue| Ring::new(queue, ram.clone(), Arc::clone(&interrupt)));
        let rings: Vec<_> = rings.collect();
        let reclaim = Arc::clone(&self.reclaim);
        let work = move |stop: &thread::Stop| {
            serve_all(rings, stop, |index, ram, chain| {
                // What the host does not take back stays the guest's: nothing is lost but room.
                let give_back = |address, len| drop(reclaim.give_back(address, len));
                match index {
                    INFLATE => request::inflate(ram, chain, give_back),
                    // The driver takes pages back by using them.
                    DEFLATE => {}
                    _ => request::report(chain, give_back),
                }
                0
            });
        };
        thread::at(&threads, 0)
            .and_then(|thread| thread.run(work))
            .map_err(|source| ActivateError::Host { what: "starting the balloon's work", source })
    }
}

#[cfg(test)]
#[path = "balloon_test.rs"]
mod balloon_test;
