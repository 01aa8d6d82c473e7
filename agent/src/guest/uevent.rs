//! The kernel's notices of devices that came or went (`NETLINK_KOBJECT_UEVENT`).
//!
//! Invariant: only tells that something happened, and is never silent about it: when notices are lost, that is
//! told, too.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket,
};
use tokio::io::unix::AsyncFd;

use crate::sys;

/// The group that the kernel speaks to; another is that of udev.
const KERNEL: u32 = 1;

/// An ear for notices.
pub(crate) struct Uevents(AsyncFd<OwnedFd>);

impl Uevents {
    /// Listens from now on.
    ///
    /// # Errors
    /// Those of `socket(2)` and `bind(2)`.
    pub(crate) fn listen() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self(sys::watch(socket)?))
    }

    /// Waits for a notice.
    pub(crate) async fn next(&self) {
        let Ok(mut ready) = self.0.readable().await else {
            return std::future::pending().await;
        };
        // What they say does not matter; a read that fails, for lost notices, counts as one.
        let mut notice = [0; 4096];
        while nix::unistd::read(self.0.as_fd(), &mut notice).is_ok() {}
        ready.clear_ready();
    }
}
