//! Standard streams: pipes or a terminal on the process's side, one connection to the host each on ours.
//!
//! Programs open /dev/stdout again, which works with pipes and not with sockets; hence the relays.
//!
//! Invariant: a relay holds at most one chunk, and reads no more before it is written.

mod dial;
mod forward;
mod relay;
mod stream;

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use cofferdam_agent_protocol::{ProcessPlan, StreamToken};
use nix::fcntl::OFlag;
use nix::unistd::{Uid, fchown, pipe2};
use tokio::task::JoinHandle;

use crate::error::{Context, Failure, Result};

pub(crate) use dial::Dialer;
pub(crate) use forward::forward;
pub(crate) use stream::Stream;

/// A connection to the host that is being made.
type Connecting = JoinHandle<std::io::Result<Stream>>;

/// The streams of a process that is being made.
pub(crate) struct Streams {
    /// What the process gets as its standard input, output and error.
    child: [OwnedFd; 3],
    /// Pipes: our end, and the connection it belongs to.
    input: Option<(OwnedFd, Connecting)>,
    outputs: Vec<(OwnedFd, Connecting)>,
    /// The connection of a terminal.
    terminal: Option<Connecting>,
}

impl Streams {
    /// Makes the streams that `plan` wants, and starts to connect them. `owner`, if given, gets the
    /// pipes: a user namespace cannot take them. `null` is open on the device that others are.
    ///
    /// # Errors
    /// Those of `pipe(2)`.
    pub(crate) fn new(
        dialer: &Dialer,
        plan: &ProcessPlan,
        owner: Option<u32>,
        null: BorrowedFd<'_>,
    ) -> Result<Self> {
        let path = format!("/proc/self/fd/{}", null.as_raw_fd());
        let null = || -> Result<OwnedFd> {
            let file = File::options().read(true).write(true).open(&path);
            file.map(OwnedFd::from).context(|| "opening /dev/null".into())
        };
        let mut streams = Self {
            child: [null()?, null()?, null()?],
            input: None,
            outputs: Vec::new(),
            terminal: None,
        };
        if let Some(terminal) = &plan.terminal {
            streams.terminal = Some(connect(dialer, terminal.stream));
            return Ok(streams);
        }
        let Some(stdio) = &plan.stdio else { return Ok(streams) };
        let pipe = || -> nix::Result<(OwnedFd, OwnedFd)> {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            if let Some(owner) = owner {
                fchown(&read, Some(Uid::from_raw(owner)), None)?;
            }
            Ok((read, write))
        };
        let [stdin, stdout, stderr] = &mut streams.child;
        if let Some(token) = stdio.stdin {
            let (read, write) = pipe().context(|| "making a pipe".into())?;
            *stdin = read;
            streams.input = Some((write, connect(dialer, token)));
        }
        for (child, token) in [(stdout, stdio.stdout), (stderr, stdio.stderr)] {
            let Some(token) = token else { continue };
            let (read, write) = pipe().context(|| "making a pipe".into())?;
            *child = write;
            streams.outputs.push((read, connect(dialer, token)));
        }
        Ok(streams)
    }

    /// Standard input, output and error for the process.
    pub(crate) fn child(&self) -> [BorrowedFd<'_>; 3] {
        self.child.each_ref().map(AsFd::as_fd)
    }

    /// Starts to relay, when the process exists. `terminal` is the agent's side of its terminal.
    ///
    /// # Errors
    /// A connection that could not be made.
    pub(crate) async fn relay(self, terminal: Option<&OwnedFd>) -> Result<()> {
        drop(self.child);
        if let Some(connecting) = self.terminal {
            let host = connected(connecting).await?;
            let master = terminal.ok_or_else(|| Failure::other("the launcher made no terminal"))?;
            let master = master.try_clone().context(|| "copying the terminal".into())?;
            relay::terminal(watched(master)?, host);
        }
        if let Some((pipe, connecting)) = self.input {
            let host = connected(connecting).await?;
            relay::input(host, watched(pipe)?);
        }
        for (pipe, connecting) in self.outputs {
            let host = connected(connecting).await?;
            relay::output(watched(pipe)?, host);
        }
        Ok(())
    }
}

/// `fd` as a stream.
fn watched(fd: OwnedFd) -> Result<Stream> {
    Stream::new(fd).context(|| "watching a standard stream".into())
}

/// Starts to connect the stream `token`.
fn connect(dialer: &Dialer, token: StreamToken) -> Connecting {
    let dialer = dialer.clone();
    tokio::spawn(async move { dialer.stream(token).await })
}

/// The finished connection.
async fn connected(connecting: Connecting) -> Result<Stream> {
    let outcome = connecting.await;
    let outcome = outcome.map_err(|_| Failure::other("connecting a standard stream: it ended"))?;
    outcome.context(|| "connecting a standard stream to the host".into())
}

#[cfg(test)]
#[path = "stdio_test.rs"]
mod stdio_test;
