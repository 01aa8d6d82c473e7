//! The block device (virtio 1.2, 5.2): a raw file or block device of the host.
//!
//! ```text
//!  request   what a chain asks for (pure)
//!  job       the steps that this takes, and how it ends
//!  engine    the queue's thread: io_uring, or ordinary calls
//!  backend   the file
//! ```
//!
//! Each queue has a thread. What is discarded is punched out of the file, so that the host gets its room
//! back.
//!
//! Invariant: requests reach only the bytes of the disk, in whole sectors; a read-only disk is never
//! written; data moves between file and guest memory without a copy in between.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::queue::Ring;
use super::thread::DeviceThread;
use super::uring::{Prepared, Uring};
use super::{
    ActivateError, Activation, DeviceId, F_EVENT_IDX, F_INDIRECT_DESC, VirtioDevice, Worker, thread,
};
use crate::count::{Counter, Counters};

mod backend;
mod engine;
mod job;
mod request;

use backend::Backend;
use engine::UringEngine;
use job::Intake;
use request::{MAX_EXTENT_SECTORS, MAX_EXTENTS};

/// Bytes of a sector, the unit of all requests whatever the block size.
pub const SECTOR: u64 = 512;

/// Bytes of a serial number (virtio 1.2, 5.2.6.1).
pub const SERIAL_LEN: usize = 20;

/// `VIRTIO_BLK_F_SIZE_MAX`, `F_SEG_MAX`, `F_RO`, `F_BLK_SIZE`, `F_FLUSH`, `F_MQ`, `F_DISCARD`, `F_WRITE_ZEROES`.
const F_SIZE_MAX: u64 = 1 << 1;
const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const F_MQ: u64 = 1 << 12;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;

/// Most queues of a disk.
pub const MAX_QUEUES: u16 = 8;

/// Sectors that discards should be aligned to: the block size of the host's file systems.
const DISCARD_ALIGNMENT: u32 = 8;

/// Most data segments of a request: a queue full, less header and status.
const SEG_MAX: u32 = 254;

/// Most bytes of a data segment.
const SIZE_MAX: u32 = 128 << 10;

/// Bytes of the configuration up to and with `write_zeroes_may_unmap`; what follows reads as zero.
const CONFIG_LEN: usize = 60;

/// How a disk is offered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockOptions {
    /// The guest may not write.
    pub readonly: bool,
    /// The serial number, at most [`SERIAL_LEN`] bytes.
    pub serial: String,
    /// Queues, each with a thread; brought between 1 and [`MAX_QUEUES`].
    pub queues: u16,
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

/// What one queue of a disk counts.
#[derive(Debug, Default)]
struct Counts {
    reads: Counter,
    bytes_read: Counter,
    writes: Counter,
    bytes_written: Counter,
    flushes: Counter,
    /// Discards and write-zeroes.
    erasures: Counter,
    /// Requests refused or failed, of any kind.
    errors: Counter,
}

/// What all queues of a disk count.
struct Total(Vec<Arc<Counts>>);

impl Counters for Total {
    fn read(&self) -> Vec<(&'static str, u64)> {
        let sum = |of: fn(&Counts) -> &Counter| self.0.iter().map(|counts| of(counts).get()).sum();
        vec![
            ("reads", sum(|counts| &counts.reads)),
            ("bytes_read", sum(|counts| &counts.bytes_read)),
            ("writes", sum(|counts| &counts.writes)),
            ("bytes_written", sum(|counts| &counts.bytes_written)),
            ("flushes", sum(|counts| &counts.flushes)),
            ("erasures", sum(|counts| &counts.erasures)),
            ("errors", sum(|counts| &counts.errors)),
        ]
    }
}

/// What belongs to one queue from the making of the disk on.
#[derive(Default)]
struct Lane {
    counts: Arc<Counts>,
    /// Made before the guest runs, because a thread that is confined may make none. It serves for the first
    /// activation; later ones do without.
    uring: Option<Prepared>,
}

/// A disk.
pub struct Block {
    backend: Arc<Backend>,
    queue_sizes: Vec<u16>,
    lanes: Vec<Lane>,
}

impl Block {
    /// A disk of the bytes of `file`, whose size is taken now.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn new(mut file: File, options: BlockOptions) -> Result<Self, BlockError> {
        let size = backend::size(&mut file)?;
        Self::with(file, size, options, || Prepared::new().ok())
    }

    /// A disk of the first `size` bytes of `file`, without rings of `io_uring`: nothing is asked of the host here, so that
    /// a confined thread may call it.
    ///
    /// # Errors
    /// [`BlockError`].
    pub fn of_size(file: File, size: u64, options: BlockOptions) -> Result<Self, BlockError> {
        Self::with(file, size, options, || None)
    }

    fn with(
        file: File,
        size: u64,
        options: BlockOptions,
        uring: fn() -> Option<Prepared>,
    ) -> Result<Self, BlockError> {
        let queues = usize::from(options.queues.clamp(1, MAX_QUEUES));
        let backend = Arc::new(Backend::new(file, size, options)?);
        let lane = |_| Lane { uring: uring(), ..Lane::default() };
        let lanes = (0..queues).map(lane).collect();
        Ok(Self { backend, queue_sizes: vec![QUEUE_SIZE; queues], lanes })
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
        let mut word = |at: usize, value: u32| {
            config[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        word(8, SIZE_MAX);
        word(12, SEG_MAX);
        word(20, 512);
        // Valid with F_DISCARD and F_WRITE_ZEROES (virtio 1.2, 5.2.4).
        word(36, MAX_EXTENT_SECTORS);
        word(40, MAX_EXTENTS);
        word(44, DISCARD_ALIGNMENT);
        word(48, MAX_EXTENT_SECTORS);
        word(52, MAX_EXTENTS);
        // The upper bytes are unused: zeroes may be written by deallocating.
        word(56, 1);
        let queues = u16::try_from(self.queue_sizes.len()).unwrap_or(1);
        config[34..36].copy_from_slice(&queues.to_le_bytes());
        config
    }

    /// Has `thread` serve the queue of `ring`.
    fn serve(
        &mut self,
        thread: &Arc<DeviceThread>,
        ring: Ring,
        write_through: bool,
    ) -> io::Result<Box<dyn Worker>> {
        let lane = self.lanes.get_mut(usize::from(ring.index()));
        let lane = lane.ok_or_else(|| io::Error::other("a queue that the disk does not have"))?;
        let (backend, uring) = (Arc::clone(&self.backend), lane.uring.take());
        let mut intake = Intake::new(Arc::clone(&backend), Arc::clone(&lane.counts), write_through);
        thread.run(move |stop| {
            let file = Arc::clone(backend.file());
            match uring.map(|uring| Uring::new(uring, file, ring.ram().clone())) {
                Some(Ok(uring)) => UringEngine::new(ring, uring, intake).serve(stop),
                _ => engine::serve(ring, &backend, &mut intake, stop),
            }
        })
    }
}

impl VirtioDevice for Block {
    fn id(&self) -> DeviceId {
        DeviceId::Block
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn features(&self) -> u64 {
        let access = if self.backend.readonly() { F_RO } else { F_DISCARD | F_WRITE_ZEROES };
        let queues = if self.queue_sizes.len() > 1 { F_MQ } else { 0 };
        access
            | queues
            | F_SIZE_MAX
            | F_SEG_MAX
            | F_BLK_SIZE
            | F_FLUSH
            | F_EVENT_IDX
            | F_INDIRECT_DESC
    }

    fn threads(&self) -> usize {
        self.queue_sizes.len()
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        for (byte, value) in data.iter_mut().zip(self.config().iter().skip(offset)) {
            *byte = *value;
        }
    }

    fn counters(&self) -> Arc<dyn Counters> {
        Arc::new(Total(self.lanes.iter().map(|lane| Arc::clone(&lane.counts)).collect()))
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError> {
        let Activation { ram, features, queues, interrupt, threads } = activation;
        if queues.is_empty() {
            return Err(ActivateError::MissingQueue(0));
        }
        // A driver that does not know flushes relies on writes being stable (virtio 1.2, 5.2.6.2).
        let write_through = features & F_FLUSH == 0;
        let started = queues.into_iter().enumerate().map(|(index, queue)| {
            let ring = Ring::new(queue, ram.clone(), Arc::clone(&interrupt));
            self.serve(thread::at(&threads, index)?, ring, write_through)
        });
        thread::all(started)
            .map_err(|source| ActivateError::Host { what: "starting the disk's work", source })
    }
}

#[cfg(test)]
#[path = "block_test.rs"]
mod block_test;
