//! From the tap to the driver: one queue's receive side.
//!
//! A packet's length is known only once it is read, so a read gets as many of the driver's buffers as the
//! longest packet could need, and what stays unused serves the next one:
//!
//! ```text
//! available ──refill──► posted ──readv──► filled from the front ──► used, all at the same moment
//! ```
//!
//! Invariant: no packet reaches the driver cut short. One that does not fit is dropped, as by a card whose
//! ring is full. One try to receive looks at no more chains than the ring has, and what is posted is never more than
//! one call takes.

use std::collections::VecDeque;
use std::io;

use vm_memory::{Address, Bytes, GuestAddress};

use super::super::mem::{Buffers, Segment};
use super::super::queue::{BrokenRing, Ring};
use super::backend::Tap;
use super::control::{Control, MAC_LEN, Mac};
use super::features::{GUEST_CSUM, MRG_RXBUF};
use super::header::{ETHERNET, HEADER_LEN, MAX_FRAME, NUM_BUFFERS, longest};
use super::request::{Direction, address_of, collect};

/// What became of one try to receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Received {
    /// A packet was given to the driver, or dropped.
    Packet,
    /// There is none.
    Empty,
    /// The driver has not enough buffers; it was asked for a doorbell.
    Starved,
    /// The driver has more buffers, but none of those looked at was of use.
    Useless,
}

/// What became of one try to have buffers for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refill {
    Ready,
    Starved,
    Useless,
}

/// A chain of the driver that waits for a packet.
struct Posted {
    head: u16,
    bytes: u32,
    /// Host buffers it is made of.
    buffers: usize,
    segments: Vec<Segment>,
}

/// The receive side of a queue pair.
pub(super) struct Receiver {
    ring: Ring,
    buffers: Buffers,
    posted: VecDeque<Posted>,
    /// Bytes of all that is posted.
    room: u64,
    /// The next chain is one that does not go into a call with those posted.
    crowded: bool,
    /// Bytes that a packet may have.
    need: u32,
    mergeable: bool,
    checksums: bool,
    /// The driver was asked for a doorbell.
    listening: bool,
    /// What does not fit into the driver's buffers.
    spill: Vec<u8>,
    used: Vec<(u16, u32)>,
}

impl Receiver {
    pub(super) fn new(ring: Ring, features: u64, mtu: u16) -> Self {
        Self {
            buffers: Buffers::new(ring.ram().clone()),
            ring,
            posted: VecDeque::new(),
            room: 0,
            crowded: false,
            need: longest(features, mtu),
            mergeable: features & MRG_RXBUF != 0,
            checksums: features & GUEST_CSUM != 0,
            listening: true,
            spill: vec![0; (HEADER_LEN + MAX_FRAME + 1) as usize],
            used: Vec::new(),
        }
    }

    /// The queue itself.
    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Interrupts the driver if it waits for what it was given.
    ///
    /// # Errors
    /// [`BrokenRing`].
    pub(super) fn interrupt(&mut self) -> Result<(), BrokenRing> {
        self.ring.interrupt()
    }

    /// Whether there are buffers for one packet.
    fn is_ready(&self) -> bool {
        if self.mergeable {
            let all = self.posted.len() >= usize::from(self.ring.size());
            self.room >= self.need.into() || all || self.crowded
        } else {
            !self.posted.is_empty()
        }
    }

    /// Takes buffers for one packet.
    fn refill(&mut self) -> Result<Refill, BrokenRing> {
        for _ in 0..=self.ring.size() {
            if self.is_ready() {
                if self.listening {
                    self.listening = false;
                    self.ring.quiet()?;
                }
                return Ok(Refill::Ready);
            }
            if !self.post()? {
                self.listening = true;
                if !self.ring.listen()? {
                    return Ok(Refill::Starved);
                }
            }
        }
        Ok(Refill::Useless)
    }

    /// Takes the next chain; false if there is none. One that is no use comes back unused.
    fn post(&mut self) -> Result<bool, BrokenRing> {
        let Some(chain) = self.ring.pop()? else { return Ok(false) };
        let head = chain.head_index();
        let mut segments = Vec::new();
        let bytes = collect(chain, Direction::Input, HEADER_LEN, &mut segments);
        let added = bytes.map(|bytes| (bytes, self.buffers.push(&segments)));
        match added {
            Ok((bytes, Ok(Some(buffers)))) => {
                self.room += u64::from(bytes);
                self.posted.push_back(Posted { head, bytes, buffers, segments });
            }
            Ok((_, Ok(None))) if !self.posted.is_empty() => {
                self.ring.unpop();
                self.crowded = true;
            }
            _ => {
                self.ring.push(head, 0)?;
                self.ring.interrupt()?;
            }
        }
        Ok(true)
    }

    /// Receives one packet of queue `index` of the tap.
    ///
    /// # Errors
    /// [`BrokenRing`].
    pub(super) fn receive(
        &mut self,
        tap: &Tap,
        index: usize,
        control: &Control,
    ) -> Result<Received, BrokenRing> {
        match self.refill()? {
            Refill::Ready => {}
            Refill::Starved => return Ok(Received::Starved),
            Refill::Useless => return Ok(Received::Useless),
        }
        let chains = if self.mergeable { self.posted.len() } else { 1 };
        let count = self.posted.iter().take(chains).map(|posted| posted.buffers).sum();
        match tap.receive(index, (&mut self.buffers, count), &mut self.spill) {
            // A tap has no empty packets, nor an end.
            Ok(0) => Ok(Received::Empty),
            Ok(len) => {
                let len = u32::try_from(len).unwrap_or(u32::MAX);
                // Dropping is leaving the buffers where they are.
                if self.fits(len, chains) && self.is_wanted(control) {
                    self.deliver(len)?;
                }
                Ok(Received::Packet)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Received::Packet),
            // None, or a tap that is down or gone: there will be an event when that changes.
            Err(_) => Ok(Received::Empty),
        }
    }

    /// Receives a packet of queue `index` for nobody; false if there is none.
    pub(super) fn throw_away(&mut self, tap: &Tap, index: usize) -> bool {
        tap.receive(index, (&mut self.buffers, 0), &mut self.spill).is_ok_and(|len| len > 0)
    }

    fn fits(&self, len: u32, chains: usize) -> bool {
        let room: u64 = self.posted.iter().take(chains).map(|posted| u64::from(posted.bytes)).sum();
        // A frame has at least an Ethernet header.
        len >= HEADER_LEN + ETHERNET && u64::from(len) <= room
    }

    /// Whether the driver wants the frame that was just read.
    fn is_wanted(&self, control: &Control) -> bool {
        let mut to: Mac = [0; MAC_LEN];
        let ram = self.ring.ram();
        // Most of the time it is in one piece.
        let ends = [HEADER_LEN, HEADER_LEN + 5].map(|offset| self.byte_at(offset));
        let read = match ends {
            [Some(first), Some(last)] if first.checked_add(5) == Some(last) => {
                ram.read_slice(&mut to, first).ok()
            }
            _ => (HEADER_LEN..).zip(&mut to).try_for_each(|(offset, byte)| {
                *byte = ram.read_obj(self.byte_at(offset)?).ok()?;
                Some(())
            }),
        };
        read.is_some() && control.accepts(to)
    }

    /// The address of byte `offset` of what is posted.
    fn byte_at(&self, mut offset: u32) -> Option<GuestAddress> {
        for posted in &self.posted {
            if offset < posted.bytes {
                return address_of(&posted.segments, offset);
            }
            offset -= posted.bytes;
        }
        None
    }

    /// Gives the packet of `len` bytes that is in the first buffers to the driver.
    fn deliver(&mut self, len: u32) -> Result<(), BrokenRing> {
        let header = [0, NUM_BUFFERS, NUM_BUFFERS + 1].map(|offset| self.byte_at(offset));
        self.used.clear();
        self.crowded = false;
        let mut left = len;
        while left > 0 {
            let Some(posted) = self.posted.pop_front() else { break };
            self.buffers.pop(posted.buffers);
            self.room -= u64::from(posted.bytes);
            let filled = left.min(posted.bytes);
            self.used.push((posted.head, filled));
            left -= filled;
        }
        // The tap leaves this field alone (virtio 1.2, 5.1.6.4.1).
        let [low, high] = u16::try_from(self.used.len()).unwrap_or(u16::MAX).to_le_bytes();
        let [flags, at_low, at_high] = header;
        // The kernel may say that a checksum is good; a driver that takes none knows of no flags.
        let flags = flags.filter(|_| !self.checksums);
        for (at, byte) in [(at_low, low), (at_high, high), (flags, 0)] {
            // The kernel has just written there.
            let _written = at.map(|at| self.ring.ram().write_obj(byte, at));
        }
        self.ring.push_all(&self.used)
    }
}

#[cfg(test)]
#[path = "receive_test.rs"]
mod receive_test;
