//! Taps for network cards that are plugged in.
//!
//! Invariant: a tap is gone with its last descriptor.
#![allow(unsafe_code, reason = "there is no safe wrapper of the ioctls that make a tap")]

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result, ensure};
use nix::libc;

/// Bytes of the header before each frame: `virtio_net_hdr` of a modern device.
const HEADER: libc::c_int = 12;

/// `TUNSETIFF` and `TUNSETVNETHDRSZ` (uapi/linux/if_tun.h).
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;

/// Makes the tap `name`, with one queue, as the monitor wants it.
pub(crate) fn make(name: &str) -> Result<OwnedFd> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
    let file = options.open("/dev/net/tun").context("opening /dev/net/tun")?;
    // SAFETY: all bytes zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    ensure!(name.len() < request.ifr_name.len(), "{name}: too long a name");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR)?;
    // SAFETY: the kernel reads and writes one `ifreq` here, and `request` is one.
    let made = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) };
    ensure!(made == 0, "making the tap {name}: {}", io::Error::last_os_error());
    let header = HEADER;
    // SAFETY: the kernel reads one integer here, and `header` is one.
    let set = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETVNETHDRSZ, &raw const header) };
    ensure!(set == 0, "setting up the tap {name}: {}", io::Error::last_os_error());
    Ok(file.into())
}
