//! Guest memory and system calls: with `uring`, the only place of this crate with `unsafe`.
//!
//! Invariant: the kernel gets no address that `vm-memory` has not checked to lie in guest memory.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::{GuestAddress, GuestMemory, Permissions};

use crate::ports::Ram;

/// Most buffers of one system call (`IOV_MAX`).
const MAX_IOVECS: usize = 1024;

/// Most host buffers that a packet is received into: one more takes what does not fit.
const MAX_BUFFERS: usize = MAX_IOVECS - 1;

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
        unsafe { libc::preadv2(fd, list.as_ptr(), count, at, 0) }
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
        unsafe { libc::pwritev2(fd, list.as_ptr(), count, at, 0) }
    })
}

/// Makes `preadv2(2)` and `pwritev2(2)` what `readv(2)` and `writev(2)` are: with these two calls for all,
/// a system-call filter stays short.
const NO_OFFSET: libc::off_t = -1;

/// Guest buffers in a row, resolved once, that packets are received into from the first one on.
pub struct Buffers {
    /// Keeps what `list` names mapped.
    ram: Ram,
    list: VecDeque<libc::iovec>,
    /// Put together for one call.
    call: Vec<libc::iovec>,
}

impl Buffers {
    /// None yet.
    #[must_use]
    pub fn new(ram: Ram) -> Self {
        Self { ram, list: VecDeque::new(), call: Vec::new() }
    }

    /// Adds buffers at the end; how many host buffers these are. `None` if one call could not take them together with
    /// those that are there.
    ///
    /// # Errors
    /// `EFAULT` for a segment outside of guest memory; nothing is added then.
    pub fn push(&mut self, segments: &[Segment]) -> io::Result<Option<usize>> {
        let iovecs = Iovecs::new(&self.ram, segments, Permissions::Write)?;
        let count = iovecs.list.len();
        if self.list.len() + count > MAX_BUFFERS {
            return Ok(None);
        }
        self.list.extend(&iovecs.list);
        Ok(Some(count))
    }

    /// Forgets the first `count` host buffers.
    pub fn pop(&mut self, count: usize) {
        self.list.drain(..count.min(self.list.len()));
    }

    /// Receives one packet from `fd` into the first `count` host buffers. What does
    /// not fit goes into `spill`, and what does not fit there is lost. The length of the packet, as far
    /// as there was room for it.
    ///
    /// # Errors
    /// The host's.
    pub fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        count: usize,
        spill: &mut [u8],
    ) -> io::Result<usize> {
        self.call.clear();
        self.call.extend(self.list.iter().take(count));
        let (iov_base, iov_len) = (spill.as_mut_ptr().cast(), spill.len());
        self.call.push(libc::iovec { iov_base, iov_len });
        let count = libc::c_int::try_from(self.call.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `call` holds `count` buffers: guest memory, which `ram` keeps mapped and nobody has
        // references into, and last `spill`, which is ours to write to.
        let got = unsafe { libc::preadv2(fd.as_raw_fd(), self.call.as_ptr(), count, NO_OFFSET, 0) };
        usize::try_from(got).map_err(|_| io::Error::last_os_error())
    }
}

/// Sends `header` and then `segments` to `fd` as one packet, without a copy in between.
///
/// # Errors
/// The host's; `EFAULT` for a segment outside of guest memory, `InvalidInput` for more segments than one
/// call takes.
pub fn send(
    ram: &Ram,
    fd: BorrowedFd<'_>,
    header: &mut [u8],
    segments: &[Segment],
) -> io::Result<()> {
    let mut iovecs = Iovecs::new(ram, segments, Permissions::Read)?;
    let (iov_base, iov_len) = (header.as_mut_ptr().cast(), header.len());
    iovecs.list.insert(0, libc::iovec { iov_base, iov_len });
    if iovecs.list.len() > MAX_IOVECS {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let count = libc::c_int::try_from(iovecs.list.len()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the list holds `count` buffers: `header`, and guest memory, which `ram` keeps mapped for this
    // call. The kernel only reads them.
    let sent = unsafe { libc::pwritev2(fd.as_raw_fd(), iovecs.list.as_ptr(), count, NO_OFFSET, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Tells a tap which offloads its reader takes: `TUN_F_*` bits.
///
/// # Errors
/// The host's; `ENOTTY` if it is no tap, `EINVAL` for bits that the kernel does not know.
pub fn set_tap_offloads(tap: BorrowedFd<'_>, offloads: libc::c_uint) -> io::Result<()> {
    /// `TUNSETOFFLOAD`, `_IOW('T', 208, unsigned int)`.
    const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
    let argument = libc::c_ulong::from(offloads);
    // SAFETY: the argument is a number and no address.
    let done = unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETOFFLOAD, argument) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
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
