//! A request of the driver's: what it sends, and where it wants the reply (virtio 1.2, 5.11.6; `linux/fuse.h`).
//!
//! Invariant: pure; a request that was collected has a whole header, and fits a slot together with its reply.

use virtio_queue::desc::split::Descriptor;
use vm_memory::Address;

use super::super::mem::Segment;
use super::slots::{SLOT_BYTES, reply_offset};

/// Most descriptors of a chain; Linux has one for each page, and a few more.
const MAX_DESCRIPTORS: usize = 1024;

/// Bytes of `struct fuse_in_header` and `struct fuse_out_header`.
pub(super) const IN_HEADER: usize = 40;
pub(super) const OUT_HEADER: usize = 16;

/// A chain that is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a descriptor that is none, or a loop of them")]
    Broken,
    #[error("more than {MAX_DESCRIPTORS} descriptors")]
    TooLong,
    #[error("a readable descriptor after a writable one")]
    Order,
    #[error("a buffer wraps around the end of the address space")]
    Address,
    #[error("more bytes than a slot has")]
    TooLarge,
    #[error("no complete header")]
    Header,
}

/// Where the parts of a request are in guest memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// What the driver sends.
    pub(super) request: Vec<Segment>,
    /// Room for the reply; none for a request that gets none.
    pub(super) reply: Vec<Segment>,
}

impl Parts {
    /// Sorts a chain into its parts. Of a chain that is malformed, what was found is there.
    pub(super) fn fill(
        &mut self,
        chain: impl Iterator<Item = Descriptor>,
    ) -> Result<(), Malformed> {
        // An iterator that ends although the last descriptor names another one met a loop, an index
        // out of bounds or a bad table.
        let mut expected = true;
        for (count, descriptor) in (0..).zip(chain) {
            if count == MAX_DESCRIPTORS {
                return Err(Malformed::TooLong);
            }
            expected = descriptor.has_next();
            let segment = Segment { address: descriptor.addr(), len: descriptor.len() };
            segment.address.checked_add(segment.len.into()).ok_or(Malformed::Address)?;
            match descriptor.is_write_only() {
                true => self.reply.push(segment),
                false if self.reply.is_empty() => self.request.push(segment),
                false => return Err(Malformed::Order),
            }
        }
        if expected {
            return Err(Malformed::Broken);
        }
        let sent = self.sent().ok_or(Malformed::TooLarge)?;
        let room = self.room().ok_or(Malformed::TooLarge)?;
        let end = reply_offset(sent).and_then(|offset| offset.checked_add(room));
        if end.is_none_or(|end| end > SLOT_BYTES) {
            return Err(Malformed::TooLarge);
        }
        if sent < IN_HEADER || (1..OUT_HEADER).contains(&room) {
            return Err(Malformed::Header);
        }
        Ok(())
    }

    /// How many bytes the driver sends.
    pub(super) fn sent(&self) -> Option<usize> {
        total(&self.request)
    }

    /// How long the reply can be.
    pub(super) fn room(&self) -> Option<usize> {
        total(&self.reply)
    }
}

fn total(segments: &[Segment]) -> Option<usize> {
    let add = |sum: usize, segment: &Segment| sum.checked_add(usize::try_from(segment.len).ok()?);
    segments.iter().try_fold(0, add)
}

/// `struct fuse_in_header`, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct InHeader {
    /// Bytes of the request, this header's among them.
    pub(super) len: u32,
    /// What is asked for.
    pub(super) opcode: u32,
    /// The number of the request.
    pub(super) unique: u64,
    /// The node that it is about.
    pub(super) node: u64,
}

impl InHeader {
    /// Reads it from the start of a request.
    pub(super) fn parse(bytes: &[u8; IN_HEADER]) -> Self {
        Self {
            len: word(bytes, 0),
            opcode: word(bytes, 4),
            unique: long(bytes, 8),
            node: long(bytes, 16),
        }
    }
}

/// `struct fuse_out_header`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OutHeader {
    /// Bytes of the reply, this header's among them.
    pub(super) len: u32,
    /// 0, or an error number, negative.
    pub(super) error: i32,
    /// The number of the request.
    pub(super) unique: u64,
}

impl OutHeader {
    /// That of a reply without more than an error.
    pub(super) fn failed(error: i32, unique: u64) -> Self {
        Self { len: 16, error: -error, unique }
    }

    pub(super) fn parse(bytes: &[u8; OUT_HEADER]) -> Self {
        let error = word(bytes, 4).cast_signed();
        Self { len: word(bytes, 0), error, unique: long(bytes, 8) }
    }

    pub(super) fn bytes(self) -> [u8; OUT_HEADER] {
        let mut bytes = [0; OUT_HEADER];
        bytes[..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.error.to_le_bytes());
        bytes[8..].copy_from_slice(&self.unique.to_le_bytes());
        bytes
    }

    /// Whether it can be that of a reply of `len` bytes to `request`. The driver checks little of it.
    pub(super) fn answers(self, request: &InHeader, len: usize) -> bool {
        // Linux takes no other errors from a server (`fuse_dev_do_write`), and nothing after one.
        let told = (-511..=0).contains(&self.error);
        let bare = self.error == 0 || len == OUT_HEADER;
        usize::try_from(self.len) == Ok(len)
            && len >= OUT_HEADER
            && self.unique == request.unique
            && told
            && bare
    }
}

/// The word at `at`; zero beyond the end.
pub(super) fn word(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    u32::from_le_bytes(found.copied().unwrap_or_default())
}

fn long(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    u64::from_le_bytes(found.copied().unwrap_or_default())
}

#[cfg(test)]
#[path = "request_test.rs"]
mod request_test;
