//! Copying from a file into guest memory.
//!
//! Guest memory is a file itself, so the host's kernel copies from file to file. Reading into the mapping
//! would first fault in and zero every page: twice the cost, and it is most of what happens before the
//! guest runs.
//!
//! Invariant: nothing is written outside of `[to, to + size)`, which must lie in one region of memory.

use std::fs::File;
use std::io::{self, ErrorKind, Seek, SeekFrom};

use cofferdam_vmm_hv::GuestRam;
use nix::errno::Errno;
use nix::sys::sendfile::sendfile64;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// Copies `size` bytes from `offset` of `file` to guest address `to`.
pub(super) fn copy(ram: &GuestRam, file: &File, span: Span) -> io::Result<()> {
    let Span { offset, to, size } = span;
    let outside = || io::Error::other(format!("no memory at guest address {to:#x}"));
    let region = ram.find_region(GuestAddress(to)).ok_or_else(outside)?;
    let within = to - region.start_addr().raw_value();
    if size > region.len() - within {
        return Err(outside());
    }
    let memory = region.file_offset().ok_or_else(outside)?;
    let mut memfd = memory.file();
    memfd.seek(SeekFrom::Start(memory.start() + within))?;
    let mut position = i64::try_from(offset).map_err(io::Error::other)?;
    let mut left = usize::try_from(size).map_err(io::Error::other)?;
    while left > 0 {
        match sendfile64(memfd, file, Some(&mut position), left) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(copied) => left -= copied,
            Err(Errno::EINTR) => {}
            // A file system without it.
            Err(Errno::EINVAL | Errno::ENOSYS) => return read(ram, file, span),
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// What to copy, and where to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// Where it begins in the file.
    pub(super) offset: u64,
    /// Where it goes in the guest's memory.
    pub(super) to: u64,
    /// How many bytes.
    pub(super) size: u64,
}

/// The same by reading.
fn read(ram: &GuestRam, mut file: &File, Span { offset, to, size }: Span) -> io::Result<()> {
    file.seek(SeekFrom::Start(offset))?;
    let size = usize::try_from(size).map_err(io::Error::other)?;
    ram.read_exact_volatile_from(GuestAddress(to), &mut file, size).map_err(io::Error::other)
}

#[cfg(test)]
#[path = "copy_test.rs"]
mod copy_test;
