//! What needs `unsafe`: descriptors by number, and watching one.
//!
//! Invariant: no descriptor is closed or taken over by its number.
#![allow(
    unsafe_code,
    reason = "`close_range` has no safe wrapper, and `AsyncFd::register` is an unsafe function"
)]

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use tokio::io::unix::AsyncFd;

/// Has every descriptor but the standard streams closed in the programs that this one starts: what a caller left open
/// is none of the monitor's business.
pub(crate) fn keep_descriptors_private() {
    // SAFETY: integers only; descriptors are marked, none is closed. An old kernel refuses, which changes nothing.
    let _ = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
}

/// Has `command`'s process die with the thread that starts it.
pub(crate) fn die_with_us(command: &mut Command) {
    let parent = std::process::id();
    let prepare = move || {
        // SAFETY: prctl is async-signal-safe and touches no memory.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: getppid is async-signal-safe and touches no memory.
        let now = unsafe { libc::getppid() };
        // It may have died before it was asked for.
        if now.cast_unsigned() == parent {
            Ok(())
        } else {
            Err(io::Error::from_raw_os_error(libc::ESRCH))
        }
    };
    // SAFETY: the closure only makes the system calls above; neither error is allocated.
    unsafe { command.pre_exec(prepare) };
}

/// Has the runtime watch `fd`.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor, always the same, until it is dropped.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
