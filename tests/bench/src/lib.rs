//! What is measured and what came out: the two ends of the measuring program, which runs in the measuring host.
//!
//! ```text
//! cargo xtask bench ──Plan──► measure (in the host) ──Measured, one line of JSON each──► cargo xtask bench
//! ```
//!
//! Invariant: a run is fully described by its [`Run`]; nothing about it is decided in the host.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Where the files are in the measuring host.
pub mod place {
    /// The measuring program.
    pub const MEASURE: &str = "/bench/measure";
    /// The plan.
    pub const PLAN: &str = "/bench/plan.json";
    /// Our monitor.
    pub const MONITOR: &str = "/bench/cofferdam-vmm";
    /// The guest kernel.
    pub const KERNEL: &str = "/bench/vmlinux";
    /// The guest image.
    pub const INITRAMFS: &str = "/bench/initramfs";
    /// The initramfs whose init puts load on devices.
    pub const LOAD: &str = "/bench/load";
    /// Our runtime, as it is installed.
    pub const COFFERDAM: &str = "/usr/local/bin/cofferdam";
    /// runc, of the host's distribution.
    pub const RUNC: &str = "/usr/sbin/runc";
    /// QEMU, of the host's distribution.
    pub const QEMU: &str = "/usr/bin/qemu-system-x86_64";
}

/// Everything to measure, in order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The runs.
    pub runs: Vec<Run>,
    /// Devices to put load on, after that.
    #[serde(default)]
    pub loads: Vec<Device>,
    /// Rounds of containers that come and go in a pod, after that; the first does not count.
    #[serde(default)]
    pub rounds: u32,
}

/// What runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// Debian's.
    Runc,
    /// Ours.
    Cofferdam,
}

/// Instructions that the calls for one container took, to a thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Calls {
    /// Of which runtime.
    pub runtime: Runtime,
    /// `create`.
    pub create: u64,
    /// `start`, and the life of a process that ends at once.
    pub start: u64,
    /// `delete`.
    pub delete: u64,
}

/// A device under load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Device {
    /// A disk in the host's memory.
    Disk,
    /// A network card on a tap.
    Net,
    /// The socket device.
    Vsock,
}

/// What a phase of load took of our monitor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// What is counted: requests, round trips, MiB.
    pub unit: String,
    /// How many of them there were.
    pub count: u64,
    /// Exits by reason.
    pub exits: BTreeMap<String, u64>,
    /// System calls of the monitor's threads by their numbers.
    pub calls: BTreeMap<u32, u64>,
}

/// Which monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Vmm {
    /// Ours.
    Cofferdam,
    /// QEMU's machine `microvm`, with PCI and ACPI because the guest kernel knows no other way to a disk.
    QemuMicrovm,
}

/// One start of one machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// What it is called in the report.
    pub name: String,
    /// Which monitor.
    pub vmm: Vmm,
    /// Virtual CPUs.
    pub vcpus: u8,
    /// vCPUs besides, parked.
    pub parked: u8,
    /// Memory.
    pub memory_mib: u32,
    /// Disks; the first one is read-only.
    pub disks: u8,
    /// Whether there is a serial console, which takes what a quiet kernel has to say.
    pub console: bool,
    /// Whether memory is asked for in 2 MiB pages.
    pub huge_pages: bool,
    /// The guest kernel's command line, less the console.
    pub cmdline: String,
    /// Count exits and system calls, which takes instructions of its own.
    pub traced: bool,
    /// How long to watch the machine idle afterwards, if traced.
    pub idle_seconds: u64,
}

/// What came out of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// The run's name.
    pub name: String,
    /// From the monitor's exec to the agent's hello, in nanoseconds, which are instructions there.
    pub hello: u64,
    /// On the way there, for our monitor: stages and when they were reached.
    pub stages: Vec<(String, u64)>,
    /// Memory of the monitor's process that is its own, outside of the guest's memory, in KiB.
    pub private_kib: u64,
    /// Memory of the host that the guest's memory takes, in KiB.
    pub guest_kib: u64,
    /// Exits until the hello, in order.
    pub exits: Vec<Exit>,
    /// System calls until the hello by their numbers.
    pub calls: BTreeMap<u32, u64>,
    /// Exits of the idle machine by reason.
    pub idle_exits: BTreeMap<String, u64>,
}

/// One exit of a vCPU.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exit {
    /// When, in nanoseconds after the exec.
    pub at: u64,
    /// Why, as the host's tracepoint names it.
    pub reason: String,
    /// The guest's instruction pointer.
    pub rip: u64,
    /// The second word about it: the guest's address of a page fault.
    pub info: u64,
}
