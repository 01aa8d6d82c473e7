//! Load on a device of our monitor: the guest does what it is about, the host counts exits and system calls meanwhile.
//!
//! Invariant: only the monitor's own threads are counted, and only between the guest's begin and its end.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use cofferdam_test_bench::{Device, Phase, Run, Vmm, place};

use crate::cofferdam::{self, Parts};
use crate::process::Process;
use crate::trace::Tracer;
use crate::{Started, peer};

/// Bytes of the disk, all of them in the host's memory.
const DISK: usize = 64 << 20;

/// The guest's port of phases.
const PHASES: u32 = 7000;

/// The tap, and the host's address on it.
const TAP: &str = "tap0";
const ADDRESS: &str = "10.77.0.1";

/// Where the guest's connections arrive when the monitor is started by hand.
const VSOCK: &str = "/tmp/vsock";

/// Times 50 ms that something may take that happens at the start.
const TRIES: u32 = 1200;

/// The longest that a phase may take, of the host's time: thousands of millions of instructions.
const LONGEST: Duration = Duration::from_secs(5);

/// Phases that ended.
static PROGRESS: AtomicUsize = AtomicUsize::new(0);

/// A machine whose guest puts load on a device.
struct Loaded {
    phases: File,
    /// The process whose children or itself the monitor is; ends with this.
    process: Box<dyn Started>,
    by_hand: bool,
}

/// Measures the load on `device`; prints each phase.
pub(crate) fn measure(device: Device) -> Result<()> {
    let loaded = match device {
        Device::Disk => by_specification("load-disk", true)?,
        Device::Vsock => by_specification("load-vsock", false)?,
        Device::Net => by_hand()?,
    };
    let tasks = loaded.tasks()?;
    watch(tasks.clone());
    let mut answers = loaded.phases.try_clone().context("sharing a stream")?;
    let mut lines = BufReader::new(&loaded.phases).lines();
    let mut count = 0;
    while let Some(line) = lines.next() {
        let line = line.context("listening to the guest")?;
        let [name, unit, times] = line.split('|').collect::<Vec<_>>()[..] else {
            bail!("the guest said {line:?}")
        };
        let mut tracer = Tracer::start_all()?;
        answers.write_all(b"go\n").context("letting the guest begin")?;
        let done = lines.next().context("the guest has gone")?.context("listening to the guest")?;
        let (exits, calls) = tracer.stop_for(&tasks)?;
        ensure!(done == "done", "the guest said {done:?}");
        answers.write_all(b"noted\n").context("letting the guest go on")?;
        let (name, unit) = (name.to_owned(), unit.to_owned());
        let phase = Phase { name, unit, count: times.parse()?, exits, calls };
        println!("{}", serde_json::to_string(&phase)?);
        count += 1;
        PROGRESS.fetch_add(1, Ordering::Relaxed);
    }
    ensure!(count > 0, "the guest did nothing");
    Ok(())
}

/// Ends this program if no phase ends for long, and says what the monitor's threads wait for. Nothing waits for the
/// time of day there: an idle host's clock runs ahead.
fn watch(tasks: BTreeSet<u32>) {
    std::thread::spawn(move || {
        let mut seen = usize::MAX;
        while std::mem::replace(&mut seen, PROGRESS.load(Ordering::Relaxed))
            != PROGRESS.load(Ordering::Relaxed)
        {
            std::thread::sleep(LONGEST);
        }
        for task in tasks {
            for file in ["comm", "wchan", "syscall"] {
                let text = fs::read_to_string(format!("/proc/{task}/{file}"));
                eprint!("{} ", text.unwrap_or_default().trim());
            }
            eprintln!();
        }
        eprintln!("no phase ended for {LONGEST:?}");
        std::process::exit(1);
    });
}

/// The usual small machine.
fn run(action: &str) -> Run {
    Run {
        name: action.to_owned(),
        vmm: Vmm::Cofferdam,
        vcpus: 1,
        parked: 0,
        memory_mib: 128,
        disks: 0,
        console: false,
        huge_pages: false,
        cmdline: cmdline(action),
        traced: false,
        idle_seconds: 0,
    }
}

fn cmdline(action: &str) -> String {
    format!("quiet panic=-1 tsc=nowatchdog test.action={action}")
}

/// As the supervisor starts it: streams are descriptors, and nobody stands between them and the device.
fn by_specification(action: &str, disk: bool) -> Result<Loaded> {
    let path = "/tmp/load";
    if disk {
        fs::write(path, vec![0xa5; DISK]).with_context(|| format!("writing {path}"))?;
    }
    let disks = if disk { vec![(path, true)] } else { Vec::new() };
    let mut machine = cofferdam::start_of(&run(action), &Parts { initramfs: place::LOAD, disks })?;
    let phases = machine.connection()?;
    let connections = machine.connections();
    std::thread::spawn(move || {
        // Ends with the machine.
        while let Ok((port, stream)) = cofferdam::accept(&connections) {
            peer::serve(port, stream);
        }
    });
    Ok(Loaded { phases, process: Box::new(machine), by_hand: false })
}

/// By the command line, which makes the tap; the stream of phases is all that passes through it.
fn by_hand() -> Result<Loaded> {
    let listener =
        UnixListener::bind(format!("{VSOCK}_{PHASES}")).context("listening for the guest")?;
    let command = [
        place::MONITOR,
        "boot",
        "--kernel",
        place::KERNEL,
        "--initrd",
        place::LOAD,
        "--memory",
        "128",
        "--tap",
        TAP,
        "--vsock",
        VSOCK,
        "--console",
        "none",
        "--cmdline",
        &cmdline("load-net"),
    ];
    let process = Process::spawn(&command.map(str::to_owned))?;
    let address = format!("{ADDRESS}/24");
    for words in [["addr", "add", &address, "dev", TAP], ["link", "set", "dev", TAP, "up"]] {
        retry(&format!("ip {}", words.join(" ")), || {
            Command::new("ip").args(words).status().is_ok_and(|status| status.success())
        })?;
    }
    for port in peer::PORTS {
        let listener = TcpListener::bind((ADDRESS, port)).context("listening on the tap")?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Small answers go at once.
                let _ = stream.set_nodelay(true);
                peer::serve(port.into(), stream);
            }
        });
    }
    listener.set_nonblocking(true).context("waiting for the guest")?;
    let mut stream = None;
    retry("waiting for the guest", || {
        stream = listener.accept().ok();
        stream.is_some()
    })?;
    let (stream, _) = stream.context("no connection")?;
    stream.set_nonblocking(false).context("making a stream blocking")?;
    let phases = File::from(OwnedFd::from(stream));
    Ok(Loaded { phases, process: Box::new(ByHand(process)), by_hand: true })
}

/// Tries until it works.
fn retry(what: &str, mut work: impl FnMut() -> bool) -> Result<()> {
    for _ in 0..TRIES {
        if work() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("{what}: in vain")
}

struct ByHand(Process);

impl Started for ByHand {
    fn connection(&mut self) -> Result<File> {
        bail!("a machine that was started by hand is not connected with")
    }

    fn stages(&self) -> Vec<(String, u64)> {
        Vec::new()
    }

    fn process(&self) -> &Process {
        &self.0
    }
}

impl Loaded {
    /// The threads of the monitor.
    fn tasks(&self) -> Result<BTreeSet<u32>> {
        let process = self.process.process().id();
        if !self.by_hand {
            return tasks(process);
        }
        let mut all = BTreeSet::new();
        for task in tasks(process)? {
            let path = format!("/proc/{process}/task/{task}/children");
            let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
            for child in text.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                all.extend(tasks(child)?);
            }
        }
        ensure!(!all.is_empty(), "the process started by hand has no monitor");
        Ok(all)
    }
}

fn tasks(process: u32) -> Result<BTreeSet<u32>> {
    let path = format!("/proc/{process}/task");
    let entries = fs::read_dir(&path).with_context(|| format!("reading {path}"))?.flatten();
    Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}
