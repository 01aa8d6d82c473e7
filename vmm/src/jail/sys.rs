//! System calls without a safe wrapper.
//!
//! Invariant: each function says what it relies on, and is called where that holds.
#![allow(
    unsafe_code,
    reason = "descriptors by number, the allocator, and ending without cleaning up"
)]

use std::io;

/// Closes every descriptor but the standard streams: what a caller left open is none of ours.
///
/// To be called first thing in `main`, before anything has opened one.
///
/// # Errors
/// On kernels before Linux 5.9.
pub fn close_inherited() -> io::Result<()> {
    // SAFETY: integers only; no descriptor from 3 on belongs to anything in this process yet.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has all threads share the first one's heap. A heap of a thread's own opens files of the host's as it grows
/// (the number of processors) and as it shrinks (the policy of overcommitment), at times that nobody chooses.
///
/// To be called before there is another thread.
pub(super) fn share_heap() {
    // SAFETY: sets a parameter of the allocator. It fails for an unknown one only.
    let _known = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Has a panic end the process with `code` once its message is written: unwinding, or a signal to oneself,
/// takes system calls that a confined thread does not have.
pub fn end_on_panic(code: i32) {
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("cofferdam-vmm: {panic}");
        // SAFETY: ends the process at once; no destructor or exit handler runs.
        unsafe { libc::_exit(code) }
    }));
}
