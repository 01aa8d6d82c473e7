//! Requests to the monitor and what it says in return.
//!
//! Order: the supervisor sends [`ToMonitor::Confine`] and [`ToMonitor::Boot`]; the monitor answers
//! [`FromMonitor::Confined`] and then [`FromMonitor::Booted`], or [`FromMonitor::Failed`]; stages may come at
//! any time. While the machine runs, each request is answered in turn, [`ToMonitor::Attach`] and
//! [`ToMonitor::Detach`] by [`FromMonitor::Attached`] and [`FromMonitor::Detached`] or, when they fail and change
//! nothing, by [`FromMonitor::Refused`]; [`FromMonitor::Exited`] is the last message, after a last
//! [`FromMonitor::Stats`]. The supervisor's end of the socket closing means that the machine has lost its owner: the
//! monitor ends.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::plug::NewDevice;
use crate::spec::MachineSpec;
use crate::stats::Stats;
use crate::units::{Bdf, MiB};

/// From the supervisor to the monitor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToMonitor {
    /// Give up every right that running a machine does not need; the first message. KVM's device node comes
    /// attached. Every later message finds a process that can open nothing.
    Confine {
        /// The user and group to become; `None` to stay who it is, where the supervisor itself may not
        /// change that.
        uid: Option<u32>,
    },
    /// Build and start the machine. The descriptors come attached.
    Boot(Box<MachineSpec>),
    /// Let no vCPU run; devices go on answering.
    Pause,
    /// Let the vCPUs run again.
    Resume,
    /// Tell what was counted so far.
    Stats,
    /// Plug a device into the running machine. Its descriptors come attached.
    Attach(NewDevice),
    /// Take the device at this address away, whether the guest has let go of it or not.
    Detach(Bdf),
    /// Have the guest take or give back memory until it has this much, from what it started with to the most that the
    /// machine can have. Asked again, the guest tries again. Answer: [`FromMonitor::Memory`], at once.
    SetMemory(MiB),
    /// Tell how much memory the guest has. Answer: [`FromMonitor::Memory`].
    Memory,
    /// Stop the machine at once, as if its power were cut.
    Stop,
}

/// From the monitor to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromMonitor {
    /// The monitor has given up its rights.
    Confined {
        /// What it could not give up or take on, in words, because the host does not let it.
        missing: Vec<String>,
    },
    /// A stage was reached.
    Reached(Stage),
    /// The machine runs.
    Booted(Booted),
    /// The machine could not be built: what was attempted, and why it failed.
    Failed(String),
    /// No vCPU runs.
    Paused,
    /// The vCPUs run again.
    Resumed,
    /// What was counted so far.
    Stats(Box<Stats>),
    /// The device is on the bus; the guest finds it when it looks again.
    Attached(Bdf),
    /// The device is gone, and all that belonged to it.
    Detached {
        /// Where it was.
        address: Bdf,
        /// The guest had not let go of it.
        in_use: bool,
    },
    /// How much memory the guest has.
    Memory(MemoryState),
    /// What was asked for cannot be; nothing has changed.
    Refused(String),
    /// The machine ended.
    Exited(ExitReason),
}

/// A point on the way from the monitor's start to a running machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Which.
    pub name: StageName,
    /// When, in nanoseconds of the host's `CLOCK_MONOTONIC`.
    pub at_ns: u64,
}

/// The stages that the monitor tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageName {
    /// `main` runs.
    MonitorStarted,
    /// Kernel and initramfs are in memory, devices exist.
    MachineBuilt,
    /// The first vCPU is about to enter the guest.
    KernelEntered,
    /// The guest's driver has taken its first virtio device into use.
    DriversStarted,
}

/// How much memory a guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryState {
    /// What it was last asked to have, as far as blocks of 2 MiB allow.
    pub wanted: MiB,
    /// What it has.
    pub present: MiB,
}

/// The machine runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Booted {
    /// The PCI address of each disk, in the order of the specification.
    pub disks: Vec<Bdf>,
}

/// Why a machine ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ExitReason {
    /// The guest switched itself off.
    PowerOff,
    /// The guest asked for a reboot.
    Reboot,
    /// The guest's kernel reported a panic.
    Panic,
    /// A vCPU shut down after a fault it could not handle.
    TripleFault,
    /// The supervisor asked for it, or its end of the control socket closed.
    Stopped,
    /// The monitor or the hypervisor failed; the text says how.
    Error(String),
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PowerOff => f.write_str("the guest powered off"),
            Self::Reboot => f.write_str("the guest rebooted"),
            Self::Panic => f.write_str("the guest kernel panicked"),
            Self::TripleFault => f.write_str("the guest caused a triple fault"),
            Self::Stopped => f.write_str("the machine was stopped"),
            Self::Error(text) => write!(f, "the monitor failed: {text}"),
        }
    }
}
