//! The memory device (virtio 1.2, 5.15): memory that is plugged in and out while the machine runs.
//!
//! ```text
//!  MemorySize::request ──► requested size ──configuration interrupt──► driver
//!                                                                        │ plug, unplug
//!  MemorySize::plugged ◄── blocks ◄──────────── the device's thread ◄────┘
//! ```
//!
//! All of the region is usable all the time, so that a driver whose memory is in use somewhere can give back any other;
//! only the requested size bounds it. What is plugged in survives a reset, as it must (5.15.5).
//!
//! `VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE` is offered: memory that is not plugged in is not there, for vCPUs and for
//! other devices. A driver that does not accept it may read such memory, and then finds zeros or ones.
//!
//! Invariant: a driver plugs in no more than was requested, and never reaches more than the most that was, rounded up to
//! a chunk.

use std::sync::{Arc, Mutex};

use super::queue::{Chain, Ring};
use super::{
    ActivateError, Activation, DeviceId, F_EVENT_IDX, F_INDIRECT_DESC, Interrupt, VirtioDevice,
    Worker, thread,
};
use crate::count::{Counter, Counters};
use crate::ports::{MemoryChunks, Ram};
use crate::sync::lock;

mod blocks;
mod region;
mod request;

pub use blocks::{BLOCK, Blocks, CHUNK};

use region::Region;
use request::Answer;

/// Its one queue, for requests. Linux has a single one under way.
const QUEUE_SIZES: [u16; 1] = [16];

/// `VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE`.
const F_UNPLUGGED_INACCESSIBLE: u64 = 1 << 1;

/// Bytes of the configuration (5.15.4).
const CONFIG: usize = 56;

/// What it counts.
#[derive(Default)]
struct Counts {
    requests: Counter,
    refused: Counter,
}

/// The counters, and what is plugged in at the moment.
struct Account(Arc<Shared>);

impl Counters for Account {
    fn read(&self) -> Vec<(&'static str, u64)> {
        let Shared { region, counts, .. } = self.0.as_ref();
        vec![
            ("requests", counts.requests.get()),
            ("refused", counts.refused.get()),
            ("requested_bytes", region.requested()),
            ("plugged_bytes", region.plugged()),
        ]
    }
}

/// What the device, its thread and its owner share.
struct Shared {
    region: Region,
    counts: Counts,
    /// The way to the driver, while there is one.
    driver: Mutex<Option<Arc<dyn Interrupt>>>,
}

/// The memory device.
pub struct MemHotplug {
    shared: Arc<Shared>,
}

/// How much of a device's region is plugged in, and shall be; cheap to clone.
#[derive(Clone)]
pub struct MemorySize {
    shared: Arc<Shared>,
}

impl MemHotplug {
    /// A device whose region is at `address`, a multiple of [`CHUNK`], and has those `blocks`, with `memory` behind it.
    /// Nothing is plugged in or requested.
    #[must_use]
    pub fn new(address: u64, blocks: Arc<Blocks>, memory: Arc<dyn MemoryChunks>) -> Self {
        let region = Region::new(address, blocks, memory);
        let shared = Shared { region, counts: Counts::default(), driver: Mutex::new(None) };
        Self { shared: Arc::new(shared) }
    }

    /// What its owner keeps.
    #[must_use]
    pub fn size(&self) -> MemorySize {
        MemorySize { shared: Arc::clone(&self.shared) }
    }

    fn config(&self) -> [u8; CONFIG] {
        let region = &self.shared.region;
        let (node_id_and_padding, usable) = (0, region.size);
        let fields = [
            BLOCK,
            node_id_and_padding,
            region.address,
            region.size,
            usable,
            region.plugged(),
            region.requested(),
        ];
        let mut config = [0; CONFIG];
        for (place, field) in config.chunks_exact_mut(8).zip(fields) {
            place.copy_from_slice(&field.to_le_bytes());
        }
        config
    }
}

impl MemorySize {
    /// Has the driver plug memory in or out until there are `bytes`, rounded up to a block, and no more than the region
    /// has; if it is at that size already or has given up, it is told once more.
    pub fn request(&self, bytes: u64) {
        self.shared.region.request(bytes);
        if let Some(driver) = lock(&self.shared.driver).as_ref() {
            driver.config();
        }
    }

    /// Bytes that were requested last.
    #[must_use]
    pub fn requested(&self) -> u64 {
        self.shared.region.requested()
    }

    /// Bytes that are plugged in.
    #[must_use]
    pub fn plugged(&self) -> u64 {
        self.shared.region.plugged()
    }
}

impl VirtioDevice for MemHotplug {
    fn id(&self) -> DeviceId {
        DeviceId::Mem
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn threads(&self) -> usize {
        1
    }

    fn features(&self) -> u64 {
        F_UNPLUGGED_INACCESSIBLE | F_EVENT_IDX | F_INDIRECT_DESC
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        for (byte, value) in data.iter_mut().zip(self.config().iter().skip(offset)) {
            *byte = *value;
        }
    }

    fn counters(&self) -> Arc<dyn Counters> {
        Arc::new(Account(Arc::clone(&self.shared)))
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError> {
        let Activation { ram, queues, interrupt, threads, .. } = activation;
        let queue = queues.into_iter().next().ok_or(ActivateError::MissingQueue(0))?;
        let ring = Ring::new(queue, ram, Arc::clone(&interrupt));
        let shared = Arc::clone(&self.shared);
        let handle = move |ram: &Ram, chain: Chain<'_>| {
            request::serve(ram, chain, |request| {
                let answer = shared.region.serve(request);
                shared.counts.requests.add(1);
                if !matches!(answer, Answer::Ack | Answer::State(_)) {
                    shared.counts.refused.add(1);
                }
                answer
            })
        };
        let work = thread::at(&threads, 0)
            .and_then(|thread| thread.run(move |stop| ring.serve(stop, handle)))
            .map_err(|source| ActivateError::Host { what: "starting the memory's work", source })?;
        *lock(&self.shared.driver) = Some(interrupt);
        Ok(Box::new(Working { work, shared: Arc::clone(&self.shared) }))
    }
}

/// The device at work, with a driver to be told of changes.
struct Working {
    work: Box<dyn Worker>,
    shared: Arc<Shared>,
}

impl Worker for Working {
    fn stop(self: Box<Self>) {
        *lock(&self.shared.driver) = None;
        self.work.stop();
    }
}

#[cfg(test)]
#[path = "mem_hotplug_test.rs"]
mod mem_hotplug_test;
