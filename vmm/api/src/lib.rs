//! What the supervisor and the monitor (`cofferdam-vmm`) say to each other: a [`MachineSpec`], requests
//! and replies, over one `SOCK_SEQPACKET` Unix socket.
//!
//! A message is one JSON document with the file descriptors it names attached (`SCM_RIGHTS`). The
//! monitor opens nothing by path: disks, kernel, image, log and vsock arrive as descriptors.
//!
//! Invariant: nothing here names KVM, and the monitor trusts nothing in a message that it did not check.
#![forbid(unsafe_code)]

mod channel;
mod control;
mod fs;
mod plug;
mod spec;
mod start;
mod stats;
mod units;

pub use channel::{Channel, ChannelError, MAX_FDS, MAX_MESSAGE, Message};
pub use control::{Booted, ExitReason, FromMonitor, MemoryState, Stage, StageName, ToMonitor};
pub use fs::{FS_MEMORY, FS_QUEUE, FS_QUEUE_SIZE, FsSpec};
pub use plug::NewDevice;
pub use spec::{
    BootSpec, ConsoleSpec, DiskSpec, MAX_CMDLINE, MAX_DISKS, MAX_NETS, MAX_QUEUE_PAIRS,
    MAX_SPARE_QUEUES, MAX_VCPUS, MachineSpec, NetSpec, SpecError, VsockSpec,
};
pub use start::{in_new_pid_namespace, is_privileged, start_monitor};
pub use stats::{Counts, DeviceStats, KvmStats, KvmValue, Stats};
pub use units::{Bdf, Cid, FdSlot, Mac, MiB, NotAMac};

/// Version of this interface. The monitor refuses any other.
pub const API_VERSION: u32 = 1;
