//! What the agent hands to a launcher, through a memory file.
//!
//! Invariant: the launcher takes all it needs from here and from its descriptors; it inherits no
//! environment and no arguments.

use cofferdam_agent_protocol::{ContainerPlan, ProcessPlan};
use nix::sched::CloneFlags;
use prost::Message;

/// What one launcher does.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LaunchPlan {
    /// The container to set up; absent for one more process in a running one.
    #[prost(message, optional, boxed, tag = "1")]
    pub(crate) setup: Option<Box<ContainerPlan>>,
    /// The process to become.
    #[prost(message, optional, boxed, tag = "2")]
    pub(crate) process: Option<Box<ProcessPlan>>,
    /// The root file system, mounted by the agent.
    #[prost(string, tag = "3")]
    pub(crate) rootfs: String,
    /// The directory of the container's control group.
    #[prost(string, tag = "4")]
    pub(crate) cgroup: String,
    /// The directory with the contents of `MountKind::File` mounts, named by their position.
    #[prost(string, tag = "5")]
    pub(crate) files: String,
    /// `CLONE_NEW*` of the namespaces that are new.
    #[prost(int32, tag = "6")]
    pub(crate) new: i32,
    /// `CLONE_NEW*` of the namespaces the container does not share with the agent, new or joined.
    #[prost(int32, tag = "7")]
    pub(crate) own: i32,
}

impl LaunchPlan {
    /// Whether the namespace of `kind` is new.
    pub(crate) fn has_new(&self, kind: CloneFlags) -> bool {
        CloneFlags::from_bits_retain(self.new).contains(kind)
    }

    /// Whether the namespace of `kind` is not the agent's.
    pub(crate) fn has_own(&self, kind: CloneFlags) -> bool {
        CloneFlags::from_bits_retain(self.own).contains(kind)
    }
}
