//! A pod by the supervisor's library, for what its command line does not offer: a machine whose disks come and go.

use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cofferdam_agent_protocol::{
    Capabilities, ContainerPlan, Namespace, NamespaceKind, ProcessPlan, RootfsPlan, Stdio, Upper,
    upper,
};
use cofferdam_rootfs_builder::layers::LayerCache;
use cofferdam_shim::pod::{Pod, Streams};
use cofferdam_vmm_api::{Bdf, ConsoleSpec, FdSlot, MiB};
use tempfile::TempDir;

use crate::pod::{launch, machine};
use crate::run::unique_id;

/// Queues that can be plugged in.
const SPARES: u8 = 42;

/// Bytes of the console that are kept.
const CONSOLE_LIMIT: u32 = 64 << 10;

/// A container may take as long as this on a slow machine.
const LIMIT: Duration = Duration::from_secs(180);

/// The script of a container that does not end by itself.
const FOREVER: &str = "sleep 1000000";

/// A running pod without containers.
pub(crate) struct Live {
    pub(crate) pod: Pod,
    /// The process id of its monitor.
    monitor: i32,
    /// The disk with the ordinary root file system.
    base: Bdf,
    _console: Console,
}

/// What the guest's kernel says, shown at the end; nothing, unless something went wrong.
struct Console(File);

impl Drop for Console {
    fn drop(&mut self) {
        let mut said = vec![0; CONSOLE_LIMIT as usize];
        let length = self.0.read_at(&mut said, 0).unwrap_or(0);
        print!("{}", String::from_utf8_lossy(&said[..length]));
    }
}

/// What a process of the host holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Holdings {
    descriptors: usize,
    threads: usize,
}

/// Runs `case` on a runtime of its own.
pub(crate) fn run(case: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(case)
}

impl Live {
    /// Boots it, with one disk.
    pub(crate) async fn start() -> Result<Self> {
        let console = Console(tempfile::tempfile()?);
        let mut machine = machine(MiB(256));
        machine.spare_queues = SPARES;
        machine.boot.cmdline.push_str(" console=ttyS0");
        machine.console = Some(ConsoleSpec { log: FdSlot(4), limit: CONSOLE_LIMIT });
        let (monitor, pod) = launch(machine, vec![console.0.try_clone()?.into()])?;
        let disks = pod.ready().await?;
        let base = *disks.first().context("no disk")?;
        Ok(Self { pod, monitor, base, _console: console })
    }

    /// What its monitor holds.
    pub(crate) fn holdings(&self) -> Result<Holdings> {
        let count = |what: &str| {
            let path = format!("/proc/{}/{what}", self.monitor);
            Ok::<_, anyhow::Error>(std::fs::read_dir(&path).context(path)?.count())
        };
        Ok(Holdings { descriptors: count("fd")?, threads: count("task")? })
    }

    /// A container on the root file system with `layers` above it, read-only, that runs a shell script to its end;
    /// what it prints.
    pub(crate) async fn shell(&self, layers: &[Bdf], script: &str) -> Result<String> {
        self.finish(container(layers.iter().chain([&self.base]), script)).await
    }

    /// A container on the root file system that writes to the ext4 disk `upper` and runs a shell script to its end;
    /// what it prints.
    pub(crate) async fn shell_on(&self, upper: Bdf, script: &str) -> Result<String> {
        self.finish(self.on(upper, script)).await
    }

    /// As [`Live::shell`], but it runs until it is deleted with force: its id.
    pub(crate) async fn hold(&self, layers: &[Bdf]) -> Result<String> {
        self.leave(container(layers.iter().chain([&self.base]), FOREVER)).await
    }

    /// As [`Live::shell_on`], but it runs until it is deleted with force: its id.
    pub(crate) async fn hold_on(&self, upper: Bdf) -> Result<String> {
        self.leave(self.on(upper, FOREVER)).await
    }

    fn on(&self, upper: Bdf, script: &str) -> ContainerPlan {
        let mut plan = container([&self.base].into_iter(), script);
        let upper = Upper::Disk(upper::Disk { address: upper.0.into() });
        plan.rootfs.get_or_insert_default().upper = Some(upper);
        plan
    }

    /// Starts a container and leaves it to itself.
    async fn leave(&self, mut plan: ContainerPlan) -> Result<String> {
        plan.process.get_or_insert_default().stdio = None;
        let id = plan.id.clone();
        self.pod.create(plan).await?;
        self.pod.start(&id).await?;
        Ok(id)
    }

    /// Runs a container to its end; what it prints.
    async fn finish(&self, plan: ContainerPlan) -> Result<String> {
        let id = plan.id.clone();
        let (mut reader, writer) = std::io::pipe()?;
        let null = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
        let ours = [null()?, writer.try_clone()?.into(), writer.into()];
        let expected = self.pod.create(plan).await?;
        let connecting = tokio::spawn(Streams::connect(expected, ours));
        self.pod.start(&id).await?;
        let status =
            tokio::time::timeout(LIMIT, self.pod.wait(&id, "")).await.context("too slow")??;
        let mut streams = connecting.await??;
        streams.drained().await;
        drop(streams);
        let mut text = String::new();
        reader.read_to_string(&mut text)?;
        self.pod.delete(&id, "", false).await?;
        ensure!(status.shell_code() == 0, "exit code {}: {text}", status.shell_code());
        Ok(text)
    }
}

fn container<'a>(layers: impl Iterator<Item = &'a Bdf>, script: &str) -> ContainerPlan {
    let namespace = |kind: NamespaceKind| Namespace { kind: kind.into(), join: String::new() };
    ContainerPlan {
        id: unique_id(),
        rootfs: Some(RootfsPlan {
            layers: layers.map(|address| address.0.into()).collect(),
            ..RootfsPlan::default()
        }),
        namespaces: vec![namespace(NamespaceKind::Mount), namespace(NamespaceKind::Pid)],
        process: Some(ProcessPlan {
            args: ["sh", "-c", script].map(|arg| arg.as_bytes().to_vec()).to_vec(),
            env: vec![b"PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_vec()],
            cwd: b"/".into(),
            capabilities: Some(network_capabilities()),
            stdio: Some(Stdio { stdin: None, stdout: Some(0), stderr: Some(0) }),
            ..ProcessPlan::default()
        }),
        ..ContainerPlan::default()
    }
}

/// Those to set up interfaces and to send pings.
fn network_capabilities() -> Capabilities {
    // CAP_NET_ADMIN, CAP_NET_RAW.
    let set = 1 << 12 | 1 << 13;
    Capabilities { bounding: set, effective: set, permitted: set, ..Capabilities::default() }
}

/// EROFS images, each with the one file `NAME` that holds `CONTENT`.
pub(crate) struct Images {
    _directory: TempDir,
    files: Vec<File>,
}

impl Images {
    /// Makes one of each name and content.
    pub(crate) fn new<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let directory = TempDir::with_prefix("images-")?;
        let cache = LayerCache::new(directory.path().join("cache"));
        let mut images = Vec::new();
        for (name, content) in files {
            let root = directory.path().join("roots").join(name);
            std::fs::create_dir_all(&root)?;
            std::fs::write(root.join(name), content)?;
            images.push(cache.layer(&root, |_| ())?.file);
        }
        Ok(Self { _directory: directory, files: images })
    }

    /// A descriptor of the image at `index`.
    pub(crate) fn file(&self, index: usize) -> Result<File> {
        Ok(self.files.get(index).context("no such image")?.try_clone()?)
    }
}
