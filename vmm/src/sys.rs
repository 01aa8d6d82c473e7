//! The ioctls that make a tap.
//!
//! Invariant: the kernel gets no address of anything but the argument of its ioctl.
#![allow(unsafe_code, reason = "there is no safe wrapper of these ioctls")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Makes `file`, an open `/dev/net/tun`, a queue of the interface `name`, which is made if there is none:
/// Ethernet frames, each after a header of `header` bytes; one of several queues with `several`.
pub(crate) fn attach_tap(file: &File, name: &str, several: bool, header: i32) -> io::Result<()> {
    /// `TUNSETIFF` and `TUNSETVNETHDRSZ`, `_IOW('T', 202, int)` and `_IOW('T', 216, int)`.
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if several {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    // SAFETY: all bytes zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::Error::other("the name of an interface has 1 to 15 bytes"));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(flags).map_err(io::Error::other)?;
    // SAFETY: the kernel reads and writes one `ifreq` here, and `request` is one.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel reads one integer here, and `header` is one.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETVNETHDRSZ, &raw const header) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
