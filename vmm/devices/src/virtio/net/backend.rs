//! The host's side of a network card: one descriptor of a tap for each queue pair.
//!
//! Whoever opens a tap prepares it: Ethernet frames without packet information, each after a header of
//! 12 bytes (`IFF_TAP`, `IFF_NO_PI`, `IFF_VNET_HDR`, `TUNSETVNETHDRSZ`), non-blocking, and
//! `IFF_MULTI_QUEUE` if there are several. One thing cannot be prepared, because it depends on the driver:
//! which offloads it takes. That is the only ioctl here, `TUNSETOFFLOAD`, once when the device is made, to
//! see what the kernel knows, and once at each start of a driver.
//!
//! Invariant: a packet moves between tap and guest memory without a copy in between.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use super::super::mem::{self, Buffers, Segment};
use super::features::{OFFLOADS, UDP_OFFLOADS, tap_offloads};
use super::header::HEADER_LEN;
use crate::ports::Ram;

/// Tells a tap what its reader takes: `TUN_F_*` bits.
pub type SetOffloads = fn(BorrowedFd<'_>, u32) -> io::Result<()>;

/// The descriptors of one tap.
pub(super) struct Tap {
    queues: Vec<OwnedFd>,
    set_offloads: SetOffloads,
    offloads: u64,
}

impl Tap {
    /// One queue pair for each descriptor, and how to tell the tap which offloads are taken.
    ///
    /// # Errors
    /// If it is no tap.
    pub(super) fn with(queues: Vec<OwnedFd>, set_offloads: SetOffloads) -> io::Result<Self> {
        let mut tap = Self { queues, set_offloads, offloads: OFFLOADS | UDP_OFFLOADS };
        match tap.agree(tap.offloads) {
            // A kernel that does not know one of them refuses them all.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                tap.offloads = OFFLOADS;
                tap.agree(0)?;
            }
            other => other?,
        }
        Ok(tap)
    }

    /// The offload features that it can.
    pub(super) fn offloads(&self) -> u64 {
        self.offloads
    }

    /// The driver and the device have agreed on `features`.
    ///
    /// # Errors
    /// The host's.
    pub(super) fn agree(&self, features: u64) -> io::Result<()> {
        // It holds for all queues of the tap.
        let first = self.queues.first().ok_or(io::ErrorKind::InvalidInput)?;
        (self.set_offloads)(first.as_fd(), tap_offloads(features))
    }

    /// How many queue pairs there are.
    pub(super) fn len(&self) -> usize {
        self.queues.len()
    }

    /// To wait for queue `index`.
    pub(super) fn raw_fd(&self, index: usize) -> Option<RawFd> {
        self.queues.get(index).map(AsRawFd::as_raw_fd)
    }

    fn queue(&self, index: usize) -> io::Result<BorrowedFd<'_>> {
        self.queues.get(index).map(AsFd::as_fd).ok_or(io::ErrorKind::NotFound.into())
    }

    /// Receives a packet of queue `index`; see [`Buffers::receive`].
    ///
    /// # Errors
    /// The host's; `WouldBlock` if there is none.
    pub(super) fn receive(
        &self,
        index: usize,
        (buffers, count): (&mut Buffers, usize),
        spill: &mut [u8],
    ) -> io::Result<usize> {
        buffers.receive(self.queue(index)?, count, spill)
    }

    /// Sends a packet through queue `index`.
    ///
    /// # Errors
    /// The host's; `WouldBlock` if it has no room now.
    pub(super) fn send(
        &self,
        index: usize,
        mut header: [u8; HEADER_LEN as usize],
        (ram, frame): (&Ram, &[Segment]),
    ) -> io::Result<()> {
        mem::send(ram, self.queue(index)?, &mut header, frame)
    }
}
