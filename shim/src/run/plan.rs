//! What `cofferdam run` is about to do, decided before anything is started.
//!
//! Invariant: pure but for reading the bundle, the configuration and small files.

use std::path::PathBuf;

use cofferdam_agent_protocol::{ContainerPlan, PodPlan, RootfsPlan, Stdio, Upper, upper};
use cofferdam_vmm_api::{
    API_VERSION, Bdf, BootSpec, Cid, ConsoleSpec, DiskSpec, FdSlot, MachineSpec, VsockSpec,
};

use crate::config::{ConfigError, Overrides, Scratch, Settings};
use crate::oci::hooks::Hooks;
use crate::oci::{Bundle, HostFile, OciError, translate};
use crate::sizing::{Size, SizeError, size};

/// Bytes of the guest's console that are kept.
const CONSOLE_LIMIT: u32 = 64 << 10;

/// The guest's context id. Every machine has its own vsock device, so all use the same.
const GUEST_CID: Cid = Cid(3);

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
}

/// What is to be run.
#[derive(Clone, Debug)]
pub(crate) struct RunPlan {
    /// The container, without its disks.
    pub(crate) container: ContainerPlan,
    /// Its bundle's directory.
    pub(crate) bundle: PathBuf,
    /// Its root file system.
    pub(crate) rootfs: PathBuf,
    /// The process has a terminal.
    pub(crate) terminal: bool,
    /// Hooks to run on the host.
    pub(crate) hooks: Hooks,
    /// Annotations, for the state that hooks get.
    pub(crate) annotations: std::collections::BTreeMap<String, String>,
    /// The machine's size.
    pub(crate) size: Size,
    /// Settings, all sources together.
    pub(crate) settings: Settings,
    /// What was ignored.
    pub(crate) warnings: Vec<String>,
}

impl RunPlan {
    /// Decides what is run for `bundle` as `id`; `file` are the settings of the configuration file,
    /// `flags` those of the command line.
    ///
    /// # Errors
    /// [`PlanError`].
    pub(crate) fn new(
        id: &str,
        bundle: &Bundle,
        file: Overrides,
        flags: Overrides,
    ) -> Result<Self, PlanError> {
        let read = |path: &std::path::Path| HostFile::read(path);
        let config = bundle.directory.join("config.json");
        let translated = translate(id, bundle, &read)
            .map_err(|source| PlanError::Oci { path: config.display().to_string(), source })?;
        let annotations = Overrides::from_annotations(&translated.annotations)?;
        let settings = Settings::from_environment(file.then(annotations).then(flags));
        let host_cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let host_cpus = u8::try_from(host_cpus).unwrap_or(u8::MAX);
        let size = size(&translated.needs, &settings, host_cpus)?;
        let mut container = translated.container;
        if let Some(process) = container.process.as_mut().filter(|p| p.terminal.is_none()) {
            let all = Some(0);
            process.stdio = Some(Stdio { stdin: all, stdout: all, stderr: all });
        }
        Ok(Self {
            container,
            bundle: bundle.directory.clone(),
            rootfs: bundle.rootfs.clone(),
            terminal: translated.terminal,
            hooks: translated.hooks,
            annotations: translated.annotations,
            size,
            settings,
            warnings: translated.warnings,
        })
    }

    /// What the agent is told about the pod.
    #[must_use]
    pub(crate) fn pod(&self) -> PodPlan {
        let hostname = match self.container.hostname.as_str() {
            "" => "cofferdam",
            name => name,
        };
        PodPlan { hostname: hostname.into(), realtime_ns: 0, sysctls: Vec::new() }
    }

    /// The container on a machine whose disks have the addresses `disks`.
    #[must_use]
    pub(crate) fn container_on(&self, disks: &[Bdf]) -> ContainerPlan {
        let mut container = self.container.clone();
        let address = |index: usize| disks.get(index).map(|bdf| u32::from(bdf.0));
        let rootfs = container.rootfs.get_or_insert_with(RootfsPlan::default);
        rootfs.layers = address(0).into_iter().collect();
        rootfs.upper = match self.settings.scratch {
            Scratch::Tmpfs => Some(Upper::Tmpfs(upper::Tmpfs { bytes: 0 })),
            Scratch::Disk(_) => address(1).map(|address| Upper::Disk(upper::Disk { address })),
        };
        container
    }

    /// The machine. Its descriptors are, in this order: kernel, image, layer, scratch disk (with one),
    /// console log (with a console), connections.
    #[must_use]
    pub(crate) fn machine(&self, verbose: bool) -> MachineSpec {
        let mut next = 0..;
        let mut slot = || FdSlot(next.next().unwrap_or(u16::MAX));
        let (kernel, image, layer) = (slot(), slot(), slot());
        let disk =
            |file, readonly, serial: &str| DiskSpec { file, readonly, serial: serial.into() };
        let mut disks = vec![disk(layer, true, "layer0")];
        if let Scratch::Disk(_) = self.settings.scratch {
            disks.push(disk(slot(), false, "scratch"));
        }
        let console =
            self.settings.console.then(|| ConsoleSpec { log: slot(), limit: CONSOLE_LIMIT });
        MachineSpec {
            version: API_VERSION,
            vcpus: self.size.vcpus,
            max_vcpus: None,
            memory: self.size.memory,
            max_memory: None,
            huge_pages: self.settings.huge_pages,
            boot: BootSpec { kernel, initrd: Some(image), cmdline: self.cmdline(verbose) },
            disks,
            vsock: Some(VsockSpec { cid: GUEST_CID, connections: slot() }),
            rng: true,
            nets: vec![],
            balloon: true,
            spare_queues: 0,
            console,
        }
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

#[cfg(test)]
#[path = "plan_test.rs"]
mod plan_test;
