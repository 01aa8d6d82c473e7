//! Connections that the guest makes to the host.
//!
//! The control port may be dialled once. On the stream port the guest first says eight bytes, the token;
//! it is read here, with a time-out, so that a silent guest holds neither the actor nor descriptors.
//!
//! Any process of the guest can connect. So a silent connection gives way when there are too many: the agent's own
//! say their token at once.
//!
//! Invariant: at most [`MAX_SILENT`] connections wait for their token; every other port is refused.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

use cofferdam_agent_protocol::{CONTROL_PORT, STDIO_PORT, StreamToken};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Most connections whose token has not come yet.
const MAX_SILENT: usize = 64;

/// A connection that says what it is for.
#[derive(Debug)]
pub(super) enum Incoming {
    /// The agent's control connection.
    Control(UnixStream),
    /// A stream and the token it named.
    Stream(StreamToken, UnixStream),
}

/// Connections that have not said yet what they are for.
#[derive(Debug)]
pub(super) struct Handshakes {
    ready: mpsc::Sender<Incoming>,
    /// Their tasks, the oldest first.
    silent: VecDeque<AbortHandle>,
    timeout: Duration,
}

impl Handshakes {
    pub(super) fn new(timeout: Duration) -> (Self, mpsc::Receiver<Incoming>) {
        let (ready, incoming) = mpsc::channel(MAX_SILENT);
        (Self { ready, silent: VecDeque::new(), timeout }, incoming)
    }

    /// Takes a connection to `port`, or drops it, which resets it in the guest.
    pub(super) fn accept(&mut self, port: u32, stream: OwnedFd, connected: bool) {
        let known = port == STDIO_PORT || (port == CONTROL_PORT && !connected);
        let (true, Ok(mut stream)) = (known, adopt(stream)) else {
            // The guest decides how often, so not louder.
            tracing::debug!(port, "refused a connection of the guest");
            return;
        };
        self.make_room();
        let (ready, timeout) = (self.ready.clone(), self.timeout);
        let task = tokio::spawn(async move {
            if port == CONTROL_PORT {
                let _ = ready.send(Incoming::Control(stream)).await;
                return;
            }
            let mut token = [0; size_of::<StreamToken>()];
            if let Ok(Ok(_)) = tokio::time::timeout(timeout, stream.read_exact(&mut token)).await {
                let token = StreamToken::from_le_bytes(token);
                let _ = ready.send(Incoming::Stream(token, stream)).await;
            }
        });
        self.silent.push_back(task.abort_handle());
    }

    /// Drops the connection that has been silent for the longest time, if there are too many.
    fn make_room(&mut self) {
        if self.silent.len() >= MAX_SILENT {
            self.silent.retain(|task| !task.is_finished());
        }
        if self.silent.len() >= MAX_SILENT
            && let Some(oldest) = self.silent.pop_front()
        {
            tracing::debug!("dropped a silent connection of the guest");
            oldest.abort();
        }
    }
}

/// `fd` as a stream of this runtime; an error if it is not a socket.
fn adopt(fd: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
