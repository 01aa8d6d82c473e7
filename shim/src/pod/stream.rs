//! Copying between a standard stream of ours and a stream of the guest.
//!
//! Each direction is a thread with blocking calls, so a slow reader slows down only its own stream.
//!
//! There is no `splice(2)` here: one that waits for a socket holds the lock of the pipe it would write to,
//! and keeps the pipe's reader from what is already in it.
//!
//! Invariant: end-of-file at one end becomes a half-close of the other; a broken end closes the other.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cofferdam_agent_protocol::StreamToken;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read, write};
use rustix::net::{Shutdown, shutdown};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

use super::Expected;

/// Bytes moved at once.
const CHUNK: usize = 64 << 10;

/// A random, unguessable token.
pub(super) fn token() -> std::io::Result<StreamToken> {
    let mut bytes = [0; size_of::<StreamToken>()];
    let filled = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if filled == bytes.len() {
        Ok(StreamToken::from_le_bytes(bytes))
    } else {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }
}

/// A copy in one direction that is under way.
#[derive(Debug)]
pub struct Pump {
    done: oneshot::Receiver<()>,
    progress: Arc<Progress>,
}

/// How far a copy is.
#[derive(Debug, Default)]
struct Progress {
    /// Bytes copied.
    moved: AtomicU64,
    /// Bytes were read and are not all written.
    writing: AtomicBool,
}

impl Pump {
    /// Copies from `from` to `to` until the end of `from` or a failure of `to`.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(name: &str, from: OwnedFd, to: OwnedFd) -> std::io::Result<Self> {
        Self::with(name, (from, to), false)
    }

    /// The same; if `watched`, `to` is a socket or pipe whose closing ends the copy although `from` has nothing: so
    /// nobody waits for input that no one can take.
    fn with(name: &str, (from, to): (OwnedFd, OwnedFd), watched: bool) -> std::io::Result<Self> {
        let (finished, done) = oneshot::channel();
        let progress = Arc::new(Progress::default());
        let noted = Arc::clone(&progress);
        let copy = move || {
            let result = copy(&from, &to, watched, &noted);
            // Only sockets can be half-closed; for others the error says so, and closing is enough.
            let _ = shutdown(&to, Shutdown::Write);
            if result.is_err() {
                let _ = shutdown(&from, Shutdown::Both);
            }
            drop((from, to));
            let _ = finished.send(());
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(copy)?;
        Ok(Self { done, progress })
    }

    /// Waits for the end of the copy. May be cancelled and repeated.
    pub async fn finished(&mut self) {
        if !self.done.is_terminated() {
            let _ = (&mut self.done).await;
        }
    }
}

/// Copies until the end of `from`, or with `watched` that of `to`.
fn copy(from: &OwnedFd, to: &OwnedFd, watched: bool, progress: &Progress) -> Result<(), Errno> {
    let mut buffer = vec![0; CHUNK];
    loop {
        if watched && !is_wanted(from, to) {
            return Err(Errno::PIPE);
        }
        let count = match retry(from, PollFlags::IN, || read(from, &mut buffer)) {
            Ok(0) => return Ok(()),
            // What a terminal says when its other side is gone.
            Err(Errno::IO) => return Ok(()),
            result => result?,
        };
        let mut rest = &buffer[..count];
        progress.writing.store(true, Ordering::Relaxed);
        while !rest.is_empty() {
            let written = retry(to, PollFlags::OUT, || write(to, rest))?;
            rest = &rest[written..];
            progress.moved.fetch_add(written as u64, Ordering::Relaxed);
        }
        progress.writing.store(false, Ordering::Relaxed);
    }
}

/// Waits until `from` has something, or is at its end; whether `to` is still open then.
fn is_wanted(from: &OwnedFd, to: &OwnedFd) -> bool {
    loop {
        let mut fds = [PollFd::new(from, PollFlags::IN), PollFd::new(to, PollFlags::empty())];
        match poll(&mut fds, None) {
            Ok(_) => return fds[1].revents().is_empty(),
            Err(Errno::INTR) => {}
            // What cannot be waited for is read.
            Err(_) => return true,
        }
    }
}

/// `call` until it is neither interrupted nor, on a non-blocking descriptor, premature.
fn retry(
    fd: &OwnedFd,
    wanted: PollFlags,
    mut call: impl FnMut() -> Result<usize, Errno>,
) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(fd, wanted)], None);
            }
            result => return result,
        }
    }
}

/// The copies of one process's streams.
#[derive(Debug)]
pub struct Streams {
    input: Option<Pump>,
    output: Vec<Pump>,
}

impl Streams {
    /// Waits for the agent to dial the `expected` streams, and joins each to its descriptor of ours:
    /// standard input, output and error; with a terminal, the first two.
    ///
    /// # Errors
    /// A stream that does not come, or a thread that cannot be started.
    pub async fn connect(expected: Expected, ours: [OwnedFd; 3]) -> std::io::Result<Self> {
        let [stdin, stdout, stderr] = ours;
        let mut streams = Self { input: None, output: Vec::new() };
        let terminal = expected.stdout.is_none() && expected.stderr.is_none();
        if let Some(stream) = expected.stdin {
            let stream = arrived(stream).await?;
            if terminal {
                let other = stream.as_fd().try_clone_to_owned()?;
                streams.output.push(Pump::start("terminal-out", other, stdout)?);
                streams.input = Some(Pump::with("terminal-in", (stdin, stream), true)?);
                return Ok(streams);
            }
            streams.input = Some(Pump::with("stdin", (stdin, stream), true)?);
        }
        if let Some(stream) = expected.stdout {
            streams.output.push(Pump::start("stdout", arrived(stream).await?, stdout)?);
        }
        if let Some(stream) = expected.stderr {
            streams.output.push(Pump::start("stderr", arrived(stream).await?, stderr)?);
        }
        Ok(streams)
    }

    /// Bytes of output that were written.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.output.iter().map(|pump| pump.progress.moved.load(Ordering::Relaxed)).sum()
    }

    /// Whether some output has come that nobody takes.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.output
            .iter()
            .any(|pump| !pump.done.is_terminated() && pump.progress.writing.load(Ordering::Relaxed))
    }

    /// Waits until all output was written. May be cancelled and repeated.
    pub async fn drained(&mut self) {
        for pump in &mut self.output {
            pump.finished().await;
        }
    }
}

/// The stream, when it has come, as a blocking descriptor.
async fn arrived(stream: oneshot::Receiver<UnixStream>) -> std::io::Result<OwnedFd> {
    let gone = |_| std::io::Error::new(std::io::ErrorKind::BrokenPipe, "the pod ended");
    let stream = stream.await.map_err(gone)?.into_std()?;
    stream.set_nonblocking(false)?;
    Ok(stream.into())
}

#[cfg(test)]
#[path = "stream_test.rs"]
mod stream_test;
