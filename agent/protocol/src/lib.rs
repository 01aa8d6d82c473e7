//! What the host's supervisor and the agent in the guest say to each other.
//!
//! One control connection over vsock carries a [`Frame`] after the other: the agent dials the host's [`CONTROL_PORT`],
//! sends [`Hello`], and gets [`Welcome`] or a refusal. After that the host sends [`Request`]s, the
//! agent [`Response`]s (in any order, matched by id) and [`Event`]s.
//!
//! Standard streams do not pass through it. For each one the agent dials [`STDIO_PORT`] and sends the
//! eight bytes of its [`StreamToken`], little-endian; all that follows, both ways, is raw data, and the
//! half-close of a side is end-of-file.
//!
//! Invariant: no I/O and no operating system call in this crate; decoding never panics. The host decodes only
//! [`AgentFrame`]s, so what a hostile guest can make it allocate is bounded by [`MAX_AGENT_FRAME`] times the largest
//! ratio of such a frame in memory to its bytes: 24, of empty [`Stats::files`].
#![forbid(unsafe_code)]

mod answer;
mod cgroup;
mod framing;
mod hook;
mod id_map;
mod limit;
mod message;
mod plan;

pub use answer::{Cpus, Created, Described, Description, DeviceNumber, Found, Processes, Stats};
pub use cgroup::{CgroupPlan, CgroupSetting};
pub use framing::{
    Frame, FrameError, HEADER, MAX_AGENT_FRAME, MAX_HOST_FRAME, decode, encode, frame_length,
};
pub use hook::{GuestHook, GuestHooks};
pub use id_map::IdMap;
pub use limit::{ANSWERED_WITHIN, EXECUTED_WITHIN, JOINED_WITHIN, READY_WITHIN, STARTED_WITHIN};
pub use message::{
    AgentError, AgentFrame, Ended, ErrorKind, Event, Hello, HostFrame, PodPlan, Refusal, Request,
    Response, Welcome, agent_frame, event, host_frame, request, response,
};
pub use plan::{
    Capabilities, ContainerPlan, CpuAffinity, DeviceNode, DeviceType, IoPriority, Mount, MountKind,
    Namespace, NamespaceKind, ProcessPlan, Rlimit, RootfsPlan, Scheduler, SeccompFilter, Stdio,
    Sysctl, Terminal, TimeOffset, Upper, upper,
};

/// Version of this protocol. Both sides refuse any other.
pub const PROTOCOL_VERSION: u32 = 4;

/// The vsock port on the host (CID 2) that the agent's control connection goes to.
pub const CONTROL_PORT: u32 = 1024;

/// The vsock port on the host that the agent dials once for each stream.
pub const STDIO_PORT: u32 = 1025;

/// Names one stream of one process; chosen by the host, unguessable, used once.
pub type StreamToken = u64;
