//! Attributes of processes: descriptors, signals, `prctl(2)`.
//!
//! Invariant: nothing here keeps state of its own.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;

use super::result;

/// A `prctl` whose arguments are integers.
fn prctl(option: i32, argument: u64) -> nix::Result<()> {
    // SAFETY: the options used in this file take one integer.
    result(unsafe { libc::syscall(libc::SYS_prctl, option, argument, 0, 0, 0) }).map(drop)
}

/// The next child that has ended and is not yet waited for, with its wait status. (nix knows no real-time
/// signals, and would lose the end of a process that one of them killed.)
pub(crate) fn next_ended() -> Option<(Pid, i32)> {
    let mut status = 0;
    // SAFETY: `status` is valid for a write during the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then(|| (Pid::from_raw(pid), status))
}

/// A descriptor of the process `pid`, which must be a child that is not yet waited for.
///
/// # Errors
/// Those of `pidfd_open(2)`.
pub(crate) fn open_pidfd(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: integers only.
    let fd = result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nothing else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends signal number `signal` to the process of `pidfd`.
///
/// # Errors
/// Those of `pidfd_send_signal(2)`.
pub(crate) fn send_signal(pidfd: BorrowedFd<'_>, signal: u32) -> nix::Result<()> {
    // SAFETY: integers and a null pointer, which stands for the siginfo that kill(2) would make.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    result(outcome).map(drop)
}

/// Whether the child of `pidfd` was stopped by a signal and not continued since.
pub(crate) fn is_stopped(pidfd: BorrowedFd<'_>) -> bool {
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    matches!(waitid(Id::PIDFd(pidfd), flags), Ok(WaitStatus::Stopped(..)))
}

/// Makes orphans below this process its children, as they are for PID 1.
///
/// # Errors
/// Those of `prctl(2)`.
pub(crate) fn set_subreaper() -> nix::Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, 1)
}

/// Whether other processes of the same user may look into this one.
///
/// # Errors
/// Those of `prctl(2)`.
pub(crate) fn set_dumpable(dumpable: bool) -> nix::Result<()> {
    prctl(libc::PR_SET_DUMPABLE, u64::from(dumpable))
}

/// Whether the permitted capabilities survive the change to another user id.
///
/// # Errors
/// Those of `prctl(2)`.
pub(crate) fn set_keep_capabilities(keep: bool) -> nix::Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, u64::from(keep))
}

/// No program this process executes gains privileges.
///
/// # Errors
/// Those of `prctl(2)`.
pub(crate) fn no_new_privileges() -> nix::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// Sets the execution domain (`personality(2)`).
///
/// # Errors
/// Those of `personality(2)`.
pub(crate) fn personality(persona: u64) -> nix::Result<()> {
    // SAFETY: integers only.
    result(unsafe { libc::syscall(libc::SYS_personality, persona) }).map(drop)
}

/// Gives this process a session keyring of its own. A kernel without keyrings needs none.
///
/// # Errors
/// Those of `keyctl(2)`.
pub(crate) fn new_session_keyring() -> nix::Result<()> {
    /// `KEYCTL_JOIN_SESSION_KEYRING` of `linux/keyctl.h`.
    const JOIN_SESSION_KEYRING: u32 = 1;
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name makes an anonymous keyring.
    match result(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, anonymous) }) {
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Sets the NIS domain name of this uts namespace.
///
/// # Errors
/// Those of `setdomainname(2)`.
pub(crate) fn set_domainname(name: &str) -> nix::Result<()> {
    // SAFETY: the pointer and length are those of `name`.
    Errno::result(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// Marks every descriptor from `first` on close-on-exec.
///
/// # Errors
/// Those of `close_range(2)`.
pub(crate) fn close_on_exec_from(first: u32) -> nix::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: integers only; nothing is closed now.
    result(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) }).map(drop)
}

/// Closes every descriptor from `first` on but the two of `kept`. This is for a process that executes another
/// program next and uses no other descriptor that it owned before.
///
/// # Errors
/// Those of `close_range(2)`.
pub(crate) fn close_others(first: u32, kept: [BorrowedFd<'_>; 2]) -> nix::Result<()> {
    let mut kept = kept.map(|fd| fd.as_raw_fd().cast_unsigned());
    kept.sort_unstable();
    let mut from = first;
    for last in kept.map(|fd| fd.checked_sub(1)).into_iter().chain([Some(u32::MAX)]).flatten() {
        if from <= last {
            // SAFETY: integers only; by the contract above, nothing uses what is closed.
            result(unsafe { libc::syscall(libc::SYS_close_range, from, last, 0) })?;
        }
        from = from.max(last.saturating_add(2));
    }
    Ok(())
}

/// Makes `fds` the descriptors 0, 1, 2 and so on, without close-on-exec. What was there is closed, so
/// this is for a process that executes another program next.
///
/// # Errors
/// Those of `dup(2)`.
pub(crate) fn install_fds(fds: &[BorrowedFd<'_>]) -> nix::Result<()> {
    let count = i32::try_from(fds.len()).map_err(|_| Errno::EINVAL)?;
    // Copies above all targets first: a source may be a target too.
    let mut copies = Vec::with_capacity(fds.len());
    for fd in fds {
        // SAFETY: integers only.
        copies.push(Errno::result(unsafe {
            libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, count)
        })?);
    }
    for (target, copy) in (0..count).zip(copies) {
        // SAFETY: the targets are this process's standard descriptors and those right after them. The
        // caller executes another program next and uses no descriptor that it owned before.
        Errno::result(unsafe { libc::dup2(copy, target) })?;
    }
    Ok(())
}

/// Every signal gets its default disposition and none is blocked.
///
/// # Errors
/// Those of `sigprocmask(2)`.
pub(crate) fn default_signals() -> nix::Result<()> {
    /// The kernel's `struct sigaction`: the C library keeps some signals to itself.
    #[repr(C)]
    struct Action {
        handler: usize,
        flags: u64,
        restorer: usize,
        mask: u64,
    }
    let default = Action { handler: libc::SIG_DFL, flags: 0, restorer: 0, mask: 0 };
    let old = std::ptr::null_mut::<Action>();
    for signal in 1..=64 {
        // SAFETY: `default` outlives the call, and the default disposition runs no code of ours. That of
        // SIGKILL and SIGSTOP cannot be set, which is fine.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, old, size_of::<u64>())
        };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// Has this process end, with 128 and the number of the signal, by each signal that ends a program by default: the
/// kernel spares the first process of a pid namespace unless it has a handler. Not by SIGPIPE: a write that fails says
/// so. Where a filter does not allow it, it stays as it is.
pub(crate) fn end_on_signals() {
    /// Those that do not.
    const OTHERS: [libc::c_int; 10] = [
        libc::SIGKILL,
        libc::SIGPIPE,
        libc::SIGCHLD,
        libc::SIGCONT,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGURG,
        libc::SIGWINCH,
    ];
    extern "C" fn end(signal: libc::c_int) {
        super::exit_now(signal.saturating_add(128));
    }
    // SAFETY: zero is a valid value of each of its fields: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = end;
    action.sa_sigaction = handler as libc::sighandler_t;
    for signal in (1..=64).filter(|signal| !OTHERS.contains(signal)) {
        // SAFETY: `action` outlives the call. The handler makes one system call, which is async-signal-safe, and does
        // not return.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}

/// Does nothing but to let the kernel reap every child that ends.
pub(crate) fn reap_for_ever() -> ! {
    // SAFETY: the disposition runs no code of ours.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    loop {
        // SAFETY: it waits for a signal, and has no arguments.
        unsafe { libc::pause() };
    }
}

/// Takes over a descriptor that the kernel has just put into this process: one received over a socket,
/// or one of the launcher's fixed ones when it begins.
pub(crate) fn adopt(fd: RawFd) -> OwnedFd {
    // SAFETY: by the contract above, nothing else in this process owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// `fd`, watched by the runtime.
///
/// # Errors
/// Those of `epoll_ctl(2)`.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is the same open descriptor as long as it lives.
    unsafe { AsyncFd::register(fd) }.map_err(Into::into)
}

/// `fd` under a number that [`install_fds`] does not overwrite.
///
/// # Errors
/// Those of `dup(2)`.
pub(crate) fn out_of_the_way(fd: &impl AsRawFd) -> nix::Result<OwnedFd> {
    /// Above all descriptors that a launcher is given.
    const LOWEST: i32 = 16;
    // SAFETY: integers only.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, LOWEST) };
    Errno::result(copy).map(adopt)
}
