//! A descriptor that does not block, for the runtime: pipe, terminal or socket.
//!
//! Invariant: reads and writes are plain system calls; nothing is buffered here.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{Shutdown, getsockopt, shutdown, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A stream of bytes.
#[derive(Debug)]
pub(crate) struct Stream(AsyncFd<OwnedFd>);

impl Stream {
    /// Takes `fd` over.
    ///
    /// # Errors
    /// Those of `fcntl(2)` and `epoll_ctl(2)`.
    pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self(crate::sys::watch(fd)?))
    }

    /// Waits until a read would not block.
    ///
    /// # Errors
    /// Those of the runtime.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await.map(|mut ready| ready.retain_ready())
    }

    /// Waits until a write would not block.
    ///
    /// # Errors
    /// Those of the runtime.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.0.writable().await.map(|mut ready| ready.retain_ready())
    }

    /// Waits until a pipe has no reader any more.
    pub(crate) async fn broken(&self) {
        if self.0.ready(Interest::ERROR).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Reads what there is, at least one byte; 0 is the end. Nothing is lost when the future is dropped.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            match ready.try_io(|fd| Ok(nix::unistd::read(fd.get_ref(), buffer)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(outcome) => return outcome,
                Err(_would_block) => {}
            }
        }
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Those of `write(2)`.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.0.writable().await?;
            match ready.try_io(|fd| Ok(nix::unistd::write(fd.get_ref(), bytes)?)) {
                Ok(Ok(written)) => bytes = bytes.get(written..).unwrap_or_default(),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// The result of a connection attempt that is over.
    ///
    /// # Errors
    /// Why it failed.
    pub(crate) fn connected(&self) -> io::Result<()> {
        let error = getsockopt(&self.0, sockopt::SocketError)?;
        if error == 0 { Ok(()) } else { Err(Errno::from_raw(error).into()) }
    }

    /// Tells a socket's other side that nothing more comes; on other descriptors it does nothing.
    pub(crate) fn finish(&self) {
        // Not a socket, or not connected any more: there is nobody to tell.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write);
    }
}
