//! A file server's file system, as a device of a machine.
//!
//! Who starts the monitor starts the file server, and tells it by vhost-user of the memory, the queue in it and the two
//! events, before the monitor is told of them. The monitor is the driver of that queue, and copies requests and replies
//! between it and the guest.
//!
//! Invariant: the layout of the memory is that of the monitor's device; its build fails otherwise.

use serde::{Deserialize, Serialize};

use crate::spec::SpecError;
use crate::units::FdSlot;

/// Longest tag in bytes (virtio 1.2, 5.11.4).
pub(crate) const MAX_TAG: usize = 36;

/// Bytes of the memory that a file server shares with the monitor.
pub const FS_MEMORY: u64 = 8_523_776;

/// Entries of the queue in it.
pub const FS_QUEUE_SIZE: u16 = 16;

/// Where its descriptors, its available ring and its used ring are. Addresses in descriptors are places in the memory.
pub const FS_QUEUE: [u64; 3] = [0, 0x400, 0x800];

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FsSpec {
    /// What the guest mounts it by, 1 to 36 bytes.
    pub tag: String,
    /// A memory file of [`FS_MEMORY`] bytes, all zero, sealed against changes of its size.
    pub memory: FdSlot,
    /// The eventfd that has the server look at its queue; non-blocking.
    pub kick: FdSlot,
    /// The eventfd that the server signals.
    pub call: FdSlot,
    /// Becomes readable when the server has ended, such as a pidfd.
    pub end: FdSlot,
}

impl FsSpec {
    /// Checks what does not depend on the host or on other devices.
    pub(crate) fn check(&self) -> Result<(), SpecError> {
        match self.tag.len() {
            1..=MAX_TAG => Ok(()),
            _ => Err(SpecError::Tag(self.tag.clone())),
        }
    }

    /// All descriptors it names.
    pub(crate) fn slots(&self) -> [FdSlot; 4] {
        [self.memory, self.kick, self.call, self.end]
    }
}
