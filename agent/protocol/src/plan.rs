//! Containers and processes as the agent executes them: all thinking is done, all names are resolved.
//!
//! Paths are bytes, as the kernel's are. A path "in the container" is resolved inside its root file
//! system, so that a symbolic link cannot lead out of it.

use prost::{Enumeration, Message, Oneof};

use crate::{CgroupPlan, GuestHooks, IdMap, StreamToken};

/// One container.
#[derive(Clone, PartialEq, Message)]
pub struct ContainerPlan {
    /// Its id, unique in the pod; letters, digits and `_+-.`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Its root file system.
    #[prost(message, optional, tag = "2")]
    pub rootfs: Option<RootfsPlan>,
    /// Mounts, in order, after the root file system.
    #[prost(message, repeated, tag = "3")]
    pub mounts: Vec<Mount>,
    /// Namespaces it does not share with the agent.
    #[prost(message, repeated, tag = "4")]
    pub namespaces: Vec<Namespace>,
    /// User namespace mappings; used only with a new user namespace.
    #[prost(message, repeated, tag = "5")]
    pub uid_map: Vec<IdMap>,
    /// As `uid_map`, for groups.
    #[prost(message, repeated, tag = "6")]
    pub gid_map: Vec<IdMap>,
    /// Host name, if it has a new uts namespace; empty leaves the pod's.
    #[prost(string, tag = "7")]
    pub hostname: String,
    /// NIS domain name, likewise.
    #[prost(string, tag = "8")]
    pub domainname: String,
    /// Its control group.
    #[prost(message, optional, tag = "9")]
    pub cgroup: Option<CgroupPlan>,
    /// Kernel parameters, written inside its namespaces.
    #[prost(message, repeated, tag = "10")]
    pub sysctls: Vec<Sysctl>,
    /// All device nodes made in it, those that every container has included.
    #[prost(message, repeated, tag = "11")]
    pub devices: Vec<DeviceNode>,
    /// Paths in the container hidden under `/dev/null` or an empty read-only tmpfs.
    #[prost(bytes = "vec", repeated, tag = "12")]
    pub masked_paths: Vec<Vec<u8>>,
    /// Paths in the container made read-only.
    #[prost(bytes = "vec", repeated, tag = "13")]
    pub readonly_paths: Vec<Vec<u8>>,
    /// Its first process.
    #[prost(message, optional, tag = "14")]
    pub process: Option<ProcessPlan>,
    /// Offsets of the clocks of its new time namespace.
    #[prost(message, repeated, tag = "15")]
    pub time_offsets: Vec<TimeOffset>,
    /// Run in its namespaces, with its root file system as their root, before it is created.
    #[prost(message, optional, tag = "16")]
    pub create_hooks: Option<GuestHooks>,
    /// Run as its first process would be, right before that is executed.
    #[prost(message, optional, tag = "17")]
    pub start_hooks: Option<GuestHooks>,
}

/// An offset of a clock in a time namespace (`time_namespaces(7)`).
#[derive(Clone, PartialEq, Message)]
pub struct TimeOffset {
    /// `monotonic` or `boottime`.
    #[prost(string, tag = "1")]
    pub clock: String,
    /// Seconds.
    #[prost(sint64, tag = "2")]
    pub seconds: i64,
    /// Nanoseconds, in addition.
    #[prost(uint32, tag = "3")]
    pub nanoseconds: u32,
}

/// A root file system: read-only EROFS layers under a writable one (overlayfs).
#[derive(Clone, PartialEq, Message)]
pub struct RootfsPlan {
    /// PCI addresses of the layers' disks, topmost first.
    ///
    /// An address is `bus << 8 | device << 3 | function` (PCI local bus specification, 3.2.2.3.2).
    #[prost(uint32, repeated, tag = "1")]
    pub layers: Vec<u32>,
    /// What takes the writes; absent mounts the layers alone, read-only.
    #[prost(oneof = "upper::Kind", tags = "2, 3")]
    pub upper: Option<upper::Kind>,
    /// The container sees a read-only root (OCI `root.readonly`).
    #[prost(bool, tag = "4")]
    pub readonly: bool,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`, with or without `MS_REC`; 0 is
    /// `MS_REC | MS_PRIVATE` (OCI `rootfsPropagation`).
    #[prost(uint64, tag = "5")]
    pub propagation: u64,
}

/// The writable side of a root file system.
pub type Upper = upper::Kind;

/// The kinds of [`Upper`].
pub mod upper {
    use super::{Message, Oneof};

    /// What takes the writes of a container.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        /// A tmpfs.
        #[prost(message, tag = "2")]
        Tmpfs(Tmpfs),
        /// An ext4 scratch disk, shared by the containers of the pod, each in a directory of its own.
        #[prost(message, tag = "3")]
        Disk(Disk),
    }

    /// See [`Kind::Tmpfs`].
    #[derive(Clone, PartialEq, Message)]
    pub struct Tmpfs {
        /// Size in bytes; 0 is the kernel's default, half of the memory.
        #[prost(uint64, tag = "1")]
        pub bytes: u64,
    }

    /// See [`Kind::Disk`].
    #[derive(Clone, PartialEq, Message)]
    pub struct Disk {
        /// Its PCI address.
        #[prost(uint32, tag = "1")]
        pub address: u32,
    }
}

/// One mount of a container.
#[derive(Clone, PartialEq, Message)]
pub struct Mount {
    /// What to mount.
    #[prost(enumeration = "MountKind", tag = "1")]
    pub kind: i32,
    /// Source, as `mount(2)` takes it. A path in the guest for [`MountKind::Bind`], text for
    /// [`MountKind::Filesystem`], a name for [`MountKind::Shared`] and [`MountKind::Volume`], empty for [`MountKind::File`].
    #[prost(bytes = "vec", tag = "2")]
    pub source: Vec<u8>,
    /// Mount point in the container; made if it does not exist.
    #[prost(bytes = "vec", tag = "3")]
    pub destination: Vec<u8>,
    /// File system type, for [`MountKind::Filesystem`]; `cgroup` and `cgroup2` mean the container's own
    /// cgroup v2 view.
    #[prost(string, tag = "4")]
    pub fstype: String,
    /// `MS_*` flags of `mount(2)`, without propagation flags.
    #[prost(uint64, tag = "5")]
    pub flags: u64,
    /// Propagation to set afterwards, as in [`RootfsPlan::propagation`]; 0 sets none.
    #[prost(uint64, tag = "6")]
    pub propagation: u64,
    /// File system options, comma-separated.
    #[prost(bytes = "vec", tag = "7")]
    pub data: Vec<u8>,
    /// Copy what the root file system has at the mount point into the new tmpfs (`tmpcopyup`).
    #[prost(bool, tag = "8")]
    pub copy_up: bool,
    /// The content of a [`MountKind::File`], at most 2 MiB.
    #[prost(bytes = "vec", tag = "9")]
    pub content: Vec<u8>,
    /// Permission bits of a [`MountKind::File`].
    #[prost(uint32, tag = "10")]
    pub mode: u32,
    /// `MOUNT_ATTR_*` (`mount_setattr(2)`) to set on the mount and all that is mounted below it.
    #[prost(uint64, tag = "11")]
    pub recursive_set: u64,
    /// `MOUNT_ATTR_*` to clear likewise, before those are set.
    #[prost(uint64, tag = "12")]
    pub recursive_clear: u64,
    /// Maps user ids of the source to those of the mount; only for a bind mount, with `gid_map`.
    #[prost(message, repeated, tag = "13")]
    pub uid_map: Vec<IdMap>,
    /// As `uid_map`, for groups.
    #[prost(message, repeated, tag = "14")]
    pub gid_map: Vec<IdMap>,
    /// The maps are for all that is mounted below the source, too.
    #[prost(bool, tag = "15")]
    pub map_recursively: bool,
    /// Its number among the container's mounts, if that is not its place in the list.
    #[prost(uint32, optional, tag = "16")]
    pub number: Option<u32>,
}

impl Mount {
    /// The number of this mount, whose place in the list is `index`.
    #[must_use]
    pub fn number_at(&self, index: usize) -> usize {
        self.number.and_then(|number| number.try_into().ok()).unwrap_or(index)
    }
}

/// What a [`Mount`] mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum MountKind {
    /// A new instance of a file system of the guest's kernel: proc, sysfs, tmpfs, mqueue, devpts, cgroup2.
    Filesystem = 0,
    /// Something that exists in the guest already.
    Bind = 1,
    /// A file brought along in the plan, such as `/etc/resolv.conf`.
    File = 2,
    /// A tmpfs of the pod: all containers that name the same source share it. It is made for the first, with its data.
    Shared = 3,
    /// A directory or file of the host, of the pod's file system of volumes; the source is its name there.
    Volume = 4,
    /// Something of the container's own, as earlier mounts have made it; the source is its path in the container.
    Inner = 5,
}

/// A namespace the container does not share with the agent.
#[derive(Clone, PartialEq, Message)]
pub struct Namespace {
    /// Its kind.
    #[prost(enumeration = "NamespaceKind", tag = "1")]
    pub kind: i32,
    /// The container of the pod whose namespace to join; empty makes a new one.
    #[prost(string, tag = "2")]
    pub join: String,
}

/// The kinds of namespace (`namespaces(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum NamespaceKind {
    /// Mounts. Every container has a new one, listed or not.
    Mount = 0,
    /// Process ids.
    Pid = 1,
    /// Network. A new one has only a loopback interface, which is brought up.
    Network = 2,
    /// System V IPC and POSIX message queues.
    Ipc = 3,
    /// Host and domain name.
    Uts = 4,
    /// Users and groups.
    User = 5,
    /// The view of the control groups.
    Cgroup = 6,
    /// Boot and monotonic clocks.
    Time = 7,
}

/// A kernel parameter.
#[derive(Clone, PartialEq, Message)]
pub struct Sysctl {
    /// For example `net.ipv4.ip_forward`.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A device node.
#[derive(Clone, PartialEq, Message)]
pub struct DeviceNode {
    /// Path in the container.
    #[prost(bytes = "vec", tag = "1")]
    pub path: Vec<u8>,
    /// Character, block or fifo.
    #[prost(enumeration = "DeviceType", tag = "2")]
    pub kind: i32,
    /// Major number.
    #[prost(uint32, tag = "3")]
    pub major: u32,
    /// Minor number.
    #[prost(uint32, tag = "4")]
    pub minor: u32,
    /// Permission bits.
    #[prost(uint32, tag = "5")]
    pub mode: u32,
    /// Owner.
    #[prost(uint32, tag = "6")]
    pub uid: u32,
    /// Group.
    #[prost(uint32, tag = "7")]
    pub gid: u32,
}

/// The types of [`DeviceNode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum DeviceType {
    /// `c` or `u`.
    Character = 0,
    /// `b`.
    Block = 1,
    /// `p`.
    Fifo = 2,
}

/// One process.
#[derive(Clone, PartialEq, Message)]
pub struct ProcessPlan {
    /// Program and arguments; a program without a slash is looked up in `PATH` of `env`.
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub args: Vec<Vec<u8>>,
    /// `NAME=value`.
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub env: Vec<Vec<u8>>,
    /// Working directory in the container; made if it does not exist, as runc does.
    #[prost(bytes = "vec", tag = "3")]
    pub cwd: Vec<u8>,
    /// User id.
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    /// Group id.
    #[prost(uint32, tag = "5")]
    pub gid: u32,
    /// Supplementary groups.
    #[prost(uint32, repeated, tag = "6")]
    pub additional_gids: Vec<u32>,
    /// File mode creation mask; absent is 0022.
    #[prost(uint32, optional, tag = "7")]
    pub umask: Option<u32>,
    /// Capabilities; absent is none at all.
    #[prost(message, optional, tag = "8")]
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    #[prost(message, repeated, tag = "9")]
    pub rlimits: Vec<Rlimit>,
    /// `PR_SET_NO_NEW_PRIVS`.
    #[prost(bool, tag = "10")]
    pub no_new_privileges: bool,
    /// `/proc/self/oom_score_adj`; absent leaves it.
    #[prost(sint32, optional, tag = "11")]
    pub oom_score_adj: Option<i32>,
    /// Filters, installed in this order.
    #[prost(message, repeated, tag = "12")]
    pub seccomp: Vec<SeccompFilter>,
    /// Scheduling policy; absent leaves it.
    #[prost(message, optional, tag = "13")]
    pub scheduler: Option<Scheduler>,
    /// I/O priority; absent leaves it.
    #[prost(message, optional, tag = "14")]
    pub io_priority: Option<IoPriority>,
    /// `personality(2)`; absent leaves it.
    #[prost(uint64, optional, tag = "15")]
    pub personality: Option<u64>,
    /// A terminal; without it, [`Stdio`] names up to three streams.
    #[prost(message, optional, tag = "16")]
    pub terminal: Option<Terminal>,
    /// Standard streams, without a terminal.
    #[prost(message, optional, tag = "17")]
    pub stdio: Option<Stdio>,
    /// CPUs of one more process of a container; ignored for its first.
    #[prost(message, optional, tag = "18")]
    pub affinity: Option<CpuAffinity>,
}

/// The CPUs of the machine that a process may run on (OCI `execCPUAffinity`).
#[derive(Clone, PartialEq, Message)]
pub struct CpuAffinity {
    /// While it is set up; empty for all.
    #[prost(uint32, repeated, tag = "1")]
    pub initial: Vec<u32>,
    /// From its `execve` on; empty for all.
    #[prost(uint32, repeated, tag = "2")]
    pub last: Vec<u32>,
}

/// Sets of capabilities, bit N for capability N (`capabilities(7)`).
#[derive(Clone, PartialEq, Message)]
pub struct Capabilities {
    /// Bounding set.
    #[prost(uint64, tag = "1")]
    pub bounding: u64,
    /// Effective set.
    #[prost(uint64, tag = "2")]
    pub effective: u64,
    /// Inheritable set.
    #[prost(uint64, tag = "3")]
    pub inheritable: u64,
    /// Permitted set.
    #[prost(uint64, tag = "4")]
    pub permitted: u64,
    /// Ambient set.
    #[prost(uint64, tag = "5")]
    pub ambient: u64,
}

/// A resource limit (`getrlimit(2)`).
#[derive(Clone, PartialEq, Message)]
pub struct Rlimit {
    /// `RLIMIT_*` of x86-64 Linux.
    #[prost(uint32, tag = "1")]
    pub resource: u32,
    /// Soft limit; `u64::MAX` is unlimited.
    #[prost(uint64, tag = "2")]
    pub soft: u64,
    /// Hard limit; `u64::MAX` is unlimited.
    #[prost(uint64, tag = "3")]
    pub hard: u64,
}

/// A classic BPF program for `seccomp(2)`.
#[derive(Clone, PartialEq, Message)]
pub struct SeccompFilter {
    /// `struct sock_filter` each, 8 bytes an instruction, at most 4096 of them.
    #[prost(bytes = "vec", tag = "1")]
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*`.
    #[prost(uint64, tag = "2")]
    pub flags: u64,
}

/// A scheduling policy (`sched_setattr(2)`).
#[derive(Clone, PartialEq, Message)]
pub struct Scheduler {
    /// `SCHED_*`.
    #[prost(uint32, tag = "1")]
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    #[prost(uint64, tag = "2")]
    pub flags: u64,
    /// Nice value, of `SCHED_OTHER` and `SCHED_BATCH`.
    #[prost(sint32, tag = "3")]
    pub nice: i32,
    /// Priority, of `SCHED_FIFO` and `SCHED_RR`.
    #[prost(uint32, tag = "4")]
    pub priority: u32,
    /// Nanoseconds, of `SCHED_DEADLINE`.
    #[prost(uint64, tag = "5")]
    pub runtime: u64,
    /// Nanoseconds, of `SCHED_DEADLINE`.
    #[prost(uint64, tag = "6")]
    pub deadline: u64,
    /// Nanoseconds, of `SCHED_DEADLINE`.
    #[prost(uint64, tag = "7")]
    pub period: u64,
}

/// An I/O priority (`ioprio_set(2)`).
#[derive(Clone, PartialEq, Message)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_*`.
    #[prost(uint32, tag = "1")]
    pub class: u32,
    /// 0, the highest, to 7.
    #[prost(uint32, tag = "2")]
    pub level: u32,
}

/// A terminal: a new pty in the container's devpts, its other side one stream.
#[derive(Clone, PartialEq, Message)]
pub struct Terminal {
    /// The stream, used both ways.
    #[prost(fixed64, tag = "1")]
    pub stream: StreamToken,
    /// Rows; 0 leaves the size unset.
    #[prost(uint32, tag = "2")]
    pub rows: u32,
    /// Columns; 0 leaves the size unset.
    #[prost(uint32, tag = "3")]
    pub columns: u32,
    /// A new line stays one character: whoever shows the output makes two of it (`ONLCR`).
    #[prost(bool, tag = "4")]
    pub plain_newlines: bool,
}

/// Standard streams; an absent one is `/dev/null`.
#[derive(Clone, PartialEq, Message)]
pub struct Stdio {
    /// Standard input: host to guest.
    #[prost(fixed64, optional, tag = "1")]
    pub stdin: Option<StreamToken>,
    /// Standard output: guest to host.
    #[prost(fixed64, optional, tag = "2")]
    pub stdout: Option<StreamToken>,
    /// Standard error: guest to host.
    #[prost(fixed64, optional, tag = "3")]
    pub stderr: Option<StreamToken>,
}
