//! The memory that the device shares with the file server: a queue whose driver is this device, and a slot for each
//! request under way.
//!
//! ```text
//! 0           descriptors: two for each slot
//! 0x400       available ring
//! 0x800       used ring
//! 0x1000      slot 0: the request, then room for the reply
//!             slot 1 ...
//! ```
//!
//! It is the only memory that the file server sees. An address in a descriptor is a place in here.
//!
//! Invariant: what the server wrote is read once and checked before it is used; a server that breaks the rules is not
//! listened to any more.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, VolatileSlice};

use super::super::shared::SharedMemory;

/// Requests under way, at most.
pub const SLOTS: u16 = 8;

/// Bytes of a slot: the largest read or write of Linux (1 MiB) with headers, names and extended attributes beside.
pub const SLOT_BYTES: usize = (1 << 20) + (16 << 10);

/// Entries of the queue.
pub const QUEUE_SIZE: u16 = 2 * SLOTS;

/// Where the parts of the queue are.
pub const DESCRIPTORS: usize = 0;
/// See [`DESCRIPTORS`].
pub const AVAILABLE: usize = 0x400;
/// See [`DESCRIPTORS`].
pub const USED: usize = 0x800;
const FIRST_SLOT: usize = 0x1000;

/// Bytes of the memory.
pub const MEMORY: usize = FIRST_SLOT + SLOTS as usize * SLOT_BYTES;

const DESCRIPTOR: usize = 16;
const _: () = assert!(DESCRIPTORS + QUEUE_SIZE as usize * DESCRIPTOR <= AVAILABLE);
const _: () = assert!(AVAILABLE + 6 + 2 * QUEUE_SIZE as usize <= USED);
const _: () = assert!(USED + 6 + 8 * QUEUE_SIZE as usize <= FIRST_SLOT);

/// Descriptor flags (virtio 1.2, 2.7.5).
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// Replies begin at a multiple of this.
const ALIGNMENT: usize = 64;

/// The server did what no server does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the file server's ring makes no sense: {0}")]
pub(super) struct Nonsense(&'static str);

/// See the module.
pub(super) struct Slots {
    memory: SharedMemory,
    /// What was offered, and what was seen of what is used.
    offered: u16,
    seen: u16,
    /// Of each slot that the server has: bytes of its request, and of the room for its reply.
    lent: [Option<(usize, usize)>; SLOTS as usize],
}

/// Where in a slot the reply to a request of `sent` bytes begins.
pub(super) fn reply_offset(sent: usize) -> Option<usize> {
    sent.checked_next_multiple_of(ALIGNMENT)
}

impl Slots {
    /// All of them free, in memory that is all zero.
    pub(super) fn new(memory: SharedMemory) -> Self {
        Self { memory, offered: 0, seen: 0, lent: [None; SLOTS as usize] }
    }

    /// A slot that the server does not have.
    pub(super) fn free(&self) -> Option<usize> {
        self.lent.iter().position(Option::is_none)
    }

    /// Where a request of `sent` bytes goes in the slot, and the reply of at most `room` bytes comes.
    pub(super) fn parts(
        &self,
        slot: usize,
        (sent, room): (usize, usize),
    ) -> Option<(VolatileSlice<'_>, VolatileSlice<'_>)> {
        let start = start(slot)?;
        let reply = start.checked_add(reply_offset(sent)?)?;
        let end = reply.checked_add(room)?;
        if end > start.checked_add(SLOT_BYTES)? {
            return None;
        }
        Some((self.memory.slice(start, sent)?, self.memory.slice(reply, room)?))
    }

    /// Gives the server the request of `sent` bytes in the slot, with room for a reply. It finds it when it looks.
    pub(super) fn offer(&mut self, slot: usize, (sent, room): (usize, usize)) -> Option<()> {
        let at = start(slot)?;
        let reply = at.checked_add(reply_offset(sent)?)?;
        let head = u16::try_from(slot).ok().filter(|slot| *slot < SLOTS)?.checked_mul(2)?;
        let flags = if room > 0 { NEXT } else { 0 };
        self.describe(head, (at, sent), flags)?;
        if room > 0 {
            self.describe(head + 1, (reply, room), WRITE)?;
        }
        *self.lent.get_mut(slot)? = Some((sent, room));
        let entry = AVAILABLE + 4 + 2 * usize::from(self.offered % QUEUE_SIZE);
        self.memory.slice(entry, 2)?.write_obj(head.to_le(), 0).ok()?;
        self.offered = self.offered.wrapping_add(1);
        // The server must not see the index before what it stands for.
        let index = self.memory.slice(AVAILABLE + 2, 2)?;
        index.store(self.offered.to_le(), 0, Ordering::Release).ok()
    }

    fn describe(&self, index: u16, (at, len): (usize, usize), flags: u16) -> Option<()> {
        let mut bytes = [0; DESCRIPTOR];
        bytes[..8].copy_from_slice(&u64::try_from(at).ok()?.to_le_bytes());
        bytes[8..12].copy_from_slice(&u32::try_from(len).ok()?.to_le_bytes());
        bytes[12..14].copy_from_slice(&flags.to_le_bytes());
        bytes[14..].copy_from_slice(&index.wrapping_add(1).to_le_bytes());
        let place = DESCRIPTORS + DESCRIPTOR * usize::from(index);
        self.memory.slice(place, DESCRIPTOR)?.write_slice(&bytes, 0).ok()
    }

    /// The next slot that the server is done with, how long the request in it was, and how many bytes of a reply it
    /// wrote. The slot is free.
    pub(super) fn done(&mut self) -> Result<Option<(usize, usize, usize)>, Nonsense> {
        let lost = Nonsense("no memory");
        let index = self.memory.slice(USED + 2, 2).ok_or(lost)?;
        let index = u16::from_le(index.load(0, Ordering::Acquire).map_err(|_| lost)?);
        if index == self.seen {
            return Ok(None);
        }
        let under_way = self.lent.iter().filter(|lent| lent.is_some()).count();
        if usize::from(index.wrapping_sub(self.seen)) > under_way {
            return Err(Nonsense("more is used than was offered"));
        }
        let entry = USED + 4 + 8 * usize::from(self.seen % QUEUE_SIZE);
        let entry = self.memory.slice(entry, 8).ok_or(lost)?;
        let [head, len]: [u32; 2] = entry.read_obj(0).map_err(|_| lost)?;
        let head = usize::try_from(u32::from_le(head)).unwrap_or(usize::MAX);
        let len = usize::try_from(u32::from_le(len)).unwrap_or(usize::MAX);
        let slot = head / 2;
        let lent = self.lent.get_mut(slot).filter(|_| head.is_multiple_of(2));
        let (sent, room) = lent.and_then(Option::take).ok_or(Nonsense("a slot that it has not"))?;
        if len > room {
            return Err(Nonsense("more was written than there is room for"));
        }
        self.seen = self.seen.wrapping_add(1);
        Ok(Some((slot, sent, len)))
    }
}

/// Where the slot begins.
fn start(slot: usize) -> Option<usize> {
    let offset = slot.checked_mul(SLOT_BYTES)?;
    (slot < usize::from(SLOTS)).then(|| FIRST_SLOT + offset)
}

#[cfg(test)]
#[path = "slots_test.rs"]
mod slots_test;
