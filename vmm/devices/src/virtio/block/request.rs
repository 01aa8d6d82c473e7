//! What a chain of descriptors asks a disk to do (virtio 1.2, 5.2.6): pure.
//!
//! Nothing is assumed about how the driver cuts a request into descriptors (virtio 1.2, 2.7.4.1): the
//! first 16 readable bytes are the header, the other readable ones data to write; the last writable
//! byte is the status, the other writable ones take what is read.
//!
//! Invariant: a [`Request`] is within the disk, in whole sectors, bounded, and may be done; so is an [`Extent`].

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Address, GuestAddress};

use super::super::mem::Segment;
use super::{SECTOR, SEG_MAX, SIZE_MAX};

/// Bytes of the header: type, reserved, sector.
pub(super) const HEADER_LEN: u32 = 16;

/// Most bytes of data of a request: no less than what the device offers, and little enough that whoever waits for
/// the end of a request does not wait long.
pub(super) const MAX_DATA: u64 = 32 << 20;

const _: () = assert!(SEG_MAX as u64 * SIZE_MAX as u64 <= MAX_DATA);

/// Most descriptors of a request.
const MAX_DESCRIPTORS: u32 = SEG_MAX + 2;

/// Request types.
const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;

/// Bytes of a `struct virtio_blk_discard_write_zeroes`: sector, number of sectors, flags.
pub(super) const EXTENT_LEN: usize = 16;

/// Most extents of one request.
pub(super) const MAX_EXTENTS: u32 = 16;

/// Most sectors of one extent: 1 GiB, so that one request does not take the host long.
pub(super) const MAX_EXTENT_SECTORS: u32 = 1 << 21;

/// The flag of an extent: the device may deallocate what it writes zeroes to.
const FLAG_UNMAP: u32 = 1;

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
    Read {
        offset: u64,
    },
    Write {
        offset: u64,
    },
    Flush,
    GetId,
    /// The data is a list of extents.
    Erase(Erase),
}

/// What becomes of an extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Erase {
    /// Its contents are of no interest any more.
    Discard,
    /// It reads as zero.
    Zero,
}

/// A part of the disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) len: u64,
    /// The host may free its room.
    pub(super) unmap: bool,
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
            TYPE_IN if output == 0 => Ok(Self::Read { offset: check_data(sector, input, limits)? }),
            TYPE_OUT if input == 0 && !limits.readonly => {
                Ok(Self::Write { offset: check_data(sector, output, limits)? })
            }
            TYPE_FLUSH if output == 0 && input == 0 => Ok(Self::Flush),
            TYPE_GET_ID if output == 0 && input > 0 => Ok(Self::GetId),
            TYPE_DISCARD if input == 0 && is_list(output) && !limits.readonly => {
                Ok(Self::Erase(Erase::Discard))
            }
            TYPE_WRITE_ZEROES if input == 0 && is_list(output) && !limits.readonly => {
                Ok(Self::Erase(Erase::Zero))
            }
            // The right type, but data in the wrong direction or a disk that may not be written.
            TYPE_IN | TYPE_OUT | TYPE_FLUSH | TYPE_GET_ID | TYPE_DISCARD | TYPE_WRITE_ZEROES => {
                Err(Status::IoError)
            }
            _ => Err(Status::Unsupported),
        }
    }
}

/// Whether `len` bytes can be a list of extents.
fn is_list(len: u64) -> bool {
    let size = EXTENT_LEN as u64;
    len > 0 && len.is_multiple_of(size) && len / size <= MAX_EXTENTS.into()
}

impl Extent {
    /// Judges one extent of a list (virtio 1.2, 5.2.6.2).
    pub(super) fn parse(
        bytes: [u8; EXTENT_LEN],
        erase: Erase,
        limits: Limits,
    ) -> Result<Self, Status> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, f0, f1, f2, f3] = bytes;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        if flags & !FLAG_UNMAP != 0 || (erase == Erase::Discard && flags != 0) {
            return Err(Status::Unsupported);
        }
        if sectors > MAX_EXTENT_SECTORS {
            return Err(Status::IoError);
        }
        let len = u64::from(sectors) * SECTOR;
        let offset = check(sector, len, limits)?;
        Ok(Self { offset, len, unmap: erase == Erase::Discard || flags & FLAG_UNMAP != 0 })
    }
}

/// The byte offset of `len` bytes of data at `sector`; see [`check`].
fn check_data(sector: u64, len: u64, limits: Limits) -> Result<u64, Status> {
    if len > MAX_DATA { Err(Status::IoError) } else { check(sector, len, limits) }
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
