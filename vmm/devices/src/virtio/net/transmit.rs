//! From the driver to the tap: one queue's transmit side.
//!
//! Invariant: a frame that makes no sense is dropped and its chain given back; only a broken ring stops the
//! device.

use std::io;

use vm_memory::Bytes;

use super::super::mem::Segment;
use super::super::queue::{BrokenRing, Ring};
use super::backend::Tap;
use super::header::{HEADER_LEN, check};
use super::request::{Direction, address_of, collect, split_off_front};

/// Frames before anything else is looked at.
const BUDGET: usize = 256;

/// The transmit side of a queue pair.
pub(super) struct Sender {
    ring: Ring,
    index: usize,
    features: u64,
    /// There may be frames.
    pending: bool,
    /// The tap has no room.
    blocked: bool,
    segments: Vec<Segment>,
}

impl Sender {
    /// For queue `index` of the tap.
    pub(super) fn new(ring: Ring, index: usize, features: u64) -> Self {
        // The first look finds what was there before the first doorbell.
        Self { ring, index, features, pending: true, blocked: false, segments: Vec::new() }
    }

    /// The queue itself.
    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The driver rang.
    pub(super) fn doorbell(&mut self) {
        self.pending = true;
    }

    /// The tap has room again.
    pub(super) fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Sends what there is, within a budget; whether there is more that can be sent now.
    ///
    /// # Errors
    /// [`BrokenRing`].
    pub(super) fn send(&mut self, tap: &Tap) -> Result<bool, BrokenRing> {
        if self.blocked || !self.pending {
            return Ok(false);
        }
        self.ring.quiet()?;
        let mut used = false;
        for _ in 0..BUDGET {
            let Some(chain) = self.ring.pop()? else {
                if self.ring.listen()? {
                    continue;
                }
                self.pending = false;
                break;
            };
            let head = chain.head_index();
            let frame = collect(chain, Direction::Output, HEADER_LEN, &mut self.segments);
            if let Ok(len) = frame
                && self.send_frame(tap, len).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
            {
                self.ring.unpop();
                self.blocked = true;
                break;
            }
            self.ring.push(head, 0)?;
            used = true;
        }
        if used {
            self.ring.interrupt()?;
        }
        Ok(self.pending && !self.blocked)
    }

    /// Sends the frame of `len` bytes, header included, in `segments`. An error that is not about room is
    /// as good as sent: frames get lost.
    fn send_frame(&mut self, tap: &Tap, len: u32) -> io::Result<()> {
        let mut header = [0; HEADER_LEN as usize];
        for (offset, byte) in (0..).zip(&mut header) {
            let at = address_of(&self.segments, offset).ok_or(io::ErrorKind::InvalidData)?;
            *byte = self.ring.ram().read_obj(at).map_err(|_| io::ErrorKind::InvalidData)?;
        }
        split_off_front(&mut self.segments, HEADER_LEN);
        // The copy that is checked is the one that is sent.
        let header = check(header, len - HEADER_LEN, self.features)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        loop {
            match tap.send(self.index, header, (self.ring.ram(), &self.segments)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}
