//! Giving guest memory back to the host.
//!
//! Invariant: only whole pages of the machine's own memory are given back, and none of the ranges that are
//! to be kept; a page given back reads as zero, for the guest and for everybody who maps it.

use std::io;

use nix::fcntl::{FallocateFlags, fallocate};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use crate::memory::GuestRam;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Gives memory back to the host.
#[derive(Clone, Debug)]
pub struct Reclaimer {
    ram: GuestRam,
    /// (first address, address after the last), whole pages.
    kept: Vec<(u64, u64)>,
}

/// A part of a region that is given back: where in the region, and how much.
type Piece = (u64, u64);

impl Reclaimer {
    /// For `ram`, but for the ranges `kept` of (address, bytes). What is not shared memory must be among
    /// them: a page of a file that is mapped privately would show the file's contents again.
    #[must_use]
    pub fn new(ram: GuestRam, kept: &[(u64, u64)]) -> Self {
        let outwards = |&(start, size): &(u64, u64)| {
            (start / PAGE * PAGE, start.saturating_add(size).div_ceil(PAGE).saturating_mul(PAGE))
        };
        let kept = kept.iter().filter(|(_, size)| *size > 0);
        let mut kept: Vec<_> = kept.map(outwards).collect();
        kept.sort_unstable();
        Self { ram, kept }
    }

    /// Gives back the whole pages within `size` bytes at the guest's `address`, as far as they are memory
    /// and not kept.
    ///
    /// # Errors
    /// If the host refuses.
    pub fn give_back(&self, address: u64, size: u64) -> io::Result<()> {
        for region in self.ram.iter() {
            // Memory that is not shared has no file, and is kept as a whole.
            let Some(file) = region.file_offset() else { continue };
            let start = region.start_addr().raw_value();
            for (offset, len) in self.pieces((address, size), (start, region.len())) {
                let part = |value| i64::try_from(value).map_err(|_| io::ErrorKind::InvalidInput);
                let offset = file.start().checked_add(offset).ok_or(io::ErrorKind::InvalidInput)?;
                let mode =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                fallocate(file.file(), mode, part(offset)?, part(len)?)?;
            }
        }
        Ok(())
    }

    /// What of the range (address, bytes) may be given back of the region at (address, bytes).
    fn pieces(&self, (address, size): (u64, u64), (base, bytes): (u64, u64)) -> Vec<Piece> {
        let end = base.saturating_add(bytes).min(address.saturating_add(size)) / PAGE * PAGE;
        let mut next = base.max(address).div_ceil(PAGE).saturating_mul(PAGE);
        let mut pieces = Vec::new();
        let keep_all = (u64::MAX, u64::MAX);
        for &(kept_start, kept_end) in self.kept.iter().chain([&keep_all]) {
            let stop = end.min(kept_start);
            if next < stop {
                pieces.push((next - base, stop - next));
            }
            next = next.max(kept_end);
        }
        pieces
    }
}

#[cfg(test)]
#[path = "reclaim_test.rs"]
mod reclaim_test;
