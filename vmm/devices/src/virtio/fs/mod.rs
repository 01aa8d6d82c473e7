//! The file system device (virtio 1.2, 5.11): a file server of the host, over vhost-user's rings.
//!
//! ```text
//!  worker    the thread: both queues of the driver, what the server tells
//!  session   what is under way between the two
//!  request   chains and headers (pure)         slots   the memory shared with the server, and its queue
//!  amend     the two words of replies that are changed (pure)
//! ```
//!
//! Guest memory is not shared with the server. Each request is copied into memory that is, put on a queue there
//! whose driver is this device, and its reply is copied back. Whoever takes the server over sees the bytes of the
//! requests under way; whoever takes the guest over can tell the server nothing but requests.
//!
//! Who starts the monitor has told the server of the memory, the queue and its events (vhost-user), before any byte of
//! the guest's reaches it.
//!
//! Invariant: neither side is believed. A chain that is no request is refused with an error; a reply that is none
//! becomes an error; a server that breaks its ring is gone, and what is gone answers `EIO`.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};

use super::queue::Ring;
use super::shared::SharedMemory;
use super::{
    ActivateError, Activation, DeviceId, F_EVENT_IDX, F_INDIRECT_DESC, VirtioDevice, thread,
};
use crate::count::{Counter, Counters};

mod amend;
mod request;
mod session;
mod slots;
mod worker;

pub use amend::MAPPED_PREFIX;
pub use slots::{AVAILABLE, DESCRIPTORS, MEMORY, QUEUE_SIZE, SLOT_BYTES, SLOTS, USED};

use session::Session;
use slots::Slots;
use worker::Worker;

/// Longest tag in bytes.
pub const MAX_TAG: usize = 36;

/// The queue for requests that must not wait (`FORGET`), and that for all others. Linux makes a request of no more
/// pages than a queue has entries, less four.
const QUEUE_SIZES: [u16; 2] = [64, 512];

/// The tag and the number of queues for requests.
const CONFIG_LEN: usize = MAX_TAG + 4;

/// A file system that cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The tag.
    #[error("the tag {0:?} of a file system is empty or longer than {MAX_TAG} bytes")]
    Tag(String),
    /// The memory.
    #[error("mapping the memory shared with a file server")]
    Memory(#[source] io::Error),
}

/// A file server, as the device reaches it.
#[derive(Debug)]
pub struct Server {
    /// [`MEMORY`] bytes that it shares, all zero; sealed, so that they stay.
    pub memory: OwnedFd,
    /// The eventfd that has it look at its queue; non-blocking.
    pub kick: File,
    /// The eventfd that it signals when it has used something.
    pub call: OwnedFd,
    /// Becomes readable when it has ended.
    pub end: OwnedFd,
}

/// What it counts.
#[derive(Default)]
pub(super) struct Counts {
    requests: Counter,
    bytes_replied: Counter,
    /// Requests refused, or lost with the server.
    errors: Counter,
}

impl Counters for Counts {
    fn read(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("requests", self.requests.get()),
            ("bytes_replied", self.bytes_replied.get()),
            ("errors", self.errors.get()),
        ]
    }
}

/// A file system.
pub struct Fs {
    config: [u8; CONFIG_LEN],
    session: Arc<Mutex<Session>>,
    counts: Arc<Counts>,
}

impl Fs {
    /// The file system of `server`, under the name `tag`.
    ///
    /// # Errors
    /// [`FsError`].
    pub fn new(tag: &str, server: Server) -> Result<Self, FsError> {
        let mut config = [0; CONFIG_LEN];
        match config.get_mut(..tag.len()).filter(|start| (1..=MAX_TAG).contains(&start.len())) {
            Some(start) => start.copy_from_slice(tag.as_bytes()),
            None => return Err(FsError::Tag(tag.to_owned())),
        }
        config[MAX_TAG..].copy_from_slice(&1u32.to_le_bytes());
        let Server { memory, kick, call, end } = server;
        let memory = SharedMemory::map(memory.as_fd(), MEMORY).map_err(FsError::Memory)?;
        let session = Session::new(Slots::new(memory), (kick, call), end);
        Ok(Self { config, session: Arc::new(Mutex::new(session)), counts: Arc::default() })
    }
}

impl VirtioDevice for Fs {
    fn id(&self) -> DeviceId {
        DeviceId::Fs
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUE_SIZES
    }

    fn features(&self) -> u64 {
        F_EVENT_IDX | F_INDIRECT_DESC
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        for (byte, value) in data.iter_mut().zip(self.config.iter().skip(offset)) {
            *byte = *value;
        }
    }

    fn threads(&self) -> usize {
        1
    }

    fn counters(&self) -> Arc<dyn Counters> {
        Arc::clone(&self.counts) as _
    }

    fn activate(
        &mut self,
        activation: Activation,
    ) -> Result<Box<dyn super::Worker>, ActivateError> {
        let Activation { ram, queues, interrupt, threads, .. } = activation;
        let missing = (0..).zip(QUEUE_SIZES).map(|(index, _)| index);
        for index in missing {
            if !queues.iter().any(|queue| queue.index == index) {
                return Err(ActivateError::MissingQueue(index));
            }
        }
        let ring = |queue| Ring::new(queue, ram.clone(), Arc::clone(&interrupt));
        let rings: Vec<_> = queues.into_iter().map(ring).collect();
        let (session, counts) = (Arc::clone(&self.session), Arc::clone(&self.counts));
        thread::at(&threads, 0)
            .and_then(|thread| {
                thread.run(move |stop| Worker::serve(rings, &session, &counts, stop))
            })
            .map_err(|source| ActivateError::Host { what: "starting a file system's work", source })
    }
}

#[cfg(test)]
#[path = "fs_test.rs"]
mod fs_test;
