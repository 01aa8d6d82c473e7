//! Capabilities (`capabilities(7)`) of this process.
//!
//! Invariant: capabilities that the kernel does not know are left out, never passed to it.

use cofferdam_agent_protocol::Capabilities;

use super::result;

/// `_LINUX_CAPABILITY_VERSION_3`.
const VERSION_3: u32 = 0x2008_0522;

/// The capabilities the running kernel knows, bit N for capability N.
#[derive(Clone, Copy)]
pub(crate) struct KernelCapabilities(u64);

/// `struct __user_cap_header_struct` of `linux/capability.h`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct` of `linux/capability.h`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

impl KernelCapabilities {
    /// Those of `wanted` that exist.
    fn known(self, wanted: u64) -> u64 {
        self.0 & wanted
    }
}

/// A `prctl` whose arguments are all integers.
fn prctl(option: i32, argument: u64, extra: u64) -> nix::Result<libc::c_long> {
    // SAFETY: the options used in this file take integers only.
    result(unsafe { libc::syscall(libc::SYS_prctl, option, argument, extra, 0, 0) })
}

/// Asks the kernel which capabilities there are.
pub(crate) fn supported_capabilities() -> KernelCapabilities {
    let exists = |n: &u64| prctl(libc::PR_CAPBSET_READ, *n, 0).is_ok();
    KernelCapabilities((0..64).take_while(exists).fold(0, |set, n| set | 1 << n))
}

/// Removes from the bounding set all that `keep` lacks.
///
/// # Errors
/// Those of `prctl(2)`; it needs `CAP_SETPCAP`.
pub(crate) fn drop_bounding(kernel: KernelCapabilities, keep: u64) -> nix::Result<()> {
    for n in (0..64).filter(|n| kernel.known(1 << n) != 0 && keep >> n & 1 == 0) {
        if prctl(libc::PR_CAPBSET_READ, n, 0)? == 1 {
            prctl(libc::PR_CAPBSET_DROP, n, 0)?;
        }
    }
    Ok(())
}

/// Sets the effective, permitted and inheritable sets.
///
/// # Errors
/// Those of `capset(2)`.
pub(crate) fn set_capabilities(kernel: KernelCapabilities, sets: &Capabilities) -> nix::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |set: u64, shift: u32| u32::try_from(kernel.known(set) >> shift & 0xffff_ffff);
    let data = [0, 32].map(|shift| Data {
        effective: half(sets.effective, shift).unwrap_or(0),
        permitted: half(sets.permitted, shift).unwrap_or(0),
        inheritable: half(sets.inheritable, shift).unwrap_or(0),
    });
    // SAFETY: version 3 takes one header and two data structures, which outlive the call.
    result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Empties the inheritable set, and leaves the others.
///
/// # Errors
/// Those of `capget(2)` and `capset(2)`.
pub(crate) fn clear_inheritable() -> nix::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: version 3 takes one header and two data structures, which are valid for writes during the call.
    result(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    for half in &mut data {
        half.inheritable = 0;
    }
    // SAFETY: as above; they are only read.
    result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

/// Empties the ambient set.
///
/// # Errors
/// Those of `prctl(2)`.
pub(crate) fn clear_ambient() -> nix::Result<()> {
    let operation = u64::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.cast_unsigned());
    prctl(libc::PR_CAP_AMBIENT, operation, 0).map(drop)
}

/// Puts each capability of `wanted` that is both permitted and inheritable into the ambient set. The
/// others are left out, as runc does, because the kernel would refuse them.
///
/// # Errors
/// Those of `prctl(2)`.
pub(crate) fn raise_ambient(kernel: KernelCapabilities, sets: &Capabilities) -> nix::Result<()> {
    let allowed = kernel.known(sets.ambient) & sets.permitted & sets.inheritable;
    let operation = u64::from(libc::PR_CAP_AMBIENT_RAISE.cast_unsigned());
    for n in (0..64).filter(|n| allowed >> n & 1 == 1) {
        prctl(libc::PR_CAP_AMBIENT, operation, n)?;
    }
    Ok(())
}
