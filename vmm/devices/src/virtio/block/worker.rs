//! Requests, one after the other.
//!
//! Invariant: each request gets a status byte, unless it has no place for one; a host's error is the
//! guest's I/O error and never the device's end.

use std::sync::Arc;

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress};

use super::super::mem::Segment;
use super::Counts;
use super::backend::Backend;
use super::request::{HEADER_LEN, Layout, Limits, Request, Status, total};
use crate::ports::Ram;

/// Does the requests of one queue.
pub(super) struct BlockWorker {
    backend: Arc<Backend>,
    counts: Arc<Counts>,
    write_through: bool,
    layout: Layout,
}

impl BlockWorker {
    /// `write_through`: a write is stable before it is reported done.
    pub(super) fn new(backend: Arc<Backend>, counts: Arc<Counts>, write_through: bool) -> Self {
        Self { backend, counts, write_through, layout: Layout::default() }
    }

    /// Does one request; the number of bytes written into the chain from its first writable byte on.
    pub(super) fn handle(&mut self, ram: &Ram, chain: impl Iterator<Item = Descriptor>) -> u32 {
        let Ok(status_at) = self.layout.fill(chain) else {
            self.counts.errors.add(1);
            return 0;
        };
        let (status, written) = match self.perform(ram) {
            Ok(written) => (Status::Ok, written),
            Err(status) => {
                self.counts.errors.add(1);
                (status, 0)
            }
        };
        if ram.write_obj(status as u8, status_at).is_err() {
            return 0;
        }
        // The length counts bytes without a gap only: the status is part of it if all before it is.
        if written == total(&self.layout.input) { used(written + 1) } else { used(written) }
    }

    /// The number of data bytes written into guest memory.
    fn perform(&self, ram: &Ram) -> Result<u64, Status> {
        let Layout { header, output, input } = &self.layout;
        let header = read_header(ram, header).ok_or(Status::IoError)?;
        let limits = Limits { sectors: self.backend.sectors(), readonly: self.backend.readonly() };
        let room = total(input);
        match Request::parse(header, total(output), room, limits)? {
            Request::Read { offset } => {
                self.backend.read(ram, input, offset).map_err(|_| Status::IoError)?;
                self.counts.reads.add(1);
                self.counts.bytes_read.add(room);
                Ok(room)
            }
            Request::Write { offset } => {
                let written = self.backend.write(ram, output, offset);
                let stable = written.and_then(|()| match self.write_through {
                    true => self.backend.flush(),
                    false => Ok(()),
                });
                stable.map_err(|_| Status::IoError)?;
                self.counts.writes.add(1);
                self.counts.bytes_written.add(total(output));
                Ok(0)
            }
            Request::Flush => {
                self.backend.flush().map_err(|_| Status::IoError)?;
                self.counts.flushes.add(1);
                Ok(0)
            }
            Request::GetId => write_bytes(ram, input, self.backend.serial()).ok_or(Status::IoError),
        }
    }
}

/// A length for the used ring; chains are shorter than 4 GiB, or it does not matter.
fn used(len: u64) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Gathers the header.
fn read_header(ram: &Ram, segments: &[Segment]) -> Option<[u8; HEADER_LEN as usize]> {
    let mut header = [0; HEADER_LEN as usize];
    let mut rest = &mut header[..];
    for segment in segments {
        let (part, after) = rest.split_at_mut_checked(usize::try_from(segment.len).ok()?)?;
        ram.read_slice(part, segment.address).ok()?;
        rest = after;
    }
    Some(header)
}

/// Scatters `bytes` as far as there is room; how many fitted.
fn write_bytes(ram: &Ram, segments: &[Segment], bytes: &[u8]) -> Option<u64> {
    let mut rest = bytes;
    for &Segment { address: GuestAddress(address), len } in segments {
        let (part, after) = rest.split_at(rest.len().min(usize::try_from(len).ok()?));
        ram.write_slice(part, GuestAddress(address)).ok()?;
        rest = after;
    }
    Some((bytes.len() - rest.len()) as u64)
}
