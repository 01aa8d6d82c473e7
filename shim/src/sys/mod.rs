//! What needs `unsafe`: descriptors by number, watching one, preparing a new process before its `execve`, and dying by a
//! signal.
//!
//! Invariant: no descriptor is closed or taken over by its number; between `fork` and `execve` only
//! async-signal-safe system calls are made, and nothing is allocated.
#![allow(
    unsafe_code,
    reason = "`close_range` has no safe wrapper; `AsyncFd::register` and `CommandExt::pre_exec` are unsafe functions"
)]

pub(crate) mod lookup;

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use std::os::fd::AsRawFd;

use tokio::io::unix::AsyncFd;

use crate::proxy::Network;

/// Has every descriptor but the standard streams closed in the programs that this one starts: what a caller left open
/// is none of the monitor's business.
pub(crate) fn keep_descriptors_private() {
    // SAFETY: integers only; descriptors are marked, none is closed. An old kernel refuses, which changes nothing.
    let _ = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
}

/// Lets this process, and what it starts, run on every CPU that its control group allows, whatever affinity its caller
/// has: a pod is not its caller's (runc does the same).
pub(crate) fn use_every_cpu() {
    let mut all = rustix::thread::CpuSet::new();
    (0..rustix::thread::CpuSet::MAX_CPU).for_each(|cpu| all.set(cpu));
    // Where it is forbidden, it stays as it is.
    let _ = rustix::thread::sched_setaffinity(None, &all);
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

/// Makes `command`'s process the leader of a session of its own, with its standard output as the terminal of that
/// session if `terminal`, in the network namespace `network`.
pub(crate) fn begin_session(command: &mut Command, terminal: bool, network: Network) {
    let prepare = move || {
        let done = |result: libc::c_int| match result {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        };
        // SAFETY: setsid is async-signal-safe and touches no memory.
        done(unsafe { libc::setsid() })?;
        if terminal {
            // SAFETY: this request takes an integer; it touches no memory.
            done(unsafe { libc::ioctl(1, libc::TIOCSCTTY, 0) })?;
        }
        let mut signals = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // None is lost before the program takes them.
        // SAFETY: the set is written before it is read.
        unsafe { libc::sigfillset(signals.as_mut_ptr()) };
        // SAFETY: the set was initialised above; the call is async-signal-safe.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, signals.as_ptr(), std::ptr::null_mut()) };
        match &network {
            Network::Same => Ok(()),
            // SAFETY: the system call touches no memory; the new process has one thread.
            Network::New => done(unsafe { libc::unshare(libc::CLONE_NEWNET) }),
            Network::Existing(fd) => {
                // SAFETY: as above; the descriptor is open, the closure owns it.
                done(unsafe { libc::setns(fd.as_raw_fd(), libc::CLONE_NEWNET) })
            }
        }
    };
    // SAFETY: the closure only makes the system calls above, and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// Raises `signal` with its default action, without a core file. Returns if that does not end the program.
pub(crate) fn raise_by_default(signal: i32) {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is read only.
    unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) };
    // SAFETY: no handler of ours is replaced: the caller ends with this.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    let mut signals = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is written before it is read.
    unsafe { libc::sigemptyset(signals.as_mut_ptr()) };
    // SAFETY: the set was initialised above.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, signals.as_ptr(), std::ptr::null_mut()) };
    // SAFETY: an integer.
    unsafe { libc::raise(signal) };
}

/// Sets attributes (`MOUNT_ATTR_*`) and, unless it is 0, the propagation (`MS_*`) of the mount that `tree` is open on,
/// and of all below it if `deep`.
pub(crate) fn set_mount(
    tree: BorrowedFd<'_>,
    deep: bool,
    attributes: u64,
    propagation: u64,
) -> io::Result<()> {
    let change = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if deep { libc::AT_RECURSIVE } else { 0 };
    let (fd, path, size) = (tree.as_raw_fd(), c"".as_ptr(), size_of::<libc::mount_attr>());
    // SAFETY: the kernel reads the text and the structure, which both outlive the call.
    match unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, path, flags, &raw const change, size)
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the runtime watch `fd`.
pub(crate) fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor, always the same, until it is dropped.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Gives `command`'s process `fds` as descriptors 3 and up.
pub(crate) fn pass_descriptors<const N: usize>(
    command: &mut Command,
    fds: [OwnedFd; N],
) -> io::Result<()> {
    const FIRST: libc::c_int = 3;
    let first_free = FIRST + libc::c_int::try_from(N).map_err(io::Error::other)?;
    // Out of the way of the numbers that they get.
    let mut moved = Vec::with_capacity(N);
    for fd in &fds {
        moved.push(rustix::io::fcntl_dupfd_cloexec(fd, first_free)?);
    }
    drop(fds);
    let prepare = move || {
        for (fd, number) in moved.iter().zip(FIRST..) {
            // SAFETY: dup2 is async-signal-safe; what was open as `number` belongs to nobody in the new process.
            if unsafe { libc::dup2(fd.as_raw_fd(), number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure only makes the system call above, and allocates nothing.
    unsafe { command.pre_exec(prepare) };
    Ok(())
}
