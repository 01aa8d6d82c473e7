//! `cofferdam-vmm boot`: a small supervisor. It opens the files and talks to the control server as any
//! supervisor does, but over a socket within its own process.
//!
//! Invariant: the machine is stopped when this returns.

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context, bail};
use cofferdam_vmm::control::serve;
use cofferdam_vmm_api::{
    API_VERSION, BootSpec, Channel, ConsoleSpec, DiskSpec, ExitReason, FromMonitor, MachineSpec,
    MiB, StageName, ToMonitor,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::files::{Outbox, open, open_console, open_disk, parse_disk};
use super::{BootArgs, exit, vsock};

/// Boots the machine and waits for its end.
pub(crate) fn run(args: &BootArgs, started_ns: u64) -> anyhow::Result<ExitCode> {
    let mut outbox = Outbox::default();
    let spec = specification(args, &mut outbox)?;
    // Before any thread starts, so that all of them leave these signals to the descriptor.
    let signals = take_signals().context("cannot take signals")?;
    let (ours, theirs) = Channel::pair().context("cannot make a control socket")?;
    ours.send(&ToMonitor::Boot(Box::new(spec)), &outbox.borrowed())?;
    drop(outbox);
    let server = thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || serve(&theirs, started_ns))
        .context("cannot start a thread")?;
    let followed = follow(args, &ours, &signals, started_ns);
    if let Some(path) = &args.vsock {
        // Its thread may not get that far before this process ends.
        let _ = std::fs::remove_file(path);
    }
    let reason = followed?;
    let _ = server.join();
    if reason != ExitReason::PowerOff {
        eprintln!("cofferdam-vmm: {reason}");
    }
    Ok(ExitCode::from(exit::code(&reason)))
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
    let vsock = args.vsock.as_ref().map(|path| vsock::listen(path, outbox)).transpose()?;
    let console = match args.console.as_str() {
        "none" => None,
        name => Some(ConsoleSpec { log: outbox.add(open_console(name)?)?, limit: 0 }),
    };
    Ok(MachineSpec {
        version: API_VERSION,
        vcpus: args.cpus,
        memory: MiB(args.memory),
        huge_pages: args.hugepages,
        boot: BootSpec { kernel, initrd, cmdline: args.cmdline.clone() },
        disks,
        vsock,
        rng: true,
        console,
    })
}

/// Ctrl-C and friends as a descriptor.
fn take_signals() -> nix::Result<SignalFd> {
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .iter()
        .for_each(|signal| signals.add(*signal));
    signals.thread_block()?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Listens to the monitor until the machine has ended.
fn follow(
    args: &BootArgs,
    channel: &Channel,
    signals: &SignalFd,
    started_ns: u64,
) -> anyhow::Result<ExitReason> {
    loop {
        let mut fds = [
            PollFd::new(channel.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(io::Error::from(errno)).context("waiting for the machine"),
        }
        let [told, asked] = fds.map(|fd| fd.any() == Some(true));
        if asked && matches!(signals.read_signal(), Ok(Some(_))) {
            channel.send(&ToMonitor::Stop, &[]).context("stopping the machine")?;
        }
        if !told {
            continue;
        }
        match channel.receive::<FromMonitor>().context("the monitor ended early")?.body {
            FromMonitor::Reached(stage) if args.timing => {
                let after = stage.at_ns.saturating_sub(started_ns) / 1000;
                eprintln!("cofferdam-vmm: {:>9} us  {}", after, stage_text(stage.name));
            }
            FromMonitor::Reached(_) | FromMonitor::Booted(_) => {}
            FromMonitor::Failed(text) => bail!("cannot boot: {}", name_paths(args, &text)),
            FromMonitor::Exited(reason) => return Ok(reason),
        }
    }
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
