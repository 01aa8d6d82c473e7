//! The supervisor of a pod: the process that owns the machine and outlives the command that started it.
//!
//! ```text
//! waiting --Launch--> booting --ready--> serving --the last container ends, or the sandbox--> gone
//!    |                   |
//!    +-- the client that started it goes away --> gone, and nothing is left
//! ```
//!
//! It is this program again, with a hidden command. Its standard input is the socket to the client that started it, its
//! standard output the locked state directory of the pod. Or it is a task of a process that is there anyway:
//! containerd's shim.
//!
//! Invariant: when it ends, the monitor is reaped and of the pod nothing is left; the state directories of containers
//! that an engine is to delete stay.

mod forward;
mod hold;
mod serve;
mod sizer;
mod vacant;
mod volumes;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use cofferdam_agent_protocol::{PodPlan, Sysctl};
use cofferdam_rootfs_builder::clear_abandoned;
use cofferdam_vmm_api::{Bdf, Channel};
use rustix::process::{Resource, Rlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use crate::container::{Saved, Status};
use crate::control::{Answer, Failure, Launch, SOCKET, ToSupervisor};
use crate::hostgroup;
use crate::pod::{ExitStatus, Monitor, Pod, PodSpec, StateDir, Timeouts};
use crate::room::Room;
use crate::socket::{Listener, Socket};
use crate::timeline::{self, PodStage, Timeline};
use crate::volumes::Volumes;
use hold::{Ended, Held};
use sizer::Sizer;
use vacant::Vacant;

/// The hidden command.
pub(crate) const COMMAND: &str = "supervisor";

/// How long a killed program that makes a file system may take to end.
const MAKER_PATIENCE: Duration = Duration::from_secs(4);

/// How long no client is accepted after one that could not be.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long other processes may take to end, and clients to be answered, when the pod ends.
const PARTING: Duration = Duration::from_secs(1);

/// Arguments of the hidden command.
#[derive(Debug, clap::Args)]
pub(crate) struct Places {
    /// The state directory of the pod
    state: PathBuf,
    /// Directories in which the client makes files that stay
    caches: Vec<PathBuf>,
}

/// Starts the supervisor of the pod whose state directory is `state`: `command` is this program with global options.
/// Gives the socket to it.
///
/// # Errors
/// The failure of a system call.
pub(crate) fn start(
    mut command: Command,
    state: &StateDir,
    caches: &[PathBuf],
) -> io::Result<(std::process::Child, Channel)> {
    use std::os::unix::process::CommandExt;
    let (ours, theirs) = Channel::pair()?;
    // Its working directory is another.
    command.arg(COMMAND).arg(std::path::absolute(state.path())?);
    for cache in caches {
        command.arg(std::path::absolute(cache)?);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).current_dir("/").process_group(0);
    command.stdin(theirs.into_inner()).stdout(Stdio::from(state.lock()?));
    Ok((command.spawn()?, ours))
}

/// Has this process supervise the pod whose state directory is `state`: a task, on the thread's `LocalSet`. Gives the
/// socket to it.
///
/// # Errors
/// The failure of a system call.
pub(crate) fn start_within(
    state: StateDir,
    caches: Vec<PathBuf>,
) -> io::Result<(tokio::task::JoinHandle<()>, Channel)> {
    let (ours, theirs) = Channel::pair()?;
    let first = Socket::new(theirs)?;
    let task = tokio::task::spawn_local(async move {
        if let Err(error) = supervise(state, first, &caches).await {
            tracing::error!("supervisor: {error}");
        }
    });
    Ok((task, ours))
}

/// What all tasks of a supervisor share.
#[derive(Debug)]
struct Shared {
    pod: Pod,
    /// The pod's directory, until it ends.
    state: RefCell<Option<StateDir>>,
    /// The volumes, from the first one on.
    volumes: tokio::sync::Mutex<Option<Volumes>>,
    /// The machine's size.
    sizer: Sizer,
    containers: RefCell<BTreeMap<String, Container>>,
    /// Processes that were created.
    created: mpsc::UnboundedSender<New>,
    /// How many questions are being answered.
    answering: Cell<u32>,
}

/// What was created.
#[derive(Debug)]
enum New {
    Process(Held),
    Sandbox(Vacant),
}

impl New {
    /// Holds it until it has ended.
    async fn hold(self, shared: Rc<Shared>) -> Ended {
        match self {
            Self::Process(held) => held.hold(shared).await,
            Self::Sandbox(vacant) => vacant.hold(shared).await,
        }
    }
}

/// A container, as far as the supervisor has to know it.
#[derive(Debug)]
struct Container {
    /// It came first: its directory is the pod's.
    first: bool,
    directory: PathBuf,
    sandbox: bool,
    keep: bool,
    /// Disks that were attached for it.
    disks: Vec<Bdf>,
    /// Volumes that were mounted for it.
    volumes: Vec<String>,
    /// Told when its first process is killed.
    doomed: Rc<Notify>,
    /// How it ends, if it has no process.
    vacant: Option<Rc<Cell<ExitStatus>>>,
    started: bool,
    ended: bool,
}

impl Shared {
    /// Notes the status of a container for whoever looks.
    fn note(&self, container: &str, status: Status) {
        let containers = self.containers.borrow();
        let Some(container) = containers.get(container) else { return };
        if let Err(error) = status.write(&container.directory) {
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
    }

    /// Notes the end of a container's first process; whether the pod ends with it.
    fn ended(&self, id: &str) -> bool {
        let sandbox = match self.containers.borrow_mut().get_mut(id) {
            Some(container) => {
                container.ended = true;
                container.sandbox
            }
            None => false,
        };
        self.note(id, Status::Stopped);
        sandbox || self.is_over()
    }

    /// Notes that a container was started.
    fn started(&self, id: &str) {
        if let Some(container) = self.containers.borrow_mut().get_mut(id) {
            container.started = true;
        }
        self.note(id, Status::Running);
    }

    /// Notes that a container was frozen, or that it goes on where it was.
    fn frozen(&self, id: &str, frozen: bool) {
        let started = self.containers.borrow().get(id).is_none_or(|container| container.started);
        let status = match (frozen, started) {
            (true, _) => Status::Paused,
            (false, true) => Status::Running,
            (false, false) => Status::Created,
        };
        self.note(id, status);
    }

    /// Whether no container is left that the pod is there for.
    fn is_over(&self) -> bool {
        self.containers.borrow().values().all(|container| container.ended)
    }

    /// Whether the pod ends with this container.
    fn ends_with(&self, id: &str) -> bool {
        let containers = self.containers.borrow();
        let others = containers.iter().any(|(other, container)| other != id && !container.ended);
        containers.get(id).is_some_and(|container| container.sandbox || container.first && !others)
    }

    /// Whether the pod's directory is that of a container that an engine is to delete.
    fn keeps(&self) -> bool {
        self.containers.borrow().values().any(|container| container.first && container.keep)
    }

    /// Gives the name of the pod's directory to whoever comes next: the container that had it is deleted.
    fn move_aside(&self) {
        let mut state = self.state.borrow_mut();
        let Some(state) = state.as_mut() else { return };
        match state.move_aside() {
            Ok(name) => {
                for container in self.containers.borrow().values() {
                    if let Err(error) = Saved::move_pod(&container.directory, &name) {
                        tracing::warn!("{:#}", anyhow::Error::from(error));
                    }
                }
            }
            Err(error) => tracing::warn!("{:#}", anyhow::Error::from(error)),
        }
    }
}

/// The supervisor's `main`; gives the exit code.
pub(crate) fn main(places: &Places) -> u8 {
    settle();
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let tasks = tokio::task::LocalSet::new();
            let result = runtime.block_on(tasks.run_until(adopt(places)));
            // Threads may wait for streams that nobody closes.
            runtime.shutdown_background();
            result.map_or_else(
                |error| {
                    tracing::error!("supervisor: {error}");
                    1
                },
                |()| 0,
            )
        }
        Err(error) => {
            tracing::error!("supervisor: {error}");
            1
        }
    }
}

/// Makes this process one that stays: the leader of a session, with as many descriptors as it may have.
pub(crate) fn settle() {
    // It is a leader already if a shell started it.
    let _ = rustix::process::setsid();
    // A process of a container takes some eight descriptors.
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let _ = rustix::process::setrlimit(
        Resource::Nofile,
        Rlimit { current: limit.maximum, maximum: limit.maximum },
    );
}

/// Outlives what is sent to everyone in its control group or scope: the containers end by that, and it with them.
/// Caught, not ignored, so that the monitor does not inherit it. Must be called within a runtime.
///
/// # Errors
/// The failure of a system call.
pub(crate) fn outlive_signals() -> io::Result<()> {
    for kind in
        [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()]
    {
        // What is installed stays.
        drop(signal(kind)?);
    }
    Ok(())
}

/// Supervises the pod that the process which started this one has claimed.
async fn adopt(places: &Places) -> io::Result<()> {
    outlive_signals()?;
    let lock = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let state = StateDir::adopt(places.state.clone(), lock);
    let first = Socket::new(Channel::new(io::stdin().as_fd().try_clone_to_owned()?))?;
    // So that the client sees it when its socket is closed.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    supervise(state, first, &places.caches).await
}

async fn supervise(state: StateDir, first: Socket, caches: &[PathBuf]) -> io::Result<()> {
    let Some((pod, room)) = launch(&state, &first).await? else {
        hostgroup::leave(state.path());
        drop(state);
        for cache in caches {
            clear_abandoned(cache, MAKER_PATIENCE);
        }
        return Ok(());
    };
    serve_pod((pod, Sizer::new(room)), state, first).await
}

/// Waits for the word to boot, and boots. `None` if the client is gone or has been told of a failure.
async fn launch(state: &StateDir, first: &Socket) -> io::Result<Option<(Pod, Room)>> {
    let Ok(message) = first.receive::<ToSupervisor>().await else { return Ok(None) };
    let ToSupervisor::Launch(launch) = message.body else {
        return Err(io::Error::other("the first message is none to boot"));
    };
    let failed = async |failure: Failure| {
        // It may be gone.
        let _ = first.send(&Answer::Failed(failure), &[]).await;
        Ok(None)
    };
    let room = launch.room;
    let pod = match boot(state, *launch, message.fds) {
        Ok(pod) => pod,
        Err(failure) => return failed(failure).await,
    };
    let ready = tokio::select! {
        ready = pod.ready() => ready,
        // It says nothing before it is answered: it is gone.
        _ = first.receive::<ToSupervisor>() => {
            drop(pod.stop().await);
            return Ok(None);
        }
    };
    match ready {
        Ok(disks) => {
            let told = first.send(&Answer::Disks(disks), &[]).await;
            if told.is_err() {
                drop(pod.stop().await);
                return Ok(None);
            }
            Ok(Some((pod, room)))
        }
        Err(error) => {
            let stages = pod.stop().await.entries().to_vec();
            failed(Failure { stages, ..error.into() }).await
        }
    }
}

/// Starts the monitor.
fn boot(state: &StateDir, launch: Launch, mut fds: Vec<OwnedFd>) -> Result<Pod, Failure> {
    let kvm = fds.pop().ok_or_else(|| Failure::other("no descriptors came with the machine"))?;
    let mut timeline = Timeline::default();
    // Taken before: the new process may be faster than the return of `execve` here.
    let spawning = timeline::now_ns();
    let spawned = Monitor::spawn(&launch.monitor);
    let (monitor, connections) = spawned.map_err(|error| {
        let error = anyhow::Error::from(error);
        Failure::other(format!("{error:#}"))
    })?;
    timeline.reach_at(PodStage::MonitorSpawned, spawning);
    if let Some(pid) = monitor.pid() {
        state.place_monitor(pid);
        set_oom_score_adj(pid, launch.oom_score_adj);
    }
    monitor.confine(launch.uid, kvm);
    fds.push(connections);
    let sysctl = |(name, value)| Sysctl { name, value };
    let sysctls = launch.sysctls.into_iter().map(sysctl).collect();
    let plan = PodPlan { hostname: launch.hostname, realtime_ns: 0, sysctls };
    let spec =
        PodSpec { machine: launch.machine, descriptors: fds, plan, timeouts: Timeouts::default() };
    Pod::launch(monitor, spec, timeline)
        .map_err(|error| Failure::other(format!("watching the monitor: {error}")))
}

/// The guest's memory is the monitor's: what the container is worth to the host's kernel, it is, too.
fn set_oom_score_adj(pid: u32, wanted: Option<i32>) {
    let path = format!("/proc/{pid}/oom_score_adj");
    let own = || std::fs::read_to_string(&path).ok()?.trim().parse::<i32>().ok();
    // An engine that protects itself does not mean us.
    let value = wanted.unwrap_or_else(|| own().unwrap_or(0).max(0));
    if let Err(error) = std::fs::write(&path, value.to_string()) {
        tracing::debug!(%error, value, "oom_score_adj of the monitor");
    }
}

/// Serves the pod to its end.
async fn serve_pod((pod, sizer): (Pod, Sizer), state: StateDir, first: Socket) -> io::Result<()> {
    let listener = Listener::new(state.path(), SOCKET)?;
    let (created, mut new) = mpsc::unbounded_channel();
    let shared = Rc::new(Shared {
        pod,
        state: RefCell::new(Some(state)),
        volumes: tokio::sync::Mutex::default(),
        sizer,
        containers: RefCell::default(),
        created,
        answering: Cell::new(0),
    });
    let mut connections = JoinSet::new();
    let mut processes = JoinSet::new();
    let first = connections.spawn_local(serve::serve(shared.clone(), first)).id();
    let last = loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(socket) => {
                    connections.spawn_local(serve::serve(shared.clone(), socket));
                }
                // Short of descriptors, for example: those who wait are served later.
                Err(error) => {
                    tracing::warn!(%error, "accepting a client");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(new) = new.recv() => {
                processes.spawn_local(new.hold(shared.clone()));
            }
            Some(ended) = processes.join_next() => {
                let Ok(mut ended) = ended else { continue };
                if ended.of.process.is_empty() {
                    if shared.ended(&ended.of.container) {
                        break Some(ended);
                    }
                    shared.leave_room(&ended.of.container);
                }
                ended.tell(&Timeline::default()).await;
            }
            Some(closed) = connections.join_next_with_id() => {
                let is_first = closed.map_or_else(|e| e.id(), |(id, ())| id) == first;
                if is_first && new.is_empty() && shared.containers.borrow().is_empty() {
                    break None;
                }
            }
        }
    };
    finish(shared, last, (connections, processes)).await;
    Ok(())
}

/// Ends the pod; the last word is for the process that ended last.
async fn finish(
    shared: Rc<Shared>,
    last: Option<Ended>,
    (mut connections, mut processes): (JoinSet<()>, JoinSet<Ended>),
) {
    // What ended with the last container is told as it was, and who has asked is answered.
    let _ = tokio::time::timeout(PARTING, async {
        while let Some(ended) = processes.join_next().await {
            if let Ok(mut ended) = ended {
                ended.tell(&Timeline::default()).await;
            }
        }
        while shared.answering.get() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    connections.shutdown().await;
    // The proxies of those that are left see the sockets close.
    processes.shutdown().await;
    let keeps = shared.keeps();
    let timeline = shared.pod.stop().await;
    // The guest is gone; the file server's control group is the monitor's.
    drop(shared.volumes.lock().await.take());
    if let Some(state) = shared.state.take() {
        // This process may go on, and nobody can remove a group with somebody in it.
        hostgroup::leave(state.path());
        if keeps {
            state.leave();
        }
    }
    if let Some(mut last) = last {
        last.tell(&timeline).await;
    }
}
