//! The pod: all containers, and what the host asks of them.
//!
//! Invariant: one owner of all state, and one request at a time. Events are collected here and sent by
//! the session, so that an end is never told before the creation.

mod check;
mod container;
mod create;
mod state;

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use cofferdam_agent_protocol::{
    Created, ErrorKind, Event, Processes, Request, Stats, event, request, response,
};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

use crate::error::{Failure, Result};
use crate::guest::cgroup;
use crate::guest::{self, Disks, OomWatch, Place, Shared, Volumes};
use crate::launch::keeper;
use crate::stdio::{Dialer, forward};
use crate::sys;
use container::{Container, Process};

/// How long killed processes may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// The highest signal.
const MAX_SIGNAL: u32 = 64;

/// Files of the guest that containers get to see, each on a mount on which nobody can change owner or permissions.
pub(crate) struct Own {
    /// The agent's own program, which is its launcher too.
    pub(crate) program: OwnedFd,
    /// /dev/null.
    pub(crate) null: OwnedFd,
}

/// All containers of the guest.
pub(crate) struct Pod {
    place: Place,
    dialer: Dialer,
    own: Own,
    containers: BTreeMap<String, Container>,
    /// First processes of pid namespaces, by the names of containers that have none.
    keepers: BTreeMap<String, Process>,
    disks: Disks,
    shared: Shared,
    volumes: Volumes,
    oom: Option<OomWatch>,
    events: Vec<Event>,
}

/// The answer to a creation.
fn created(process: &Process) -> Created {
    Created { pid: process.pid.as_raw().cast_unsigned() }
}

impl Pod {
    /// No containers yet.
    pub(crate) fn new(place: Place, dialer: Dialer, own: Own) -> Self {
        let oom = OomWatch::new().map_err(|failure| crate::log!("{failure}")).ok();
        let (containers, keepers) = (BTreeMap::new(), BTreeMap::new());
        let disks = Disks::default();
        let (shared, volumes, events) = (Shared::default(), Volumes::default(), Vec::new());
        Self { place, dialer, own, containers, keepers, disks, shared, volumes, oom, events }
    }

    /// Does what `request` wants.
    pub(crate) async fn handle(&mut self, request: Request) -> response::Body {
        let outcome = match request.body {
            Some(body) => self.dispatch(body).await,
            None => Err(Failure::unsupported("a request of a kind that this agent does not know")),
        };
        outcome.unwrap_or_else(|failure| response::Body::Error(failure.into()))
    }

    /// Does one request.
    async fn dispatch(&mut self, body: request::Body) -> Result<response::Body> {
        use request::Body;
        match body {
            Body::Create(plan) => return self.create(*plan).await.map(response::Body::Created),
            Body::Exec(exec) => return self.exec(exec).await.map(response::Body::Created),
            Body::List(of) => {
                let pids = self.find(&of.container)?.cgroup.processes()?;
                return Ok(response::Body::Processes(Processes { pids }));
            }
            Body::Describe(of) => {
                let pids = self.find(&of.container)?.cgroup.processes()?;
                return Ok(response::Body::Described(guest::describe(&pids)));
            }
            Body::Stats(of) => {
                let files = match of.container.as_str() {
                    "" => cgroup::stats(&self.place.cgroup),
                    container => self.find(container)?.cgroup.stats(),
                };
                return Ok(response::Body::Stats(Stats { files }));
            }
            Body::SetCpus(wanted) => {
                let cpus = guest::cpu::set_online(&self.place.cpus, wanted.online);
                for container in self.containers.values() {
                    if let Err(failure) = container.cgroup.refit() {
                        crate::log!("other CPUs: {failure}");
                    }
                }
                return cpus.map(response::Body::Cpus);
            }
            Body::Start(start) => self.start(&start).await,
            Body::Keep(of) => self.keep(of.container).await,
            Body::Signal(signal) => self.signal(&signal),
            Body::Resize(resize) => self.resize(&resize),
            Body::Delete(delete) => self.delete(&delete).await,
            Body::Pause(of) => self.pause(&of.container, true).await,
            Body::Resume(of) => self.pause(&of.container, false).await,
            Body::Update(update) => self.find(&update.container)?.cgroup.apply(&update.settings),
            Body::Expect(expected) => {
                return guest::expect(&expected).await.map(response::Body::Found);
            }
            Body::Forward(wanted) => forward(&self.dialer, &wanted),
            Body::Release(release) => guest::release(&self.disks, &release.addresses),
            Body::Shutdown(_) => self.shutdown().await,
        }?;
        Ok(response::Body::Done(response::Done {}))
    }

    /// The container `id`.
    fn find(&mut self, id: &str) -> Result<&mut Container> {
        let missing = || Failure::new(ErrorKind::NotFound, format!("no container \"{id}\""));
        self.containers.get_mut(id).ok_or_else(missing)
    }

    /// Keeps a pid namespace under the name `id`.
    async fn keep(&mut self, id: String) -> Result<()> {
        check::id(&id)?;
        if self.containers.contains_key(&id) {
            return Err(Failure::new(ErrorKind::Exists, format!("container \"{id}\" exists")));
        }
        if !self.keepers.contains_key(&id) {
            let keeper = keeper::keep(self.own.program.as_fd(), self.own.null.as_fd());
            let (pid, pidfd) = keeper.await?;
            self.keepers.insert(id, Process { pid, pidfd, terminal: None, ended: false });
        }
        Ok(())
    }

    /// Lets a created container run.
    async fn start(&mut self, wanted: &request::Start) -> Result<()> {
        let container = self.find(&wanted.container)?;
        let running = container.state.start()?;
        container.rootfs.rewrite(&wanted.files)?;
        let waiting = container.created.take();
        let waiting = waiting.ok_or_else(|| Failure::other("the process is gone"))?;
        let outcome = waiting.go().await;
        if outcome.is_ok() {
            container.state = running;
        } else {
            // It will be Stopped when it is reaped.
            container.first.kill();
        }
        outcome
    }

    /// Sends a signal.
    fn signal(&mut self, wanted: &request::Signal) -> Result<()> {
        if wanted.signal == 0 || wanted.signal > MAX_SIGNAL {
            return Err(Failure::unsupported(format!("signal {}", wanted.signal)));
        }
        let container = self.find(&wanted.container)?;
        if !wanted.all {
            if wanted.process.is_empty() {
                container.state.signal()?;
            }
            return container.process(&wanted.process)?.signal(wanted.signal);
        }
        if wanted.signal == libc::SIGKILL.cast_unsigned() {
            return container.cgroup.kill();
        }
        for pid in container.cgroup.processes()? {
            let pid = Pid::from_raw(i32::try_from(pid).unwrap_or(0));
            // It may have ended since it was listed.
            if let Some(pidfd) = Some(pid).filter(|pid| pid.as_raw() > 0).map(sys::open_pidfd) {
                let _ = pidfd.and_then(|pidfd| sys::send_signal(pidfd.as_fd(), wanted.signal));
            }
        }
        Ok(())
    }

    /// Sets the size of a terminal.
    fn resize(&mut self, wanted: &request::Resize) -> Result<()> {
        let too_large = |_| Failure::unsupported("a window of that size");
        let rows = u16::try_from(wanted.rows).map_err(too_large)?;
        let columns = u16::try_from(wanted.columns).map_err(too_large)?;
        let process = self.find(&wanted.container)?.process(&wanted.process)?;
        let wrong = || Failure::new(ErrorKind::WrongState, "the process has no terminal");
        let terminal = process.terminal.as_ref().ok_or_else(wrong)?;
        let outcome = sys::resize(terminal.as_fd(), sys::WindowSize { rows, columns });
        crate::error::Context::context(outcome, || "resizing the terminal".into())
    }

    /// Freezes or thaws a container.
    async fn pause(&mut self, id: &str, frozen: bool) -> Result<()> {
        let container = self.find(id)?;
        let next = if frozen { container.state.pause()? } else { container.state.resume()? };
        container.cgroup.freeze(frozen).await?;
        container.state = next;
        Ok(())
    }

    /// Forgets a process or a container.
    async fn delete(&mut self, wanted: &request::Delete) -> Result<()> {
        let container = self.find(&wanted.container)?;
        if !wanted.process.is_empty() {
            let process = container.process(&wanted.process)?;
            if !process.ended && !wanted.force {
                let text = "cannot delete a running process";
                return Err(Failure::new(ErrorKind::WrongState, text));
            }
            if !process.ended {
                process.signal(libc::SIGKILL.cast_unsigned())?;
                self.wait(&wanted.container, &wanted.process).await?;
            }
            self.find(&wanted.container)?.others.remove(&wanted.process);
            return Ok(());
        }
        if container.state.delete(wanted.force)? {
            container.cgroup.kill()?;
            self.wait(&wanted.container, "").await?;
        }
        let container = self.find(&wanted.container)?;
        container.cgroup.kill()?;
        container.cgroup.remove().await?;
        // Those that the kill ended are told about before their container is forgotten.
        self.reap();
        if let Some(mut container) = self.containers.remove(&wanted.container) {
            container.rootfs.remove(&self.place, &mut self.disks);
            self.shared.release(&container.shared);
            if let (Some(oom), Some(watch)) = (&self.oom, container.watch) {
                oom.remove(watch);
            }
        }
        Ok(())
    }

    /// Waits until a process that was killed is reaped.
    async fn wait(&mut self, container: &str, process: &str) -> Result<()> {
        let until = Instant::now() + ENDS_WITHIN;
        loop {
            self.reap();
            if self.find(container)?.process(process)?.ended {
                return Ok(());
            }
            if Instant::now() >= until {
                return Err(Failure::other("the process did not end in time"));
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Kills everything.
    async fn shutdown(&mut self) -> Result<()> {
        for container in self.containers.values() {
            if let Err(failure) = container.cgroup.kill() {
                crate::log!("shutting down: {failure}");
            }
        }
        let until = Instant::now() + ENDS_WITHIN;
        let alive = |pod: &Self| pod.containers.values().any(|c| !c.first.ended);
        self.reap();
        while alive(self) && Instant::now() < until {
            sleep(Duration::from_millis(1)).await;
            self.reap();
        }
        for container in self.containers.values() {
            container.rootfs.unmount();
        }
        self.disks.unmount_scratch(&self.place);
        Ok(())
    }

    /// Reaps all children that ended, orphans included.
    pub(crate) fn reap(&mut self) {
        while let Some((pid, status)) = sys::next_ended() {
            self.record(pid, status);
        }
    }

    /// Records the end of `pid`, if it is a container's.
    fn record(&mut self, pid: Pid, status: i32) {
        self.keepers.retain(|_, keeper| keeper.pid != pid);
        let found = self.containers.iter_mut().find_map(|(id, container)| {
            let process = container.id_of(pid)?;
            Some((id, container, process))
        });
        let Some((id, container, process)) = found else { return };
        if container.ran_out_of_memory() {
            self.events.push(out_of_memory(id));
        }
        if process.is_empty() {
            container.state = container.state.ended();
            container.created = None;
            // Without a pid namespace of its own, the others do not end with the first one.
            if let Err(failure) = container.cgroup.kill() {
                crate::log!("ending container {id}: {failure}");
            }
        }
        if let Ok(ended) = container.process(&process) {
            ended.ended = true;
            ended.terminal = None;
        }
        let ended = container::ended(id, &process, status);
        self.events.push(Event { body: Some(event::Body::Ended(ended)) });
    }

    /// Waits until some container ran out of memory, perhaps.
    pub(crate) async fn memory_changed(&self) {
        match &self.oom {
            Some(watch) => watch.changed().await,
            None => std::future::pending().await,
        }
    }

    /// Looks which containers ran out of memory.
    pub(crate) fn check_memory(&mut self) {
        for (id, container) in &mut self.containers {
            if container.ran_out_of_memory() {
                self.events.push(out_of_memory(id));
            }
        }
    }

    /// What happened since the last call.
    pub(crate) fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }
}

/// Tells that a container ran out of memory.
fn out_of_memory(id: &str) -> Event {
    let container = request::Container { container: id.into() };
    Event { body: Some(event::Body::OutOfMemory(container)) }
}
