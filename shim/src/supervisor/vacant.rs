//! A sandbox without a process: it stands for the machine, whose namespaces the containers that join it share.
//!
//! A signal does to it what it does to a pause container: `SIGKILL` kills it, one that asks a program to end ends it with
//! code 0, others do nothing.
//!
//! Invariant: it ends with its machine, and the machine with it.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use cofferdam_agent_protocol::ContainerPlan;
use cofferdam_vmm_api::Channel;
use tokio::sync::Notify;

use super::hold::{Ended, KILL, now_ns};
use super::{Container, Shared};
use crate::container::Status;
use crate::control::{Create, Failure, FailureKind, FromProxy, Of};
use crate::pod::ExitStatus;
use crate::signals::is_interruption;
use crate::socket::Socket;

/// How one ends that is killed.
const KILLED: ExitStatus = ExitStatus { code: 0, signal: 9 };

/// One that was created.
#[derive(Debug)]
pub(super) struct Vacant {
    id: String,
    proxy: Socket,
    /// Told that it ends.
    doomed: Rc<Notify>,
    /// How.
    status: Rc<Cell<ExitStatus>>,
}

impl Vacant {
    /// Holds it until it has ended.
    pub(super) async fn hold(self, shared: Rc<Shared>) -> Ended {
        let Self { id, proxy, doomed, status } = self;
        let left = async {
            // Signals come to the supervisor itself.
            while let Ok(message) = proxy.receive::<FromProxy>().await {
                tracing::debug!(said = ?message.body, "to a sandbox without a process");
            }
        };
        let result = tokio::select! {
            ended = shared.pod.wait(&id, "") => ended,
            () = doomed.notified() => Ok(status.get()),
            () = left => Ok(KILLED),
        };
        let at_ns = now_ns();
        shared.note(&id, Status::Stopped);
        Ended::new(Of { container: id, process: String::new() }, proxy, result, at_ns)
    }
}

impl Shared {
    /// Takes in the sandbox `id`, for which `fds` stand on the host.
    ///
    /// # Errors
    /// It is not the pod's first container, or the machine is gone.
    pub(super) async fn sandbox(
        &self,
        id: String,
        create: Create,
        fds: Vec<OwnedFd>,
    ) -> Result<Vacant, Failure> {
        if !self.containers.borrow().is_empty() {
            return Err(Failure::other("a sandbox is the first container of its pod"));
        }
        let fds = <[OwnedFd; 1]>::try_from(fds);
        let [proxy] =
            fds.map_err(|fds| Failure::other(format!("{} descriptors came, not 1", fds.len())))?;
        let proxy = Socket::new(Channel::new(proxy)).map_err(Failure::other)?;
        self.pod.expect_end(&id).await?;
        let (doomed, status) = (Rc::new(Notify::new()), Rc::new(Cell::new(KILLED)));
        let Create { directory, sandbox, keep, .. } = create;
        let container = Container {
            first: true,
            directory,
            sandbox,
            keep,
            disks: Vec::new(),
            volumes: Vec::new(),
            doomed: doomed.clone(),
            vacant: Some(status.clone()),
            started: false,
            ended: false,
        };
        self.containers.borrow_mut().insert(id.clone(), container);
        self.note(&id, Status::Created);
        Ok(Vacant { id, proxy, doomed, status })
    }

    /// Whether a container has no process.
    pub(super) fn is_vacant(&self, id: &str) -> bool {
        self.containers.borrow().get(id).is_some_and(|container| container.vacant.is_some())
    }

    /// Refuses what needs a process, if the container has none.
    pub(super) fn refuse_vacant(&self, id: &str, what: &str) -> Result<(), Failure> {
        if self.is_vacant(id) {
            let message = format!("cannot {what} {id}: it is a sandbox, which runs no process");
            return Err(Failure::new(message, FailureKind::WrongState));
        }
        Ok(())
    }

    /// Sends `signal` to a sandbox without a process; whether it is one.
    pub(super) fn signal_vacant(&self, id: &str, signal: u32) -> bool {
        let containers = self.containers.borrow();
        let Some(container) = containers.get(id) else { return false };
        let Some(status) = &container.vacant else { return false };
        if signal != KILL && is_interruption(signal) {
            status.set(ExitStatus { code: 0, signal: 0 });
        }
        if signal == KILL || is_interruption(signal) {
            container.doomed.notify_one();
        }
        true
    }

    /// What the container of `plan` shares with a sandbox without a process: the machine's own namespaces, but for the pid
    /// namespace, which the guest keeps for those that join it.
    ///
    /// # Errors
    /// The guest's.
    pub(super) async fn share(&self, plan: &mut ContainerPlan) -> Result<(), Failure> {
        use cofferdam_agent_protocol::NamespaceKind::Pid;
        let joins = plan.namespaces.iter().find(|n| self.is_vacant(&n.join));
        let Some(sandbox) = joins.map(|namespace| namespace.join.clone()) else { return Ok(()) };
        plan.namespaces.retain(|n| n.join != sandbox || n.kind() == Pid);
        if plan.namespaces.iter().any(|namespace| namespace.join == sandbox) {
            self.pod.keep(&sandbox).await?;
        }
        Ok(())
    }
}
