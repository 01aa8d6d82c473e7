//! System calls without a safe wrapper.
//!
//! Invariant: each function says what it relies on, and is called where that holds.
#![allow(unsafe_code, reason = "descriptors by number, and ending without cleaning up")]

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

/// Has a panic end the process with `code` once its message is written: unwinding, or a signal to oneself,
/// takes system calls that a confined thread does not have.
pub fn end_on_panic(code: i32) {
    std::panic::set_hook(Box::new(move |panic| {
        eprintln!("cofferdam-vmm: {panic}");
        // SAFETY: ends the process at once; no destructor or exit handler runs.
        unsafe { libc::_exit(code) }
    }));
}
