//! A pod: one machine, its agent and its containers.
//!
//! One actor owns all state of a pod: the control socket of the monitor, the agent's connection, the
//! expected streams, the processes and the timeline. Everyone else holds a [`Pod`], which sends it
//! commands and waits for answers. Front ends hold no state of a pod.
//!
//! Invariant: when the actor has ended, the monitor's process is reaped; whatever the guest sends costs
//! bounded memory and fails at most this pod.

mod actor;
mod cgroup;
mod container;
mod dials;
mod error;
mod link;
mod machine;
mod monitor;
mod plug;
mod state_dir;
mod stream;
mod vsock;

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::sync::PoisonError;
use std::time::Duration;

use cofferdam_agent_protocol::{ErrorKind, PodPlan, request, response};
use cofferdam_vmm_api::{Bdf, FromMonitor, MachineSpec, ToMonitor};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

pub use actor::Timeouts;
pub use error::{Cause, PodError};
pub use monitor::{Monitor, SpawnError};
pub use plug::{AttachedDisk, AttachedNet, NewDisk, NewNet};
pub use state_dir::{StateDir, StateError, check_id, clear_dead};
pub use stream::{Pump, Streams};

use crate::timeline::Timeline;
use actor::{Actor, Command};

/// What a pod is started with.
#[derive(Debug)]
pub struct PodSpec {
    /// The machine.
    pub machine: MachineSpec,
    /// The descriptors that `machine` names, but for the connections socket, which comes last.
    pub descriptors: Vec<OwnedFd>,
    /// What the agent is told in its welcome; its clock is filled in then.
    pub plan: PodPlan,
    /// How long to wait for what.
    pub timeouts: Timeouts,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// The exit code, when no signal ended it.
    pub code: u8,
    /// The signal that ended it, or 0.
    pub signal: u8,
}

impl ExitStatus {
    /// The code a shell would report.
    #[must_use]
    pub fn shell_code(self) -> u8 {
        if self.signal == 0 { self.code } else { 128u8.saturating_add(self.signal) }
    }
}

/// A living pod, as everyone but its actor sees it.
#[derive(Debug)]
pub struct Pod {
    commands: mpsc::Sender<Command>,
    /// Until the pod was stopped.
    actor: std::sync::Mutex<Option<JoinHandle<Timeline>>>,
    /// What was attached since the boot. Held while devices come or go.
    plugged: tokio::sync::Mutex<BTreeSet<Bdf>>,
    /// How long the start of each container that was created may take.
    starts: std::sync::Mutex<HashMap<String, Duration>>,
    /// Held while the machine's size changes.
    resizing: tokio::sync::Mutex<()>,
    out_of_memory: broadcast::Sender<String>,
}

/// How long the monitor may take for an answer, on a slow machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// How much longer than the agent itself we wait for it: it may have something else to do first.
const PATIENCE: Duration = Duration::from_secs(30);

/// Containers that ran out of memory, kept for a listener that is slow.
const OUT_OF_MEMORY: usize = 16;

/// The streams of a new process: each arrives when the agent has dialled it.
#[derive(Debug, Default)]
pub struct Expected {
    /// The terminal, or standard input.
    pub stdin: Option<oneshot::Receiver<UnixStream>>,
    /// Standard output, without a terminal.
    pub stdout: Option<oneshot::Receiver<UnixStream>>,
    /// Standard error, without a terminal.
    pub stderr: Option<oneshot::Receiver<UnixStream>>,
}

/// Puts processes that serve the pod whose state directory is `state` beside its monitor, if the host lets us.
pub(crate) fn place_beside_monitor(state: &std::path::Path, pids: &[u32]) {
    if let Err(error) = cgroup::join(state, pids) {
        tracing::debug!(%error, "processes of the pod are in no control group of its own");
    }
}

impl Pod {
    /// Starts the actor, which boots the machine. Must be called within a runtime.
    ///
    /// # Errors
    /// The control socket cannot be watched.
    pub fn launch(monitor: Monitor, spec: PodSpec, timeline: Timeline) -> std::io::Result<Self> {
        let (commands, receiver) = mpsc::channel(32);
        let (out_of_memory, _) = broadcast::channel(OUT_OF_MEMORY);
        let actor = Actor::new(monitor, spec, timeline, (receiver, out_of_memory.clone()))?;
        let (plugged, starts, resizing) = Default::default();
        let actor = std::sync::Mutex::new(Some(tokio::spawn(actor.run())));
        Ok(Self { commands, actor, plugged, starts, resizing, out_of_memory })
    }

    /// Waits until the agent is ready; gives the PCI addresses of the disks.
    ///
    /// # Errors
    /// Why the pod failed instead.
    pub async fn ready(&self) -> Result<Vec<Bdf>, PodError> {
        self.command(Command::Ready).await
    }

    /// Stops the machine, as if its power were cut, and waits until its monitor is gone. The stages; none if it was
    /// stopped before.
    pub async fn stop(&self) -> Timeline {
        let _ = self.commands.send(Command::Stop).await;
        let actor = self.actor.lock().unwrap_or_else(PoisonError::into_inner).take();
        match actor {
            Some(actor) => actor.await.unwrap_or_default(),
            None => Timeline::default(),
        }
    }

    async fn done(&self, body: request::Body, what: &'static str) -> Result<(), PodError> {
        match self.request(body).await? {
            response::Body::Done(_) => Ok(()),
            _ => Err(PodError { stage: None, cause: Cause::WrongAnswer(what) }),
        }
    }

    /// What the agent answers.
    async fn request(&self, body: request::Body) -> Result<response::Body, PodError> {
        let limit = self.limit(&body) + PATIENCE;
        let answer = self.command(|reply| Command::Request { body, reply });
        match in_time(limit, answer, Cause::AgentLost).await? {
            response::Body::Error(error) => {
                let kind = ErrorKind::try_from(error.kind).unwrap_or(ErrorKind::Other);
                let message = crate::tail::printable(error.message.as_bytes());
                Err(PodError { stage: None, cause: Cause::Agent { kind, message } })
            }
            body => Ok(body),
        }
    }

    /// How long the agent may take for `body`.
    fn limit(&self, body: &request::Body) -> Duration {
        let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        match body {
            request::Body::Create(plan) => {
                starts.insert(plan.id.clone(), plan.started_within());
                body.answered_within()
            }
            request::Body::Start(start) => {
                starts.remove(&start.container).unwrap_or_else(|| body.answered_within())
            }
            request::Body::Delete(delete) if delete.process.is_empty() => {
                starts.remove(&delete.container);
                body.answered_within()
            }
            _ => body.answered_within(),
        }
    }

    /// What the monitor answers.
    async fn tell(&self, message: ToMonitor, fds: Vec<OwnedFd>) -> Result<FromMonitor, PodError> {
        let answer = self.command(|reply| Command::Tell { message, fds, reply });
        in_time(ANSWER_WITHIN, answer, Cause::Monitor).await
    }

    async fn command<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, PodError>>) -> Command,
    ) -> Result<T, PodError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// What comes of `answer`, or that it did not come within `limit`.
async fn in_time<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, PodError>>,
    late: fn(String) -> Cause,
) -> Result<T, PodError> {
    let text = || format!("no answer within {} s", limit.as_secs());
    let outcome = tokio::time::timeout(limit, answer).await;
    outcome.unwrap_or_else(|_| Err(PodError { stage: None, cause: late(text()) }))
}

fn stopped() -> PodError {
    PodError { stage: None, cause: Cause::Stopped }
}

#[cfg(test)]
#[path = "fake_test.rs"]
mod fake_test;

#[cfg(test)]
#[path = "plug_test.rs"]
mod plug_test;

#[cfg(test)]
#[path = "pod_test.rs"]
mod pod_test;
