//! Guest memory: one memfd, mapped once per range.
//!
//! Invariant: all of a machine's memory is in one sealed file, in the order of its guest addresses, so that
//! it can be handed to another process, saved or cloned as a whole.

use std::fs::File;
use std::io;
use std::sync::Arc;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

/// A machine's memory; cheap to clone.
pub type GuestRam = GuestMemoryMmap<()>;

/// Memory that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host refused.
    #[error("cannot {what} for {bytes} bytes of guest memory")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// How much.
        bytes: u64,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A range that is empty, unaligned, beyond the address space or overlaps another.
    #[error("guest memory at {start:#x}, {size:#x} bytes, cannot be")]
    Range {
        /// Its first address.
        start: u64,
        /// Its size.
        size: u64,
    },
}

/// Memory at `ranges` of (guest address, size in bytes), by rising address. Nothing is reserved: a page
/// costs something once it is touched.
///
/// # Errors
/// [`MemoryError`].
pub fn allocate_ram(ranges: &[(u64, u64)]) -> Result<GuestRam, MemoryError> {
    let bytes = ranges.iter().fold(0u64, |sum, (_, size)| sum.saturating_add(*size));
    let refused = |what| move |source: io::Error| MemoryError::Host { what, bytes, source };
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memfd = memfd_create(c"guest-ram", flags)
        .map_err(|errno| refused("create a memfd")(errno.into()))?;
    let file = File::from(memfd);
    file.set_len(bytes).map_err(refused("size the memfd"))?;
    let seals = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))
        .map_err(|errno| refused("seal the memfd")(errno.into()))?;

    let file = Arc::new(file);
    let mut offset = 0;
    let mut regions = Vec::with_capacity(ranges.len());
    for &(start, size) in ranges {
        let wrong = || MemoryError::Range { start, size };
        let length = usize::try_from(size).map_err(|_| wrong())?;
        let place = FileOffset::from_arc(Arc::clone(&file), offset);
        let mapping = MmapRegion::from_file(place, length)
            .map_err(|error| refused("map the memfd")(io::Error::other(error)))?;
        regions.push(GuestRegionMmap::new(mapping, GuestAddress(start)).ok_or_else(wrong)?);
        offset = offset.saturating_add(size);
    }
    let (start, size) = ranges.first().copied().unwrap_or_default();
    GuestRam::from_regions(regions).map_err(|_| MemoryError::Range { start, size })
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod memory_test;
