//! Guest memory: private pages of this process, one mapping per range.
//!
//! Parts of it may be pages of a file, which the guest can change without anyone else noticing.
//!
//! Invariant: a mapping begins on a boundary of 2 MiB in the host as in the guest, so that a huge page of the host is one
//! of the guest; and it stays until the process ends, so nothing can outlive it.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr;

use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
};

/// A machine's memory; cheap to clone.
pub type GuestRam = GuestMemoryMmap<()>;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Bytes of a huge page.
const HUGE_PAGE: u64 = 2 << 20;

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
/// costs something once it is touched. `huge`: in pages of 2 MiB where the host has them; otherwise in small ones, so
/// that a guest takes no more than it touches.
///
/// # Errors
/// [`MemoryError`].
pub fn allocate_ram(ranges: &[(u64, u64)], huge: bool) -> Result<GuestRam, MemoryError> {
    let mut regions = Vec::with_capacity(ranges.len());
    for &(start, size) in ranges {
        let wrong = || MemoryError::Range { start, size };
        let length = usize::try_from(size).map_err(|_| wrong())?;
        if length == 0 || !start.is_multiple_of(HUGE_PAGE) || start.checked_add(size).is_none() {
            return Err(wrong());
        }
        let refused = |source| MemoryError::Host { what: "map memory", bytes: size, source };
        let place = map(length).map_err(refused)?;
        let region = MmapRegionBuilder::new(length)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(FLAGS);
        // SAFETY: `place` begins a mapping of `length` bytes that is never taken away.
        let region = unsafe { region.with_raw_mmap_pointer(place) }.build();
        let region = region.map_err(|error| refused(io::Error::other(error)))?;
        regions.push(GuestRegionMmap::new(region, GuestAddress(start)).ok_or_else(wrong)?);
    }
    let (start, size) = ranges.first().copied().unwrap_or_default();
    let ram = GuestRam::from_regions(regions).map_err(|_| MemoryError::Range { start, size })?;
    let small_or_huge = if huge { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    advise(&ram, 0..u64::MAX, small_or_huge);
    // A dump of this process is about this process.
    advise(&ram, 0..u64::MAX, libc::MADV_DONTDUMP);
    Ok(ram)
}

/// Asks for pages of 2 MiB for all of `range`, which is densely used, and for what shares a huge page with its ends.
pub fn prefer_huge_pages(ram: &GuestRam, range: Range<u64>) {
    let end = range.end.checked_next_multiple_of(HUGE_PAGE).unwrap_or(range.end);
    advise(ram, range.start / HUGE_PAGE * HUGE_PAGE..end, libc::MADV_HUGEPAGE);
}

/// Puts `size` bytes from `offset` of `file`, all of them whole pages, at the guest's `address`: pages of the host's cache
/// until the guest writes to them, and copies of its own afterwards. Huge pages are not asked for any more there.
///
/// The file must not change as long as the machine lives: the guest would see it, and a page that is cut off ends it.
///
/// # Errors
/// If the pages are not in one range of memory, or the host does not map the file.
pub fn map_file(
    ram: &GuestRam,
    file: &File,
    offset: u64,
    (address, size): (u64, u64),
) -> io::Result<()> {
    if [offset, address, size].iter().any(|number| !number.is_multiple_of(PAGE)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let length = usize::try_from(size).map_err(io::Error::other)?;
    let target = ram.get_slice(GuestAddress(address), length).map_err(io::Error::other)?;
    let place = target.ptr_guard_mut().as_ptr();
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the pages are wholly within the region's mapping, as `get_slice` has checked, and so take the place of
    // nothing else. Nobody has references into guest memory: all access to it is volatile.
    let mapped =
        unsafe { libc::mmap(place.cast(), length, access, flags, file.as_raw_fd(), offset) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    advise(ram, address..address + size, libc::MADV_DONTDUMP);
    Ok(())
}

/// Gives the whole pages within `size` bytes at the guest's `address` back to the host, as far as they are memory. They
/// read as zero from now on, or as the file that is mapped there, and cost something once they are touched again.
///
/// # Errors
/// If the host refuses.
pub fn give_back(ram: &GuestRam, address: u64, size: u64) -> io::Result<()> {
    for region in ram.iter() {
        let first = region.start_addr().raw_value();
        let last = first.saturating_add(region.len()).min(address.saturating_add(size));
        let Some(start) = address.max(first).checked_next_multiple_of(PAGE) else { continue };
        let Some(bytes) = (last / PAGE * PAGE).checked_sub(start).filter(|bytes| *bytes > 0) else {
            continue;
        };
        let offset = usize::try_from(start - first).map_err(io::Error::other)?;
        let bytes = usize::try_from(bytes).map_err(io::Error::other)?;
        let place = region.as_ptr().wrapping_add(offset);
        // SAFETY: the bytes are whole pages within the region's mapping, which is private. Nobody has
        // references into guest memory: all access to it is volatile.
        if unsafe { libc::madvise(place.cast(), bytes, libc::MADV_DONTNEED) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Private, and not counted against the host's limit of overcommitment before it is touched.
const FLAGS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

/// Maps `length` bytes at a boundary of 2 MiB.
fn map(length: usize) -> io::Result<*mut u8> {
    let boundary = usize::try_from(HUGE_PAGE).map_err(io::Error::other)?;
    let reserved = length.checked_add(boundary).ok_or(io::ErrorKind::OutOfMemory)?;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping, at a place that the kernel chooses.
    let place = unsafe { libc::mmap(ptr::null_mut(), reserved, access, FLAGS, -1, 0) };
    if place == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // What is left over on both sides is never touched, and costs nothing but addresses.
    let place = place.cast::<u8>();
    Ok(place.wrapping_add(place.align_offset(boundary)))
}

/// Gives `advice` about all memory in `range`. A host that does not take it, for want of huge pages, does without.
fn advise(ram: &GuestRam, range: Range<u64>, advice: i32) {
    for region in ram.iter() {
        let first = region.start_addr().raw_value();
        let start = range.start.clamp(first, first + region.len()) - first;
        let end = range.end.clamp(first, first + region.len()) - first;
        let (Ok(start), Ok(length)) = (usize::try_from(start), usize::try_from(end - start)) else {
            continue;
        };
        if length > 0 {
            let place = region.as_ptr().wrapping_add(start);
            // SAFETY: the bytes are within the region's mapping, and none of the advices changes them.
            let _refused = unsafe { libc::madvise(place.cast(), length, advice) };
        }
    }
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod memory_test;
