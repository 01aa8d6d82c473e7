//! One process of a container, from its creation to the word to its proxy that it has ended.
//!
//! Invariant: a proxy that goes away takes its process with it, and the container if it is the first. A guest that does
//! not see to it is not waited for.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Shared;
use crate::container::Status;
use crate::control::{End, Failure, FromProxy, Of};
use crate::pod::{Cause, ExitStatus, Expected, PodError, Streams};
use crate::signals::is_interruption;
use crate::socket::Socket;
use crate::timeline::Timeline;

/// How long the agent may take to pass on a signal or the terminal's size.
pub(super) const PASS_PATIENCE: Duration = Duration::from_secs(10);

/// How long a process that is killed may take to end, as the guest tells it.
const KILLED_WITHIN: Duration = Duration::from_secs(20);

/// How long output may stand still, although somebody takes it, after the end of a container: nothing in it writes any
/// more, but what is under way may be slow.
const QUIET: Duration = Duration::from_secs(10);

/// The same after the end of an exec'd process, whose output others in the container may hold on to.
const QUIET_EXEC: Duration = Duration::from_secs(4);

/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The signal that ends a process whose proxy is gone.
pub(super) const KILL: u32 = 9;

/// A process that was created.
#[derive(Debug)]
pub(super) struct Held {
    /// Which.
    pub(super) of: Of,
    /// Its proxy.
    pub(super) proxy: Socket,
    /// Its streams in the guest.
    pub(super) expected: Expected,
    /// Its standard streams here.
    pub(super) streams: [OwnedFd; 3],
    /// Told that it is to be dead soon.
    pub(super) doomed: Rc<Notify>,
}

/// A process that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Which.
    pub(super) of: Of,
    proxy: Socket,
    result: Result<ExitStatus, PodError>,
    at_ns: u64,
    told: bool,
}

impl Ended {
    /// One that its `proxy` is to be told of.
    pub(super) fn new(
        of: Of,
        proxy: Socket,
        result: Result<ExitStatus, PodError>,
        at_ns: u64,
    ) -> Self {
        Self { of, proxy, result, at_ns, told: false }
    }

    /// Tells the proxy, once.
    pub(super) async fn tell(&mut self, timeline: &Timeline) {
        if !std::mem::replace(&mut self.told, true) {
            let result = self.result.clone().map(Into::into).map_err(Failure::from);
            let end = End { result, at_ns: self.at_ns, stages: timeline.entries().to_vec() };
            // It may be gone.
            let _ = self.proxy.send(&end, &[]).await;
        }
    }
}

impl Held {
    /// Holds it until it has ended and its output is written.
    pub(super) async fn hold(self, shared: Rc<Shared>) -> Ended {
        let Self { of, proxy, expected, streams, doomed } = self;
        let mut streams = tokio::task::spawn_local(Streams::connect(expected, streams));
        let result = end(&shared, &of, &proxy, &doomed).await;
        let at_ns = now_ns();
        let first = of.process.is_empty();
        if first {
            shared.note(&of.container, Status::Stopped);
        }
        let quiet = if first { QUIET } else { QUIET_EXEC };
        tokio::select! {
            () = drained(&mut streams, quiet) => {}
            () = given_up(&proxy) => {}
        }
        streams.abort();
        let mut ended = Ended::new(of, proxy, result, at_ns);
        if !first && ended.result.is_ok() {
            // Whoever waits for it does not wait for the guest.
            ended.tell(&Timeline::default()).await;
            // The container may be gone with it.
            let _ = shared.pod.delete(&ended.of.container, &ended.of.process, true).await;
        }
        ended
    }
}

/// Nanoseconds since 1970.
pub(super) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Waits for the end of a process, and passes on what its proxy says.
async fn end(
    shared: &Rc<Shared>,
    of: &Of,
    proxy: &Socket,
    doomed: &Notify,
) -> Result<ExitStatus, PodError> {
    let wait = shared.pod.wait(&of.container, &of.process);
    tokio::pin!(wait);
    let mut listening = true;
    let mut deadline = None;
    loop {
        let overdue = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = &mut wait => return result,
            () = overdue => {
                let text = format!("it ended no killed process within {KILLED_WITHIN:?}");
                return Err(PodError { stage: None, cause: Cause::AgentLost(text) });
            }
            () = doomed.notified() => {
                deadline.get_or_insert_with(|| Instant::now() + KILLED_WITHIN);
            }
            said = proxy.receive::<FromProxy>(), if listening => match said {
                Ok(message) => pass(shared, of, message.body),
                Err(_) => {
                    listening = false;
                    deadline.get_or_insert_with(|| Instant::now() + KILLED_WITHIN);
                    kill(shared, of);
                }
            }
        }
    }
}

/// Waits until the output is written, or nothing comes any more for as long as `quiet`. As long as it is not taken, it
/// is waited for.
async fn drained(streams: &mut tokio::task::JoinHandle<std::io::Result<Streams>>, quiet: Duration) {
    let mut connected = match tokio::time::timeout(QUIET, streams).await {
        Ok(Ok(Ok(connected))) => connected,
        Ok(Ok(Err(error))) => return tracing::debug!(%error, "standard streams"),
        _ => return,
    };
    let (mut moved, mut since) = (connected.moved(), Instant::now());
    while tokio::time::timeout(LOOK, connected.drained()).await.is_err() {
        let now = connected.moved();
        if now != moved || connected.is_writing() {
            (moved, since) = (now, Instant::now());
        } else if since.elapsed() > quiet {
            return;
        }
    }
}

/// Passes on what came for the process, without waiting: a guest that does not answer holds up nothing.
fn pass(shared: &Rc<Shared>, of: &Of, said: FromProxy) {
    let (shared, of) = (Rc::downgrade(shared), of.clone());
    tokio::task::spawn_local(async move {
        let Some(shared) = shared.upgrade() else { return };
        let pass = async {
            match said {
                FromProxy::Signal(signal) => {
                    shared.pod.signal(&of.container, &of.process, signal, false).await
                }
                FromProxy::Size(rows, columns) => {
                    shared.pod.resize(&of.container, &of.process, (rows, columns)).await
                }
            }
        };
        match tokio::time::timeout(PASS_PATIENCE, pass).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "passing on a signal"),
            Err(_) => tracing::warn!("the guest did not take a signal"),
        }
    });
}

fn kill(shared: &Rc<Shared>, of: &Of) {
    let (shared, of) = (Rc::downgrade(shared), of.clone());
    tokio::task::spawn_local(async move {
        let Some(shared) = shared.upgrade() else { return };
        let all = of.process.is_empty();
        if let Err(error) = shared.pod.signal(&of.container, &of.process, KILL, all).await {
            tracing::debug!(%error, "killing a process whose proxy is gone");
        }
    });
}

/// Waits until nobody wants the rest of the output: the proxy is gone, or was asked to end.
async fn given_up(proxy: &Socket) {
    loop {
        match proxy.receive::<FromProxy>().await {
            Ok(message) => match message.body {
                FromProxy::Signal(signal) if is_interruption(signal) => return,
                _ => {}
            },
            Err(_) => return,
        }
    }
}
