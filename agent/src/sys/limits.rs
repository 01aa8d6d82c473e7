//! Limits and priorities of another process.
//!
//! Invariant: values are passed as the plan has them; the kernel judges them.

use cofferdam_agent_protocol::{IoPriority, Rlimit, Scheduler};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::result;

/// `struct sched_attr` of `linux/sched/types.h`, first version.
#[repr(C)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets a resource limit of `pid`.
///
/// # Errors
/// Those of `prlimit(2)`.
pub(crate) fn set_rlimit(pid: Pid, limit: &Rlimit) -> nix::Result<()> {
    let new = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
    let old = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: `new` outlives the call; the old limit is not wanted.
    let outcome = unsafe {
        libc::syscall(libc::SYS_prlimit64, pid.as_raw(), limit.resource, &raw const new, old)
    };
    result(outcome).map(drop)
}

/// Sets the scheduling policy of `pid`.
///
/// # Errors
/// Those of `sched_setattr(2)`.
pub(crate) fn set_scheduler(pid: Pid, scheduler: &Scheduler) -> nix::Result<()> {
    let attr = SchedAttr {
        size: u32::try_from(size_of::<SchedAttr>()).map_err(|_| Errno::EINVAL)?,
        policy: scheduler.policy,
        flags: scheduler.flags,
        nice: scheduler.nice,
        priority: scheduler.priority,
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    };
    // SAFETY: `attr` outlives the call and holds its own size.
    let outcome =
        unsafe { libc::syscall(libc::SYS_sched_setattr, pid.as_raw(), &raw const attr, 0) };
    result(outcome).map(drop)
}

/// Most CPUs of a machine that an affinity can name: what the C library's set holds.
const MAX_CPUS: u32 = 1024;

/// Lets `pid` run on `cpus` only; on all if there are none.
///
/// # Errors
/// Those of `sched_setaffinity(2)`; `EINVAL` for a CPU that no machine has.
pub(crate) fn set_affinity(pid: Pid, cpus: &[u32]) -> nix::Result<()> {
    let mut mask = [if cpus.is_empty() { u64::MAX } else { 0 }; 16];
    for cpu in cpus {
        if *cpu >= MAX_CPUS {
            return Err(Errno::EINVAL);
        }
        let word = usize::try_from(cpu / 64).map_err(|_| Errno::EINVAL)?;
        *mask.get_mut(word).ok_or(Errno::EINVAL)? |= 1 << (cpu % 64);
    }
    // SAFETY: the size is that of `mask`, which outlives the call.
    let outcome = unsafe {
        libc::syscall(libc::SYS_sched_setaffinity, pid.as_raw(), size_of_val(&mask), mask.as_ptr())
    };
    result(outcome).map(drop)
}

/// Sets the I/O priority of `pid`.
///
/// # Errors
/// Those of `ioprio_set(2)`; `EINVAL` for a class or level that does not exist.
pub(crate) fn set_io_priority(pid: Pid, priority: &IoPriority) -> nix::Result<()> {
    /// `IOPRIO_WHO_PROCESS` of `linux/ioprio.h`.
    const WHO_PROCESS: u32 = 1;
    /// `IOPRIO_CLASS_SHIFT` of `linux/ioprio.h`.
    const CLASS_SHIFT: u32 = 13;
    if priority.class > 3 || priority.level > 7 {
        return Err(Errno::EINVAL);
    }
    let value = priority.class << CLASS_SHIFT | priority.level;
    // SAFETY: integers only.
    result(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, pid.as_raw(), value) })
        .map(drop)
}
