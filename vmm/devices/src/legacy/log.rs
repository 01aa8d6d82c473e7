//! Where the console goes: a file that never grows beyond a limit, or a stream.
//!
//! Invariant: a guest that writes without end costs neither more disk than the limit nor a blocked
//! vCPU for errors: what cannot be written is dropped.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Write};

use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};

/// Bytes gathered before they are written, if no line ends earlier.
const LINE: usize = 256;

/// Bytes moved at a time when the older half is dropped.
const MOVE: usize = 64 * 1024;

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
    Stream(Box<dyn Write + Send>),
}

impl LogRing {
    /// Writes to `file` from its start. When the next write would exceed `limit` bytes, the older half
    /// of what is there is dropped; that needs a file open for reading, too (else all is dropped).
    #[must_use]
    pub fn new(file: File, limit: u32) -> Self {
        Self::with(Sink::File { file, len: 0, limit: limit.into() })
    }

    /// Passes on to standard output, unbounded: for a machine started by hand.
    #[must_use]
    pub fn stdout() -> Self {
        Self::stream(Box::new(io::stdout()))
    }

    /// Passes on to any stream, unbounded.
    #[must_use]
    pub fn stream(stream: Box<dyn Write + Send>) -> Self {
        Self::with(Sink::Stream(stream))
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
        // Nobody is there to tell of an error, and the guest must not wait for the host's disk.
        let _dropped = match &mut self.sink {
            Sink::File { file, len, limit } => append(file, len, *limit, &self.line),
            Sink::Stream(stream) => stream.write_all(&self.line).and_then(|()| stream.flush()),
        };
        self.line.clear();
    }
}

impl Drop for LogRing {
    fn drop(&mut self) {
        self.flush();
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
