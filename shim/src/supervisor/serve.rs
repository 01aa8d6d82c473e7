//! One connection of a client.
//!
//! Invariant: what a client had attached and not used, the hook that it ran, and the container that it created and did
//! not leave, go with the connection.

use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use cofferdam_agent_protocol::{
    CgroupSetting, ContainerPlan, Described, Description, ProcessPlan, request,
};
use cofferdam_vmm_api::{Bdf, Channel, Message};
use rustix::process::{Pid, Signal, kill_process_group};

use tokio::sync::Notify;

use super::hold::{self, Held};
use super::{Container, New, Shared};
use crate::container::Status;
use crate::control::{Answer, Create, Failure, FailureKind, Of, Process, ToSupervisor, unpack};
use crate::pod::{NewDisk, clear_dead};
use crate::socket::Socket;
use crate::tail::printable;

/// Most bytes of processes that are told of at once: they travel in one message.
const MOST_BYTES: usize = 40 << 10;

/// What goes with the connection.
struct Client {
    shared: Rc<Shared>,
    attached: Vec<Bdf>,
    volumes: Vec<String>,
    /// The container that it created and has not left.
    created: Option<String>,
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
    let mut client = Client {
        shared,
        attached: Vec::new(),
        volumes: Vec::new(),
        created: None,
        hook: Hook::default(),
    };
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
    if let Some(id) = client.created.take() {
        client.shared.give_up(&id).await;
    }
    client.shared.unmount(std::mem::take(&mut client.volumes)).await;
}

impl Client {
    async fn answer(
        &mut self,
        body: ToSupervisor,
        mut fds: Vec<OwnedFd>,
    ) -> Result<Answer, Failure> {
        let pod = &self.shared.pod;
        match body {
            ToSupervisor::Attach { writable } => return self.attach(&writable, fds).await,
            ToSupervisor::Volumes(new) => {
                let names = self.shared.mount(new, fds).await?;
                self.volumes.extend(names.iter().cloned());
                return Ok(Answer::Volumes(names));
            }
            ToSupervisor::Create(create) => self.create(create, fds).await?,
            ToSupervisor::Sandbox { id, create } => {
                let vacant = self.shared.sandbox(id.clone(), create, fds).await?;
                self.created = Some(id);
                self.shared.hold(New::Sandbox(vacant));
            }
            ToSupervisor::Leave => self.created = None,
            ToSupervisor::Exec { of, cgroup } => self.exec(of, &cgroup, fds).await?,
            ToSupervisor::Start(container) => {
                let changed = fds.pop().map(unpack::<request::Start>).transpose();
                let changed = changed.map_err(Failure::other)?.unwrap_or_default();
                if !self.shared.is_vacant(&container) {
                    pod.start_with(&container, changed.files).await?;
                }
                self.shared.started(&container);
            }
            ToSupervisor::Signal { of, signal, .. }
                if self.shared.signal_vacant(&of.container, signal) => {}
            ToSupervisor::Signal { of, signal, all } => {
                if signal == hold::KILL && of.process.is_empty() {
                    self.shared.doom(&of.container);
                }
                let signalled = pod.signal(&of.container, &of.process, signal, all);
                let late = |_| Failure::other("the guest did not take the signal");
                tokio::time::timeout(hold::PASS_PATIENCE, signalled).await.map_err(late)??;
            }
            ToSupervisor::Freeze { container, frozen } => {
                self.shared.refuse_vacant(&container, "freeze")?;
                pod.freeze(&container, frozen).await?;
                self.shared.frozen(&container, frozen);
            }
            ToSupervisor::Update { container, settings, needs } => {
                let setting = |(file, value)| CgroupSetting { file, value };
                let settings = settings.into_iter().map(setting).collect();
                self.shared.update(&container, settings, needs).await?;
            }
            ToSupervisor::Processes(container) if self.shared.is_vacant(&container) => {
                return Ok(Answer::Processes { uptime: 0, processes: Vec::new() });
            }
            ToSupervisor::Processes(container) => {
                let Described { processes, uptime } = pod.processes(&container).await?;
                return Ok(Answer::Processes { uptime, processes: fitting(processes) });
            }
            ToSupervisor::Stats(container) => {
                // A sandbox stands for the whole pod.
                let of = if self.shared.is_vacant(&container) { "" } else { &container };
                let files = pod.stats(of).await?;
                let pair = |setting: CgroupSetting| (setting.file, setting.value);
                return Ok(Answer::Stats(files.into_iter().map(pair).collect()));
            }
            ToSupervisor::Forward(port) => self.shared.forward(port, fds.pop()).await?,
            ToSupervisor::Delete(container) => self.shared.delete(&container).await?,
            ToSupervisor::Launch(_) | ToSupervisor::OutOfMemory(_) | ToSupervisor::Hook(_) => {
                return Err(Failure::other("the pod runs already"));
            }
        }
        Ok(Answer::Done)
    }

    async fn attach(&mut self, writable: &[bool], fds: Vec<OwnedFd>) -> Result<Answer, Failure> {
        if writable.len() != fds.len() {
            let (disks, came) = (writable.len(), fds.len());
            return Err(Failure::other(format!("{came} descriptors came for {disks} disks")));
        }
        let disk =
            |(fd, writable): (OwnedFd, &bool)| NewDisk { file: fd.into(), readonly: !writable };
        let disks = fds.into_iter().zip(writable).map(disk).collect();
        let attached = self.shared.pod.attach(disks).await?;
        self.attached.extend(attached.iter().map(|disk| disk.address));
        Ok(Answer::Attached(attached))
    }

    async fn create(&mut self, create: Create, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        let (plan, proxy, streams) = parts(fds)?;
        let mut plan: ContainerPlan = unpack(plan).map_err(Failure::other)?;
        let id = plan.id.clone();
        if self.shared.containers.borrow().contains_key(&id) {
            return Err(Failure::other(format!("container with given ID already exists: {id}")));
        }
        let Create { directory, sandbox, keep, needs } = create;
        self.shared.share(&mut plan).await?;
        let joins = !self.shared.containers.borrow().is_empty();
        if joins {
            self.shared.make_room(&id, needs).await?;
        }
        let created = self.shared.pod.create(plan).await;
        let expected = created.inspect_err(|_| self.shared.leave_room(&id))?;
        let disks = std::mem::take(&mut self.attached);
        let volumes = std::mem::take(&mut self.volumes);
        let doomed = Rc::new(Notify::new());
        let first = self.shared.containers.borrow().is_empty();
        let container = Container {
            first,
            directory,
            sandbox,
            keep,
            disks,
            volumes,
            doomed: doomed.clone(),
            vacant: None,
            started: false,
            ended: false,
        };
        self.shared.containers.borrow_mut().insert(id.clone(), container);
        self.shared.note(&id, Status::Created);
        self.created = Some(id.clone());
        let of = Of { container: id, process: String::new() };
        self.shared.hold(New::Process(Held { of, proxy, expected, streams, doomed }));
        Ok(())
    }

    async fn exec(&self, of: Of, cgroup: &str, fds: Vec<OwnedFd>) -> Result<(), Failure> {
        self.shared.refuse_vacant(&of.container, "exec in")?;
        let (plan, proxy, streams) = parts(fds)?;
        let plan: ProcessPlan = unpack(plan).map_err(Failure::other)?;
        let expected = self.shared.pod.exec(&of.container, &of.process, cgroup, plan).await?;
        let doomed = Rc::new(Notify::new());
        self.shared.hold(New::Process(Held { of, proxy, expected, streams, doomed }));
        Ok(())
    }
}

impl Shared {
    fn hold(&self, new: New) {
        // The receiver lives as long as the tasks do.
        let _ = self.created.send(new);
    }

    /// The first process of a container is killed, by whatever means: it is not waited for long.
    fn doom(&self, id: &str) {
        if let Some(container) = self.containers.borrow().get(id) {
            container.doomed.notify_one();
        }
    }

    /// Deletes a container that joined the pod and whose maker is gone. With a container that came first goes the pod.
    async fn give_up(self: &Rc<Self>, id: &str) {
        let directory = {
            let containers = self.containers.borrow();
            containers.get(id).filter(|container| !container.first).map(|c| c.directory.clone())
        };
        let Some(directory) = directory else { return self.doom(id) };
        if let Err(failure) = self.delete(id).await {
            tracing::warn!("deleting the container {id}: {failure}");
        }
        if !clear_dead(&directory, false, Duration::ZERO) {
            tracing::warn!(path = %directory.display(), "the next command removes this directory");
        }
    }

    async fn delete(self: &Rc<Self>, id: &str) -> Result<(), Failure> {
        if !self.containers.borrow().contains_key(id) {
            let message = format!("the pod has no container {id}");
            return Err(Failure::new(message, FailureKind::NotFound));
        }
        self.doom(id);
        if self.ends_with(id) {
            return Ok(());
        }
        self.pod.delete(id, "", true).await?;
        self.leave_room(id);
        let Some(container) = self.containers.borrow_mut().remove(id) else { return Ok(()) };
        detach(self, &container.disks).await;
        self.unmount(container.volumes).await;
        if container.first && !self.is_over() {
            self.move_aside();
        }
        Ok(())
    }

    async fn tell_of_memory(&self, container: &str, socket: &Socket) {
        let mut events = self.pod.out_of_memory();
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                // It says nothing more: it is gone.
                _ = socket.receive::<ToSupervisor>() => return,
            };
            match event {
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

/// As many processes as go into one message.
fn fitting(processes: Vec<Description>) -> Vec<Process> {
    let mut room = MOST_BYTES;
    let fits = |process: &Process| {
        // With what its JSON has around it, and quotes and backslashes escaped.
        let size = 80 + 2 * (process.stat.len() + process.command.len());
        let fits = size <= room;
        room = room.saturating_sub(size);
        fits
    };
    processes.into_iter().map(process).take_while(fits).collect()
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
