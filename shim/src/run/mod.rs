//! `cofferdam run`: a pod with one container, on the standard streams of this process.
//!
//! Invariant: on every way out the machine is stopped, its monitor reaped, the state directory removed
//! and the terminal as it was.

mod failure;
mod hooks;
mod plan;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cofferdam_agent_protocol::NamespaceKind;
use cofferdam_vmm_api::{Bdf, is_privileged};

pub(crate) use failure::{RunError, report};
pub(crate) use plan::{PlanError, RunPlan};

use crate::pod::{
    ExitStatus, Guardian, Monitor, Places, Pod, PodSpec, StateDir, Streams, Timeouts,
};
use crate::signals::Signals;
use crate::storage::{self, Disks, Making};
use crate::terminal::{self, RawMode};
use crate::timeline::{self, PodStage, Timeline};

/// How long output may take to end after a container whose processes may outlive its first one.
const DAEMON_DRAIN: Duration = Duration::from_secs(2);

/// How long the agent may take to start a created container; its own limit is 60 s.
const START_PATIENCE: Duration = Duration::from_secs(90);

/// How long the agent may take to pass on a signal or the terminal's size.
const PASS_PATIENCE: Duration = Duration::from_secs(10);

/// How long the making of disks may take to stop.
const ABORT_PATIENCE: Duration = Duration::from_secs(5);

/// What `run` was asked for besides its plan.
#[derive(Clone, Debug)]
pub(crate) struct RunOptions {
    /// The container's id.
    pub(crate) id: String,
    /// Where the state directories are.
    pub(crate) root: PathBuf,
    /// Where to write all of the guest's console.
    pub(crate) console_log: Option<PathBuf>,
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The container's status, or what went wrong.
    pub(crate) result: Result<ExitStatus, RunError>,
    /// The stages reached.
    pub(crate) timeline: Timeline,
}

/// Runs `plan` to its end.
pub(crate) fn run(plan: &RunPlan, options: &RunOptions, timeline: Timeline) -> Outcome {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Outcome { result: Err(RunError::Host("starting", error)), timeline },
    };
    let outcome = runtime.block_on(supervise(plan, options, timeline));
    // A thread may wait for standard input for ever.
    runtime.shutdown_background();
    outcome
}

/// What exists before there is a machine, and goes last.
struct Ground {
    state: StateDir,
    guardian: Guardian,
    console: Option<File>,
    signals: Signals,
}

async fn supervise(plan: &RunPlan, options: &RunOptions, mut timeline: Timeline) -> Outcome {
    let mut ground = match prepare(plan, options) {
        Ok(ground) => ground,
        Err(error) => return Outcome { result: Err(error), timeline },
    };
    let result = match boot(plan, options, &mut ground, &mut timeline).await {
        Ok(pod) => {
            let Ground { signals, guardian, .. } = &mut ground;
            let result = serve(&pod, plan, options, signals, guardian).await;
            timeline = pod.stop().await;
            // What was meant for the container is no wish to be left without its clean-up.
            signals.forget();
            tokio::select! {
                () = hooks::poststop(plan, options, guardian) => {}
                signal = signals.interruption() => {
                    tracing::warn!(signal, "the poststop hooks were interrupted");
                }
            }
            result
        }
        Err(error) => Err(error),
    };
    let result = result.map_err(|error| error.with_console(ground.console.as_mut()));
    let Ground { state, guardian, .. } = ground;
    drop(state);
    guardian.dismiss();
    Outcome { result, timeline }
}

fn prepare(plan: &RunPlan, options: &RunOptions) -> Result<Ground, RunError> {
    let signals = Signals::listen().map_err(|error| RunError::Host("handling signals", error))?;
    let state = StateDir::create(&options.root, &options.id)?;
    let caches = storage::caches(&plan.settings).to_vec();
    let guardian = Guardian::start(&Places { state: state.path().to_owned(), caches })
        .map_err(|error| RunError::Host("starting the guardian process", error))?;
    let console = match (&options.console_log, plan.settings.console) {
        (Some(path), _) => Some(open_console(path)?),
        (None, true) => Some(state.file("console.log")?),
        (None, false) => None,
    };
    Ok(Ground { state, guardian, console, signals })
}

fn open_console(path: &Path) -> Result<File, RunError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let failed = |source| RunError::Open { what: "console log", path: path.to_owned(), source };
    options.open(path).map_err(failed)
}

/// From nothing to a pod whose machine is about to boot.
async fn boot(
    plan: &RunPlan,
    options: &RunOptions,
    ground: &mut Ground,
    timeline: &mut Timeline,
) -> Result<Pod, RunError> {
    let open = |what, path: &Path| {
        File::open(path).map_err(|source| RunError::Open { what, path: path.to_owned(), source })
    };
    let kvm = open_kvm(Path::new("/dev/kvm"))?;
    let kernel = open("guest kernel", &plan.settings.kernel)?;
    let image = open("guest image", &plan.settings.image)?;
    let disks = make_disks(plan, ground).await?;
    timeline.reach(PodStage::RootfsReady);
    let uid = is_privileged().then(|| ground.state.take_uid(plan.settings.uids)).transpose()?;
    // Taken before: the new process may be faster than the return of `execve` here.
    let spawning = timeline::now_ns();
    let (monitor, connections) = Monitor::spawn(&monitor_program(plan))?;
    timeline.reach_at(PodStage::MonitorSpawned, spawning);
    if let Some(pid) = monitor.pid() {
        ground.guardian.watch(pid);
        ground.state.place_monitor(pid);
    }
    monitor.confine(uid, kvm);
    let console = ground.console.as_ref().map(File::try_clone).transpose();
    let console = console.map_err(|error| RunError::Host("sharing the console log", error))?;
    let mut descriptors: Vec<OwnedFd> = vec![kernel.into(), image.into(), disks.layer.into()];
    descriptors.extend(disks.scratch.map(OwnedFd::from));
    descriptors.extend(console.filter(|_| plan.settings.console).map(OwnedFd::from));
    descriptors.push(connections);
    let spec = PodSpec {
        machine: plan.machine(options.console_log.is_some()),
        descriptors,
        plan: plan.pod(),
        timeouts: Timeouts::default(),
    };
    Pod::launch(monitor, spec, std::mem::take(timeline))
        .map_err(|error| RunError::Host("watching the monitor", error))
}

fn open_kvm(path: &Path) -> Result<OwnedFd, RunError> {
    let opened = File::options().read(true).write(true).open(path);
    opened.map(OwnedFd::from).map_err(|source| {
        let remedy = crate::doctor::kvm_remedy(source.kind());
        RunError::Kvm { path: path.to_owned(), remedy, source }
    })
}

async fn make_disks(plan: &RunPlan, ground: &mut Ground) -> Result<Disks, RunError> {
    let mut making = Making::start(plan.rootfs.clone(), plan.settings.clone());
    tokio::select! {
        made = making.made() => Ok(made?),
        signal = ground.signals.interruption() => {
            if !making.abort(ABORT_PATIENCE).await {
                // What the thread makes yet goes when this process has ended.
                ground.guardian.need();
            }
            Err(RunError::Interrupted(signal))
        }
    }
}

/// The monitor of the settings, or the one beside our own binary, or the one in `PATH`.
pub(crate) fn monitor_program(plan: &RunPlan) -> PathBuf {
    plan.settings.monitor.clone().unwrap_or_else(default_monitor)
}

/// See [`monitor_program`].
pub(crate) fn default_monitor() -> PathBuf {
    const NAME: &str = "cofferdam-vmm";
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|exe| Some(exe.parent()?.join(NAME)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(NAME))
}

/// The container's life, from the first hello to its last output.
async fn serve(
    pod: &Pod,
    plan: &RunPlan,
    options: &RunOptions,
    signals: &mut Signals,
    guardian: &mut Guardian,
) -> Result<ExitStatus, RunError> {
    let started = async {
        let disks: Vec<Bdf> = pod.ready().await?;
        hooks::create(plan, options, guardian).await?;
        let mut container = plan.container_on(&disks);
        let process = container.process.as_mut();
        if let Some(terminal) = process.and_then(|process| process.terminal.as_mut())
            && let Some((rows, columns)) = terminal::size()
        {
            (terminal.rows, terminal.columns) = (rows.into(), columns.into());
        }
        let expected = pod.create(container).await?;
        let ours = standard_streams().map_err(|error| RunError::Host("standard streams", error))?;
        let streams = tokio::spawn(Streams::connect(expected, ours));
        let raw = if plan.terminal { RawMode::enter() } else { Ok(None) };
        let raw = raw.map_err(|error| RunError::Host("setting the terminal to raw mode", error))?;
        Ok::<_, RunError>((streams, raw))
    };
    let (streams, raw) = tokio::select! {
        started = started => started?,
        signal = signals.interruption() => return Err(RunError::Interrupted(signal)),
    };
    // From here on a signal is the container's, even one that comes before the answer.
    match tokio::time::timeout(START_PATIENCE, pod.start(&options.id)).await {
        Ok(started) => started?,
        Err(late) => return Err(RunError::Host("starting the container", late.into())),
    }
    let mut poststart = std::pin::pin!(hooks::poststart(plan, options, guardian));
    let mut ran = false;
    let status = {
        // A hook that takes long holds up no signal.
        let mut ended = std::pin::pin!(forward(pod, plan, options, signals));
        tokio::select! {
            status = &mut ended => status?,
            () = &mut poststart => {
                ran = true;
                ended.await?
            }
        }
    };
    if !ran {
        tokio::select! {
            () = poststart => {}
            _ = signals.interruption() => {}
        }
    }
    // What came for the container is no wish to cut its output off.
    signals.forget();
    let drained = async {
        match streams.await {
            Ok(Ok(mut streams)) => streams.drained().await,
            Ok(Err(error)) => tracing::warn!(%error, "standard streams"),
            Err(_) => {}
        }
    };
    // With a pid namespace of its own, nothing of the container outlives its first process: its output
    // ends, however slowly it is read here.
    let namespaces = &plan.container.namespaces;
    let alone = namespaces.iter().any(|namespace| namespace.kind() == NamespaceKind::Pid);
    let patience = if alone { Duration::from_secs(u64::from(u32::MAX)) } else { DAEMON_DRAIN };
    tokio::select! {
        _ = tokio::time::timeout(patience, drained) => {}
        _ = signals.interruption() => {}
    }
    drop(raw);
    Ok(status)
}

/// Waits for the container's end; passes on signals and the terminal's size.
async fn forward(
    pod: &Pod,
    plan: &RunPlan,
    options: &RunOptions,
    signals: &mut Signals,
) -> Result<ExitStatus, RunError> {
    let ended = pod.wait(&options.id);
    tokio::pin!(ended);
    loop {
        let signal = tokio::select! {
            status = &mut ended => return Ok(status?),
            signal = signals.next() => signal,
        };
        let pass = async {
            match (signal, terminal::size()) {
                (libc::SIGWINCH, Some((rows, columns))) if plan.terminal => {
                    pod.resize(&options.id, rows, columns).await
                }
                (libc::SIGWINCH, _) => Ok(()),
                _ => pod.signal(&options.id, u32::try_from(signal).unwrap_or(0)).await,
            }
        };
        // A guest that does not answer holds up neither the end nor the next signal for ever.
        tokio::select! {
            status = &mut ended => return Ok(status?),
            passed = tokio::time::timeout(PASS_PATIENCE, pass) => match passed {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(signal, %error, "passing on a signal"),
                Err(_) => tracing::warn!(signal, "the guest did not take a signal"),
            }
        }
    }
}

fn standard_streams() -> std::io::Result<[OwnedFd; 3]> {
    Ok([
        std::io::stdin().as_fd().try_clone_to_owned()?,
        std::io::stdout().as_fd().try_clone_to_owned()?,
        std::io::stderr().as_fd().try_clone_to_owned()?,
    ])
}
