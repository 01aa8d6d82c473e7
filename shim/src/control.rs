//! What the command line, a pod's supervisor and the proxies of its containers say to each other.
//!
//! One `SOCK_SEQPACKET` socket each, JSON. On a connection, a question is answered before the next is read. Plans are
//! too long for a message: they come as the first descriptor, a file in memory.
//!
//! ```text
//! command line -> supervisor   ToSupervisor, answered by Answer
//! proxy        -> supervisor   FromProxy: signals and sizes that came for the process
//! supervisor   -> proxy        End: once, last
//! ```
//!
//! Invariant: only processes of the host speak here, on sockets in directories of mode 0700; nothing that a guest says
//! is passed on but texts of bounded length and numbers.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use cofferdam_agent_protocol::ErrorKind;
use cofferdam_vmm_api::{Bdf, MachineSpec};
use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::oci::Needs;
use crate::pod::{AttachedDisk, Cause, ExitStatus, PodError};
use crate::room::Room;
use crate::timeline::Entry;

/// The name of a supervisor's socket in the state directory of its pod.
pub(crate) const SOCKET: &str = "control.sock";

/// Longest plan in bytes.
const MAX_PLAN: u64 = 8 << 20;

/// Longest text of a failure that the guest may have a part in, in characters.
const MAX_MESSAGE: usize = 2048;

/// What a supervisor can be asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToSupervisor {
    /// Boot. Descriptors: those of the machine in its order, but for the connections, then `/dev/kvm`.
    /// Answer: [`Answer::Disks`], when the agent is ready.
    Launch(Box<Launch>),
    /// Attach disks to the running machine; they go with the container that is created next on this connection, or with
    /// the connection. Descriptors: the disks. Answer: [`Answer::Attached`].
    Attach {
        /// Of each, whether the guest may write.
        writable: Vec<bool>,
    },
    /// Mount volumes; they go with the container that is created next on this connection, or with the connection. The
    /// file server is started if it is not there. Descriptors: a mount for each, attached nowhere. Answer:
    /// [`Answer::Volumes`].
    Volumes(NewVolumes),
    /// Create a container. Descriptors: the plan, the socket of its proxy, its standard streams. It goes with the
    /// connection, until that is left.
    Create(Create),
    /// Create a sandbox without a process, as the first container. Descriptor: the socket of what stands for it. It goes
    /// with the connection, until that is left.
    Sandbox {
        /// Its id.
        id: String,
        /// What else there is to know.
        create: Create,
    },
    /// The container that was created on this connection goes on without it.
    Leave,
    /// Start one more process. Descriptors: as for [`ToSupervisor::Create`].
    Exec {
        /// Its container and name.
        of: Of,
        /// The control group to begin in, below the container's; empty for the usual one.
        cgroup: String,
    },
    /// Let a created container run. Descriptor: the agent's request, if files that were brought along have changed.
    Start(String),
    /// Send a signal.
    Signal {
        /// To whom.
        of: Of,
        /// Its number.
        signal: u32,
        /// To every process of the container instead.
        all: bool,
    },
    /// Freeze a container, or let it go on.
    Freeze {
        /// Which.
        container: String,
        /// Freeze it.
        frozen: bool,
    },
    /// Write files of its control group, in this order.
    Update {
        /// Which.
        container: String,
        /// Names and contents.
        settings: Vec<(String, String)>,
        /// What it asks of the machine from then on.
        needs: Needs,
    },
    /// Its processes. Answer: [`Answer::Processes`].
    Processes(String),
    /// Its accounting; the pod's, if it is a sandbox without a process. Answer: [`Answer::Stats`].
    Stats(String),
    /// Answer with [`Answer::OutOfMemory`] each time that the kernel kills a process of it for lack of memory.
    OutOfMemory(String),
    /// Connect to a TCP port of the pod. Descriptor: a connected TCP socket, which is reset if nobody listens there.
    Forward(u16),
    /// Forget a container; what runs in it is killed.
    Delete(String),
    /// The hook that this client runs, by its process group; when the connection closes before the next of these
    /// messages, it is killed. No answer.
    Hook(Option<i32>),
}

impl ToSupervisor {
    /// Send `signal` to the first process of a container, or with `all` to every one.
    pub(crate) fn signal(container: &str, signal: u32, all: bool) -> Self {
        let of = Of { container: container.to_owned(), process: String::new() };
        Self::Signal { of, signal, all }
    }

    /// Kill a container.
    pub(crate) fn kill(container: &str) -> Self {
        Self::signal(container, libc::SIGKILL.cast_unsigned(), true)
    }
}

/// Names a process of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Of {
    /// The container.
    pub(crate) container: String,
    /// The process; empty for the first.
    pub(crate) process: String,
}

/// See [`ToSupervisor::Launch`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// The machine.
    pub(crate) machine: MachineSpec,
    /// How it grows when containers join.
    pub(crate) room: Room,
    /// The host name of the pod.
    pub(crate) hostname: String,
    /// Kernel parameters of the guest: names and values.
    pub(crate) sysctls: Vec<(String, String)>,
    /// The monitor's program.
    pub(crate) monitor: PathBuf,
    /// The user that it becomes, if we may give it one.
    pub(crate) uid: Option<u32>,
    /// `process.oomScoreAdj`: without it, the monitor is not harder to kill than any process.
    pub(crate) oom_score_adj: Option<i32>,
}

/// See [`ToSupervisor::Volumes`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct NewVolumes {
    /// The file server's program.
    pub(crate) server: PathBuf,
    /// Of each, whether the guest maps its ids.
    pub(crate) mapped: Vec<bool>,
}

/// See [`ToSupervisor::Create`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Create {
    /// The state directory of the container.
    pub(crate) directory: PathBuf,
    /// The pod lives as long as this container, and others may join it.
    pub(crate) sandbox: bool,
    /// The state directory stays when the pod has gone, until somebody deletes it.
    pub(crate) keep: bool,
    /// What it asks of the machine.
    pub(crate) needs: Needs,
}

/// What a supervisor answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// It could not be done.
    Failed(Failure),
    /// The addresses of disks.
    Disks(Vec<Bdf>),
    /// What the guest finds volumes by.
    Volumes(Vec<String>),
    /// Disks that were attached.
    Attached(Vec<AttachedDisk>),
    /// Processes, in the guest.
    Processes {
        /// How long it has been up, in hundredths of a second.
        uptime: u64,
        /// The first of them.
        processes: Vec<Process>,
    },
    /// Files of a control group and their contents.
    Stats(Vec<(String, String)>),
    /// A process was killed for lack of memory.
    OutOfMemory,
}

/// A process in the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// `/proc/PID/stat`.
    pub(crate) stat: String,
    /// Its user.
    pub(crate) uid: u32,
    /// The beginning of its command line.
    pub(crate) command: String,
}

/// What a proxy says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromProxy {
    /// This signal came.
    Signal(u32),
    /// The terminal has this many rows and columns now.
    Size(u16, u16),
}

/// How a process ended, and how its pod had come there.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct End {
    /// Exit code and signal, or why nobody knows.
    pub(crate) result: Result<(u8, u8), Failure>,
    /// When it was known here, in nanoseconds since 1970: its output may have taken longer.
    pub(crate) at_ns: u64,
    /// The stages of the pod.
    pub(crate) stages: Vec<Entry>,
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// What was attempted, and the cause.
    pub(crate) message: String,
    /// What may be done about it.
    pub(crate) kind: FailureKind,
    /// The stages of the pod, if it ended by this.
    pub(crate) stages: Vec<Entry>,
}

/// What may be done about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    /// Nothing in particular.
    Other,
    /// The command is not in the container.
    CommandNotFound,
    /// The command cannot be executed.
    CommandNotExecutable,
    /// No such container or process.
    NotFound,
    /// It is not in the state for that.
    WrongState,
    /// The guest failed: its console may tell.
    Guest,
    /// The machine did not come up: another guest kernel or image may help.
    Machine,
}

impl Failure {
    /// A failure after which the pod may go on.
    pub(crate) fn new(message: String, kind: FailureKind) -> Self {
        Self { message, kind, stages: Vec::new() }
    }

    /// A failure of no particular kind.
    pub(crate) fn other(message: impl std::fmt::Display) -> Self {
        Self::new(message.to_string(), FailureKind::Other)
    }
}

impl From<PodError> for Failure {
    fn from(error: PodError) -> Self {
        let kind = match &error.cause {
            Cause::Agent { kind, .. } => match kind {
                ErrorKind::CommandNotFound => FailureKind::CommandNotFound,
                ErrorKind::CommandNotExecutable => FailureKind::CommandNotExecutable,
                ErrorKind::NotFound => FailureKind::NotFound,
                ErrorKind::WrongState => FailureKind::WrongState,
                _ => FailureKind::Other,
            },
            cause if cause.is_about_the_machine() => FailureKind::Machine,
            cause if cause.is_guest_failure() => FailureKind::Guest,
            _ => FailureKind::Other,
        };
        // What the guest says may be long; a message may not.
        Self::new(error.to_string().chars().take(MAX_MESSAGE).collect(), kind)
    }
}

impl From<ExitStatus> for (u8, u8) {
    fn from(status: ExitStatus) -> Self {
        (status.code, status.signal)
    }
}

/// A file in memory that holds `plan`.
///
/// # Errors
/// The failure of a system call.
pub(crate) fn parcel(plan: &impl prost::Message) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("plan", MemfdFlags::CLOEXEC)?);
    file.write_all(&plan.encode_to_vec())?;
    file.rewind()?;
    Ok(file.into())
}

/// The plan in a file that [`parcel`] made.
///
/// # Errors
/// It is longer than plans are, or is none.
pub(crate) fn unpack<T: prost::Message + Default>(file: OwnedFd) -> io::Result<T> {
    let mut bytes = Vec::new();
    File::from(file).take(MAX_PLAN + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_PLAN {
        return Err(io::Error::other(format!("a plan of over {MAX_PLAN} bytes")));
    }
    T::decode(bytes.as_slice()).map_err(io::Error::other)
}

#[cfg(test)]
#[path = "control_test.rs"]
mod control_test;
