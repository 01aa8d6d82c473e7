//! More messages of `runtime.v1`: what is asked of containers that run.
//!
//! Invariant: as for [`super::messages`].

use prost::Message;

use super::messages::{ContainerStatus, PodSandboxStatus, Resources, Texts, UInt64Value};

#[derive(Clone, PartialEq, Message)]
pub(super) struct UpdateContainerResourcesRequest {
    #[prost(string, tag = "1")]
    pub(super) container_id: String,
    #[prost(message, optional, tag = "2")]
    pub(super) linux: Option<Resources>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExecSyncRequest {
    #[prost(string, tag = "1")]
    pub(super) container_id: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) cmd: Vec<String>,
    #[prost(int64, tag = "3")]
    pub(super) timeout: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExecSyncResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) stdout: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) stderr: Vec<u8>,
    #[prost(int32, tag = "3")]
    pub(super) exit_code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExecRequest {
    #[prost(string, tag = "1")]
    pub(super) container_id: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) cmd: Vec<String>,
    #[prost(bool, tag = "3")]
    pub(super) tty: bool,
    #[prost(bool, tag = "4")]
    pub(super) stdin: bool,
    #[prost(bool, tag = "5")]
    pub(super) stdout: bool,
    #[prost(bool, tag = "6")]
    pub(super) stderr: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AttachRequest {
    #[prost(string, tag = "1")]
    pub(super) container_id: String,
    #[prost(bool, tag = "2")]
    pub(super) stdin: bool,
    #[prost(bool, tag = "3")]
    pub(super) tty: bool,
    #[prost(bool, tag = "4")]
    pub(super) stdout: bool,
    #[prost(bool, tag = "5")]
    pub(super) stderr: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PortForwardRequest {
    #[prost(string, tag = "1")]
    pub(super) pod_sandbox_id: String,
    #[prost(int32, repeated, tag = "2")]
    pub(super) port: Vec<i32>,
}

/// The answer to what is streamed.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Place {
    #[prost(string, tag = "1")]
    pub(super) url: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CpuUsage {
    #[prost(int64, tag = "1")]
    pub(super) timestamp: i64,
    #[prost(message, optional, tag = "2")]
    pub(super) usage_core_nano_seconds: Option<UInt64Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct MemoryUsage {
    #[prost(int64, tag = "1")]
    pub(super) timestamp: i64,
    #[prost(message, optional, tag = "2")]
    pub(super) working_set_bytes: Option<UInt64Value>,
    #[prost(message, optional, tag = "3")]
    pub(super) available_bytes: Option<UInt64Value>,
    #[prost(message, optional, tag = "4")]
    pub(super) usage_bytes: Option<UInt64Value>,
    #[prost(message, optional, tag = "5")]
    pub(super) rss_bytes: Option<UInt64Value>,
    #[prost(message, optional, tag = "6")]
    pub(super) page_faults: Option<UInt64Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Attributes {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(super) labels: Texts,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerStats {
    #[prost(message, optional, tag = "1")]
    pub(super) attributes: Option<Attributes>,
    #[prost(message, optional, tag = "2")]
    pub(super) cpu: Option<CpuUsage>,
    #[prost(message, optional, tag = "3")]
    pub(super) memory: Option<MemoryUsage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerStatsResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) stats: Option<ContainerStats>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatsFilter {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(string, tag = "2")]
    pub(super) pod_sandbox_id: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(super) label_selector: Texts,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListContainerStatsRequest {
    #[prost(message, optional, tag = "1")]
    pub(super) filter: Option<StatsFilter>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ListContainerStatsResponse {
    #[prost(message, repeated, tag = "1")]
    pub(super) stats: Vec<ContainerStats>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ProcessUsage {
    #[prost(int64, tag = "1")]
    pub(super) timestamp: i64,
    #[prost(message, optional, tag = "2")]
    pub(super) process_count: Option<UInt64Value>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LinuxPodStats {
    #[prost(message, optional, tag = "1")]
    pub(super) cpu: Option<CpuUsage>,
    #[prost(message, optional, tag = "2")]
    pub(super) memory: Option<MemoryUsage>,
    #[prost(message, optional, tag = "4")]
    pub(super) process: Option<ProcessUsage>,
    #[prost(message, repeated, tag = "5")]
    pub(super) containers: Vec<ContainerStats>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodStats {
    #[prost(message, optional, tag = "1")]
    pub(super) attributes: Option<Attributes>,
    #[prost(message, optional, tag = "2")]
    pub(super) linux: Option<LinuxPodStats>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PodStatsResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) stats: Option<PodStats>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Condition {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(bool, tag = "2")]
    pub(super) status: bool,
    #[prost(string, tag = "4")]
    pub(super) message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    pub(super) conditions: Vec<Condition>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) status: Option<RuntimeStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct VersionResponse {
    #[prost(string, tag = "2")]
    pub(super) runtime_name: String,
    #[prost(string, tag = "4")]
    pub(super) runtime_api_version: String,
}

/// What happens to a container or a pod; `ContainerEventType`: created, started, stopped, deleted.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerEvent {
    #[prost(string, tag = "1")]
    pub(super) container_id: String,
    #[prost(int32, tag = "2")]
    pub(super) kind: i32,
    #[prost(int64, tag = "3")]
    pub(super) created_at: i64,
    #[prost(message, optional, tag = "4")]
    pub(super) pod: Option<PodSandboxStatus>,
    #[prost(message, repeated, tag = "5")]
    pub(super) containers: Vec<ContainerStatus>,
}
