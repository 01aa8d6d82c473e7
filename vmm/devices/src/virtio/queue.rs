//! A queue at work: takes what the driver makes available, hands back what is used, and tells it no
//! more often than it wants to be told (virtio 1.2, 2.7).
//!
//! Invariant: a pass handles at most one queue full, then looks whether to stop: a driver that never
//! stops adding cannot hold a reset up. A ring that makes no sense ends in `DEVICE_NEEDS_RESET`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Address, Bytes, GuestAddress};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::EventFd;

use super::thread::Stop;
use super::{ActiveQueue, Interrupt};
use crate::ports::Ram;

/// A chain of buffers from the driver.
pub type Chain<'a> = DescriptorChain<&'a Ram>;

/// `VIRTQ_AVAIL_F_NO_INTERRUPT`.
const NO_INTERRUPT: u16 = 1;

/// Where the rings of the driver and of the device begin behind their indices, where the device's index
/// is, and the bytes of one of its elements (virtio 1.2, 2.7.6, 2.7.8).
const AVAIL_RING: u64 = 4;
const USED_RING: u64 = 4;
const USED_INDEX: u64 = 2;
const USED_ELEMENT: u64 = 8;

/// A queue, its memory and its way back to the driver.
pub struct Ring {
    queue: Queue,
    index: u16,
    doorbell: EventFd,
    ram: Ram,
    interrupt: Arc<dyn Interrupt>,
    /// Chains given back since the driver was last considered for an interrupt.
    added: u16,
}

/// The rings' contents make no sense.
#[derive(Debug, thiserror::Error)]
#[error("queue {index} is broken: {source}")]
pub struct BrokenRing {
    index: u16,
    #[source]
    source: virtio_queue::Error,
}

impl Ring {
    /// For an enabled queue.
    #[must_use]
    pub fn new(active: ActiveQueue, ram: Ram, interrupt: Arc<dyn Interrupt>) -> Self {
        let ActiveQueue { index, queue, doorbell } = active;
        Self { queue, index, doorbell, ram, interrupt, added: 0 }
    }

    /// Signalled when the driver has made buffers available.
    #[must_use]
    pub fn doorbell(&self) -> &EventFd {
        &self.doorbell
    }

    /// The queue's number.
    #[must_use]
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Guest memory.
    #[must_use]
    pub fn ram(&self) -> &Ram {
        &self.ram
    }

    /// The next available chain. It must be given back by [`Ring::push`].
    ///
    /// # Errors
    /// [`BrokenRing`].
    pub fn pop(&mut self) -> Result<Option<Chain<'_>>, BrokenRing> {
        let index = self.index;
        let broken = |source| BrokenRing { index, source };
        let chain = self.queue.iter(&self.ram).map_err(broken)?.next();
        let next = self.queue.next_avail();
        let more = || self.queue.avail_idx(&self.ram, Ordering::Acquire).map_err(broken);
        if chain.is_some() || more()?.0 == next {
            return Ok(chain);
        }
        // It came just now; or the ring cannot be read, which looks the same to the queue.
        let chain = self.queue.iter(&self.ram).map_err(broken)?.next();
        chain.map(Some).ok_or_else(|| broken(virtio_queue::Error::InvalidAvailRingIndex))
    }

    /// Gives the chain that starts at `head` back, `len` bytes of it written.
    ///
    /// # Errors
    /// [`BrokenRing`].
    pub fn push(&mut self, head: u16, len: u32) -> Result<(), BrokenRing> {
        self.push_all(&[(head, len)])
    }

    /// Gives chains back, all at the same moment, as a packet in several buffers needs it: heads and how
    /// many bytes of each are written.
    ///
    /// # Errors
    /// [`BrokenRing`].
    pub fn push_all(&mut self, used: &[(u16, u32)]) -> Result<(), BrokenRing> {
        self.write_used(used).map_err(|source| BrokenRing { index: self.index, source })
    }

    fn write_used(&mut self, used: &[(u16, u32)]) -> Result<(), virtio_queue::Error> {
        let (ring, size) = (GuestAddress(self.queue.used_ring()), self.queue.size());
        let at = |offset| ring.checked_add(offset).ok_or(virtio_queue::Error::AddressOverflow);
        let mut next = self.queue.next_used();
        for &(head, len) in used {
            if head >= size {
                return Err(virtio_queue::Error::InvalidDescriptorIndex);
            }
            let element = [u32::from(head).to_le(), len.to_le()];
            let slot = at(USED_RING + USED_ELEMENT * u64::from(next % size))?;
            self.ram.write_obj(element, slot).map_err(virtio_queue::Error::GuestMemory)?;
            next = next.wrapping_add(1);
            self.added = self.added.wrapping_add(1);
        }
        self.queue.set_next_used(next);
        let index = self.ram.store(u16::to_le(next), at(USED_INDEX)?, Ordering::Release);
        index.map_err(virtio_queue::Error::GuestMemory)
    }

    /// Puts the chain that [`Ring::pop`] gave last back, to be given again.
    pub fn unpop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Most chains that the driver can have under way.
    #[must_use]
    pub fn size(&self) -> u16 {
        self.queue.size()
    }

    /// Tells the driver that doorbells are not needed, as far as it listens: the ring is looked at anyway.
    ///
    /// # Errors
    /// [`BrokenRing`].
    pub fn quiet(&mut self) -> Result<(), BrokenRing> {
        let done = match self.queue.event_idx_enabled() {
            // The event that is past: it does not come again before the index has gone all the way round.
            true => self.set_event(self.queue.next_avail().wrapping_sub(1)),
            false => self.queue.disable_notification(&self.ram),
        };
        done.map_err(|source| BrokenRing { index: self.index, source })
    }

    /// Asks for a doorbell for the chain that makes `count` (at least one) available; a driver that cannot be asked for
    /// that rings for the first. Whether any chain is available already, so that no doorbell may come for it; and
    /// whether the driver may keep chains to itself, so that the ring has to be looked at now and then.
    ///
    /// # Errors
    /// [`BrokenRing`].
    pub fn listen_for(&mut self, count: u16) -> Result<(bool, bool), BrokenRing> {
        let late = count.min(self.queue.size()).saturating_sub(1);
        if late == 0 || !self.queue.event_idx_enabled() {
            return Ok((self.listen()?, false));
        }
        let more = self.listen_late(late);
        Ok((more.map_err(|source| BrokenRing { index: self.index, source })?, true))
    }

    fn listen_late(&mut self, late: u16) -> Result<bool, virtio_queue::Error> {
        let next = self.queue.next_avail();
        self.set_event(next.wrapping_add(late))?;
        // Either the driver sees the wish, or its chain is seen here (virtio 1.2, 2.7.10).
        fence(Ordering::SeqCst);
        Ok(self.queue.avail_idx(&self.ram, Ordering::Acquire)?.0 != next)
    }

    /// Has the driver ring when it makes the chain with this index available (virtio 1.2, 2.7.10).
    fn set_event(&self, index: u16) -> Result<(), virtio_queue::Error> {
        let offset = USED_RING + USED_ELEMENT * u64::from(self.queue.size());
        let at = GuestAddress(self.queue.used_ring()).checked_add(offset);
        let at = at.ok_or(virtio_queue::Error::AddressOverflow)?;
        let stored = self.ram.store(u16::to_le(index), at, Ordering::Relaxed);
        stored.map_err(virtio_queue::Error::GuestMemory)
    }

    /// Asks for a doorbell for the next chain. True if one is available already, so that no doorbell may
    /// come for it.
    ///
    /// # Errors
    /// [`BrokenRing`].
    pub fn listen(&mut self) -> Result<bool, BrokenRing> {
        let more = self.queue.enable_notification(&self.ram);
        more.map_err(|source| BrokenRing { index: self.index, source })
    }

    /// The device cannot go on (virtio 1.2, 2.1.1).
    pub fn needs_reset(&self) {
        self.interrupt.needs_reset();
    }

    /// Interrupts the driver if it wants to know of what was pushed since the last call.
    ///
    /// # Errors
    /// [`BrokenRing`].
    pub fn interrupt(&mut self) -> Result<(), BrokenRing> {
        let wanted = self.interrupt_wanted();
        if wanted.map_err(|source| BrokenRing { index: self.index, source })? {
            self.interrupt.queue(self.index);
        }
        Ok(())
    }

    /// Whether the driver waits for one of the chains given back last (virtio 1.2, 2.7.7.2, 2.7.10).
    fn interrupt_wanted(&mut self) -> Result<bool, virtio_queue::Error> {
        let added = std::mem::take(&mut self.added);
        // What the driver wants must not be read before the used index is written.
        fence(Ordering::SeqCst);
        let ring = GuestAddress(self.queue.avail_ring());
        let by_event = self.queue.event_idx_enabled();
        let offset = if by_event { AVAIL_RING + 2 * u64::from(self.queue.size()) } else { 0 };
        let at = ring.checked_add(offset).ok_or(virtio_queue::Error::AddressOverflow)?;
        let word = self.ram.load::<u16>(at, Ordering::Relaxed).map(u16::from_le);
        let word = word.map_err(virtio_queue::Error::GuestMemory)?;
        let behind = self.queue.next_used().wrapping_sub(word).wrapping_sub(1);
        Ok(if by_event { behind < added } else { word & NO_INTERRUPT == 0 })
    }

    /// Handles what is available, at most a queue full, with one interrupt at the end. `handle` returns
    /// how many bytes it wrote into the chain. Whether there is more.
    ///
    /// # Errors
    /// [`BrokenRing`].
    pub fn pass(
        &mut self,
        stop: &Stop,
        handle: &mut impl FnMut(&Ram, Chain<'_>) -> u32,
    ) -> Result<bool, BrokenRing> {
        let index = self.index;
        let broken = |source| BrokenRing { index, source };
        self.quiet()?;
        let mut used = false;
        for _ in 0..self.queue.size() {
            if stop.requested() {
                break;
            }
            let Some(chain) = self.queue.iter(&self.ram).map_err(broken)?.next() else { break };
            let head = chain.head_index();
            let len = handle(&self.ram, chain);
            self.push(head, len)?;
            used = true;
        }
        if used {
            self.interrupt()?;
        }
        // After the interrupt: what the driver adds at once is seen without a doorbell.
        self.listen()
    }

    /// Serves the queue until asked to stop: the whole life of a device with one queue and nothing else
    /// to wait for.
    pub fn serve(self, stop: &Stop, mut handle: impl FnMut(&Ram, Chain<'_>) -> u32) {
        serve_all(vec![self], stop, |_, ram, chain| handle(ram, chain));
    }
}

/// Serves several queues until asked to stop. `handle` gets the number of the chain's queue, too.
pub fn serve_all(
    mut rings: Vec<Ring>,
    stop: &Stop,
    mut handle: impl FnMut(u16, &Ram, Chain<'_>) -> u32,
) {
    let Ok(waiter) = Waiter::new(&rings, stop) else {
        return rings.iter().take(1).for_each(Ring::needs_reset);
    };
    // The first pass takes what was there before the first doorbell.
    while !stop.requested() {
        let mut more = false;
        for ring in &mut rings {
            let index = ring.index;
            match ring.pass(stop, &mut |ram, chain| handle(index, ram, chain)) {
                Ok(left) => more |= left,
                Err(_) => return ring.needs_reset(),
            }
        }
        if !more {
            waiter.wait();
        }
    }
}

/// Waits for a doorbell or the wish to stop.
struct Waiter(Epoll);

impl Waiter {
    /// Edge-triggered: a doorbell need not be read, each ring of it is a new edge.
    fn new(rings: &[Ring], stop: &Stop) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        let epoll = Epoll::new()?;
        for event in rings.iter().map(Ring::doorbell).chain([stop.event()]) {
            let interest = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
            epoll.ctl(ControlOperation::Add, event.as_raw_fd(), interest)?;
        }
        Ok(Self(epoll))
    }

    fn wait(&self) {
        let mut events = [EpollEvent::default(); 4];
        // An error (a signal) is as good as an event: the caller looks by itself.
        let _signal = self.0.wait(-1, &mut events);
    }
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod queue_test;
