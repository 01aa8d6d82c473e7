//! New processes: `clone3(2)` and `execveat(2)`.
//!
//! Invariant: the agent and its launcher have one thread each (the runtime is tokio's current_thread
//! and nothing uses its blocking pool), so the child of a clone may use the heap.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use super::result;

/// `CLONE_INTO_CGROUP` of `linux/sched.h`.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The result of what never returns.
pub(crate) type Never = std::convert::Infallible;

/// Whose child the new process is.
pub(crate) enum Stage {
    /// The caller's.
    Child,
    /// A sibling of the caller, which is about to end (`CLONE_PARENT`).
    Sibling,
}

/// Starts a copy of this process that runs `child`, in new namespaces and, where one is given, in the
/// control group whose directory `cgroup` is open on. Returns the new process's id.
///
/// # Errors
/// Those of `clone3(2)`.
pub(crate) fn clone_process(
    stage: &Stage,
    namespaces: CloneFlags,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> Never,
) -> nix::Result<Pid> {
    let namespaces = u64::from(namespaces.bits().cast_unsigned());
    // SAFETY: a structure of integers, for which zero is a valid value and, to clone3, the default.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces;
    match stage {
        // clone3 takes no exit signal with CLONE_PARENT: it is the caller's own.
        Stage::Sibling => args.flags |= u64::from(libc::CLONE_PARENT.cast_unsigned()),
        Stage::Child => args.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned()),
    }
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
    }
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of the memory and returns on
    // its own copy of the stack. The process has one thread (module invariant), so that no lock is held.
    let pid = result(unsafe {
        libc::syscall(libc::SYS_clone3, ptr::from_mut(&mut args), size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        child();
    }
    Ok(Pid::from_raw(i32::try_from(pid).unwrap_or(0)))
}

/// Starts a copy of this process that runs `child`. Returns the new process's id.
///
/// By the oldest way there is: filters made for other runtimes refuse `clone3(2)`, which they cannot look into.
///
/// # Errors
/// Those of `clone(2)`.
pub(crate) fn fork_process(child: impl FnOnce() -> Never) -> nix::Result<Pid> {
    // SAFETY: without CLONE_VM this is a fork: see clone_process.
    let pid = result(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) })?;
    if pid == 0 {
        child();
    }
    Ok(Pid::from_raw(i32::try_from(pid).unwrap_or(0)))
}

/// Replaces this process by the program that `program` is open on, or the program at `path` if there is
/// none. Returns only an error.
pub(crate) fn exec_fd(
    program: Option<BorrowedFd<'_>>,
    path: &CStr,
    args: &[CString],
    env: &[CString],
) -> Errno {
    let pointers = |strings: &[CString]| {
        strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>()
    };
    let (args, env) = (pointers(args), pointers(env));
    let (path, args, env) = (path.as_ptr(), args.as_ptr(), env.as_ptr());
    let outcome = match program {
        Some(program) => {
            let (fd, flags) = (program.as_raw_fd(), libc::AT_EMPTY_PATH);
            // SAFETY: the strings outlive the call, and both arrays end with a null pointer.
            unsafe { libc::syscall(libc::SYS_execveat, fd, path, args, env, flags) }
        }
        // Filters made for other runtimes may know `execve` alone.
        // SAFETY: as above.
        None => unsafe { libc::syscall(libc::SYS_execve, path, args, env) },
    };
    result(outcome).err().unwrap_or(Errno::ENOEXEC)
}

/// Ends this process without running anything that the process it was cloned from had registered.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}
