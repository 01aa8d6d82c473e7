//! `cofferdam-vmm boot`: a small supervisor. It opens the files, starts the monitor, which is this program
//! again, and talks to it as any supervisor does; so a machine by hand is as confined as any other.
//!
//! Invariant: the monitor has ended when this returns.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use cofferdam_vmm_api::{
    API_VERSION, BootSpec, Channel, ChannelError, ConsoleSpec, DiskSpec, ExitReason, FromMonitor,
    MachineSpec, MiB, StageName, Stats, ToMonitor, is_privileged, start_monitor,
};
use cofferdam_vmm_hv::open_kvm;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::files::{Outbox, create, open, open_console, open_disk, parse_disk};
use super::{BootArgs, exit, tap, vsock};

/// The first of the users that monitors by hand become: those after the default of `cofferdam run`.
const FIRST_UID: u32 = 2_000_065_536;

/// How many of them there are. Which one it is follows from our process id, so that no two living ones share it.
const UIDS: u32 = 1 << 16;

/// Boots the machine and waits for its end.
pub(crate) fn run(args: &BootArgs, started_ns: u64) -> anyhow::Result<ExitCode> {
    raise_descriptor_limit();
    // Before any thread starts, so that all of them leave these signals to the descriptor.
    let signals = take_signals().context("cannot take signals")?;
    let mut outbox = Outbox::default();
    let spec = specification(args, &mut outbox)?;
    let metrics = args.metrics.as_ref().map(|path| create(path, "metrics")).transpose()?;
    let kvm = open_kvm("/dev/kvm")?;
    let (channel, theirs) = Channel::pair().context("cannot make a control socket")?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.stdout(Stdio::null());
    let monitor =
        start_monitor(command, theirs.into_inner()).context("cannot start the monitor")?;
    let mut monitor = Monitor { channel, process: monitor, started_ns };
    let uid = is_privileged().then(|| FIRST_UID + std::process::id() % UIDS);
    monitor.send(&ToMonitor::Confine { uid }, &[kvm.as_fd()])?;
    monitor.send(&ToMonitor::Boot(Box::new(spec)), &outbox.borrowed())?;
    drop((outbox, kvm));
    let followed = monitor.follow(args, &signals, metrics.as_ref());
    if let Some(path) = &args.vsock {
        // Its thread may not get that far before this process ends.
        let _ = std::fs::remove_file(path);
    }
    let reason = followed?;
    if reason != ExitReason::PowerOff {
        eprintln!("cofferdam-vmm: {reason}");
    }
    Ok(ExitCode::from(exit::code(&reason)))
}

/// Each vsock connection holds descriptors here, too, and the usual soft limit of 1024 is for programs that use
/// `select(2)`. What the hard limit does not allow is refused one connection at a time.
fn raise_descriptor_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _refused = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Opens everything and names it.
fn specification(args: &BootArgs, outbox: &mut Outbox) -> anyhow::Result<MachineSpec> {
    let kernel = outbox.add(open(&args.kernel, "kernel")?)?;
    let initrd = args.initrd.as_ref().map(|path| outbox.add(open(path, "initramfs")?));
    let initrd = initrd.transpose()?;
    let mut disks = Vec::new();
    for (index, disk) in args.disks.iter().enumerate() {
        let (path, readonly) = parse_disk(disk);
        let file = outbox.add(open_disk(path, readonly)?)?;
        disks.push(DiskSpec { file, readonly, serial: format!("disk{index}") });
    }
    let nets = args.taps.iter().map(|tap| tap::open(tap, outbox)).collect::<Result<_, _>>()?;
    let vsock = args.vsock.as_ref().map(|path| vsock::listen(path, outbox)).transpose()?;
    let console = match args.console.as_str() {
        "none" => None,
        name => Some(ConsoleSpec { log: outbox.add(open_console(name)?)?, limit: 0 }),
    };
    Ok(MachineSpec {
        version: API_VERSION,
        vcpus: args.cpus,
        max_vcpus: args.max_cpus,
        memory: MiB(args.memory),
        max_memory: None,
        huge_pages: args.hugepages,
        boot: BootSpec { kernel, initrd, cmdline: args.cmdline.clone() },
        disks,
        nets,
        vsock,
        rng: true,
        balloon: true,
        spare_queues: 0,
        console,
    })
}

/// Ctrl-C and friends, and the wish for metrics, as a descriptor.
fn take_signals() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGUSR1]
        .iter()
        .for_each(|signal| signals.add(*signal));
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// The monitor at work.
struct Monitor {
    channel: Channel,
    process: Child,
    started_ns: u64,
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // It has been told to stop, or has ended by itself; if not, there is nothing to be saved any more.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Monitor {
    /// Tells it something. If it has ended, [`Monitor::follow`] finds out how.
    fn send(&self, message: &ToMonitor, fds: &[BorrowedFd<'_>]) -> anyhow::Result<()> {
        match self.channel.send(message, fds) {
            Err(ChannelError::Closed) => Ok(()),
            sent => sent.context("talking to the monitor"),
        }
    }

    /// Listens to it until the machine has ended.
    fn follow(
        &mut self,
        args: &BootArgs,
        signals: &SignalFd,
        metrics: Option<&File>,
    ) -> anyhow::Result<ExitReason> {
        loop {
            let mut fds = [
                PollFd::new(self.channel.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Err(io::Error::from(errno)).context("waiting for the machine");
                }
            }
            let [told, asked] = fds.map(|fd| fd.any() == Some(true));
            if let (true, Ok(Some(signal))) = (asked, signals.read_signal()) {
                let wants_metrics = signal.ssi_signo == Signal::SIGUSR1 as u32;
                let wish = if wants_metrics { ToMonitor::Stats } else { ToMonitor::Stop };
                self.send(&wish, &[])?;
            }
            if !told {
                continue;
            }
            match self.channel.receive::<FromMonitor>() {
                Ok(message) => {
                    if let Some(reason) = self.said(args, message.body, metrics)? {
                        return Ok(reason);
                    }
                }
                Err(ChannelError::Closed) => return self.ended(),
                Err(error) => return Err(error).context("talking to the monitor"),
            }
        }
    }

    /// It said something: why the machine ended, if it did.
    fn said(
        &self,
        args: &BootArgs,
        message: FromMonitor,
        metrics: Option<&File>,
    ) -> anyhow::Result<Option<ExitReason>> {
        match message {
            FromMonitor::Reached(stage) if args.timing => {
                let after = stage.at_ns.saturating_sub(self.started_ns) / 1000;
                eprintln!("cofferdam-vmm: {:>9} us  {}", after, stage_text(stage.name));
            }
            FromMonitor::Confined { missing } => {
                for what in missing {
                    eprintln!(
                        "cofferdam-vmm: warning: this host lets the monitor run without {what} only"
                    );
                }
            }
            FromMonitor::Stats(stats) => {
                metrics.map(|file| write_metrics(file, &stats)).transpose()?;
            }
            FromMonitor::Failed(text) => bail!("cannot boot: {}", name_paths(args, &text)),
            FromMonitor::Exited(reason) => return Ok(Some(reason)),
            _ => {}
        }
        Ok(None)
    }

    /// It ended without a word on the socket; it may have said why on standard error.
    fn ended(&mut self) -> anyhow::Result<ExitReason> {
        let status = self.process.wait().context("waiting for the monitor")?;
        Ok(ExitReason::Error(format!("its process ended: {status}")))
    }
}

/// Replaces what is in `file`.
fn write_metrics(file: &File, stats: &Stats) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec_pretty(stats)?;
    text.push(b'\n');
    file.set_len(0).and_then(|()| file.write_all_at(&text, 0)).context("cannot write the metrics")
}

fn stage_text(name: StageName) -> &'static str {
    match name {
        StageName::MonitorStarted => "monitor started",
        StageName::MachineBuilt => "machine built",
        StageName::KernelEntered => "kernel entered",
        StageName::DriversStarted => "drivers started",
    }
}

/// The monitor knows files by what they are for; the reader knows them by their paths.
fn name_paths(args: &BootArgs, text: &str) -> String {
    let kernel = args.kernel.display();
    if text.starts_with("not a kernel") || text.starts_with("cannot read the kernel") {
        return format!("kernel {kernel}: {text}");
    }
    if let (Some(initrd), true) = (&args.initrd, text.starts_with("cannot read the initramfs")) {
        return format!("initramfs {}: {text}", initrd.display());
    }
    for (index, disk) in args.disks.iter().enumerate() {
        if let Some(rest) = text.strip_prefix(&format!("disk {index}:")) {
            return format!("disk {}:{rest}", parse_disk(disk).0.display());
        }
    }
    text.to_owned()
}
