//! The agent's control connection.
//!
//! Reading and writing are tasks of their own, joined to the actor by queues: so nothing is lost when the actor stops
//! waiting for one of them, and an agent that does not read never stalls the actor.
//!
//! Invariant: at most a few frames of [`MAX_AGENT_FRAME`](cofferdam_agent_protocol::MAX_AGENT_FRAME) are held, and of
//! what is to be sent, [`MOST_UNSENT`] bytes and one frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cofferdam_agent_protocol::{AgentFrame, HEADER, HostFrame, decode, encode, frame_length};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Frames of the agent that are held.
const QUEUE: usize = 4;

/// Bytes that may wait for the agent to read them. It reads nothing while it starts a process.
const MOST_UNSENT: usize = 16 << 20;

/// How long the agent may leave what waits unread.
const SEND_TIMEOUT: Duration = Duration::from_secs(240);

/// The connection; dropping it closes it.
#[derive(Debug)]
pub(super) struct Link {
    frames: mpsc::Receiver<Result<AgentFrame, String>>,
    out: mpsc::UnboundedSender<Vec<u8>>,
    /// Bytes in `out`.
    unsent: Arc<AtomicUsize>,
    reader: JoinHandle<()>,
}

impl Link {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        let (frames_in, frames) = mpsc::channel(QUEUE);
        let (out, out_queue) = mpsc::unbounded_channel();
        let unsent = Arc::new(AtomicUsize::new(0));
        let reader = tokio::spawn(read_frames(read, frames_in));
        tokio::spawn(write_frames(write, out_queue, Arc::clone(&unsent)));
        Self { frames, out, unsent, reader }
    }

    /// The next frame, or why there is none. May be cancelled.
    pub(super) async fn receive(&mut self) -> Result<AgentFrame, String> {
        self.frames.recv().await.unwrap_or_else(|| Err("it was closed".into()))
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// Too much waits to be read, or the connection is broken.
    pub(super) fn send(&mut self, frame: &HostFrame) -> Result<(), String> {
        let bytes = encode(frame).map_err(|error| error.to_string())?;
        if self.unsent.load(Ordering::Relaxed) > MOST_UNSENT {
            return Err("it takes nothing any more".into());
        }
        self.unsent.fetch_add(bytes.len(), Ordering::Relaxed);
        self.out.send(bytes).map_err(|_| "it takes nothing any more".into())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The writer ends with its queue, after what is in it.
        self.reader.abort();
    }
}

async fn read_frames(mut stream: OwnedReadHalf, frames: mpsc::Sender<Result<AgentFrame, String>>) {
    loop {
        let frame = read_frame(&mut stream).await;
        let broken = frame.is_err();
        if frames.send(frame).await.is_err() || broken {
            return;
        }
    }
}

async fn read_frame(stream: &mut OwnedReadHalf) -> Result<AgentFrame, String> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
            "it was closed".to_owned()
        }
        _ => error.to_string(),
    })?;
    let length = frame_length::<AgentFrame>(header).map_err(|error| error.to_string())?;
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(|error| error.to_string())?;
    decode(&body).map_err(|error| format!("{error}"))
}

async fn write_frames(
    mut stream: OwnedWriteHalf,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    unsent: Arc<AtomicUsize>,
) {
    while let Some(bytes) = queue.recv().await {
        let written = tokio::time::timeout(SEND_TIMEOUT, stream.write_all(&bytes)).await;
        unsent.fetch_sub(bytes.len(), Ordering::Relaxed);
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
}
