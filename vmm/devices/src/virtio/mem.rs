//! Guest memory and system calls: with `uring`, the only place of this crate with `unsafe`.
//!
//! Invariant: the kernel gets no address that `vm-memory` has not checked to lie in guest memory.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use vm_memory::{GuestAddress, GuestMemory, Permissions};

use crate::ports::Ram;

/// Most buffers of one system call (`IOV_MAX`).
const MAX_IOVECS: usize = 1024;

/// A piece of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where.
    pub address: GuestAddress,
    /// Bytes.
    pub len: u32,
}

/// Host addresses of guest memory. They hold as long as a [`Ram`] of it is held: who gives them to the
/// kernel sees to that.
pub(super) struct Iovecs {
    list: Vec<libc::iovec>,
    /// Those before are done.
    next: usize,
}

impl Iovecs {
    /// The host addresses of `segments`; `EFAULT` for one outside of guest memory.
    pub(super) fn new(ram: &Ram, segments: &[Segment], access: Permissions) -> io::Result<Self> {
        let outside = |_| io::Error::from_raw_os_error(libc::EFAULT);
        let mut list = Vec::with_capacity(segments.len());
        for segment in segments {
            let len = usize::try_from(segment.len).map_err(|_| io::ErrorKind::InvalidInput)?;
            let slices = GuestMemory::get_slices(ram, segment.address, len, access);
            for slice in slices.map_err(outside)? {
                let slice = slice.map_err(outside)?;
                let iov_base = slice.ptr_guard_mut().as_ptr().cast();
                list.push(libc::iovec { iov_base, iov_len: slice.len() });
            }
        }
        Ok(Self { list, next: 0 })
    }

    /// Whether nothing is left.
    pub(super) fn is_done(&self) -> bool {
        self.next >= self.list.len()
    }

    /// What is left, as much as fits one system call.
    pub(super) fn rest(&self) -> &[libc::iovec] {
        let end = self.list.len().min(self.next + MAX_IOVECS);
        &self.list[self.next..end]
    }

    /// `done` more bytes need no further attention.
    pub(super) fn advance(&mut self, mut done: usize) {
        while let Some(iovec) = self.list.get_mut(self.next) {
            if done < iovec.iov_len {
                iovec.iov_base = iovec.iov_base.cast::<u8>().wrapping_add(done).cast();
                iovec.iov_len -= done;
                return;
            }
            done -= iovec.iov_len;
            self.next += 1;
        }
    }

    /// Repeats `call`, which transfers to or from the start of a list at an offset, until all is done.
    fn transfer(
        mut self,
        mut offset: u64,
        call: impl Fn(&[libc::iovec], libc::c_int, libc::off_t) -> isize,
    ) -> io::Result<()> {
        while !self.is_done() {
            let rest = self.rest();
            let count = libc::c_int::try_from(rest.len()).unwrap_or(libc::c_int::MAX);
            let at = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
            match usize::try_from(call(rest, count, at)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(done) => {
                    self.advance(done);
                    offset += done as u64;
                }
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Fills `segments` from `file` at `offset`, without a copy in between.
///
/// # Errors
/// The host's; `EFAULT` for a segment outside of guest memory, `UnexpectedEof` at the file's end.
pub fn read_file(ram: &Ram, segments: &[Segment], file: &File, offset: u64) -> io::Result<()> {
    let iovecs = Iovecs::new(ram, segments, Permissions::Write)?;
    let fd = file.as_raw_fd();
    iovecs.transfer(offset, |list, count, at| {
        // SAFETY: `list` holds `count` buffers within guest memory, which `ram` keeps mapped for this
        // call. Nobody has references into guest memory: all access to it is volatile.
        unsafe { libc::preadv(fd, list.as_ptr(), count, at) }
    })
}

/// Writes `segments` to `file` at `offset`, without a copy in between.
///
/// # Errors
/// As [`read_file`].
pub fn write_file(ram: &Ram, segments: &[Segment], file: &File, offset: u64) -> io::Result<()> {
    let iovecs = Iovecs::new(ram, segments, Permissions::Read)?;
    let fd = file.as_raw_fd();
    iovecs.transfer(offset, |list, count, at| {
        // SAFETY: as in `read_file`; the kernel only reads the buffers.
        unsafe { libc::pwritev(fd, list.as_ptr(), count, at) }
    })
}

/// Fills `data` with random bytes of the host's kernel.
///
/// # Errors
/// The host's; a call of up to 256 bytes never fails once the host has booted.
pub fn random(data: &mut [u8]) -> io::Result<()> {
    let mut done = 0;
    while done < data.len() {
        let rest = &mut data[done..];
        // SAFETY: `rest` is valid for writes of its length.
        let got = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(got) {
            Ok(got) => done += got,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "mem_test.rs"]
mod mem_test;
