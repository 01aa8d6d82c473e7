//! What containerd asks of a container that is there.
//!
//! Invariant: a container is forgotten when nothing of it is left on the host.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use containerd_shim_protos::api::{
    ExecProcessRequest, KillRequest, ProcessInfo, StateResponse, Status,
};
use containerd_shim_protos::protobuf::MessageField;
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::ttrpc::Code;

use super::super::metrics;
use super::super::refusal::Refusal;
use super::super::stdio::{Owner, Stdio};
use super::process::{Exit, Life, Process, name};
use super::{Container, Tasks};
use crate::accounts::Files;
use crate::container::Saved;
use crate::control::{Answer, Of, ToSupervisor, parcel};
use crate::living::{self, ask_at, connect, stats};
use crate::oci;
use crate::pod::clear_dead;
use crate::run::{StandIn, Terminal, ask, poststop};
use crate::socket::Socket;

/// How long a pod may take to end.
pub(super) const ENDS_WITHIN: Duration = Duration::from_secs(30);

/// Time between two looks whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// How long a guest may take to list its processes, and to give account: containerd may ask one shim after the other.
const LISTED_WITHIN: Duration = Duration::from_secs(3);
const COUNTED_WITHIN: Duration = Duration::from_secs(10);

/// How long the end of a process that takes no signal any more may take to be heard of.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// The signal that kills.
const KILL: u32 = libc::SIGKILL.cast_unsigned();

impl Tasks {
    /// Starts a process that waits for it.
    ///
    /// # Errors
    /// Why it does not run.
    pub(in super::super) async fn start(
        self: &Rc<Self>,
        id: &str,
        exec_id: &str,
    ) -> Result<u32, Refusal> {
        let container = self.container(id)?;
        let process = self.process(id, exec_id)?;
        process.begin()?;
        let started = if exec_id.is_empty() {
            living::start(&self.root, &container.saved).await.map_err(Refusal::from)
        } else {
            self.start_added(&container, &process).await
        };
        if let Err(refusal) = started {
            process.set(Life::Created);
            return Err(refusal);
        }
        self.tell_of_start(&process);
        process.set(Life::Running);
        Ok(process.pid)
    }

    async fn start_added(
        self: &Rc<Self>,
        container: &Container,
        process: &Rc<Process>,
    ) -> Result<(), Refusal> {
        let missing = || Refusal::new(Code::FAILED_PRECONDITION, "it was started before");
        let mut plan = process.plan.borrow().clone().ok_or_else(missing)?;
        if let Some(terminal) = plan.terminal.as_mut() {
            if let Some((rows, columns)) = process.size() {
                (terminal.rows, terminal.columns) = (rows.into(), columns.into());
            }
            Terminal::of(terminal, true);
        }
        let owner = Owner { namespace: &self.namespace, container: &process.of.container };
        let opened = process.stdio.open(owner).await.map_err(anyhow::Error::from)?;
        let program = plan.args.first().map(|arg| String::from_utf8_lossy(arg).into_owned());
        let program = program.unwrap_or_default();
        let mut stand_in = StandIn::within(&opened.streams)?;
        let parcel = parcel(&plan).map_err(anyhow::Error::from)?;
        let mut fds = vec![parcel.as_fd()];
        fds.extend(stand_in.fds());
        let supervisor = connect(&self.root, &container.saved)?;
        let question = ToSupervisor::Exec { of: process.of.clone(), cgroup: String::new() };
        let asked = ask(&supervisor, &question, &fds).await;
        asked.map_err(|error| Refusal::of(&error, &program, None))?;
        drop(process.plan.take());
        if let Some(socket) = stand_in.ours.take() {
            process.is_made(socket, opened.open);
            self.watch(process.clone());
        }
        Ok(())
    }

    /// Adds a process, which is started later.
    ///
    /// # Errors
    /// It makes no sense, or its name is taken.
    pub(in super::super) fn exec(&self, request: &ExecProcessRequest) -> Result<(), Refusal> {
        let container = self.container(&request.id)?;
        let exec_id = &request.exec_id;
        if exec_id.is_empty() || container.added.borrow().contains_key(exec_id) {
            let text = format!("process {exec_id:?} of the container {} exists", request.id);
            return Err(Refusal::new(Code::ALREADY_EXISTS, text));
        }
        match container.first.life() {
            Life::Running if !container.paused.get() => {}
            Life::Running => return Err(wrong("cannot exec in a paused container")),
            other => {
                return Err(wrong(format!("cannot exec in a {} container", name(other))));
            }
        }
        let spec = living::config(&self.root, &container.saved)?;
        let invalid = |error: anyhow::Error| {
            Refusal::new(Code::INVALID_ARGUMENT, format!("process of exec: {error:#}"))
        };
        let text = request.spec.as_ref().map_or(&[][..], |any| &any.value);
        let (mut wanted, mut warnings) =
            oci::parse_process(text).map_err(|error| invalid(error.into()))?;
        wanted.set_terminal(Some(request.terminal));
        let (plan, more) = living::exec(&wanted, &spec).map_err(invalid)?;
        warnings.extend(more);
        for warning in warnings {
            tracing::debug!(id = request.id, "{warning}");
        }
        let number = container.next.replace(container.next.get() + 1);
        let of = Of { container: request.id.clone(), process: format!("exec-{number}") };
        let stdio = Stdio {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let process = Process::new(of, exec_id, stdio);
        *process.plan.borrow_mut() = Some(plan);
        self.tell_of_addition(&process);
        container.added.borrow_mut().insert(exec_id.clone(), Rc::new(process));
        Ok(())
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// There is nobody to send it to.
    pub(in super::super) async fn kill(&self, request: &KillRequest) -> Result<(), Refusal> {
        let container = self.container(&request.id)?;
        let process = self.process(&request.id, &request.exec_id)?;
        let finished = || Refusal::new(Code::NOT_FOUND, "process already finished");
        if matches!(process.life(), Life::Ended(_)) {
            return Err(finished());
        }
        if process.plan.borrow().is_some() {
            return Err(wrong("the process was not started"));
        }
        if request.signal == 0 {
            return Ok(());
        }
        let of = process.of.clone();
        let all = request.all && request.exec_id.is_empty();
        let question = ToSupervisor::Signal { of, signal: request.signal, all };
        let sent = async {
            let supervisor = connect(&self.root, &container.saved)?;
            ask_at(&supervisor, &question).await
        };
        let sent = sent.await.map_err(Refusal::from);
        if request.signal == KILL {
            process.will_be_given_up();
        }
        let Err(refusal) = sent else { return Ok(()) };
        let ended = tokio::time::timeout(HEARD_WITHIN, process.ended()).await;
        Err(if ended.is_ok() { finished() } else { refusal })
    }

    /// Waits for the end of a process.
    ///
    /// # Errors
    /// There is no such process.
    pub(in super::super) async fn wait(&self, id: &str, exec_id: &str) -> Result<Exit, Refusal> {
        Ok(self.process(id, exec_id)?.ended().await)
    }

    /// The state of a process.
    ///
    /// # Errors
    /// There is no such process.
    pub(in super::super) fn state(
        &self,
        id: &str,
        exec_id: &str,
    ) -> Result<StateResponse, Refusal> {
        let container = self.container(id)?;
        let process = self.process(id, exec_id)?;
        let life = process.life();
        let status = match life {
            Life::Created | Life::Starting => Status::CREATED,
            Life::Running if container.paused.get() => Status::PAUSED,
            Life::Running => Status::RUNNING,
            Life::Ended(_) => Status::STOPPED,
        };
        let mut state = StateResponse {
            id: id.to_owned(),
            bundle: container.bundle.clone(),
            pid: process.pid,
            status: status.into(),
            stdin: process.stdio.stdin.clone(),
            stdout: process.stdio.stdout.clone(),
            stderr: process.stdio.stderr.clone(),
            terminal: process.stdio.terminal,
            exec_id: exec_id.to_owned(),
            ..Default::default()
        };
        if let Life::Ended(exit) = life {
            state.exit_status = exit.status;
            state.exited_at = MessageField::some(exit.at.into());
        }
        Ok(state)
    }

    /// Forgets a process that has ended; with the first one, the container.
    ///
    /// # Errors
    /// It runs.
    pub(in super::super) async fn delete(&self, id: &str, exec_id: &str) -> Result<Exit, Refusal> {
        if let Some(wanted) = self.creating.borrow_mut().get_mut(id) {
            // Whoever asked for it has given up.
            *wanted = false;
        }
        let process = self.process(id, exec_id)?;
        if exec_id.is_empty() {
            return self.delete_container(id, &process).await;
        }
        let container = self.container(id)?;
        let exit = match process.life() {
            Life::Ended(exit) => exit,
            Life::Created => Exit { status: 0, at: std::time::SystemTime::now() },
            _ => return Err(wrong("cannot delete a running process")),
        };
        container.added.borrow_mut().remove(exec_id);
        Ok(exit)
    }

    async fn delete_container(&self, id: &str, first: &Process) -> Result<Exit, Refusal> {
        let container = self.container(id)?;
        let supervisor = connect(&self.root, &container.saved);
        match (first.life(), &supervisor) {
            (Life::Ended(_), _) => {}
            (Life::Created, Ok(supervisor)) => {
                drop(ask_at(supervisor, &ToSupervisor::kill(id)).await);
            }
            (Life::Created, Err(_)) => {}
            _ => return Err(wrong("cannot delete a running process")),
        }
        let ended = tokio::time::timeout(ENDS_WITHIN, first.ended()).await;
        let exit = ended.map_err(|_| wrong("the process does not end"))?;
        self.clear_with(id, &container, supervisor.ok()).await?;
        // Whoever asked at the same time finds it gone.
        if self.containers.borrow_mut().remove(id).is_some() {
            self.tell_of_deletion(id, first.pid, exit);
        }
        Ok(exit)
    }

    /// Removes what a container that has ended left on the host.
    ///
    /// # Errors
    /// It is in use.
    pub(super) async fn clear(&self, id: &str, container: &Container) -> Result<(), Refusal> {
        let supervisor = connect(&self.root, &container.saved).ok();
        self.clear_with(id, container, supervisor).await
    }

    async fn clear_with(
        &self,
        id: &str,
        container: &Container,
        supervisor: Option<Socket>,
    ) -> Result<(), Refusal> {
        let hooks = living::hooks(&self.root, &container.saved).unwrap_or_default();
        // Others may live in its pod. If not, that is gone, or about to go.
        if let Some(supervisor) = supervisor
            && let Err(error) = ask_at(&supervisor, &ToSupervisor::Delete(id.to_owned())).await
        {
            tracing::debug!("deleting it in its pod: {error:#}");
        }
        let directory = container.saved.directory(&self.root);
        let deadline = tokio::time::Instant::now() + ENDS_WITHIN;
        while !clear_dead(&directory, false, Duration::ZERO) {
            if tokio::time::Instant::now() > deadline {
                return Err(wrong(format!("{} is still in use", directory.display())));
            }
            tokio::time::sleep(LOOK).await;
        }
        poststop(&hooks.poststop, &container.saved).await;
        Ok(())
    }

    /// Freezes a container, or lets it go on.
    ///
    /// # Errors
    /// It does not run.
    pub(in super::super) async fn freeze(&self, id: &str, frozen: bool) -> Result<(), Refusal> {
        let container = self.container(id)?;
        if container.first.life() != Life::Running || container.paused.get() == frozen {
            let state = if frozen { "running" } else { "paused" };
            return Err(wrong(format!("the container is not {state}")));
        }
        let supervisor = connect(&self.root, &container.saved)?;
        let question = ToSupervisor::Freeze { container: id.to_owned(), frozen };
        ask_at(&supervisor, &question).await?;
        container.paused.set(frozen);
        self.tell_of_freezing(id, frozen);
        Ok(())
    }

    /// The processes of a container, by their numbers in the guest.
    ///
    /// # Errors
    /// The guest does not tell.
    pub(in super::super) async fn pids(&self, id: &str) -> Result<Vec<ProcessInfo>, Refusal> {
        let container = self.container(id)?;
        let supervisor = connect(&self.root, &container.saved)?;
        let question = ToSupervisor::Processes(id.to_owned());
        let answer = tokio::time::timeout(LISTED_WITHIN, ask_at(&supervisor, &question)).await;
        let processes = match answer {
            Ok(Ok(Answer::Processes { processes, .. })) => processes,
            Ok(Ok(_)) => {
                return Err(Refusal::new(Code::INTERNAL, "no processes from the supervisor"));
            }
            Ok(Err(error)) => return Err(error.into()),
            // A containerd that starts again waits for each shim.
            Err(_) => Vec::new(),
        };
        let pid = |stat: &str| stat.split(' ').next().and_then(|pid| pid.parse().ok());
        let info = |pid| ProcessInfo { pid, ..Default::default() };
        let mut all: Vec<_> =
            processes.iter().filter_map(|process| pid(&process.stat)).map(info).collect();
        // A containerd that starts again takes a sandbox without processes for a leaked one.
        if all.is_empty() && container.first.life() == Life::Running {
            all.push(info(container.pid()));
        }
        Ok(all)
    }

    /// The accounting of a container.
    ///
    /// # Errors
    /// The guest does not tell.
    pub(in super::super) async fn stats(&self, id: &str) -> Result<Any, Refusal> {
        self.stats_of(&self.container(id)?.saved).await
    }

    /// The same of one that is no container to containerd.
    pub(super) async fn stats_of(&self, saved: &Saved) -> Result<Any, Refusal> {
        let supervisor = connect(&self.root, saved)?;
        let files = tokio::time::timeout(COUNTED_WITHIN, stats(&supervisor, &saved.id)).await;
        let late = |_| {
            let text = format!("the guest gave no account within {COUNTED_WITHIN:?}");
            Refusal::new(Code::UNAVAILABLE, text)
        };
        let files = files.map_err(late)??;
        Ok(metrics::encoded(&Files(&files)).map_err(anyhow::Error::from)?)
    }

    /// Gives a container new resources.
    ///
    /// # Errors
    /// They make no sense, or the guest refuses them.
    pub(in super::super) async fn update(&self, id: &str, wanted: &[u8]) -> Result<(), Refusal> {
        let container = self.container(id)?;
        if matches!(container.first.life(), Life::Ended(_)) {
            return Err(wrong("container not running"));
        }
        Ok(living::update(&self.root, &container.saved, wanted).await?)
    }

    /// Tells a process the size of its terminal.
    ///
    /// # Errors
    /// There is no such process.
    pub(in super::super) async fn resize(
        &self,
        (id, exec_id): (&str, &str),
        rows: u32,
        columns: u32,
    ) -> Result<(), Refusal> {
        let side = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let process = self.process(id, exec_id)?;
        if process.stdio.terminal {
            process.resize(side(rows), side(columns)).await;
        }
        Ok(())
    }

    /// Ends the standard input of a process.
    ///
    /// # Errors
    /// There is no such process.
    pub(in super::super) fn close_input(&self, id: &str, exec_id: &str) -> Result<(), Refusal> {
        self.process(id, exec_id)?.close_input();
        Ok(())
    }

    /// The number of this process, and that of the container's first one, or 0 if there is no such container: a containerd
    /// that starts again asks this of every shim that it finds, and gives up those that refuse.
    pub(in super::super) fn numbers(&self, id: &str) -> (u32, u32) {
        let sandbox = self.sandbox.borrow().as_ref().is_some_and(|sandbox| sandbox.is(id));
        let first = if sandbox { self.pid } else { self.container(id).map_or(0, |c| c.pid()) };
        (self.pid, first)
    }

    /// containerd needs this process no more, if it has no containers; or as soon as one that is being created is not to
    /// be, after all.
    pub(in super::super) fn shut_down(&self) {
        let creating = !self.creating.borrow().is_empty();
        self.ending.set(creating);
        if !creating && self.containers.borrow().is_empty() && self.sandbox.borrow().is_none() {
            self.over.notify_one();
        }
    }
}

pub(super) fn wrong(text: impl std::fmt::Display) -> Refusal {
    Refusal::new(Code::FAILED_PRECONDITION, text)
}
