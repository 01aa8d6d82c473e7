//! From a plan to a container: `create`, and `run`, which is that and the rest of its life.
//!
//! ```text
//! claim the state directory ─► supervisor ─► disks ─► machine (or the pod joined) ─► hooks ─► container
//! ```
//!
//! Invariant: on every way out but success nothing is left: what the supervisor has goes when its socket closes, and it
//! is waited for; the terminal is as it was.

mod failure;
mod foreground;
mod ground;
mod hooks;
mod plan;
mod stand_in;
mod volumes;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use cofferdam_vmm_api::ChannelError;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

pub(crate) use failure::{RunError, one_line, report, sentence};
pub(crate) use foreground::{Outcome, foreground, hold};
pub(crate) use ground::{Ground, default_monitor};
pub(crate) use hooks::{poststart, poststop};
pub(crate) use plan::{Placed, PlanError, PodKind, RunPlan};
pub(crate) use stand_in::{Number, StandIn, Terminal};

use crate::container::{Mark, Saved};
use crate::control::{Answer, Create, Failure, ToSupervisor, parcel};
use crate::hostgroup;
use crate::signals::Signals;
use crate::socket::{Socket, hand_over};
use crate::storage::given;
use crate::timeline::{PodStage, Timeline};

/// What a creation was asked for besides its plan.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The container's id.
    pub(crate) id: String,
    /// Where the state directories are.
    pub(crate) root: PathBuf,
    /// Where to write all of the guest's console.
    pub(crate) console_log: Option<PathBuf>,
    /// Where to write the number of the process that stands for the container.
    pub(crate) pid_file: Option<PathBuf>,
    /// The socket that gets a pidfd of the process that stands for the container.
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// The socket that gets the terminal of a container that goes on without us.
    pub(crate) console_socket: Option<PathBuf>,
    /// The container goes on without us.
    pub(crate) detached: bool,
    /// We supervise the pod ourselves and stand for its processes as long as it lives: the standard streams of the first.
    pub(crate) streams: Option<Arc<[OwnedFd; 3]>>,
    /// The container stays until somebody deletes it.
    pub(crate) keep: bool,
    /// Control groups are named for systemd.
    pub(crate) systemd: bool,
    /// Our global options, for the supervisor.
    pub(crate) global: Vec<OsString>,
}

/// A container that was created.
#[derive(Debug)]
pub(crate) struct Created {
    /// What is known of it.
    pub(crate) saved: Saved,
    /// The socket over which we stand for its first process, if nobody else does.
    pub(crate) ours: Option<Socket>,
    /// Its number, if that is not the number of a process.
    pub(crate) number: Option<Number>,
}

/// Asks a supervisor.
///
/// # Errors
/// What it answers, or that it is gone.
pub(crate) async fn ask(
    supervisor: &Socket,
    message: &ToSupervisor,
    fds: &[BorrowedFd<'_>],
) -> Result<Answer, RunError> {
    let gone = |error: ChannelError| RunError::Supervisor(error.to_string());
    supervisor.send(message, fds).await.map_err(gone)?;
    match supervisor.receive::<Answer>().await.map_err(gone)?.body {
        Answer::Failed(failure) => Err(failure.into()),
        answer => Ok(answer),
    }
}

/// Creates the container of `plan` on `ground`.
///
/// # Errors
/// [`RunError`].
pub(crate) async fn create(
    plan: &RunPlan,
    options: &Options,
    (ground, signals): (&mut Ground, &mut Signals),
    timeline: &mut Timeline,
) -> Result<Created, RunError> {
    let given = given(&plan.disks)?;
    let disks = ground.disks(plan, signals).await?;
    timeline.reach(PodStage::RootfsReady);
    let cgroup = match plan.cgroups_path.as_deref() {
        Some(path) => hostgroup::create(path, options.systemd, ground.path()),
        None => Ok(None),
    };
    let cgroup = cgroup.map_err(|busy| RunError::from(Failure::other(busy)))?;
    if let Some(group) = &cgroup {
        // Before the monitor is started, which goes below the supervisor's group.
        ground.place_in(group);
    }
    let create = async {
        let placed = ground.place(plan, disks, &given).await?;
        create_on(plan, options, ground, (placed, cgroup)).await
    };
    tokio::select! {
        created = create => created,
        signal = signals.interruption() => Err(RunError::Interrupted(signal)),
    }
}

/// Creates the container of `plan` on ground of its own and leaves it to itself; on failure nothing is left.
///
/// # Errors
/// [`RunError`], with the end of the guest's console if that failed.
pub(crate) async fn create_and_leave(
    plan: &RunPlan,
    options: &Options,
    signals: &mut Signals,
) -> Result<Created, RunError> {
    let mut ground = Ground::claim(plan, options)?;
    let mut timeline = Timeline::default();
    let created = create(plan, options, (&mut ground, signals), &mut timeline).await;
    let left = match created {
        Ok(created) => ground.leave().await.map(|()| created),
        Err(error) => Err(error),
    };
    match left {
        Ok(created) => Ok(created),
        Err(error) => {
            let error = error.with_console(ground.console());
            ground.abandon(&plan.hooks.poststop).await;
            Err(error)
        }
    }
}

async fn create_on(
    plan: &RunPlan,
    options: &Options,
    ground: &Ground,
    (placed, cgroup): (Placed, Option<PathBuf>),
) -> Result<Created, RunError> {
    let mut container = plan.container_on(&placed)?;
    if !plan.vacant {
        volumes::mount(plan, ground.supervisor(), &mut container.mounts).await?;
    }
    let process = container.process.as_mut();
    let terminal = process.and_then(|process| process.terminal.as_mut());
    let size = terminal.map(|terminal| Terminal::of(terminal, options.detached));
    let mut stand_in = if let Some(streams) = &options.streams {
        let within = StandIn::within(streams)?;
        // A container of a pod in which there are others.
        if matches!(plan.pod, PodKind::Of(_)) { within.numbered()? } else { within }
    } else if options.detached {
        StandIn::proxy(plan.command_line(), size, options.console_socket.as_deref(), &plan.network)?
    } else {
        StandIn::ours()?
    };
    if let Some(group) = cgroup.as_deref().filter(|_| options.detached && stand_in.ours.is_none()) {
        hostgroup::place(group, stand_in.pid);
    }
    let saved = Saved {
        id: options.id.clone(),
        bundle: plan.bundle.clone(),
        rootfs: plan.rootfs.clone(),
        created: crate::logging::rfc3339_nanos(since_1970()),
        annotations: plan.annotations.clone(),
        process: Mark::of(stand_in.pid)
            .map_err(|error| RunError::Host("looking at the proxy of the container", error))?,
        pod: ground.pod().to_owned(),
        keep: options.keep,
        scratch: placed.scratch,
        cgroup,
        owner: rustix::process::getuid().as_raw(),
    };
    saved.save(ground.path(), &plan.config)?;
    ground.hooked(&saved);
    hooks::create(&plan.hooks.create, &saved, ground.supervisor()).await?;
    let create = Create {
        directory: ground.path().to_owned(),
        sandbox: matches!(plan.pod, PodKind::Sandbox),
        keep: options.keep,
        needs: plan.needs,
    };
    if plan.vacant {
        let message = ToSupervisor::Sandbox { id: options.id.clone(), create };
        ask(ground.supervisor(), &message, &stand_in.fds()[..1]).await?;
    } else {
        let parcel = parcel(&container);
        let parcel = parcel.map_err(|error| RunError::Host("passing on the plan", error))?;
        let mut fds = vec![parcel.as_fd()];
        fds.extend(stand_in.fds());
        ask(ground.supervisor(), &ToSupervisor::Create(create), &fds).await?;
    }
    tell(options, stand_in.pid)?;
    stand_in.leave();
    Ok(Created { saved, ours: stand_in.ours.take(), number: stand_in.number.take() })
}

/// Tells who stands for the container to those who were named.
fn tell(options: &Options, pid: u32) -> Result<(), RunError> {
    if let Some(path) = &options.pidfd_socket {
        send_pidfd(path, pid)?;
    }
    options.pid_file.as_deref().map_or(Ok(()), |path| write_pid(path, pid))
}

/// Sends a pidfd of the process `pid` to whoever listens at the socket `path`.
///
/// # Errors
/// Nobody does, or the process is gone.
pub(crate) fn send_pidfd(path: &Path, pid: u32) -> Result<(), RunError> {
    let sent = || {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        hand_over(path, b"pidfd", pidfd_open(pid, PidfdFlags::empty())?.as_fd())
    };
    let failed = |source| RunError::Open { what: "pidfd socket", path: path.to_owned(), source };
    sent().map_err(failed)
}

fn since_1970() -> std::time::Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Writes `pid` to the file at `path`, which is never seen half-written.
///
/// # Errors
/// It cannot be written.
pub(crate) fn write_pid(path: &Path, pid: u32) -> Result<(), RunError> {
    let failed = |source| RunError::Open { what: "pid file", path: path.to_owned(), source };
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(path.file_name().unwrap_or_default());
    let temporary = path.with_file_name(hidden);
    // What somebody put there is not followed.
    let _ = std::fs::remove_file(&temporary);
    let mut file = File::create_new(&temporary).map_err(failed)?;
    file.write_all(pid.to_string().as_bytes()).map_err(failed)?;
    std::fs::rename(&temporary, path).map_err(failed)
}
