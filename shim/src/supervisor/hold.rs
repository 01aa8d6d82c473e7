//! One process of a container, from its creation to the word to its proxy that it has ended.
//!
//! Invariant: a proxy that goes away takes its process with it, and the container if it is the first.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use super::Shared;
use crate::control::{End, Failure, FromProxy, Of};
use crate::pod::{ExitStatus, Expected, PodError, Streams};
use crate::signals::is_interruption;
use crate::socket::Socket;
use crate::timeline::Timeline;

/// How long the agent may take to pass on a signal or the terminal's size.
const PASS_PATIENCE: Duration = Duration::from_secs(10);

/// How long an engine may leave output unread after the end of the process.
const DRAIN: Duration = Duration::from_secs(10);

/// The signal that ends a process whose proxy is gone.
const KILL: u32 = 9;

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
    /// Its output is waited for however slowly it is read: somebody waits for it to end.
    pub(super) patient: bool,
}

/// A process that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Which.
    pub(super) of: Of,
    proxy: Socket,
    result: Result<ExitStatus, PodError>,
}

impl Ended {
    /// Tells the proxy.
    pub(super) async fn tell(self, timeline: &Timeline) {
        let result = self.result.map(Into::into).map_err(Failure::from);
        let end = End { result, stages: timeline.entries().to_vec() };
        // It may be gone.
        let _ = self.proxy.send(&end, &[]).await;
    }
}

impl Held {
    /// Holds it until it has ended and its output is written.
    pub(super) async fn hold(self, shared: Rc<Shared>) -> Ended {
        let Self { of, proxy, expected, streams, patient } = self;
        let mut streams = tokio::task::spawn_local(Streams::connect(expected, streams));
        let result = {
            let wait = shared.pod.wait(&of.container, &of.process);
            tokio::pin!(wait);
            let mut listening = true;
            loop {
                tokio::select! {
                    result = &mut wait => break result,
                    said = proxy.receive::<FromProxy>(), if listening => match said {
                        Ok(message) => pass(&shared, &of, message.body),
                        Err(_) => {
                            listening = false;
                            kill(&shared, &of);
                        }
                    }
                }
            }
        };
        let drained = async {
            match (&mut streams).await {
                Ok(Ok(mut streams)) => streams.drained().await,
                Ok(Err(error)) => tracing::debug!(%error, "standard streams"),
                Err(_) => {}
            }
        };
        let limit = if patient { Duration::from_secs(u64::from(u32::MAX)) } else { DRAIN };
        tokio::select! {
            _ = tokio::time::timeout(limit, drained) => {}
            () = given_up(&proxy) => {}
        }
        if !of.process.is_empty() && result.is_ok() {
            // The container may be gone with it.
            let _ = shared.pod.delete(&of.container, &of.process, true).await;
        }
        Ended { of, proxy, result }
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
