//! What needs `unsafe`: descriptors by number, and watching one.
//!
//! Invariant: no descriptor is closed or taken over by its number.
#![allow(
    unsafe_code,
    reason = "`close_range` has no safe wrapper, and `AsyncFd::register` is an unsafe function"
)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Has every descriptor but the standard streams closed in the programs that this one starts: what a caller left open
/// is none of the monitor's business.
pub(crate) fn keep_descriptors_private() {
    // SAFETY: integers only; descriptors are marked, none is closed. An old kernel refuses, which changes nothing.
    let _ = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
}

/// Has the runtime watch `fd`.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor, always the same, until it is dropped.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
