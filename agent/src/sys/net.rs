//! The loopback interface.
//!
//! Invariant: only the flags of `lo` are touched.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Brings `lo` of this network namespace up.
///
/// # Errors
/// Those of `netdevice(7)`'s ioctls.
pub(crate) fn loopback_up() -> nix::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: a structure of integers and a union of them, for which zero is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    let up = libc::IFF_UP | libc::IFF_RUNNING;
    request.ifr_ifru.ifru_flags = i16::try_from(up).map_err(|_| Errno::EINVAL)?;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    let outcome =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    Errno::result(outcome).map(drop)
}
