//! A pod by its supervisor's own interface, with one container: a shell that does what it is told, line by line.
//!
//! For what no command of `cofferdam` asks for yet.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cofferdam_agent_protocol::{
    Capabilities, ContainerPlan, Mount, MountKind, Namespace, NamespaceKind, PodPlan, ProcessPlan,
    RootfsPlan, Stdio, Upper, upper,
};
use cofferdam_rootfs_builder::layers::{DEFAULT_DIRECTORY, LayerCache};
use cofferdam_shim::pod::{Monitor, Pod, PodSpec, Timeouts};
use cofferdam_shim::timeline::Timeline;
use cofferdam_vmm_api::{
    API_VERSION, BootSpec, Cid, DiskSpec, FdSlot, MachineSpec, MiB, VsockSpec,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

use crate::monitor::KERNEL;
use crate::run::ROOTFS;

/// The guest image that is installed.
const IMAGE: &str = "/usr/lib/cofferdam/initramfs";

/// The user that the monitor becomes: one that no pod of `cofferdam run` has.
const UID: u32 = 2_000_131_072;

/// Longest time for what the shell is told, on a slow machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The id of the container.
const SHELL: &str = "shell";

/// A pod that runs. Dropped, its machine is stopped.
pub(crate) struct ShellPod {
    /// First, so that it goes within the runtime.
    pod: Option<Pod>,
    stdin: UnixStream,
    stdout: UnixStream,
    monitor: i32,
    runtime: Runtime,
}

impl ShellPod {
    /// A pod with one disk on a machine of `size`, changed by `change`.
    pub(crate) fn start(memory: MiB, change: impl FnOnce(&mut MachineSpec)) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut machine = machine(memory);
        change(&mut machine);
        let started = runtime.block_on(async {
            let (monitor, pod) = launch(machine, Vec::new())?;
            let disks = pod.ready().await?;
            let expected = pod.create(container(u32::from(disks[0].0))).await?;
            pod.start(SHELL).await?;
            let stdin = expected.stdin.context("no standard input")?.await?;
            let stdout = expected.stdout.context("no standard output")?.await?;
            anyhow::Ok((pod, stdin, stdout, monitor))
        });
        let (pod, stdin, stdout, monitor) = started?;
        Ok(Self { pod: Some(pod), stdin, stdout, monitor, runtime })
    }

    /// The process id of the monitor.
    pub(crate) fn monitor(&self) -> i32 {
        self.monitor
    }

    /// Has the supervisor do something.
    pub(crate) fn with<T>(&self, ask: impl AsyncFnOnce(&Pod) -> T) -> Result<T> {
        let pod = self.pod.as_ref().context("no pod")?;
        Ok(self.runtime.block_on(ask(pod)))
    }

    /// What the shell prints when it does `script`, which must succeed.
    pub(crate) fn says(&mut self, script: &str) -> Result<String> {
        let Self { stdin, stdout, runtime, .. } = self;
        let line = format!("{{ {script}; }} 2>&1; echo \"<$?>\"\n");
        let talk = async {
            stdin.write_all(line.as_bytes()).await?;
            let mut text = String::new();
            while !text.ends_with(">\n") {
                let mut chunk = [0; 4096];
                let length = stdout.read(&mut chunk).await?;
                ensure!(length > 0, "the shell ended: {text}");
                text.push_str(&String::from_utf8_lossy(&chunk[..length]));
            }
            Ok(text)
        };
        let limited = runtime.block_on(async { tokio::time::timeout(LIMIT, talk).await });
        let text = limited.with_context(|| format!("{script}: no answer"))??;
        let said = text.strip_suffix("<0>\n").with_context(|| format!("{script}: {text}"))?;
        Ok(said.trim().to_owned())
    }
}

impl Drop for ShellPod {
    fn drop(&mut self) {
        if let Some(pod) = self.pod.take() {
            let _timeline = self.runtime.block_on(pod.stop());
        }
    }
}

/// The machine that `cofferdam run` starts, with a tmpfs for what is written.
pub(crate) fn machine(memory: MiB) -> MachineSpec {
    let (kernel, image, layer, vsock) = (FdSlot(0), FdSlot(1), FdSlot(2), FdSlot(3));
    MachineSpec {
        version: API_VERSION,
        vcpus: 1,
        max_vcpus: None,
        memory,
        max_memory: None,
        huge_pages: false,
        boot: BootSpec {
            kernel,
            initrd: Some(image),
            cmdline: "panic=-1 reboot=acpi quiet".into(),
        },
        disks: vec![DiskSpec { file: layer, readonly: true, serial: "layer0".into() }],
        vsock: Some(VsockSpec { cid: Cid(3), connections: vsock }),
        rng: true,
        nets: vec![],
        balloon: true,
        spare_queues: 0,
        console: None,
    }
}

/// Starts the monitor and a [`machine`], which may name `more` descriptors, from slot 4 on; the monitor's process id.
pub(crate) fn launch(machine: MachineSpec, more: Vec<OwnedFd>) -> Result<(i32, Pod)> {
    let open = |path: &str| File::open(path).with_context(|| format!("opening {path}"));
    let kvm =
        File::options().read(true).write(true).open("/dev/kvm").context("opening /dev/kvm")?;
    let layer = LayerCache::new(DEFAULT_DIRECTORY).layer(Path::new(ROOTFS), |_| {})?;
    let (monitor, connections) = Monitor::spawn(Path::new("cofferdam-vmm"))?;
    monitor.confine(Some(UID), kvm.into());
    let pid = i32::try_from(monitor.pid().context("no monitor")?)?;
    let mut descriptors: Vec<OwnedFd> = vec![open(KERNEL)?.into(), open(IMAGE)?.into()];
    descriptors.extend([layer.file.into(), connections]);
    descriptors.extend(more);
    let plan = PodPlan { hostname: "case".into(), ..PodPlan::default() };
    let spec = PodSpec { machine, descriptors, plan, timeouts: Timeouts::default() };
    Ok((pid, Pod::launch(monitor, spec, Timeline::default())?))
}

/// A container that runs a shell on the root file system at the PCI address `layer`.
fn container(layer: u32) -> ContainerPlan {
    let all = (1 << 41) - 1;
    let mount = |fstype: &str, destination: &str| {
        let (fstype, source) = (fstype.to_owned(), fstype.into());
        let mut mount =
            Mount { fstype, source, destination: destination.into(), ..Mount::default() };
        mount.set_kind(MountKind::Filesystem);
        mount
    };
    let namespace = |kind| {
        let mut namespace = Namespace::default();
        namespace.set_kind(kind);
        namespace
    };
    let kinds = [NamespaceKind::Mount, NamespaceKind::Pid, NamespaceKind::Cgroup];
    ContainerPlan {
        id: SHELL.into(),
        rootfs: Some(RootfsPlan {
            layers: vec![layer],
            upper: Some(Upper::Tmpfs(upper::Tmpfs { bytes: 0 })),
            ..RootfsPlan::default()
        }),
        mounts: [("proc", "/proc"), ("tmpfs", "/dev/shm"), ("sysfs", "/sys")]
            .map(|(fstype, destination)| mount(fstype, destination))
            .to_vec(),
        namespaces: kinds.map(namespace).to_vec(),
        process: Some(ProcessPlan {
            args: vec![b"sh".to_vec()],
            env: vec![
                b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_vec(),
            ],
            cwd: b"/".into(),
            capabilities: Some(Capabilities {
                bounding: all,
                effective: all,
                inheritable: 0,
                permitted: all,
                ambient: 0,
            }),
            stdio: Some(Stdio { stdin: Some(0), stdout: Some(0), stderr: None }),
            ..ProcessPlan::default()
        }),
        ..ContainerPlan::default()
    }
}
