//! What a new container stands on: its state directory and the supervisor of its pod.
//!
//! Invariant: a ground that is [abandoned](Ground::abandon) leaves nothing, whoever of the two is killed.

use std::cell::OnceCell;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cofferdam_rootfs_builder::clear_abandoned;
use cofferdam_vmm_api::is_privileged;
use tokio::task::JoinHandle;

use super::{Options, Placed, PodKind, RunError, RunPlan, ask, hooks};
use crate::container::Saved;
use crate::control::{Answer, Failure, Launch, SOCKET, ToSupervisor};
use crate::hostgroup;
use crate::oci::Substitute;
use crate::oci::hooks::Hook;
use crate::pod::{AttachedDisk, StateDir, clear_dead};
use crate::signals::Signals;
use crate::socket::Socket;
use crate::storage::{self, Disks, Given, Making};
use crate::supervisor;

/// How long the making of disks may take to stop.
const ABORT_PATIENCE: Duration = Duration::from_secs(5);

/// How long a supervisor whose client is gone may take to end, and the kernel to take apart one that was killed.
const DYING: Duration = Duration::from_secs(30);

/// How long a killed program that makes a file system may take to end.
const MAKER_PATIENCE: Duration = Duration::from_secs(4);

/// See the module.
#[derive(Debug)]
pub(crate) struct Ground {
    path: PathBuf,
    pod: String,
    supervisor: Socket,
    /// What supervises the pod, if we started it.
    child: Option<Supervisor>,
    /// The state directory, if it is not the pod's.
    state: Option<StateDir>,
    /// The user of the monitor, if we started the supervisor and may choose one.
    uid: Option<u32>,
    console: Option<File>,
    verbose: bool,
    caches: Vec<PathBuf>,
    /// The container, once hooks were run for it.
    hooked: OnceCell<Saved>,
}

/// What supervises a pod.
#[derive(Debug)]
enum Supervisor {
    /// A process of its own.
    Process(Child),
    /// A task of ours.
    Task(JoinHandle<()>),
}

impl Ground {
    /// Claims the id, and starts a supervisor or finds that of the pod to join.
    ///
    /// # Errors
    /// [`RunError`].
    pub(crate) fn claim(plan: &RunPlan, options: &Options) -> Result<Self, RunError> {
        let state = StateDir::create(&options.root, &options.id)?;
        let path = state.path().to_owned();
        let verbose = options.console_log.is_some();
        let caches = storage::caches(&plan.settings).to_vec();
        if let PodKind::Of(joined) = &plan.pod {
            let gone = |_| RunError::Supervisor(joined.pod.clone());
            let supervisor =
                Socket::connect(&options.root.join(&joined.pod), SOCKET).map_err(gone)?;
            let (pod, state) = (joined.pod.clone(), Some(state));
            let (child, uid, console) = (None, None, None);
            let hooked = OnceCell::new();
            return Ok(Self {
                path,
                pod,
                supervisor,
                child,
                state,
                uid,
                console,
                verbose,
                caches,
                hooked,
            });
        }
        let console = match (&options.console_log, plan.settings.console) {
            (Some(path), _) => Some(open_console(path)?),
            (None, true) => Some(state.file("console.log")?),
            (None, false) => None,
        };
        let uid = is_privileged().then(|| state.take_uid(plan.settings.uids)).transpose()?;
        let failed = |error| RunError::Host("starting the supervisor", error);
        let (child, channel) = if options.streams.is_some() {
            let (task, channel) =
                supervisor::start_within(state, caches.clone()).map_err(failed)?;
            (Supervisor::Task(task), channel)
        } else {
            let mut command = Command::new("/proc/self/exe");
            command.arg0("cofferdam").args(&options.global);
            if options.detached {
                command.stderr(Stdio::null());
            }
            let (child, channel) = supervisor::start(command, &state, &caches).map_err(failed)?;
            state.hand_over();
            (Supervisor::Process(child), channel)
        };
        let supervisor = Socket::new(channel).map_err(failed)?;
        let (pod, child, state) = (options.id.clone(), Some(child), None);
        let hooked = OnceCell::new();
        Ok(Self { path, pod, supervisor, child, state, uid, console, verbose, caches, hooked })
    }

    /// The state directory of the container.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The pod, by the id of its first container.
    pub(crate) fn pod(&self) -> &str {
        &self.pod
    }

    /// The way to the supervisor.
    pub(crate) fn supervisor(&self) -> &Socket {
        &self.supervisor
    }

    /// The console of the pod's guest, if we opened it.
    pub(crate) fn console(&mut self) -> Option<&mut File> {
        self.console.as_mut()
    }

    /// Makes the disks of the container, or finds them.
    pub(super) async fn disks(
        &self,
        plan: &RunPlan,
        signals: &mut Signals,
    ) -> Result<Disks, RunError> {
        let mut settings = plan.settings.clone();
        if matches!(plan.pod, PodKind::Of(_)) {
            // Its pod has one.
            settings.scratch = crate::config::Scratch::Tmpfs;
        }
        let rootfs = (!plan.vacant).then(|| plan.rootfs.clone());
        let mut making = Making::start(rootfs, settings);
        tokio::select! {
            made = making.made() => Ok(made?),
            signal = signals.interruption() => {
                // What the thread makes yet goes when this process has ended: the supervisor sees to it.
                making.abort(ABORT_PATIENCE).await;
                Err(RunError::Interrupted(signal))
            }
        }
    }

    /// Boots the machine with the disks, or attaches them to the one that is there; and what the container is given
    /// of the host.
    pub(super) async fn place(
        &self,
        plan: &RunPlan,
        disks: Disks,
        given: &[Given],
    ) -> Result<Placed, RunError> {
        let (layer, scratch, attached) = match &plan.pod {
            PodKind::Of(joined) => {
                let attached = self.attach(disks.layer.as_ref(), given).await?;
                let (layer, attached) = attached.split_first().ok_or_else(nonsense)?;
                (Some(layer.address), joined.scratch, attached.to_vec())
            }
            _ => {
                let launched = self.launch(plan, disks, given.len()).await?;
                let Answer::Disks(addresses) = launched else { return Err(nonsense()) };
                let mut addresses = addresses.into_iter();
                let layer = if plan.vacant { None } else { addresses.next() };
                (layer, addresses.next(), self.attach(None, given).await?)
            }
        };
        let given = given.iter().zip(&attached);
        let given = given.map(|(disk, at)| Substitute { host: disk.number, guest: at.number });
        Ok(Placed { layer, scratch, given: given.collect() })
    }

    /// Attaches a layer and disks of the host, in this order.
    async fn attach(
        &self,
        layer: Option<&File>,
        given: &[Given],
    ) -> Result<Vec<AttachedDisk>, RunError> {
        let layer = layer.into_iter().map(|file| (file, false));
        let disks = layer.chain(given.iter().map(|disk| (&disk.file, disk.writable)));
        let (fds, writable): (Vec<BorrowedFd<'_>>, Vec<bool>) =
            disks.map(|(file, writable)| (file.as_fd(), writable)).unzip();
        if fds.is_empty() {
            return Ok(Vec::new());
        }
        let count = fds.len();
        match ask(&self.supervisor, &ToSupervisor::Attach { writable }, &fds).await? {
            Answer::Attached(attached) if attached.len() == count => Ok(attached),
            _ => Err(nonsense()),
        }
    }

    async fn launch(&self, plan: &RunPlan, disks: Disks, given: usize) -> Result<Answer, RunError> {
        let open = |what, path: &Path| {
            File::open(path).map_err(|source| RunError::Open {
                what,
                path: path.to_owned(),
                source,
            })
        };
        let kvm = open_kvm(Path::new("/dev/kvm"))?;
        let kernel = open("guest kernel", &plan.settings.kernel)?;
        let image = open("guest image", &plan.settings.image)?;
        let mut descriptors: Vec<OwnedFd> = vec![kernel.into(), image.into()];
        descriptors.extend(disks.layer.map(OwnedFd::from));
        descriptors.extend(disks.scratch.map(OwnedFd::from));
        let console = self.console.as_ref().filter(|_| plan.settings.console || self.verbose);
        let console = console.map(File::try_clone).transpose();
        let console = console.map_err(|error| RunError::Host("sharing the console log", error))?;
        descriptors.extend(console.map(OwnedFd::from));
        descriptors.push(kvm);
        let launch = ToSupervisor::Launch(Box::new(Launch {
            machine: plan.machine(self.verbose, given),
            room: plan.room,
            hostname: plan.pod_hostname(),
            sysctls: plan.pod_sysctls(),
            monitor: monitor_program(plan),
            uid: self.uid,
            oom_score_adj: plan.container.process.as_ref().and_then(|p| p.oom_score_adj),
        }));
        let fds: Vec<BorrowedFd<'_>> = descriptors.iter().map(AsFd::as_fd).collect();
        ask(&self.supervisor, &launch, &fds).await
    }

    /// Puts the supervisor, if it is ours, into the control group `group`, which is the container's.
    pub(super) fn place_in(&self, group: &Path) {
        match &self.child {
            Some(Supervisor::Process(child)) => hostgroup::place(group, child.id()),
            Some(Supervisor::Task(_)) => hostgroup::place(group, std::process::id()),
            None => {}
        }
    }

    /// From now on hooks are run for the container.
    pub(super) fn hooked(&self, saved: &Saved) {
        // It is set once: a ground has one container.
        let _ = self.hooked.set(saved.clone());
    }

    /// Waits until the supervisor that we started has ended.
    pub(super) fn wait_for_supervisor(&mut self) {
        if let Some(Supervisor::Process(child)) = self.child.take() {
            wait_for(child);
        }
    }

    /// Gives it all up; returns when nothing is left, and `poststop` hooks are run if others were.
    pub(crate) async fn abandon(self, poststop: &[Hook]) {
        let Self { path, pod, supervisor, child, state, caches, hooked, .. } = self;
        drop(supervisor);
        if state.is_some() {
            // The supervisor deletes it, because we are gone: wait for that.
            let root = path.parent().unwrap_or(Path::new("/"));
            if let Ok(supervisor) = Socket::connect(&root.join(pod), SOCKET) {
                let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                let _ = ask(&supervisor, &ToSupervisor::Delete(id), &[]).await;
            }
        }
        drop(state);
        if let Some(child) = child {
            match child {
                Supervisor::Process(child) => wait_for(child),
                Supervisor::Task(task) => drop(tokio::time::timeout(DYING, task).await),
            }
            // It has, unless it was killed.
            if !clear_dead(&path, false, DYING) {
                tracing::warn!(path = %path.display(), "the next command removes this directory");
            }
        }
        for cache in &caches {
            clear_abandoned(cache, MAKER_PATIENCE);
        }
        if let Some(saved) = hooked.get() {
            hooks::poststop(poststop, saved).await;
        }
    }

    /// The container is made, and goes on without us.
    ///
    /// # Errors
    /// The supervisor is gone.
    pub(crate) async fn leave(&mut self) -> Result<(), RunError> {
        ask(&self.supervisor, &ToSupervisor::Leave, &[]).await?;
        if let Some(state) = self.state.take() {
            state.hand_over();
        }
        Ok(())
    }

    /// Removes what a container that joined a pod and has ended left.
    pub(super) async fn delete(&mut self, id: &str) {
        if let Some(state) = self.state.take() {
            let deleted = ask(&self.supervisor, &ToSupervisor::Delete(id.to_owned()), &[]).await;
            if let Err(error) = deleted {
                tracing::debug!("deleting the container in its pod: {error}");
            }
            drop(state);
        }
    }
}

/// Waits for the end of a supervisor, for as long as one may take.
fn wait_for(mut child: Child) {
    let deadline = Instant::now() + DYING;
    while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn nonsense() -> RunError {
    Failure::other("the supervisor answers with something else").into()
}

fn open_console(path: &Path) -> Result<File, RunError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(true);
    let failed = |source| RunError::Open { what: "console log", path: path.to_owned(), source };
    options.open(path).map_err(failed)
}

fn open_kvm(path: &Path) -> Result<OwnedFd, RunError> {
    let opened = File::options().read(true).write(true).open(path);
    opened.map(OwnedFd::from).map_err(|source| {
        let remedy = crate::doctor::kvm_remedy(source.kind());
        RunError::Kvm { path: path.to_owned(), remedy, source }
    })
}

/// The monitor of the settings, or the one beside our own binary, or the one in `PATH`.
fn monitor_program(plan: &RunPlan) -> PathBuf {
    plan.settings.monitor.clone().unwrap_or_else(default_monitor)
}

/// The monitor where the settings name none: beside our own binary, or in `PATH`.
pub(crate) fn default_monitor() -> PathBuf {
    const NAME: &str = "cofferdam-vmm";
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|exe| Some(exe.parent()?.join(NAME)));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(NAME))
}
