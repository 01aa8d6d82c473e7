//! One connection of a client.
//!
//! Invariant: what a client had attached and not used, and the hook that it ran, go with the connection.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use cofferdam_agent_protocol::{
    CgroupSetting, ContainerPlan, Described, Description, NamespaceKind, ProcessPlan,
};
use cofferdam_vmm_api::{Bdf, Channel, Message};
use rustix::process::{Pid, Signal, kill_process_group};

use super::hold::Held;
use super::{Container, Shared};
use crate::container::Status;
use crate::control::{Answer, Create, Failure, FailureKind, Of, Process, ToSupervisor, unpack};
use crate::pod::NewDisk;
use crate::socket::Socket;
use crate::tail::printable;

/// Most processes that are told of at once.
const MOST_PROCESSES: usize = 180;

/// What goes with the connection.
struct Client {
    shared: Rc<Shared>,
    attached: Vec<Bdf>,
    hook: Hook,
}

/// The process group of a hook that a client runs; dropping it kills the group.
#[derive(Default)]
struct Hook(Option<Pid>);

impl Drop for Hook {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// A question that is being answered.
struct Answering(Rc<Shared>);

impl Answering {
    fn begin(shared: &Rc<Shared>) -> Self {
        shared.answering.set(shared.answering.get() + 1);
        Self(shared.clone())
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.set(self.0.answering.get().saturating_sub(1));
    }
}

/// Serves a client until it goes away.
pub(super) async fn serve(shared: Rc<Shared>, socket: Socket) {
    let mut client = Client { shared, attached: Vec::new(), hook: Hook::default() };
    while let Ok(message) = socket.receive::<ToSupervisor>().await {
        let Message { body, fds } = message;
        match body {
            ToSupervisor::Hook(group) => client.hook.0 = group.and_then(Pid::from_raw),
            ToSupervisor::OutOfMemory(container) => {
                client.shared.tell_of_memory(&container, &socket).await;
                return;
            }
            body => {
                let answering = Answering::begin(&client.shared);
                let answer = client.answer(body, fds).await.unwrap_or_else(Answer::Failed);
                let sent = socket.send(&answer, &[]).await;
                drop(answering);
                if sent.is_err() {
                    break;
                }
            }
        }
    }
    let unused = std::mem::take(&mut client.attached);
    if !unused.is_empty() {
        detach(&client.shared, &unused).await;
    }
}

impl Client {
    async fn answer(&mut self, body: ToSupervisor, fds: Vec<OwnedFd>) -> Result<Answer, Failure> {
        let pod = &self.shared.pod;
        match body {
            ToSupervisor::Attach => return self.attach(fds).await,
            ToSupervisor::Create(create) => self.create(create, fds).await?,
            ToSupervisor::Exec { of, cgroup } => self.exec(of, &cgroup, fds).await?,
            ToSupervisor::Start(container) => {
                pod.start(&container).await?;
                self.shared.note(&container, Status::Running);
            }
            ToSupervisor::Signal { of, signal, all } => {
                pod.signal(&of.container, &of.process, signal, all).await?;
            }
            ToSupervisor::Freeze { container, frozen } => {
                pod.freeze(&container, frozen).await?;
                let status = if frozen { Status::Paused } else { Status::Running };
                self.shared.note(&container, status);
            }
            ToSupervisor::Update { container, settings } => {
                let setting = |(file, value)| CgroupSetting { file, value };
                pod.update(&container, settings.into_iter().map(setting).collect()).await?;
            }
            ToSupervisor::Processes(container) => {
                let Described { processes, uptime } = pod.processes(&container).await?;
                // They travel in one message.
                let processes = processes.into_iter().take(MOST_PROCESSES).map(process).collect();
                return Ok(Answer::Processes { uptime, processes });
            }
            ToSupervisor::Stats(container) => {
                let files = pod.stats(&container).await?;
                let pair = |setting: CgroupSetting| (setting.file, setting.value);
                return Ok(Answer::Stats(files.into_iter().map(pair).collect()));
            }
            ToSupervisor::Delete(container) => self.shared.delete(&container).await?,
            ToSupervisor::Launch(_) | ToSupervisor::OutOfMemory(_) | ToSupervisor::Hook(_) => {
                return Err(Failure::other("the pod runs already"));
            }
        }
        Ok(Answer::Done)
    }

    async fn attach(&mut self, fds: Vec<OwnedFd>) -> Result<Answer, Failure> {
        let disk = |fd: OwnedFd| NewDisk { file: fd.into(), readonly: true };
        let disks = self.shared.pod.attach(fds.into_iter().map(disk).collect()).await?;
        self.attached.extend(&disks);
        Ok(Answer::Disks(disks))
    }

    async fn create(&mut self, create: Create, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let (plan, proxy, streams) = parts(fds)?;
        let plan: ContainerPlan = unpack(plan).map_err(Failure::other)?;
        let id = plan.id.clone();
        if self.shared.containers.borrow().contains_key(&id) {
            return Err(Failure::other(format!("container with given ID already exists: {id}")));
        }
        // With a pid namespace of its own, nothing outlives the first process: its output ends.
        let alone = plan.namespaces.iter().any(|n| n.kind() == NamespaceKind::Pid);
        let expected = self.shared.pod.create(plan).await?;
        let Create { directory, sandbox, keep } = create;
        let disks = std::mem::take(&mut self.attached);
        let container = Container { directory, sandbox, keep, disks, ended: false };
        self.shared.containers.borrow_mut().insert(id.clone(), container);
        self.shared.note(&id, Status::Created);
        let of = Of { container: id, process: String::new() };
        self.shared.hold(Held { of, proxy, expected, streams, patient: alone && !keep });
        Ok(())
    }

    async fn exec(&self, of: Of, cgroup: &str, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let (plan, proxy, streams) = parts(fds)?;
        let plan: ProcessPlan = unpack(plan).map_err(Failure::other)?;
        let expected = self.shared.pod.exec(&of.container, &of.process, cgroup, plan).await?;
        self.shared.hold(Held { of, proxy, expected, streams, patient: false });
        Ok(())
    }
}

impl Shared {
    fn hold(&self, held: Held) {
        // The receiver lives as long as the tasks do.
        let _ = self.created.send(held);
    }

    async fn delete(&self, id: &str) -> Result<(), Failure> {
        if !self.containers.borrow().contains_key(id) {
            let message = format!("the pod has no container {id}");
            return Err(Failure::new(message, FailureKind::NotFound));
        }
        self.pod.delete(id, "", true).await?;
        let disks = self.containers.borrow_mut().remove(id).map(|container| container.disks);
        detach(self, &disks.unwrap_or_default()).await;
        Ok(())
    }

    async fn tell_of_memory(&self, container: &str, socket: &Socket) {
        let mut events = self.pod.out_of_memory();
        loop {
            match events.recv().await {
                Ok(of) if of == container => {
                    if socket.send(&Answer::OutOfMemory, &[]).await.is_err() {
                        return;
                    }
                }
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(_) => return,
            }
        }
    }
}

async fn detach(shared: &Shared, disks: &[Bdf]) {
    if !disks.is_empty()
        && let Err(error) = shared.pod.detach(disks).await
    {
        tracing::warn!(%error, "the disks of a container stay in the machine");
    }
}

/// What the guest says of a process, without what a terminal would obey, and bounded.
fn process(process: Description) -> Process {
    let text = |text: String, limit: usize| -> String {
        printable(text.as_bytes()).chars().take(limit).collect()
    };
    let Description { stat, uid, command } = process;
    Process { stat: text(stat, 200), uid, command: text(command, 64) }
}

/// The plan, the proxy and the standard streams of a new process.
fn parts(fds: Vec<OwnedFd>) -> Result<(OwnedFd, Socket, [OwnedFd; 3]), Failure> {
    let fds = <[OwnedFd; 5]>::try_from(fds);
    let [plan, proxy, stdin, stdout, stderr] =
        fds.map_err(|fds| Failure::other(format!("{} descriptors came, not 5", fds.len())))?;
    let proxy = Socket::new(Channel::new(proxy)).map_err(Failure::other)?;
    Ok((plan, proxy, [stdin, stdout, stderr]))
}
