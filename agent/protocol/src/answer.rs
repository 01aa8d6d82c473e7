//! What answers hold.
//!
//! Invariant: each fits into a frame of the agent.

use prost::Message;

use crate::cgroup::CgroupSetting;

/// All devices that were expected are there, and those that were meant.
#[derive(Clone, PartialEq, Message)]
pub struct Found {
    /// What the kernel calls the interfaces of the network cards, in the order of the request.
    #[prost(string, repeated, tag = "1")]
    pub interfaces: Vec<String>,
    /// The device numbers of the disks, likewise.
    #[prost(message, repeated, tag = "2")]
    pub disks: Vec<DeviceNumber>,
}

/// The number of a block device in the guest.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct DeviceNumber {
    /// Major number.
    #[prost(uint32, tag = "1")]
    pub major: u32,
    /// Minor number.
    #[prost(uint32, tag = "2")]
    pub minor: u32,
}

/// A process exists.
#[derive(Clone, PartialEq, Message)]
pub struct Created {
    /// Its process id in the guest's first pid namespace.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
}

/// The processes of a container.
#[derive(Clone, PartialEq, Message)]
pub struct Processes {
    /// Process ids in the guest's first pid namespace.
    #[prost(uint32, repeated, tag = "1")]
    pub pids: Vec<u32>,
}

/// The processes of a container, in words: as many as there is room for.
#[derive(Clone, PartialEq, Message)]
pub struct Described {
    /// The first of them.
    #[prost(message, repeated, tag = "1")]
    pub processes: Vec<Description>,
    /// How long the guest has been up, in clock ticks (a hundredth of a second).
    #[prost(uint64, tag = "2")]
    pub uptime: u64,
}

/// A process, as `/proc` in the guest has it.
#[derive(Clone, PartialEq, Message)]
pub struct Description {
    /// `/proc/PID/stat`.
    #[prost(string, tag = "1")]
    pub stat: String,
    /// Its effective user.
    #[prost(uint32, tag = "2")]
    pub uid: u32,
    /// The beginning of its command line, arguments separated by spaces; its name in brackets if it has none.
    #[prost(string, tag = "3")]
    pub command: String,
}

/// The accounting of a container: files of its cgroup (cgroup v2) and their contents.
#[derive(Clone, PartialEq, Message)]
pub struct Stats {
    /// For example `memory.current` and `cpu.stat`.
    #[prost(message, repeated, tag = "1")]
    pub files: Vec<CgroupSetting>,
}

/// The guest's CPUs.
#[derive(Clone, PartialEq, Message)]
pub struct Cpus {
    /// Those online.
    #[prost(uint32, tag = "1")]
    pub online: u32,
    /// All that the machine has.
    #[prost(uint32, tag = "2")]
    pub present: u32,
}
