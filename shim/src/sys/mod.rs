//! What needs `unsafe`: preparing a new process before its `execve`, and watching a descriptor.
//!
//! Invariant: between `fork` and `execve` only async-signal-safe system calls are made, and nothing is
//! allocated.
#![allow(
    unsafe_code,
    reason = "`CommandExt::pre_exec` and `AsyncFd::register` are unsafe functions"
)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use cofferdam_vmm_api::CONTROL_FD;
use tokio::io::unix::AsyncFd;

/// Has every descriptor but the standard streams closed in the programs that this one starts: what a caller left open
/// is none of the monitor's business.
pub(crate) fn keep_descriptors_private() {
    // SAFETY: integers only; descriptors are marked, none is closed. An old kernel refuses, which changes nothing.
    let _ = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
}

/// Has `command`'s process find `fd` at [`CONTROL_FD`], and die with the thread that starts it.
pub(crate) fn prepare_monitor(command: &mut Command, fd: OwnedFd) {
    let prepare = move || {
        let from = fd.as_raw_fd();
        // SAFETY: prctl, dup2 and fcntl are async-signal-safe and touch no memory; the numbers are those
        // of a descriptor that the closure owns and of one that nothing else in this child relies on.
        let result = unsafe {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
                -1
            } else if from == CONTROL_FD {
                libc::fcntl(from, libc::F_SETFD, 0)
            } else {
                libc::dup2(from, CONTROL_FD)
            }
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // SAFETY: the closure only makes the system calls above; `last_os_error` does not allocate.
    unsafe { command.pre_exec(prepare) };
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
