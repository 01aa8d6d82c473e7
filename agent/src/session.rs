//! The control connection: greeting, requests, answers and events.
//!
//! Invariant: when it ends, for whatever reason, the session ends: a guest without its host is of no
//! use to anybody.

use std::time::Duration;

use cofferdam_agent_protocol::{
    AgentFrame, CONTROL_PORT, Event, FrameError, HEADER, Hello, HostFrame, PROTOCOL_VERSION,
    PodPlan, Refusal, Response, agent_frame, decode, encode, frame_length, host_frame, request,
    response,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use crate::error::{Context, Failure, Result};
use crate::pod::Pod;
use crate::stdio::{Dialer, Stream};

/// How long the host may take to listen.
const DIALS_FOR: Duration = Duration::from_secs(10);

/// How long the host may take to close the connection after the last frame.
const CLOSES_WITHIN: Duration = Duration::from_millis(50);

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// The connection to the host.
pub(crate) struct Session {
    stream: Stream,
    received: Vec<u8>,
}

/// Why a session ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The host asked for it.
    Shutdown,
    /// The connection is gone.
    Lost,
}

impl Session {
    /// Connects, and greets the host. Returns what the host wants of the pod.
    ///
    /// # Errors
    /// A host that is not there, or refuses, or speaks another version.
    pub(crate) async fn open(dialer: &Dialer) -> Result<(Self, PodPlan)> {
        let stream = dial(dialer).await?;
        let mut session = Self { stream, received: Vec::new() };
        let kernel = nix::sys::utsname::uname().context(|| "uname".into())?;
        session
            .send(agent_frame::Body::Hello(Hello {
                protocol_version: PROTOCOL_VERSION,
                agent_version: env!("CARGO_PKG_VERSION").into(),
                kernel_release: kernel.release().to_string_lossy().into_owned(),
            }))
            .await?;
        match session.next().await? {
            Some(host_frame::Body::Welcome(welcome)) => {
                if welcome.protocol_version == PROTOCOL_VERSION {
                    return Ok((session, welcome.pod.unwrap_or_default()));
                }
                let theirs = welcome.protocol_version;
                let text =
                    format!("the host speaks version {theirs}, the agent {PROTOCOL_VERSION}");
                session.refuse(&text).await;
                Err(Failure::other(text))
            }
            Some(host_frame::Body::Refusal(refusal)) => {
                Err(Failure::other(format!("the host refused the agent: {}", refusal.reason)))
            }
            Some(_) => Err(Failure::other("the host answered the greeting with something else")),
            None => Err(Failure::other("the host closed the connection at the greeting")),
        }
    }

    /// Serves the host until the end.
    ///
    /// # Errors
    /// Frames that make no sense.
    pub(crate) async fn serve(&mut self, pod: &mut Pod) -> Result<End> {
        let attempted = || "watching for the end of processes".into();
        let mut children = signal(SignalKind::child()).context(attempted)?;
        loop {
            // A child that ended before the signal was watched for.
            pod.reap();
            if !self.tell(pod.take_events()).await {
                return Ok(End::Lost);
            }
            let request = match self.wait(pod, &mut children).await? {
                Wake::Frame(Some(host_frame::Body::Request(request))) => request,
                Wake::Frame(None) => return Ok(End::Lost),
                Wake::Frame(Some(host_frame::Body::Refusal(refusal))) => {
                    crate::log!("the host ends the session: {}", refusal.reason);
                    return Ok(End::Lost);
                }
                Wake::Frame(Some(_)) => {
                    self.refuse("expected a request").await;
                    return Err(Failure::other("the host sent something that is no request"));
                }
                Wake::Child => continue,
                Wake::Memory => {
                    pod.check_memory();
                    continue;
                }
            };
            let id = request.id;
            let last = matches!(request.body, Some(request::Body::Shutdown(_)));
            let body = pod.handle(request).await;
            // What happened meanwhile to others; the end of what this request made comes after its answer.
            let told = self.tell(pod.take_events()).await;
            if !told || self.answer(id, body).await.is_err() {
                return Ok(End::Lost);
            }
            if last {
                return Ok(End::Shutdown);
            }
        }
    }

    /// Waits for something to do.
    async fn wait(&mut self, pod: &Pod, children: &mut Signal) -> Result<Wake> {
        tokio::select! {
            body = self.next() => body.map(Wake::Frame),
            _ = children.recv() => Ok(Wake::Child),
            () = pod.memory_changed() => Ok(Wake::Memory),
        }
    }

    /// Says that nothing more comes, and gives the host a moment to take what was said.
    pub(crate) async fn close(&self) {
        self.stream.finish();
        let mut rest = [0; 64];
        // Late or not, this is the end.
        let _ = timeout(CLOSES_WITHIN, self.stream.read(&mut rest)).await;
    }

    /// Sends events. Whether the host is still there.
    async fn tell(&mut self, events: Vec<Event>) -> bool {
        for event in events {
            if self.send(agent_frame::Body::Event(event)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Tells the host why the session ends.
    async fn refuse(&mut self, reason: &str) {
        // The session ends anyway.
        let _ = self.send(agent_frame::Body::Refusal(Refusal { reason: reason.into() })).await;
        self.close().await;
    }

    /// Answers the request `id`.
    async fn answer(&mut self, id: u64, body: response::Body) -> Result<()> {
        let bytes = answer(id, body)?;
        self.write(&bytes).await
    }

    /// Sends one frame.
    async fn send(&mut self, body: agent_frame::Body) -> Result<()> {
        let bytes = encode(&AgentFrame { body: Some(body) }).map_err(unsent)?;
        self.write(&bytes).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await.context(|| "sending a frame to the host".into())
    }

    /// The next frame, or `None` when the connection ended. Nothing is lost when the future is dropped.
    async fn next(&mut self) -> Result<Option<host_frame::Body>> {
        let mut chunk = [0; CHUNK];
        loop {
            if let Some(body) = self.take_frame()? {
                return Ok(Some(body));
            }
            match self.stream.read(&mut chunk).await {
                // A connection that broke has ended.
                Ok(0) | Err(_) => return Ok(None),
                Ok(length) => self.received.extend_from_slice(chunk.get(..length).unwrap_or(&[])),
            }
        }
    }

    /// Takes a whole frame from what was received.
    fn take_frame(&mut self) -> Result<Option<host_frame::Body>> {
        let Some((header, rest)) = self.received.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let malformed = |error| Failure::other(format!("a frame from the host: {error}"));
        let length = frame_length::<HostFrame>(*header).map_err(malformed)?;
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let frame = decode::<HostFrame>(body).map_err(malformed)?;
        self.received.drain(..HEADER + length);
        match frame.body {
            Some(body) => Ok(Some(body)),
            None => Err(Failure::other("a frame from the host: it is empty")),
        }
    }
}

/// What ended a wait.
enum Wake {
    /// A frame, or the end of the connection.
    Frame(Option<host_frame::Body>),
    /// A child may have ended.
    Child,
    /// A container may have run out of memory.
    Memory,
}

/// The frame that answers the request `id` with `body`, or with an error if that is too long.
fn answer(id: u64, body: response::Body) -> Result<Vec<u8>> {
    let frame = |body| {
        let response = Response { id, body: Some(body) };
        AgentFrame { body: Some(agent_frame::Body::Response(response)) }
    };
    let bytes = match encode(&frame(body)) {
        Err(error @ FrameError::TooLong { .. }) => {
            let failure = Failure::other(format!("the answer is too long: {error}"));
            encode(&frame(response::Body::Error(failure.into())))
        }
        other => other,
    };
    bytes.map_err(unsent)
}

/// A frame that was not sent.
#[allow(clippy::needless_pass_by_value, reason = "given to `map_err`")]
fn unsent(error: FrameError) -> Failure {
    Failure::other(format!("sending a frame: {error}"))
}

/// Connects; the host may not listen yet.
async fn dial(dialer: &Dialer) -> Result<Stream> {
    let until = Instant::now() + DIALS_FOR;
    let mut pause = Duration::from_millis(5);
    loop {
        match dialer.dial(CONTROL_PORT).await {
            Err(error) if Instant::now() < until => {
                crate::log!("connecting to the host: {error}");
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(500));
            }
            outcome => return outcome.context(|| "connecting to the host".into()),
        }
    }
}

#[cfg(test)]
#[path = "session_test.rs"]
mod session_test;
