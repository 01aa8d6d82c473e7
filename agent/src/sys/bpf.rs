//! Filters for the kernel: seccomp (classic BPF) and control group devices (eBPF).
//!
//! Invariant: a program whose length is not that of whole instructions never reaches the kernel.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::result;

/// Bytes of one instruction, of either kind.
const INSTRUCTION: usize = 8;

/// `BPF_PROG_LOAD` and `BPF_PROG_ATTACH` of `linux/bpf.h`.
const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
/// `BPF_PROG_TYPE_CGROUP_DEVICE` of `linux/bpf.h`.
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
/// `BPF_CGROUP_DEVICE` of `linux/bpf.h`.
const CGROUP_DEVICE: u32 = 6;
/// `BPF_F_ALLOW_MULTI` of `linux/bpf.h`: control groups below may have programs of their own.
const ALLOW_MULTI: u32 = 2;

/// The part of `union bpf_attr` that `BPF_PROG_LOAD` needs.
#[repr(C)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that `BPF_PROG_ATTACH` needs.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
}

/// Installs a seccomp filter: `struct sock_filter`s in the plan's bytes.
///
/// # Errors
/// Those of `seccomp(2)`; `EINVAL` for a program that is not made of whole instructions.
pub(crate) fn install_seccomp(program: &[u8], flags: u64) -> nix::Result<()> {
    /// `SECCOMP_SET_MODE_FILTER` of `linux/seccomp.h`.
    const SET_MODE_FILTER: u32 = 1;
    let mut filters = Vec::with_capacity(program.len() / INSTRUCTION);
    for bytes in program.chunks(INSTRUCTION) {
        let &[c0, c1, jt, jf, k0, k1, k2, k3] = bytes else { return Err(Errno::EINVAL) };
        let code = u16::from_ne_bytes([c0, c1]);
        filters.push(libc::sock_filter { code, jt, jf, k: u32::from_ne_bytes([k0, k1, k2, k3]) });
    }
    let length = u16::try_from(filters.len()).map_err(|_| Errno::EINVAL)?;
    let program = libc::sock_fprog { len: length, filter: filters.as_mut_ptr() };
    // SAFETY: `program` and the filters it points to outlive the call; the kernel copies them.
    let outcome =
        unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) };
    result(outcome).map(drop)
}

/// Attaches a device filter (eBPF instructions) to the control group whose directory is open.
///
/// # Errors
/// Those of `bpf(2)`; `EINVAL` for a program that is not made of whole instructions.
pub(crate) fn limit_devices(cgroup: BorrowedFd<'_>, program: &[u8]) -> nix::Result<()> {
    if program.is_empty() || !program.len().is_multiple_of(INSTRUCTION) {
        return Err(Errno::EINVAL);
    }
    // The kernel wants the instructions aligned.
    let words: Vec<u64> = program
        .chunks_exact(INSTRUCTION)
        .map(|bytes| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
        .collect();
    let load = Load {
        program_type: PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(words.len()).map_err(|_| Errno::E2BIG)?,
        instructions: address(words.as_ptr()),
        license: address(c"Apache-2.0".as_ptr()),
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: `load`, the instructions and the licence text outlive the call; the kernel copies them.
    let fd = result(unsafe {
        libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>())
    })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nothing else knows it.
    let loaded = unsafe { OwnedFd::from_raw_fd(fd) };
    let attach = Attach {
        target: cgroup.as_raw_fd().cast_unsigned(),
        program: loaded.as_raw_fd().cast_unsigned(),
        attach_type: CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    // SAFETY: `attach` outlives the call.
    let outcome = unsafe {
        libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const attach, size_of::<Attach>())
    };
    result(outcome).map(drop)
}

/// The address as the kernel takes it in a structure.
fn address<T>(pointer: *const T) -> u64 {
    u64::try_from(pointer.addr()).unwrap_or(0)
}
