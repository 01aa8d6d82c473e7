//! The entropy device (virtio 1.2, 5.4).
//!
//! Invariant: what the guest asks for costs no host memory, and one request no more than
//! [`MAX_REQUEST`] bytes and 64 buffers of work.

use std::sync::Arc;

use virtio_queue::desc::split::Descriptor;
use vm_memory::Bytes;

use super::queue::{Chain, Ring};
use super::{
    ActivateError, Activation, DeviceId, F_EVENT_IDX, F_INDIRECT_DESC, VirtioDevice, Worker, mem,
    thread,
};
use crate::count::{Counter, Counters};
use crate::ports::Ram;

/// Most bytes given for one request; the driver asks again.
pub const MAX_REQUEST: usize = 64 * 1024;

/// Most buffers of a request that are looked at, empty ones among them; Linux has one.
const MAX_BUFFERS: usize = 64;

/// Bytes drawn at a time.
const DRAW: usize = 256;

/// Its one queue. Linux has a single request under way.
const QUEUE_SIZES: [u16; 1] = [16];

/// What it counts.
#[derive(Default)]
struct Counts {
    requests: Counter,
    bytes: Counter,
}

impl Counters for Counts {
    fn read(&self) -> Vec<(&'static str, u64)> {
        vec![("requests", self.requests.get()), ("bytes", self.bytes.get())]
    }
}

/// The entropy device.
#[derive(Default)]
pub struct Rng {
    counts: Arc<Counts>,
}

impl Rng {
    /// An entropy device that draws from the host's kernel.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl VirtioDevice for Rng {
    fn id(&self) -> DeviceId {
        DeviceId::Rng
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn threads(&self) -> usize {
        1
    }

    fn features(&self) -> u64 {
        F_EVENT_IDX | F_INDIRECT_DESC
    }

    fn read_config(&self, _offset: usize, _data: &mut [u8]) {}

    fn counters(&self) -> Arc<dyn Counters> {
        Arc::clone(&self.counts) as _
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError> {
        let Activation { ram, queues, interrupt, threads, .. } = activation;
        let queue = queues.into_iter().next().ok_or(ActivateError::MissingQueue(0))?;
        let ring = Ring::new(queue, ram, interrupt);
        let counts = Arc::clone(&self.counts);
        let handle = move |ram: &Ram, chain: Chain<'_>| {
            let filled = fill(ram, chain);
            counts.requests.add(1);
            counts.bytes.add(filled.into());
            filled
        };
        thread::at(&threads, 0)
            .and_then(|thread| thread.run(move |stop| ring.serve(stop, handle)))
            .map_err(|source| ActivateError::Host { what: "starting the rng's work", source })
    }
}

/// Fills a request; the number of bytes written. It ends early where memory or entropy does.
fn fill(ram: &Ram, chain: impl Iterator<Item = Descriptor>) -> u32 {
    let mut filled = 0;
    for descriptor in chain.take(MAX_BUFFERS).filter(Descriptor::is_write_only) {
        let Some(len) = fill_buffer(ram, descriptor, MAX_REQUEST - filled) else { break };
        filled += len;
    }
    u32::try_from(filled).unwrap_or(0)
}

/// Fills one buffer with at most `limit` bytes; `None` if it cannot be filled.
fn fill_buffer(ram: &Ram, descriptor: Descriptor, limit: usize) -> Option<usize> {
    let len = usize::try_from(descriptor.len()).ok()?.min(limit);
    let mut address = descriptor.addr();
    let mut bytes = [0; DRAW];
    let mut left = len;
    while left > 0 {
        let piece = &mut bytes[..left.min(DRAW)];
        mem::random(piece).ok()?;
        ram.write_slice(piece, address).ok()?;
        address = vm_memory::Address::checked_add(&address, piece.len() as u64)?;
        left -= piece.len();
    }
    Some(len)
}

#[cfg(test)]
#[path = "rng_test.rs"]
mod rng_test;
