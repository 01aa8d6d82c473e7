//! One message with its file descriptors over a `SOCK_SEQPACKET` Unix socket.
//!
//! Invariant: a message is at most [`MAX_MESSAGE`] bytes and [`MAX_FDS`] descriptors; a truncated one is
//! an error, and its descriptors are closed.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::{Serialize, de::DeserializeOwned};

/// Longest message in bytes.
pub const MAX_MESSAGE: usize = 64 << 10;

/// Most descriptors of one message.
pub const MAX_FDS: usize = 64;

/// A control socket that fails.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other side closed it.
    #[error("the other side of the control socket is gone")]
    Closed,
    /// The kernel refused.
    #[error("control socket")]
    Io(#[from] io::Error),
    /// The message is longer or has more descriptors than allowed.
    #[error("control message over {MAX_MESSAGE} bytes or {MAX_FDS} descriptors")]
    TooLong,
    /// The message is not what was expected.
    #[error("malformed control message")]
    Malformed(#[from] serde_json::Error),
}

/// A message and the descriptors that came with it.
#[derive(Debug)]
pub struct Message<T> {
    /// What it says.
    pub body: T,
    /// What came attached, in order.
    pub fds: Vec<OwnedFd>,
}

/// One end of a control socket.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// Two connected ends, closed on `execve`.
    ///
    /// # Errors
    /// The failure of `socketpair(2)`.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC;
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::new(a), Self::new(b)))
    }

    /// The end of a connected `SOCK_SEQPACKET` socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Sends `body` with `fds` attached.
    ///
    /// # Errors
    /// [`ChannelError`]; a non-blocking socket that is full gives `WouldBlock`.
    pub fn send<T: Serialize>(&self, body: &T, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let bytes = serde_json::to_vec(body)?;
        self.send_bytes(&bytes, fds)
    }

    /// Receives one message; waits for it if the socket is blocking.
    ///
    /// # Errors
    /// [`ChannelError`]; a non-blocking socket that is empty gives `WouldBlock`.
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Message<T>, ChannelError> {
        let mut buffer = vec![0; MAX_MESSAGE];
        let (length, fds) = self.receive_bytes(&mut buffer)?;
        let body = serde_json::from_slice(&buffer[..length])?;
        Ok(Message { body, fds })
    }

    /// Sends raw bytes with `fds` attached.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn send_bytes(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        if bytes.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
            return Err(ChannelError::TooLong);
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(ChannelError::TooLong);
        }
        let slices = [IoSlice::new(bytes)];
        loop {
            match sendmsg(&self.socket, &slices, &mut control, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ChannelError::Closed),
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        }
    }

    /// Receives raw bytes into `buffer`; returns how many, and the descriptors.
    ///
    /// # Errors
    /// As [`Channel::receive`].
    pub fn receive_bytes(&self, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), ChannelError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(buffer)];
        let received = loop {
            match recvmsg(&self.socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => break received,
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Err(ChannelError::Closed),
                Err(errno) => return Err(io::Error::from(errno).into()),
            }
        };
        let fds: Vec<OwnedFd> = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(fds) => Some(fds),
                _ => None,
            })
            .flatten()
            .collect();
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(ChannelError::TooLong);
        }
        if received.bytes == 0 && fds.is_empty() {
            return Err(ChannelError::Closed);
        }
        Ok((received.bytes, fds))
    }

    /// The socket itself.
    #[must_use]
    pub fn into_inner(self) -> OwnedFd {
        self.socket
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
#[path = "channel_test.rs"]
mod channel_test;
