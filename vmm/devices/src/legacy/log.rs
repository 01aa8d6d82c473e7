//! Where the console goes: a file that never grows beyond a limit, or a stream.
//!
//! Invariant: a guest that writes without end costs neither more disk than the limit nor a blocked
//! vCPU: what cannot be written is dropped. A stream that nobody reads is waited for once, for a second; how much of
//! it was dropped is said once, when it is read again, or at the end.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2, write};

/// Bytes gathered before they are written, if no line ends earlier.
const LINE: usize = 256;

/// Bytes moved at a time when the older half is dropped.
const MOVE: usize = 64 * 1024;

/// Milliseconds for which the reader of a stream may be busy with something else.
const PATIENCE: u16 = 1000;

/// The console's output.
pub struct LogRing {
    line: Vec<u8>,
    sink: Sink,
}

/// What is behind it.
enum Sink {
    /// A file of at most `limit` bytes, `len` of them written.
    File { file: File, len: u64, limit: u64 },
    /// A stream without a limit; every byte goes on at once.
    Stream(Stream),
}

/// A pipe, a terminal, or a file without a limit.
struct Stream {
    file: File,
    /// A write may wait: it must be known before that there is room.
    blocking: bool,
    /// Its reader kept up so far: it is worth waiting for.
    prompt: bool,
    /// Bytes that it did not take.
    dropped: u64,
    /// Of those, the ones that it was told of.
    told: u64,
}

impl LogRing {
    /// Writes to `file` from its start. When the next write would exceed `limit` bytes, the older half
    /// of what is there is dropped; that needs a file open for reading, too (else all is dropped).
    #[must_use]
    pub fn new(file: File, limit: u32) -> Self {
        Self::with(Sink::File { file, len: 0, limit: limit.into() })
    }

    /// Passes on to a stream, unbounded: for a machine started by hand. It should be non-blocking, unless nobody else
    /// writes to it.
    #[must_use]
    pub fn stream(file: File) -> Self {
        let flags = fcntl(&file, FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
        let blocking = !flags.is_ok_and(|flags| flags.contains(OFlag::O_NONBLOCK));
        Self::with(Sink::Stream(Stream { file, blocking, prompt: true, dropped: 0, told: 0 }))
    }

    fn with(sink: Sink) -> Self {
        Self { line: Vec::with_capacity(LINE), sink }
    }

    /// One byte of output. Every byte costs the guest an exit, so a file gets whole lines.
    pub fn push(&mut self, byte: u8) {
        self.line.push(byte);
        if byte == b'\n' || self.line.len() == LINE || matches!(self.sink, Sink::Stream(_)) {
            self.flush();
        }
    }

    /// Writes out an unfinished line, too. Also done on drop.
    pub fn flush(&mut self) {
        match &mut self.sink {
            Sink::File { file, len, limit } => {
                // Nobody is there to tell of an error, and the guest must not wait for the host's disk.
                let _dropped = append(file, len, *limit, &self.line);
            }
            Sink::Stream(stream) => stream.pass_on(&self.line),
        }
        self.line.clear();
    }
}

impl Drop for LogRing {
    fn drop(&mut self) {
        self.flush();
        if let Sink::Stream(stream) = &mut self.sink {
            stream.tell();
        }
    }
}

impl Stream {
    /// Writes `bytes`, or as much of them as the reader takes in time.
    fn pass_on(&mut self, bytes: &[u8]) {
        if self.told == 0 {
            self.tell();
        }
        let patience = if self.prompt { PATIENCE } else { 0 };
        let written = self.write(bytes, patience);
        self.prompt = written == bytes.len();
        self.dropped = self.dropped.saturating_add((bytes.len() - written) as u64);
    }

    /// Says how much is missing in all, if that is not known, to a reader that is there.
    fn tell(&mut self) {
        if self.dropped > self.told {
            let note = format!("\n[{} bytes of the console were dropped]\n", self.dropped);
            if self.write(note.as_bytes(), 0) > 0 {
                self.told = self.dropped;
            }
        }
    }

    /// Writes `bytes` as far as there is room within `patience` milliseconds each time; how many there was room for.
    fn write(&self, bytes: &[u8], patience: u16) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            if self.blocking && !self.has_room(patience) {
                break;
            }
            match write(&self.file, rest) {
                Ok(count) if count > 0 => done += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if self.has_room(patience) => {}
                _ => break,
            }
        }
        done
    }

    /// Waits for room for some bytes; a signal, by which vCPUs are stopped, ends the wait.
    fn has_room(&self, patience: u16) -> bool {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        poll(&mut fds, patience).is_ok_and(|ready| ready > 0)
    }
}

/// Appends `bytes`, making room first if need be.
fn append(file: &File, len: &mut u64, limit: u64, bytes: &[u8]) -> io::Result<()> {
    let limit_bytes = usize::try_from(limit).unwrap_or(usize::MAX);
    let bytes = &bytes[bytes.len().saturating_sub(limit_bytes)..];
    let more = bytes.len() as u64;
    if *len + more > limit {
        let keep = (*len / 2).min(limit - more);
        *len = keep_tail(file, *len, keep).unwrap_or(0);
        file.set_len(*len)?;
    }
    write_all_at(file, bytes, *len)?;
    *len += more;
    Ok(())
}

/// Moves the last `keep` of `len` bytes to the start; the number of bytes now there. `keep` is at most
/// half, so source and target do not overlap.
fn keep_tail(file: &File, len: u64, keep: u64) -> io::Result<u64> {
    let mut buffer = vec![0; usize::try_from(keep).unwrap_or(MOVE).min(MOVE)];
    let mut done = 0;
    while done < keep {
        let rest = usize::try_from(keep - done).unwrap_or(MOVE).min(buffer.len());
        read_exact_at(file, &mut buffer[..rest], len - keep + done)?;
        write_all_at(file, &buffer[..rest], done)?;
        done += rest as u64;
    }
    Ok(keep)
}

/// Writes all of `bytes` at the offset `at`, by the one call for this that a confined monitor may make.
fn write_all_at(file: &File, mut bytes: &[u8], mut at: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match pwritev2(file, &[IoSlice::new(bytes)], at, ReadWriteFlags::empty()) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(done) => (bytes, at) = (bytes.get(done..).unwrap_or_default(), at + done as u64),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// Fills `buffer` from the offset `at`; as [`write_all_at`].
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut at: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match preadv2(file, &mut [IoSliceMut::new(buffer)], at, ReadWriteFlags::empty()) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(done) => {
                buffer = buffer.get_mut(done..).unwrap_or_default();
                at += done as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "log_test.rs"]
mod log_test;
