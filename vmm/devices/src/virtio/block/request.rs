//! What a chain of descriptors asks a disk to do (virtio 1.2, 5.2.6): pure.
//!
//! Nothing is assumed about how the driver cuts a request into descriptors (virtio 1.2, 2.7.4.1): the
//! first 16 readable bytes are the header, the other readable ones data to write; the last writable
//! byte is the status, the other writable ones take what is read.
//!
//! Invariant: a [`Request`] is within the disk, in whole sectors, and may be done.

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, GuestAddress};

use super::super::mem::Segment;
use super::{SECTOR, SEG_MAX};

/// Bytes of the header: type, reserved, sector.
pub(super) const HEADER_LEN: u32 = 16;

/// Most descriptors of a request.
const MAX_DESCRIPTORS: u32 = SEG_MAX + 2;

/// Request types.
const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Status {
    Ok = 0,
    IoError = 1,
    Unsupported = 2,
}

/// A chain that is no request: it has no place for a status that could be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("the chain is cut off or loops")]
    Broken,
    #[error("more than {MAX_DESCRIPTORS} descriptors")]
    TooLong,
    #[error("a readable descriptor after a writable one")]
    Order,
    #[error("a buffer wraps around the end of the address space")]
    Address,
    #[error("no complete header")]
    Header,
    #[error("no place for the status")]
    Status,
}

/// The parts of a chain. Kept between requests to keep its memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// The header, 16 bytes in all.
    pub(super) header: Vec<Segment>,
    /// Data of the driver.
    pub(super) output: Vec<Segment>,
    /// Room for data of the device.
    pub(super) input: Vec<Segment>,
}

impl Layout {
    /// Sorts a chain into its parts; the address of the status.
    pub(super) fn fill(
        &mut self,
        chain: impl Iterator<Item = Descriptor>,
    ) -> Result<GuestAddress, Malformed> {
        self.header.clear();
        self.output.clear();
        self.input.clear();
        let mut header_left = HEADER_LEN;
        // An iterator that ends although the last descriptor names another one met a loop, an index
        // out of bounds or a bad table.
        let mut expected = true;
        for (count, descriptor) in (0..).zip(chain) {
            if count == MAX_DESCRIPTORS {
                return Err(Malformed::TooLong);
            }
            expected = descriptor.has_next();
            let mut segment = Segment { address: descriptor.addr(), len: descriptor.len() };
            segment.address.checked_add(segment.len.into()).ok_or(Malformed::Address)?;
            if descriptor.is_write_only() {
                self.input.push(segment);
                continue;
            }
            if !self.input.is_empty() {
                return Err(Malformed::Order);
            }
            if header_left > 0 {
                let part = Segment { len: segment.len.min(header_left), ..segment };
                header_left -= part.len;
                self.header.push(part);
                segment.address = segment.address.unchecked_add(part.len.into());
                segment.len -= part.len;
            }
            self.output.push(segment);
        }
        if expected {
            return Err(Malformed::Broken);
        }
        if header_left > 0 {
            return Err(Malformed::Header);
        }
        self.output.retain(|segment| segment.len > 0);
        self.input.retain(|segment| segment.len > 0);
        let last = self.input.last_mut().ok_or(Malformed::Status)?;
        last.len -= 1;
        let status = last.address.unchecked_add(last.len.into());
        if last.len == 0 {
            self.input.pop();
        }
        Ok(status)
    }
}

/// The bytes in `segments`.
pub(super) fn total(segments: &[Segment]) -> u64 {
    segments.iter().map(|segment| u64::from(segment.len)).sum()
}

/// What a disk is asked to do. Offsets are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Read { offset: u64 },
    Write { offset: u64 },
    Flush,
    GetId,
}

/// What is to be known of a disk to judge a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Size in sectors.
    pub(super) sectors: u64,
    /// The guest may not write.
    pub(super) readonly: bool,
}

impl Request {
    /// Judges a request with `output` bytes of data from and room for `input` bytes of data to the
    /// driver. The status to refuse it with, if it is to be refused.
    pub(super) fn parse(
        header: [u8; 16],
        output: u64,
        input: u64,
        limits: Limits,
    ) -> Result<Self, Status> {
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([t0, t1, t2, t3]) {
            TYPE_IN if output == 0 => Ok(Self::Read { offset: check(sector, input, limits)? }),
            TYPE_OUT if input == 0 && !limits.readonly => {
                Ok(Self::Write { offset: check(sector, output, limits)? })
            }
            TYPE_FLUSH if output == 0 && input == 0 => Ok(Self::Flush),
            TYPE_GET_ID if output == 0 && input > 0 => Ok(Self::GetId),
            // The right type, but data in the wrong direction or a disk that may not be written.
            TYPE_IN | TYPE_OUT | TYPE_FLUSH | TYPE_GET_ID => Err(Status::IoError),
            _ => Err(Status::Unsupported),
        }
    }
}

/// The byte offset of `len` bytes at `sector`, if they are whole sectors of the disk and at least one.
fn check(sector: u64, len: u64, limits: Limits) -> Result<u64, Status> {
    let end = sector.checked_add(len / SECTOR).ok_or(Status::IoError)?;
    if len == 0 || !len.is_multiple_of(SECTOR) || end > limits.sectors {
        return Err(Status::IoError);
    }
    sector.checked_mul(SECTOR).ok_or(Status::IoError)
}

#[cfg(test)]
#[path = "request_test.rs"]
mod request_test;
