//! Memory shared with another process of the host.
//!
//! The other side may write at any time, so everything is read once, into memory of our own, before it is judged.
//!
//! Invariant: it is mapped as long as the value lives, all of it; nobody gets a reference to its bytes.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use vm_memory::VolatileSlice;

/// See the module.
pub struct SharedMemory {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value and to no thread; it is only ever accessed as memory that others change.
unsafe impl Send for SharedMemory {}

impl SharedMemory {
    /// Maps the first `len` bytes of `file`, which must have them for good: a memory file that is sealed against
    /// shrinking.
    ///
    /// # Errors
    /// The host's; `EINVAL` for no bytes.
    pub fn map(file: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let fd = file.as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that is there.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { start, len })
    }

    /// The `len` bytes from `offset` on; `None` if it does not have them.
    #[must_use]
    pub fn slice(&self, offset: usize, len: usize) -> Option<VolatileSlice<'_>> {
        if offset.checked_add(len)? > self.len {
            return None;
        }
        // SAFETY: the range was just checked to lie in the mapping, which lives as long as the slice borrows `self`; all
        // users of it in this process go through such slices.
        Some(unsafe { VolatileSlice::new(self.start.as_ptr().wrapping_add(offset), len) })
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: the range is what `map` mapped, and no slice of it outlives `self`.
        let _unmapped = unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
