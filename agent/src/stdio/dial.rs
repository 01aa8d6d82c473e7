//! Connections to the host.
//!
//! Invariant: connecting never blocks the agent.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use cofferdam_agent_protocol::{STDIO_PORT, StreamToken};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrIn6, SockaddrLike, UnixAddr, VsockAddr,
    connect, socket,
};

use super::stream::Stream;

/// The host's context id (`vsock(7)`).
const HOST: u32 = libc::VMADDR_CID_HOST;

/// How the host is reached.
#[derive(Clone, Debug)]
pub(crate) enum Dialer {
    /// From a guest.
    Vsock,
    /// By Unix sockets in a directory, named by the port: the agent outside of a guest, under test.
    Unix(PathBuf),
}

impl Dialer {
    /// Connects to `port` of the host.
    ///
    /// # Errors
    /// Those of `connect(2)`.
    pub(crate) async fn dial(&self, port: u32) -> io::Result<Stream> {
        match self {
            Self::Vsock => open(AddressFamily::Vsock, &VsockAddr::new(HOST, port)).await,
            Self::Unix(directory) => {
                let address = UnixAddr::new(&directory.join(port.to_string()))?;
                open(AddressFamily::Unix, &address).await
            }
        }
    }

    /// Connects the stream that the host knows by `token`.
    ///
    /// # Errors
    /// As [`Self::dial`], and those of `write(2)`.
    pub(super) async fn stream(&self, token: StreamToken) -> io::Result<Stream> {
        let stream = self.dial(STDIO_PORT).await?;
        stream.write_all(&token.to_le_bytes()).await?;
        Ok(stream)
    }
}

/// Connects to the TCP port `port` of the loopback interface.
///
/// # Errors
/// Those of `connect(2)`.
pub(super) async fn local(port: u16) -> io::Result<Stream> {
    let v4 = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
    match open(AddressFamily::Inet, &v4).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            let v6 = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::LOCALHOST, port, 0, 0));
            open(AddressFamily::Inet6, &v6).await.map_err(|_| error)
        }
        outcome => outcome,
    }
}

/// A connected stream socket.
async fn open(family: AddressFamily, address: &(dyn SockaddrLike + Sync)) -> io::Result<Stream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    match connect(socket.as_raw_fd(), address) {
        Ok(()) => Stream::new(socket),
        Err(Errno::EINPROGRESS) => {
            let stream = Stream::new(socket)?;
            stream.writable().await?;
            stream.connected()?;
            Ok(stream)
        }
        Err(errno) => Err(errno.into()),
    }
}
