//! The socket on which connections are handed over between the device and the host's supervisor.
//!
//! It is a `SOCK_SEQPACKET` Unix socket. One message is one connection: the guest's or host's port that
//! it goes to (`u32`, little-endian) with the descriptor of a connected stream socket attached.
//!
//! Invariant: no call blocks, and a message of another form costs only its own descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

/// What came in.
#[derive(Debug)]
pub(super) enum Arrival {
    /// The host wants to be connected with this port of the guest.
    Connection(u32, OwnedFd),
    /// A message that is none.
    Malformed,
    /// Nothing at the moment.
    Nothing,
    /// The other side is gone.
    Closed,
}

/// The socket; clones are the same socket.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    socket: Arc<OwnedFd>,
}

impl Backend {
    /// Takes over the socket.
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket: Arc::new(socket) }
    }

    /// The socket's number, for epoll.
    pub(super) fn raw(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// The two ends of a new connection, both non-blocking.
    ///
    /// # Errors
    /// If there are no more descriptors.
    pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
    }

    /// Offers the host a connection to its `port`; false if the socket is full at the moment.
    ///
    /// # Errors
    /// The host takes no connections any more.
    pub(super) fn offer(&self, port: u32, end: BorrowedFd<'_>) -> io::Result<bool> {
        let bytes = port.to_le_bytes();
        let fds = [end];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            match sendmsg(self.socket.as_fd(), &[IoSlice::new(&bytes)], &mut control, flags) {
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Takes the next connection that the host offers.
    pub(super) fn take(&self) -> Arrival {
        let mut bytes = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = loop {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            match recvmsg(self.socket.as_fd(), &mut slices, &mut control, flags) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Arrival::Nothing,
                Err(_) => return Arrival::Closed,
            }
        };
        let mut fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fd = fds.next().and_then(|mut fds| fds.next());
        let whole = !received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        match fd {
            Some(fd) if whole && received.bytes == bytes.len() => {
                Arrival::Connection(u32::from_le_bytes(bytes), fd)
            }
            None if received.bytes == 0 && whole => Arrival::Closed,
            _ => Arrival::Malformed,
        }
    }
}

#[cfg(test)]
#[path = "backend_test.rs"]
mod backend_test;
