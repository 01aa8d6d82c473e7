//! Our monitor, started as the supervisor starts it.
//!
//! Invariant: the machine has the shape that `cofferdam run` gives it, but for what the [`Run`] says.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cofferdam_test_bench::{Run, place};
use cofferdam_vmm_api::{
    API_VERSION, BootSpec, Channel, Cid, ConsoleSpec, DiskSpec, FdSlot, FromMonitor, MachineSpec,
    MiB, StageName, ToMonitor, VsockSpec, start_monitor,
};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::Started;
use crate::process::Process;

/// Bytes of the console that are kept, as in a pod.
const CONSOLE_LIMIT: u32 = 64 << 10;

/// The user that the monitor becomes, one of those that pods have.
const UID: u32 = 2_000_000_000;

/// A machine that was started.
pub(crate) struct Machine {
    control: Channel,
    connections: Arc<Channel>,
    process: Process,
    stages: Vec<(String, u64)>,
}

/// The descriptors that go with the specification.
#[derive(Default)]
struct Files(Vec<OwnedFd>);

impl Files {
    fn add(&mut self, fd: impl Into<OwnedFd>) -> Result<FdSlot> {
        let slot = FdSlot(u16::try_from(self.0.len())?);
        self.0.push(fd.into());
        Ok(slot)
    }

    fn open(&mut self, path: &str, write: bool) -> Result<FdSlot> {
        let file = File::options().read(true).write(write).create(write).truncate(false).open(path);
        self.add(file.with_context(|| format!("opening {path}"))?)
    }
}

/// What a machine is made of, beside what a [`Run`] says.
pub(crate) struct Parts<'a> {
    /// The initramfs.
    pub(crate) initramfs: &'a str,
    /// The disks, and whether each may be written.
    pub(crate) disks: Vec<(&'a str, bool)>,
}

/// Starts it.
pub(crate) fn start(run: &Run, disks: &[String]) -> Result<Machine> {
    let disks = disks.iter().enumerate().map(|(index, path)| (path.as_str(), index > 0)).collect();
    start_of(run, &Parts { initramfs: place::INITRAMFS, disks })
}

/// Starts a machine of these parts.
pub(crate) fn start_of(run: &Run, parts: &Parts<'_>) -> Result<Machine> {
    let (control, theirs) = Channel::pair().context("making a control socket")?;
    let start = |command| start_monitor(command, theirs.into_inner());
    let process = Process::start(&[place::MONITOR.to_owned()], start)?;
    let kvm =
        File::options().read(true).write(true).open("/dev/kvm").context("opening /dev/kvm")?;
    let confine = ToMonitor::Confine { uid: Some(UID) };
    control.send(&confine, &[kvm.as_fd()]).context("confining the monitor")?;
    let (connections, theirs) = Channel::pair().context("making a socket of connections")?;
    let mut files = Files::default();
    let spec = spec(run, parts, &mut files, theirs.into_inner())?;
    let fds: Vec<BorrowedFd<'_>> = files.0.iter().map(AsFd::as_fd).collect();
    control.send(&ToMonitor::Boot(Box::new(spec)), &fds).context("sending the specification")?;
    Ok(Machine { control, connections: Arc::new(connections), process, stages: Vec::new() })
}

fn spec(run: &Run, parts: &Parts<'_>, files: &mut Files, vsock: OwnedFd) -> Result<MachineSpec> {
    let kernel = files.open(place::KERNEL, false)?;
    let initrd = Some(files.open(parts.initramfs, false)?);
    let mut specs = Vec::new();
    for (index, (path, writable)) in parts.disks.iter().enumerate() {
        let file = files.open(path, *writable)?;
        specs.push(DiskSpec { file, readonly: !writable, serial: format!("disk{index}") });
    }
    let mut cmdline = run.cmdline.clone();
    let mut console = None;
    if run.console {
        cmdline.push_str(" console=ttyS0");
        console =
            Some(ConsoleSpec { log: files.open("/tmp/console", true)?, limit: CONSOLE_LIMIT });
    }
    Ok(MachineSpec {
        version: API_VERSION,
        vcpus: run.vcpus,
        max_vcpus: (run.parked > 0).then_some(run.vcpus + run.parked),
        memory: MiB(run.memory_mib),
        max_memory: None,
        huge_pages: run.huge_pages,
        boot: BootSpec { kernel, initrd, cmdline },
        disks: specs,
        vsock: Some(VsockSpec { cid: Cid(3), connections: files.add(vsock)? }),
        rng: true,
        nets: Vec::new(),
        balloon: true,
        spare_queues: 0,
        console,
    })
}

impl Machine {
    /// The socket of the guest's connections.
    pub(crate) fn connections(&self) -> Arc<Channel> {
        Arc::clone(&self.connections)
    }
}

/// The guest's next connection, and the port that it goes to.
pub(crate) fn accept(connections: &Channel) -> Result<(u32, File)> {
    let mut port = [0; 4];
    let (_, mut fds) =
        connections.receive_bytes(&mut port).context("waiting for the guest's connection")?;
    let stream = fds.pop().context("a connection without a descriptor")?;
    // It comes as the monitor likes it.
    fcntl(&stream, FcntlArg::F_SETFL(OFlag::O_RDWR)).context("making a stream blocking")?;
    Ok((u32::from_le_bytes(port), stream.into()))
}

impl Started for Machine {
    fn connection(&mut self) -> Result<File> {
        // The stages come first: all of them are reached before the agent starts.
        loop {
            match self.control.receive().context("listening to the monitor")?.body {
                FromMonitor::Reached(stage) => {
                    self.stages.push((name(stage.name).to_owned(), stage.at_ns));
                    if stage.name == StageName::DriversStarted {
                        break;
                    }
                }
                FromMonitor::Confined { missing } if missing.is_empty() => {}
                FromMonitor::Confined { missing } => bail!("not confined: {missing:?}"),
                FromMonitor::Booted(_) | FromMonitor::Stats(_) => {}
                FromMonitor::Paused | FromMonitor::Resumed => {}
                // Nothing is plugged in.
                FromMonitor::Attached(_)
                | FromMonitor::Detached { .. }
                | FromMonitor::Memory(_)
                | FromMonitor::Refused(_) => {}
                FromMonitor::Failed(why) => bail!("the machine cannot be built: {why}"),
                FromMonitor::Exited(reason) => bail!("the machine ended: {reason}"),
            }
        }
        Ok(accept(&self.connections)?.1)
    }

    fn stages(&self) -> Vec<(String, u64)> {
        self.stages.clone()
    }

    fn process(&self) -> &Process {
        &self.process
    }
}

fn name(stage: StageName) -> &'static str {
    match stage {
        StageName::MonitorStarted => "monitor started",
        StageName::MachineBuilt => "machine built",
        StageName::KernelEntered => "kernel entered",
        StageName::DriversStarted => "drivers started",
    }
}
