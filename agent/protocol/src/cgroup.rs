//! The control group of a container.
//!
//! Invariant: names of files are names only; the agent checks that.

use prost::Message;

/// The control group (v2) of a container.
#[derive(Clone, PartialEq, Message)]
pub struct CgroupPlan {
    /// Files and their contents, written in this order before the first process starts.
    #[prost(message, repeated, tag = "1")]
    pub settings: Vec<CgroupSetting>,
    /// A `BPF_PROG_TYPE_CGROUP_DEVICE` program, 8 bytes an instruction; empty allows every device.
    #[prost(bytes = "vec", tag = "2")]
    pub device_filter: Vec<u8>,
    /// The user of the first process owns it, as far as it may be delegated (OCI runtime-spec, config-linux#cgroup-ownership).
    #[prost(bool, tag = "3")]
    pub delegated: bool,
}

/// A file of a control group and its content.
#[derive(Clone, PartialEq, Message)]
pub struct CgroupSetting {
    /// For example `memory.max`: no slash.
    #[prost(string, tag = "1")]
    pub file: String,
    /// For example `268435456`.
    #[prost(string, tag = "2")]
    pub value: String,
}
