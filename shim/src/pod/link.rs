//! The agent's control connection.
//!
//! Reading and writing are tasks of their own, joined to the actor by short queues: so nothing is lost
//! when the actor stops waiting for one of them, and an agent that does not read cannot stall the actor
//! for long.
//!
//! Invariant: at most a few frames of [`MAX_AGENT_FRAME`](cofferdam_agent_protocol::MAX_AGENT_FRAME) are held.

use std::time::Duration;

use cofferdam_agent_protocol::{AgentFrame, HEADER, HostFrame, decode, encode, frame_length};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Frames held each way.
const QUEUE: usize = 4;

/// How long the agent may leave a frame unread while the queue is full.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// The connection; dropping it closes it.
#[derive(Debug)]
pub(super) struct Link {
    frames: mpsc::Receiver<Result<AgentFrame, String>>,
    out: mpsc::Sender<Vec<u8>>,
    reader: JoinHandle<()>,
}

impl Link {
    pub(super) fn new(stream: UnixStream) -> Self {
        let (read, write) = stream.into_split();
        let (frames_in, frames) = mpsc::channel(QUEUE);
        let (out, out_queue) = mpsc::channel(QUEUE);
        let reader = tokio::spawn(read_frames(read, frames_in));
        tokio::spawn(write_frames(write, out_queue));
        Self { frames, out, reader }
    }

    /// The next frame, or why there is none. May be cancelled.
    pub(super) async fn receive(&mut self) -> Result<AgentFrame, String> {
        self.frames.recv().await.unwrap_or_else(|| Err("it was closed".into()))
    }

    /// Queues a frame.
    pub(super) async fn send(&mut self, frame: HostFrame) -> Result<(), String> {
        let bytes = encode(&frame).map_err(|error| error.to_string())?;
        match self.out.send_timeout(bytes, SEND_TIMEOUT).await {
            Ok(()) => Ok(()),
            Err(_) => Err("it takes nothing any more".into()),
        }
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

async fn write_frames(mut stream: OwnedWriteHalf, mut queue: mpsc::Receiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}
