//! The socket between the agent and one launcher: whole messages, and the terminal's descriptor.
//!
//! ```text
//! launcher -> agent   Sibling(pid)      the first stage made the process and ends
//!                     Terminal + fd     the agent's side of the terminal
//!                     Made              all devices are made; hooks come next
//!                     Ready             all is set up; the next step is execve
//!                     Failed            and the launcher ends
//! agent -> launcher   Known             the agent knows the process, and its id maps are written; or,
//!                                       after Made, its devices are limited
//!                     Go                execve
//! ```
//!
//! Invariant: the socket closes by itself in `execve`, so its end after `Go` is success. A message is
//! at most [`MAX_MESSAGE`] bytes.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use cofferdam_agent_protocol::ErrorKind;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    recvmsg, sendmsg, socketpair,
};

use crate::error::Failure;
use crate::sys;

/// Largest message.
const MAX_MESSAGE: usize = 8192;

/// One message.
#[derive(Debug)]
pub(crate) enum Message {
    /// The process that continues, as a sibling of the sender.
    Sibling(i32),
    /// The agent's side of the terminal.
    Terminal(OwnedFd),
    /// All devices are made; the container's hooks come next.
    Made,
    /// Set up to the point before `execve`.
    Ready,
    /// It failed.
    Failed(Failure),
    /// The agent knows the process, and its id maps are written; or its devices are limited.
    Known,
    /// Let the program run.
    Go,
}

/// A connected pair: the agent's end and the launcher's.
///
/// # Errors
/// Those of `socketpair(2)` and `dup(2)`.
pub(crate) fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let (agent, launcher) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    // The launcher reports with it that its descriptors could not be arranged.
    Ok((agent, sys::out_of_the_way(&launcher)?))
}

/// Sends `message`.
///
/// # Errors
/// Those of `sendmsg(2)`.
pub(crate) fn send(socket: BorrowedFd<'_>, message: &Message) -> nix::Result<()> {
    let mut bytes = Vec::new();
    let mut fd = Vec::new();
    match message {
        Message::Sibling(pid) => {
            bytes.push(b'S');
            bytes.extend_from_slice(&pid.to_ne_bytes());
        }
        Message::Terminal(terminal) => {
            bytes.push(b'T');
            fd.push(terminal.as_raw_fd());
        }
        Message::Made => bytes.push(b'M'),
        Message::Ready => bytes.push(b'R'),
        Message::Failed(failure) => {
            bytes.push(b'F');
            bytes.extend_from_slice(&i32::from(failure.kind).to_ne_bytes());
            bytes.extend_from_slice(failure.message.as_bytes());
        }
        Message::Known => bytes.push(b'K'),
        Message::Go => bytes.push(b'G'),
    }
    if fd.is_empty() {
        // A plain write: the container's seccomp filter may be in force already.
        return nix::unistd::write(socket, &bytes).map(drop);
    }
    let rights = [ControlMessage::ScmRights(&fd)];
    let data = [IoSlice::new(&bytes)];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &data, &rights, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

/// Receives a message, or `None` when the other end is closed.
///
/// # Errors
/// Those of `recvmsg(2)`, and `EBADMSG`.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> nix::Result<Option<Message>> {
    let mut bytes = [0; MAX_MESSAGE];
    let mut space = cmsg_space!([i32; 1]);
    let (length, fds) = {
        let mut data = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut data, Some(&mut space), flags)?;
        let mut fds = Vec::new();
        for control in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(passed) = control {
                fds.extend(passed.into_iter().map(sys::adopt));
            }
        }
        (received.bytes, fds)
    };
    match bytes.get(..length) {
        Some([]) => Ok(None),
        Some(message) => parse(message, fds).map(Some).ok_or(Errno::EBADMSG),
        None => Err(Errno::EBADMSG),
    }
}

/// As [`receive`], with plain reads, for the launcher: it gets no descriptors, and the container's
/// seccomp filter may be in force already.
///
/// # Errors
/// Those of `read(2)`, and `EBADMSG`.
pub(crate) fn read(socket: BorrowedFd<'_>) -> nix::Result<Option<Message>> {
    let mut bytes = [0; 64];
    let length = loop {
        match nix::unistd::read(socket, &mut bytes) {
            Err(Errno::EINTR) => {}
            outcome => break outcome?,
        }
    };
    match bytes.get(..length) {
        Some([]) => Ok(None),
        Some(message) => parse(message, Vec::new()).map(Some).ok_or(Errno::EBADMSG),
        None => Err(Errno::EBADMSG),
    }
}

/// The message that `bytes` are.
fn parse(bytes: &[u8], fds: Vec<OwnedFd>) -> Option<Message> {
    let number = |bytes: &[u8]| Some(i32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?));
    let (tag, rest) = bytes.split_first()?;
    match tag {
        b'S' => Some(Message::Sibling(number(rest)?)),
        b'T' => Some(Message::Terminal(fds.into_iter().next()?)),
        b'M' => Some(Message::Made),
        b'R' => Some(Message::Ready),
        b'F' => {
            let kind = ErrorKind::try_from(number(rest)?).unwrap_or(ErrorKind::Other);
            let message = String::from_utf8_lossy(rest.get(4..)?);
            Some(Message::Failed(Failure::new(kind, message)))
        }
        b'K' => Some(Message::Known),
        b'G' => Some(Message::Go),
        _ => None,
    }
}

#[cfg(test)]
#[path = "channel_test.rs"]
mod channel_test;
