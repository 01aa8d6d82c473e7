//! Sockets that carry whole messages with descriptors, watched by the runtime.
//!
//! Invariant: no call here blocks the thread.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use cofferdam_vmm_api::{Channel, ChannelError, Message};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, accept_with, bind, connect, listen, sendmsg, socket_with,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::unix::AsyncFd;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Sends the descriptor `fd`, called `name`, to whoever listens at the socket `path`, as runc does.
///
/// # Errors
/// The failure of a system call.
pub(crate) fn hand_over(path: &Path, name: &[u8], fd: BorrowedFd<'_>) -> io::Result<()> {
    let socket = UnixStream::connect(path)?;
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(&socket, &[IoSlice::new(name)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// A connected socket, watched by a descriptor of its own.
#[derive(Debug)]
pub(crate) struct Socket {
    channel: Channel,
    watch: AsyncFd<OwnedFd>,
}

impl Socket {
    /// Watches `channel`. Must be called within a runtime.
    ///
    /// # Errors
    /// The failure of a system call.
    pub(crate) fn new(channel: Channel) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&channel)?;
        rustix::fs::fcntl_setfl(&channel, flags | rustix::fs::OFlags::NONBLOCK)?;
        let watch = crate::sys::watch(channel.as_fd().try_clone_to_owned()?)?;
        Ok(Self { channel, watch })
    }

    /// Connects to the socket called `name` in `directory`.
    ///
    /// # Errors
    /// The failure of a system call: `NotFound` and `ConnectionRefused` if nobody listens.
    pub(crate) fn connect(directory: &Path, name: &str) -> io::Result<Self> {
        let directory = open_directory(directory)?;
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        connect(&socket, &address(&directory, name)?)?;
        Self::new(Channel::new(socket))
    }

    /// The socket itself, for calls that do not wait.
    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Sends a message with `fds`.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub(crate) async fn send<T: Serialize>(
        &self,
        body: &T,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        loop {
            match self.channel.send(body, fds) {
                Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.watch.writable().await?.clear_ready();
                }
                result => return result,
            }
        }
    }

    /// The next message. May be cancelled.
    ///
    /// # Errors
    /// As [`Channel::receive`].
    pub(crate) async fn receive<T: DeserializeOwned>(&self) -> Result<Message<T>, ChannelError> {
        self.ready(Channel::receive::<T>).await
    }

    /// Retries `receive` until the socket has something for it. May be cancelled.
    pub(crate) async fn ready<T>(
        &self,
        mut receive: impl FnMut(&Channel) -> Result<T, ChannelError>,
    ) -> Result<T, ChannelError> {
        loop {
            let mut guard = self.watch.readable().await?;
            match receive(&self.channel) {
                Err(ChannelError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    guard.clear_ready();
                }
                result => return result,
            }
        }
    }
}

/// A socket that others connect to by its name.
#[derive(Debug)]
pub(crate) struct Listener {
    watch: AsyncFd<OwnedFd>,
}

impl Listener {
    /// Listens as `name` in `directory`; one that was left there is replaced. Must be called within a runtime.
    ///
    /// # Errors
    /// The failure of a system call.
    pub(crate) fn new(directory: &Path, name: &str) -> io::Result<Self> {
        match std::fs::remove_file(directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let directory = open_directory(directory)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&socket, &address(&directory, name)?)?;
        listen(&socket, BACKLOG)?;
        Ok(Self { watch: crate::sys::watch(socket)? })
    }

    /// The next connection. May be cancelled.
    ///
    /// # Errors
    /// The failure of a system call.
    pub(crate) async fn accept(&self) -> io::Result<Socket> {
        loop {
            let mut guard = self.watch.readable().await?;
            match accept_with(self.watch.get_ref(), SocketFlags::CLOEXEC) {
                Ok(socket) => return Socket::new(Channel::new(socket)),
                Err(error) if error == rustix::io::Errno::AGAIN => guard.clear_ready(),
                Err(error) if error == rustix::io::Errno::INTR => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Addresses hold 108 bytes, paths more: the directory is named by its descriptor.
fn address(directory: &OwnedFd, name: &str) -> io::Result<SocketAddrUnix> {
    use std::os::fd::AsRawFd;
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))?)
}

#[cfg(test)]
#[path = "socket_test.rs"]
mod socket_test;
