//! The block device (virtio 1.2, 5.2): a raw file or block device of the host.
//!
//! Invariant: requests reach only the bytes of the disk, in whole sectors; a read-only disk is never
//! written; data moves between file and guest memory without a copy in between.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::queue::Ring;
use super::{
    ActivateError, Activation, DeviceId, F_EVENT_IDX, F_INDIRECT_DESC, VirtioDevice, Worker,
};
use crate::count::{Counter, Counters};

mod backend;
mod request;
mod worker;

use backend::Backend;

/// Bytes of a sector, the unit of all requests whatever the block size.
pub const SECTOR: u64 = 512;

/// Bytes of a serial number (virtio 1.2, 5.2.6.1).
pub const SERIAL_LEN: usize = 20;

/// `VIRTIO_BLK_F_SEG_MAX`, `F_RO`, `F_BLK_SIZE`, `F_FLUSH`.
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;

/// One queue; more of them are a matter of queue sizes and workers only.
const QUEUE_SIZES: [u16; 1] = [256];

/// Most data segments of a request: a queue full, less header and status.
const SEG_MAX: u32 = 254;

/// Bytes of the configuration up to and with `blk_size`; what follows reads as zero.
const CONFIG_LEN: usize = 24;

/// How a disk is offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockOptions {
    /// The guest may not write.
    pub readonly: bool,
    /// The serial number, at most [`SERIAL_LEN`] bytes.
    pub serial: String,
}

/// A disk that cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Neither file nor block device.
    #[error("a disk must be a regular file or a block device")]
    NotADisk,
    /// Not whole sectors.
    #[error("disk of {0} bytes: the size must be a multiple of 512 bytes")]
    Size(u64),
    /// Too long.
    #[error("disk serial {0:?} is longer than 20 bytes")]
    Serial(String),
    /// The host refused.
    #[error("finding out the size of a disk")]
    Host(#[source] io::Error),
}

/// What a disk counts.
#[derive(Default)]
struct Counts {
    reads: Counter,
    bytes_read: Counter,
    writes: Counter,
    bytes_written: Counter,
    flushes: Counter,
    /// Requests refused or failed, of any kind.
    errors: Counter,
}

impl Counters for Counts {
    fn read(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("reads", self.reads.get()),
            ("bytes_read", self.bytes_read.get()),
            ("writes", self.writes.get()),
            ("bytes_written", self.bytes_written.get()),
            ("flushes", self.flushes.get()),
            ("errors", self.errors.get()),
        ]
    }
}

/// A disk.
pub struct Block {
    backend: Arc<Backend>,
    counts: Arc<Counts>,
}

impl Block {
    /// A disk of the bytes of `file`, whose size is taken now.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn new(file: File, options: BlockOptions) -> Result<Self, BlockError> {
        Ok(Self { backend: Arc::new(Backend::new(file, options)?), counts: Arc::default() })
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.backend.sectors() * SECTOR
    }

    /// `struct virtio_blk_config`, as far as the features offered make it valid.
    fn config(&self) -> [u8; CONFIG_LEN] {
        let mut config = [0; CONFIG_LEN];
        config[..8].copy_from_slice(&self.backend.sectors().to_le_bytes());
        config[12..16].copy_from_slice(&SEG_MAX.to_le_bytes());
        config[20..].copy_from_slice(&512u32.to_le_bytes());
        config
    }
}

impl VirtioDevice for Block {
    fn id(&self) -> DeviceId {
        DeviceId::Block
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        let access = if self.backend.readonly() { F_RO } else { 0 };
        access | F_SEG_MAX | F_BLK_SIZE | F_FLUSH | F_EVENT_IDX | F_INDIRECT_DESC
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        for (byte, value) in data.iter_mut().zip(self.config().iter().skip(offset)) {
            *byte = *value;
        }
    }

    fn counters(&self) -> Arc<dyn Counters> {
        Arc::clone(&self.counts) as _
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError> {
        let Activation { ram, features, queues, interrupt, thread } = activation;
        let queue = queues.into_iter().next().ok_or(ActivateError::MissingQueue(0))?;
        let ring = Ring::new(queue, ram, interrupt);
        // A driver that does not know flushes relies on writes being stable (virtio 1.2, 5.2.6.2).
        let write_through = features & F_FLUSH == 0;
        let (backend, counts) = (Arc::clone(&self.backend), Arc::clone(&self.counts));
        let mut worker = worker::BlockWorker::new(backend, counts, write_through);
        thread
            .run(move |stop| ring.serve(stop, |ram, chain| worker.handle(ram, chain)))
            .map_err(|source| ActivateError::Host { what: "starting the disk's work", source })
    }
}

#[cfg(test)]
#[path = "block_test.rs"]
mod block_test;
