//! The host's end of a connection: a non-blocking Unix stream socket, and what it did not take yet.
//!
//! Bytes go straight between the socket and guest memory; only what the socket refuses is copied.
//!
//! Invariant: nothing overtakes the bytes kept; their number is bounded by the credit the caller gives.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use vm_memory::{ReadVolatile, VolatileMemoryError, WriteVolatile};

use super::chain::Slice;

/// What a read from the host gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing yet.
    Empty,
    /// Nothing ever again.
    End,
}

/// The host's end.
#[derive(Debug)]
pub(super) struct Stream {
    socket: UnixStream,
    kept: VecDeque<u8>,
}

impl Stream {
    /// Takes over a connected stream socket.
    ///
    /// # Errors
    /// If it cannot be made non-blocking.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = UnixStream::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self { socket, kept: VecDeque::new() })
    }

    /// The socket's number, for epoll.
    pub(super) fn raw(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Whether bytes wait for the socket to take them.
    pub(super) fn is_keeping(&self) -> bool {
        !self.kept.is_empty()
    }

    /// Writes all of `slices`; returns how many bytes the socket took. The rest is kept.
    ///
    /// # Errors
    /// The host closed its end.
    pub(super) fn write<'m>(
        &mut self,
        slices: impl Iterator<Item = Slice<'m>>,
    ) -> io::Result<usize> {
        let mut written = 0;
        for slice in slices {
            let taken = if self.kept.is_empty() { self.write_slice(&slice)? } else { 0 };
            written += taken;
            if let Ok(rest) = slice.offset(taken) {
                self.keep(&rest);
            }
        }
        Ok(written)
    }

    fn write_slice(&mut self, slice: &Slice<'_>) -> io::Result<usize> {
        loop {
            match self.socket.write_volatile(slice).map_err(into_io) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                result => return result,
            }
        }
    }

    fn keep(&mut self, slice: &Slice<'_>) {
        let mut chunk = [0; 4096];
        let mut at = 0;
        while let Ok(rest) = slice.offset(at) {
            let count = rest.copy_to(&mut chunk[..]);
            if count == 0 {
                break;
            }
            self.kept.extend(&chunk[..count]);
            at += count;
        }
    }

    /// Writes what was kept; returns how many bytes the socket took.
    ///
    /// # Errors
    /// The host closed its end.
    pub(super) fn flush(&mut self) -> io::Result<usize> {
        let mut written = 0;
        while !self.kept.is_empty() {
            let (front, _) = self.kept.as_slices();
            // Not the socket's own `write`, which is a `sendto`: all that is sent goes by one system call.
            match rustix::io::write(&self.socket, front) {
                Ok(count) => {
                    self.kept.drain(..count);
                    written += count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(written),
                Err(errno) => return Err(errno.into()),
            }
        }
        self.kept = VecDeque::new();
        Ok(written)
    }

    /// Throws away what was kept; returns how much that was.
    pub(super) fn discard(&mut self) -> usize {
        std::mem::take(&mut self.kept).len()
    }

    /// Reads into `slices` until one is not filled.
    ///
    /// # Errors
    /// The host broke off the connection.
    pub(super) fn read<'m>(
        &mut self,
        slices: impl Iterator<Item = Slice<'m>>,
    ) -> io::Result<Filled> {
        let mut filled = 0;
        for mut slice in slices {
            match self.read_slice(&mut slice) {
                Ok(Filled::Bytes(count)) => {
                    filled += count;
                    if count < slice.len() {
                        break;
                    }
                }
                // Whatever ended this read will end the next one, too.
                _ if filled > 0 => break,
                other => return other,
            }
        }
        Ok(Filled::Bytes(filled))
    }

    fn read_slice(&mut self, slice: &mut Slice<'_>) -> io::Result<Filled> {
        loop {
            return match self.socket.read_volatile(slice).map_err(into_io) {
                Ok(0) => Ok(Filled::End),
                Ok(count) => Ok(Filled::Bytes(count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Filled::Empty),
                Err(error) => Err(error),
            };
        }
    }

    /// Ends one direction. A socket that is gone already needs no ending.
    pub(super) fn shutdown(&self, direction: Shutdown) {
        let _ = self.socket.shutdown(direction);
    }
}

fn into_io(error: VolatileMemoryError) -> io::Error {
    match error {
        VolatileMemoryError::IOError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
#[path = "stream_test.rs"]
mod stream_test;
