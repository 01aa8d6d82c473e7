//! Copying from a file into guest memory.
//!
//! The file is mapped and copied from its pages in the host's cache. Reading it by `read(2)` does the same in the host's
//! kernel, at several times the instructions.
//!
//! Invariant: nothing is written outside of `[to, to + size)`, which must lie in one region of memory.

use std::fs::File;
use std::io::{self, ErrorKind};

use cofferdam_vmm_hv::GuestRam;
use nix::libc;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, MmapRegion, VolatileMemory};

use super::PAGE;

/// Bytes copied at once: below the length from which the C library takes string instructions, which some processors
/// and all emulators are slow at.
const CHUNK: usize = 2048;

/// Copies `size` bytes from `offset` of `file` to guest address `to`.
///
/// The file must not become shorter meanwhile: whoever handed it over kills its own monitor that way.
pub(super) fn copy(ram: &GuestRam, file: &File, span: Span) -> io::Result<()> {
    let Span { offset, to, size } = span;
    if size == 0 {
        return Ok(());
    }
    let size = usize::try_from(size).map_err(io::Error::other)?;
    let target = ram.get_slice(GuestAddress(to), size).map_err(io::Error::other)?;
    require(file, span)?;
    let skip = offset % PAGE;
    let within = usize::try_from(skip).map_err(io::Error::other)?;
    let place = FileOffset::new(file.try_clone()?, offset - skip);
    let (access, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
    let mapping = MmapRegion::<()>::build(Some(place), within + size, access, flags);
    let mapping = mapping.map_err(io::Error::other)?;
    let source = mapping.get_slice(within, size).map_err(io::Error::other)?;
    for at in (0..size).step_by(CHUNK) {
        let length = CHUNK.min(size - at);
        let target = target.subslice(at, length).map_err(io::Error::other)?;
        source.subslice(at, length).map_err(io::Error::other)?.copy_to_volatile_slice(target);
    }
    Ok(())
}

/// That `file` holds all of `span`.
///
/// # Errors
/// If it does not.
pub(super) fn require(file: &File, span: Span) -> io::Result<()> {
    let end = span.offset.checked_add(span.size);
    if end.is_none_or(|end| file.metadata().is_ok_and(|metadata| end > metadata.len())) {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    Ok(())
}

/// What to put into memory, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// Where it goes in the guest's memory.
    pub(super) to: u64,
    /// How many bytes.
    pub(super) size: u64,
}

impl Span {
    /// The part of it that goes to `range` of the guest's memory, which it must hold.
    pub(super) fn part(self, range: std::ops::Range<u64>) -> Self {
        let offset = self.offset + (range.start - self.to);
        Self { offset, to: range.start, size: range.end - range.start }
    }
}

#[cfg(test)]
#[path = "copy_test.rs"]
mod copy_test;
