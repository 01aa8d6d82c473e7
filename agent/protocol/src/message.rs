//! The frames of the control connection.

use prost::{Enumeration, Message, Oneof};

use crate::answer::{Cpus, Created, Described, Found, Processes, Stats};
use crate::cgroup::CgroupSetting;
use crate::plan::{ContainerPlan, ProcessPlan, Sysctl};

/// What the host sends.
#[derive(Clone, PartialEq, Message)]
pub struct HostFrame {
    /// What it is; a frame without a body is malformed.
    #[prost(oneof = "host_frame::Body", tags = "2, 3, 6")]
    pub body: Option<host_frame::Body>,
}

/// The kinds of [`HostFrame`].
pub mod host_frame {
    use super::{Oneof, Refusal, Request, Welcome};

    /// What a frame of the host holds.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// The answer to [`super::Hello`].
        #[prost(message, tag = "2")]
        Welcome(Welcome),
        /// After the greeting.
        #[prost(message, tag = "3")]
        Request(Request),
        /// Then the host closes the connection.
        #[prost(message, tag = "6")]
        Refusal(Refusal),
    }
}

/// What the agent sends. A type of its own with other tags: the host decodes nothing else, so a hostile
/// guest cannot make it build a plan.
#[derive(Clone, PartialEq, Message)]
pub struct AgentFrame {
    /// What it is; a frame without a body is malformed.
    #[prost(oneof = "agent_frame::Body", tags = "1, 4, 5, 6")]
    pub body: Option<agent_frame::Body>,
}

/// The kinds of [`AgentFrame`].
pub mod agent_frame {
    use super::{Event, Hello, Oneof, Refusal, Response};

    /// What a frame of the agent holds.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// First.
        #[prost(message, tag = "1")]
        Hello(Hello),
        /// After the greeting.
        #[prost(message, tag = "4")]
        Response(Response),
        /// After the greeting.
        #[prost(message, tag = "5")]
        Event(Event),
        /// Then the agent closes the connection.
        #[prost(message, tag = "6")]
        Refusal(Refusal),
    }
}

/// The agent's first frame.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// [`crate::PROTOCOL_VERSION`] of the agent.
    #[prost(uint32, tag = "1")]
    pub protocol_version: u32,
    /// Version of the agent's crate.
    #[prost(string, tag = "2")]
    pub agent_version: String,
    /// `uname -r` of the guest.
    #[prost(string, tag = "3")]
    pub kernel_release: String,
}

/// The host's answer: how to prepare the pod.
#[derive(Clone, PartialEq, Message)]
pub struct Welcome {
    /// [`crate::PROTOCOL_VERSION`] of the host.
    #[prost(uint32, tag = "1")]
    pub protocol_version: u32,
    /// What all containers of the pod share.
    #[prost(message, optional, tag = "2")]
    pub pod: Option<PodPlan>,
}

/// What all containers of the pod share.
#[derive(Clone, PartialEq, Message)]
pub struct PodPlan {
    /// Host name of the pod's uts namespace.
    #[prost(string, tag = "1")]
    pub hostname: String,
    /// The host's real-time clock, nanoseconds since 1970; 0 leaves the guest's clock alone.
    #[prost(uint64, tag = "2")]
    pub realtime_ns: u64,
    /// Kernel parameters of the guest as a whole.
    #[prost(message, repeated, tag = "3")]
    pub sysctls: Vec<Sysctl>,
}

/// Why the sender closes the connection.
#[derive(Clone, PartialEq, Message)]
pub struct Refusal {
    /// A sentence for a person.
    #[prost(string, tag = "1")]
    pub reason: String,
}

/// Something the host wants done.
#[derive(Clone, PartialEq, Message)]
pub struct Request {
    /// Chosen by the host; repeated in the [`Response`].
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// What is wanted.
    #[prost(
        oneof = "request::Body",
        tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20"
    )]
    pub body: Option<request::Body>,
}

/// The kinds of [`Request`]. A container's first process has the process id (a name, not a number) `""`.
pub mod request {
    use super::{CgroupSetting, ContainerPlan, Message, Oneof, ProcessPlan};

    /// What a request wants.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// Set a container up to the point before `execve`. Answer: [`super::Created`].
        #[prost(message, boxed, tag = "2")]
        Create(Box<ContainerPlan>),
        /// Let a created container run. Answer: done.
        #[prost(message, tag = "3")]
        Start(Start),
        /// Start one more process in a running container. Answer: [`super::Created`].
        #[prost(message, tag = "4")]
        Exec(Exec),
        /// Send a signal. Answer: done.
        #[prost(message, tag = "5")]
        Signal(Signal),
        /// Set the window size of a terminal. Answer: done.
        #[prost(message, tag = "6")]
        Resize(Resize),
        /// Forget an ended extra process, or an ended container and its cgroup and mounts. Answer: done.
        #[prost(message, tag = "7")]
        Delete(Delete),
        /// List processes. Answer: [`super::Processes`].
        #[prost(message, tag = "8")]
        List(Container),
        /// Describe processes. Answer: [`super::Described`].
        #[prost(message, tag = "16")]
        Describe(Container),
        /// Keep a pid namespace under the name of a container that has no process: those that join it share that. Keeping
        /// it again changes nothing. Answer: done.
        #[prost(message, tag = "17")]
        Keep(Container),
        /// Freeze a container's cgroup. Answer: done.
        #[prost(message, tag = "9")]
        Pause(Container),
        /// Thaw a container's cgroup. Answer: done.
        #[prost(message, tag = "10")]
        Resume(Container),
        /// Change resources. Answer: done.
        #[prost(message, tag = "11")]
        Update(Update),
        /// Read the accounting of a container; of the whole pod, if none is named. Answer: [`super::Stats`].
        #[prost(message, tag = "12")]
        Stats(Container),
        /// Kill what is left, sync, power the machine off. Answer: done, then the machine ends.
        #[prost(message, tag = "13")]
        Shutdown(Shutdown),
        /// Find devices that were plugged in, with one scan of the bus. Answer: [`super::Found`], when all are there.
        #[prost(message, tag = "14")]
        Expect(Expect),
        /// Let go of devices that are about to be taken away; no disk may be mounted. Answer: done.
        #[prost(message, tag = "15")]
        Release(Release),
        /// Bring as many of the guest's CPUs online as this, and the others offline. Answer: [`super::Cpus`].
        #[prost(message, tag = "20")]
        SetCpus(SetCpus),
        /// Connect a stream to a TCP port of the pod. Answer: done. The stream begins with one byte when it is connected,
        /// and ends without it if nobody listens there.
        #[prost(message, tag = "18")]
        Forward(Forward),
    }

    /// Names a container.
    #[derive(Clone, PartialEq, Message)]
    pub struct Container {
        /// Its id.
        #[prost(string, tag = "1")]
        pub container: String,
    }

    /// See [`Body::Start`].
    #[derive(Clone, PartialEq, Message)]
    pub struct Start {
        /// The container.
        #[prost(string, tag = "1")]
        pub container: String,
        /// Files that were brought along and have changed on the host since.
        #[prost(message, repeated, tag = "2")]
        pub files: Vec<FileContent>,
    }

    /// The new content of a file mount.
    #[derive(Clone, PartialEq, Message)]
    pub struct FileContent {
        /// The number of the mount among the container's.
        #[prost(uint32, tag = "1")]
        pub mount: u32,
        /// All of it.
        #[prost(bytes = "vec", tag = "2")]
        pub content: Vec<u8>,
    }

    /// See [`Body::Exec`].
    #[derive(Clone, PartialEq, Message)]
    pub struct Exec {
        /// The container.
        #[prost(string, tag = "1")]
        pub container: String,
        /// The new process's id, unique in its container, not empty.
        #[prost(string, tag = "2")]
        pub process: String,
        /// What to run.
        #[prost(message, optional, boxed, tag = "3")]
        pub plan: Option<Box<ProcessPlan>>,
        /// The group to begin in, as a path below the container's own, which is `/`; empty: that, or where the first
        /// process is if the container has split its group up.
        #[prost(string, tag = "4")]
        pub cgroup: String,
    }

    /// See [`Body::Signal`].
    #[derive(Clone, PartialEq, Message)]
    pub struct Signal {
        /// The container.
        #[prost(string, tag = "1")]
        pub container: String,
        /// The process; empty for the container's first.
        #[prost(string, tag = "2")]
        pub process: String,
        /// The signal's number, 1 to 64.
        #[prost(uint32, tag = "3")]
        pub signal: u32,
        /// Every process of the container's cgroup instead of one.
        #[prost(bool, tag = "4")]
        pub all: bool,
    }

    /// See [`Body::Resize`].
    #[derive(Clone, PartialEq, Message)]
    pub struct Resize {
        /// The container.
        #[prost(string, tag = "1")]
        pub container: String,
        /// The process; empty for the container's first.
        #[prost(string, tag = "2")]
        pub process: String,
        /// Rows, at most 65535.
        #[prost(uint32, tag = "3")]
        pub rows: u32,
        /// Columns, at most 65535.
        #[prost(uint32, tag = "4")]
        pub columns: u32,
    }

    /// See [`Body::Delete`].
    #[derive(Clone, PartialEq, Message)]
    pub struct Delete {
        /// The container.
        #[prost(string, tag = "1")]
        pub container: String,
        /// The extra process; empty for the whole container.
        #[prost(string, tag = "2")]
        pub process: String,
        /// Kill what still runs first.
        #[prost(bool, tag = "3")]
        pub force: bool,
    }

    /// See [`Body::Update`].
    #[derive(Clone, PartialEq, Message)]
    pub struct Update {
        /// The container.
        #[prost(string, tag = "1")]
        pub container: String,
        /// Files of its cgroup and their new contents, written in this order.
        #[prost(message, repeated, tag = "2")]
        pub settings: Vec<CgroupSetting>,
    }

    /// See [`Body::SetCpus`].
    #[derive(Clone, PartialEq, Message)]
    pub struct SetCpus {
        /// How many, from 1 to those that the machine has.
        #[prost(uint32, tag = "1")]
        pub online: u32,
    }

    /// See [`Body::Forward`].
    #[derive(Clone, PartialEq, Message)]
    pub struct Forward {
        /// The port on the pod's loopback interface, by IPv4, or by IPv6 if nobody listens there; 1 to 65535.
        #[prost(uint32, tag = "1")]
        pub port: u32,
        /// The stream, used both ways.
        #[prost(uint64, tag = "2")]
        pub stream: crate::StreamToken,
    }

    /// See [`Body::Shutdown`].
    #[derive(Clone, PartialEq, Message)]
    pub struct Shutdown {}

    /// See [`Body::Expect`].
    #[derive(Clone, PartialEq, Message)]
    pub struct Expect {
        /// The disks; all together at most 256.
        #[prost(message, repeated, tag = "1")]
        pub disks: Vec<Disk>,
        /// The network cards.
        #[prost(message, repeated, tag = "2")]
        pub nets: Vec<Net>,
        /// The file systems.
        #[prost(message, repeated, tag = "3")]
        pub filesystems: Vec<Fs>,
    }

    /// A disk that was plugged in.
    #[derive(Clone, PartialEq, Message)]
    pub struct Disk {
        /// Its PCI address, as in [`crate::RootfsPlan::layers`].
        #[prost(uint32, tag = "1")]
        pub address: u32,
        /// The serial number that the host chose: a disk with another one is refused.
        #[prost(string, tag = "2")]
        pub serial: String,
    }

    /// A network card that was plugged in.
    #[derive(Clone, PartialEq, Message)]
    pub struct Net {
        /// Its PCI address, as that of a disk.
        #[prost(uint32, tag = "1")]
        pub address: u32,
        /// The card's address that the host chose, as `02:00:00:00:00:01`: a card with another one is refused.
        #[prost(string, tag = "2")]
        pub mac: String,
    }

    /// A file system that was plugged in.
    #[derive(Clone, PartialEq, Message)]
    pub struct Fs {
        /// Its PCI address, as that of a disk.
        #[prost(uint32, tag = "1")]
        pub address: u32,
        /// The tag that the host chose: a file system with another one is refused.
        #[prost(string, tag = "2")]
        pub tag: String,
    }

    /// See [`Body::Release`].
    #[derive(Clone, PartialEq, Message)]
    pub struct Release {
        /// PCI addresses.
        #[prost(uint32, repeated, tag = "1")]
        pub addresses: Vec<u32>,
    }
}

/// The answer to a [`Request`].
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    /// The request's id.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The result.
    #[prost(oneof = "response::Body", tags = "2, 3, 4, 5, 6, 7, 8, 20")]
    pub body: Option<response::Body>,
}

/// The kinds of [`Response`].
pub mod response {
    use super::{AgentError, Cpus, Created, Described, Found, Message, Oneof, Processes, Stats};

    /// What a response holds.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// The request failed and changed nothing that is not undone.
        #[prost(message, tag = "2")]
        Error(AgentError),
        /// The request is done.
        #[prost(message, tag = "3")]
        Done(Done),
        /// A process exists.
        #[prost(message, tag = "4")]
        Created(Created),
        /// The processes of a container.
        #[prost(message, tag = "5")]
        Processes(Processes),
        /// The accounting of a container.
        #[prost(message, tag = "6")]
        Stats(Stats),
        /// The devices are there.
        #[prost(message, tag = "7")]
        Found(Found),
        /// The processes of a container, in words.
        #[prost(message, tag = "8")]
        Described(Described),
        /// The guest's CPUs.
        #[prost(message, tag = "20")]
        Cpus(Cpus),
    }

    /// Nothing to say but that it is done.
    #[derive(Clone, PartialEq, Message)]
    pub struct Done {}
}

/// Why a request failed.
#[derive(Clone, PartialEq, Message)]
pub struct AgentError {
    /// What the host may act on.
    #[prost(enumeration = "ErrorKind", tag = "1")]
    pub kind: i32,
    /// A sentence for a person: what was attempted, with what, and the cause.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// What the host may act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum ErrorKind {
    /// Anything else.
    Other = 0,
    /// The command is not in the container: exit status 127.
    CommandNotFound = 1,
    /// The command cannot be executed: exit status 126.
    CommandNotExecutable = 2,
    /// No such container or process.
    NotFound = 3,
    /// The container or process is not in the state the request needs.
    WrongState = 4,
    /// The id is taken.
    Exists = 5,
    /// The plan holds something this agent cannot do.
    Unsupported = 6,
}

/// Something that happened in the guest.
#[derive(Clone, PartialEq, Message)]
pub struct Event {
    /// What happened.
    #[prost(oneof = "event::Body", tags = "1, 2")]
    pub body: Option<event::Body>,
}

/// The kinds of [`Event`].
pub mod event {
    use super::{Ended, Oneof, request};

    /// What an event tells.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// A process ended. Sent once for each, after the response that created it.
        #[prost(message, tag = "1")]
        Ended(Ended),
        /// The kernel killed a process of this container for lack of memory.
        #[prost(message, tag = "2")]
        OutOfMemory(request::Container),
    }
}

/// A process ended.
#[derive(Clone, PartialEq, Message)]
pub struct Ended {
    /// The container.
    #[prost(string, tag = "1")]
    pub container: String,
    /// The process; empty for the container's first.
    #[prost(string, tag = "2")]
    pub process: String,
    /// Exit code, when no signal ended it.
    #[prost(uint32, tag = "3")]
    pub code: u32,
    /// The signal that ended it, or 0.
    #[prost(uint32, tag = "4")]
    pub signal: u32,
}
