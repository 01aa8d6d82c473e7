//! What the supervisor left open in this process.
//!
//! Invariant: taken over once, before anything else could have opened the descriptor.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use cofferdam_vmm_api::{CONTROL_FD, Channel};
use nix::sys::socket::{SockType, getsockopt, sockopt};

/// The control socket.
pub(crate) fn control_channel() -> io::Result<Channel> {
    // SAFETY: called once, first thing in `main`: nobody else owns the descriptor. Should it not be open,
    // the check below fails, and closing it again has no effect.
    let socket = unsafe { OwnedFd::from_raw_fd(CONTROL_FD) };
    match getsockopt(&socket, sockopt::SockType) {
        Ok(SockType::SeqPacket) => Ok(Channel::new(socket)),
        Ok(_) => Err(io::Error::other("it is a socket of another kind")),
        Err(errno) => {
            // Not ours to close: it is no socket, or not open at all.
            std::mem::forget(socket);
            Err(errno.into())
        }
    }
}
