//! What is about to be created, decided before anything is started.
//!
//! Invariant: pure but for reading the bundle, the configuration, small files and what other containers there are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cofferdam_agent_protocol::{
    ContainerPlan, Namespace, NamespaceKind, RootfsPlan, Stdio, Upper, upper,
};
use cofferdam_vmm_api::{
    API_VERSION, Bdf, BootSpec, Cid, ConsoleSpec, DiskSpec, FdSlot, MachineSpec, VsockSpec,
};

use crate::config::{ConfigError, Overrides, Scratch, Settings};
use crate::container::Saved;
use crate::oci::hooks::Hooks;
use crate::oci::{
    Bundle, DeviceRules, HostDisk, HostFile, HostNetwork, Needs, OciError, Substitute, Volume,
    substitute, translate,
};
use crate::room::{Host, Room, host_cpus};
use crate::sizing::{SizeError, host_memory, size};
use crate::volumes;

/// Bytes of the guest's console that are kept.
const CONSOLE_LIMIT: u32 = 64 << 10;

/// The guest's context id. Every machine has its own vsock device, so all use the same.
const GUEST_CID: Cid = Cid(3);

/// Disks that can be attached to a pod for containers that join it, and the file system of its volumes.
const SPARE_QUEUES: u8 = 3;

/// The same of a pod that is there to be joined.
const SANDBOX_SPARE_QUEUES: u8 = 17;

/// The program of a pause container, which does nothing but wait.
const PAUSE: &str = "pause";

/// Annotations that tell what a container is to its sandbox, and whose it is: those of CRI-O (podman has them too), and of
/// containerd.
const SANDBOX_ANNOTATIONS: [(&str, &str); 2] = [
    ("io.kubernetes.cri-o.ContainerType", "io.kubernetes.cri-o.SandboxID"),
    ("io.kubernetes.cri.container-type", "io.kubernetes.cri.sandbox-id"),
];

/// Something that cannot be run, found before anything was started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlanError {
    /// The configuration or an annotation.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The specification.
    #[error("{path}")]
    Oci {
        /// The file.
        path: String,
        /// What in it.
        source: OciError,
    },
    /// The machine's size.
    #[error("size of the machine")]
    Size(#[from] SizeError),
    /// A pod to join.
    #[error("annotation {annotation}: the sandbox {sandbox} does not run")]
    Sandbox {
        /// Which annotation names it.
        annotation: &'static str,
        /// Its id.
        sandbox: String,
    },
}

/// The pod of a container.
#[derive(Clone, Debug)]
pub(crate) enum PodKind {
    /// One of its own.
    Own,
    /// One of its own, which others are to join, and which lives as long as it does.
    Sandbox,
    /// That of this container.
    Of(Box<Saved>),
}

/// Where the disks of a container are.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    /// Its layer, if it has one.
    pub(crate) layer: Option<Bdf>,
    /// The scratch disk of its pod.
    pub(crate) scratch: Option<Bdf>,
    /// Block devices of the host.
    pub(crate) given: Vec<Substitute>,
}

/// What is to be run.
#[derive(Clone, Debug)]
pub(crate) struct RunPlan {
    /// The container, without its disks.
    pub(crate) container: ContainerPlan,
    /// Those of its mounts that are volumes.
    pub(crate) volumes: Vec<Volume>,
    /// Its bundle's directory.
    pub(crate) bundle: PathBuf,
    /// Its root file system.
    pub(crate) rootfs: PathBuf,
    /// The process has a terminal.
    pub(crate) terminal: bool,
    /// Hooks to run on the host.
    pub(crate) hooks: Hooks,
    /// Annotations, for the state that hooks get.
    pub(crate) annotations: BTreeMap<String, String>,
    /// Its pod.
    pub(crate) pod: PodKind,
    /// It is a sandbox, and nothing runs in it.
    pub(crate) vacant: bool,
    /// The network namespace on the host.
    pub(crate) network: HostNetwork,
    /// The pod's host name, if this is the first container.
    pub(crate) hostname: String,
    /// `linux.cgroupsPath`.
    pub(crate) cgroups_path: Option<PathBuf>,
    /// `config.json`, for commands that come later.
    pub(crate) config: Vec<u8>,
    /// Block devices of the host that the container is given.
    pub(crate) disks: Vec<HostDisk>,
    /// Its device rules.
    pub(crate) device_rules: DeviceRules,
    /// What it asks of the machine.
    pub(crate) needs: Needs,
    /// The machine's size, now and later.
    pub(crate) room: Room,
    /// Settings, all sources together.
    pub(crate) settings: Settings,
    /// What was ignored.
    pub(crate) warnings: Vec<String>,
}

impl RunPlan {
    /// Decides what is run for `bundle` as `id` beside the containers below `root`; `file` are the settings of the
    /// configuration file, `flags` those of the command line.
    ///
    /// # Errors
    /// [`PlanError`].
    pub(crate) fn new(
        (root, id): (&Path, &str),
        bundle: &Bundle,
        file: Overrides,
        flags: Overrides,
    ) -> Result<Self, PlanError> {
        let server = volumes::server_program();
        let read = |path: &Path| HostFile::read(path, &server);
        let config = bundle.directory.join("config.json");
        let others = Others::of(root, bundle)?;
        let member = |pid| others.member(pid).map(|saved| saved.id.clone());
        let translated = translate(id, bundle, &read, &member)
            .map_err(|source| PlanError::Oci { path: config.display().to_string(), source })?;
        let annotations = Overrides::from_annotations(&translated.annotations)?;
        let settings = Settings::from_environment(file.then(annotations).then(flags));
        let mut container = translated.container;
        let cpus = host_cpus();
        let size = size(&translated.needs, &settings, cpus)?.on_host(&settings, host_memory())?;
        let room = if is_sandbox(&others.pod, &container) {
            let host = Host::of_this(cpus);
            Room::of_sandbox(size, &translated.annotations, &settings, host)?
        } else {
            Room::none(size)
        };
        if let Some(process) = container.process.as_mut().filter(|p| p.terminal.is_none()) {
            let all = Some(0);
            process.stdio = Some(Stdio { stdin: all, stdout: all, stderr: all });
        }
        Ok(Self {
            container,
            volumes: translated.volumes,
            bundle: bundle.directory.clone(),
            rootfs: bundle.rootfs.clone(),
            terminal: translated.terminal,
            hooks: translated.hooks,
            annotations: translated.annotations,
            pod: others.pod,
            vacant: false,
            network: translated.network,
            hostname: translated.hostname,
            cgroups_path: bundle.spec.linux().as_ref().and_then(|l| l.cgroups_path().clone()),
            config: serde_json::to_vec(&bundle.spec).unwrap_or_default(),
            disks: translated.disks,
            device_rules: translated.device_rules,
            needs: translated.needs,
            room,
            settings,
            warnings: translated.warnings,
        })
    }

    /// A sandbox in which a pause program would run, and wait, has none instead. One with a user namespace, for others to
    /// join, or with hooks for the guest keeps it.
    pub(crate) fn vacate(&mut self) {
        let pauses = self.program().rsplit('/').next() == Some(PAUSE);
        let is_user = |n: &Namespace| n.kind() == NamespaceKind::User;
        let needed = self.container.namespaces.iter().any(is_user)
            || self.container.create_hooks.is_some()
            || self.container.start_hooks.is_some();
        self.vacant = matches!(self.pod, PodKind::Sandbox) && pauses && !needed;
    }

    /// Kernel parameters of a pod whose sandbox has no namespaces of its own.
    #[must_use]
    pub(crate) fn pod_sysctls(&self) -> Vec<(String, String)> {
        let all = self.container.sysctls.iter().filter(|_| self.vacant);
        all.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect()
    }

    /// The host name of the pod.
    #[must_use]
    pub(crate) fn pod_hostname(&self) -> String {
        if self.hostname.is_empty() { "cofferdam".into() } else { self.hostname.clone() }
    }

    /// The container on a machine where its disks are `placed`.
    ///
    /// # Errors
    /// Its device rules do not fit.
    pub(crate) fn container_on(&self, placed: &Placed) -> Result<ContainerPlan, PlanError> {
        let mut container = self.container.clone();
        let rootfs = container.rootfs.get_or_insert_with(RootfsPlan::default);
        rootfs.layers = placed.layer.iter().map(|layer| layer.0.into()).collect();
        let disk = placed.scratch.map(|address| upper::Disk { address: address.0.into() });
        rootfs.upper = Some(disk.map_or(Upper::Tmpfs(upper::Tmpfs { bytes: 0 }), Upper::Disk));
        let substituted = substitute(&mut container, &self.device_rules, &placed.given);
        let path = self.bundle.join("config.json").display().to_string();
        substituted.map_err(|source| PlanError::Oci { path, source })?;
        Ok(container)
    }

    /// What it runs first.
    #[must_use]
    pub(crate) fn command_line(&self) -> &[Vec<u8>] {
        self.container.process.as_ref().map_or(&[], |process| &process.args)
    }

    /// The program of that, for messages.
    #[must_use]
    pub(crate) fn program(&self) -> String {
        program(&self.container)
    }

    /// The machine, with room for `given` disks of the host. Its descriptors are, in this order: kernel, image, layer
    /// (with one), scratch disk (with one), console log (with a console), connections.
    #[must_use]
    pub(crate) fn machine(&self, verbose: bool, given: usize) -> MachineSpec {
        let mut next = 0..;
        let mut slot = || FdSlot(next.next().unwrap_or(u16::MAX));
        let (kernel, image) = (slot(), slot());
        let disk =
            |file, readonly, serial: &str| DiskSpec { file, readonly, serial: serial.into() };
        let mut disks = Vec::new();
        if !self.vacant {
            disks.push(disk(slot(), true, "layer0"));
        }
        if let Scratch::Disk(_) = self.settings.scratch {
            disks.push(disk(slot(), false, "scratch"));
        }
        let console =
            self.settings.console.then(|| ConsoleSpec { log: slot(), limit: CONSOLE_LIMIT });
        let Room { boot, max, .. } = self.room;
        MachineSpec {
            version: API_VERSION,
            vcpus: boot.vcpus,
            max_vcpus: (max.vcpus > boot.vcpus).then_some(max.vcpus),
            memory: boot.memory,
            max_memory: (max.memory > boot.memory).then_some(max.memory),
            huge_pages: self.settings.huge_pages,
            boot: BootSpec { kernel, initrd: Some(image), cmdline: self.cmdline(verbose) },
            disks,
            vsock: Some(VsockSpec { cid: GUEST_CID, connections: slot() }),
            rng: true,
            nets: vec![],
            balloon: true,
            spare_queues: self.places().saturating_add(u8::try_from(given).unwrap_or(u8::MAX)),
            console,
        }
    }

    /// How many disks containers that join it can have.
    fn places(&self) -> u8 {
        if is_sandbox(&self.pod, &self.container) { SANDBOX_SPARE_QUEUES } else { SPARE_QUEUES }
    }

    /// A panic resets the machine at once, by ACPI; only warnings and worse go to the console, because
    /// each character costs an exit.
    fn cmdline(&self, verbose: bool) -> String {
        let mut words = vec!["panic=-1", "reboot=acpi"];
        match (self.settings.console, verbose) {
            (true, true) => words.push("console=ttyS0"),
            (true, false) => words.extend(["console=ttyS0", "quiet"]),
            (false, _) => words.push("quiet"),
        }
        words.join(" ")
    }
}

/// Whether others are to join a container of that `pod`. podman says of no container that it is a pod's: that shows only
/// in what it runs, which waits for nothing.
fn is_sandbox(pod: &PodKind, container: &ContainerPlan) -> bool {
    let program = program(container);
    let named = |name: &str| program.rsplit('/').next() == Some(name);
    let mut arguments = container.process.iter().flat_map(|process| &process.args);
    match pod {
        PodKind::Sandbox => true,
        PodKind::Of(_) => false,
        PodKind::Own => named(PAUSE) || named("catatonit") && arguments.any(|a| a == b"-P"),
    }
}

/// What `container` runs first.
fn program(container: &ContainerPlan) -> String {
    let program = container.process.as_ref().and_then(|process| process.args.first());
    program.map(|program| String::from_utf8_lossy(program).into_owned()).unwrap_or_default()
}

/// The other containers, and the one among them whose pod a new one joins.
struct Others {
    all: Vec<Saved>,
    pod: PodKind,
}

impl Others {
    /// Looks for the pod that `bundle` is to join: by the annotations, or because it names a namespace of a container.
    fn of(root: &Path, bundle: &Bundle) -> Result<Self, PlanError> {
        let annotations = bundle.spec.annotations().as_ref();
        let get = |name: &str| annotations.and_then(|all| all.get(name));
        for (kind, name) in SANDBOX_ANNOTATIONS {
            match (get(kind).map(String::as_str), get(name)) {
                (Some("sandbox"), _) => return Ok(Self { all: Vec::new(), pod: PodKind::Sandbox }),
                (Some("container"), Some(sandbox)) => {
                    let gone = || PlanError::Sandbox { annotation: name, sandbox: sandbox.clone() };
                    let saved = Saved::load(root, sandbox).map_err(|_| gone())?;
                    return Ok(Self { all: Saved::all(root), pod: PodKind::Of(Box::new(saved)) });
                }
                _ => {}
            }
        }
        let namespaces = bundle.spec.linux().as_ref().and_then(|l| l.namespaces().as_ref());
        let paths = namespaces.into_iter().flatten().filter_map(|n| n.path().as_ref());
        let pids: Vec<u32> = paths.filter_map(|path| crate::oci::process_of(path)).collect();
        if pids.is_empty() {
            return Ok(Self { all: Vec::new(), pod: PodKind::Own });
        }
        let all = Saved::all(root);
        let is = |saved: &&Saved| pids.contains(&saved.process.pid) && saved.process.is_alive();
        let pod = all.iter().find(is).cloned();
        let pod = pod.map_or(PodKind::Own, |saved| PodKind::Of(Box::new(saved)));
        Ok(Self { all, pod })
    }

    /// The container of the pod for which the process `pid` stands. containerd's shim stands for all of them: then that
    /// one is meant whose pod it is.
    fn member(&self, pid: u32) -> Option<&Saved> {
        let PodKind::Of(joined) = &self.pod else { return None };
        let is = |saved: &&Saved| {
            saved.process.pid == pid && saved.pod == joined.pod && saved.process.is_alive()
        };
        std::iter::once(&**joined).chain(&self.all).find(is)
    }
}

#[cfg(test)]
#[path = "plan_test.rs"]
mod plan_test;
