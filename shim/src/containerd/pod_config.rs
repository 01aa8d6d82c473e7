//! What containerd says of a pod whose sandbox it leaves to the shim, as an OCI specification of a pause container.
//!
//! Invariant: pure but for reading the bundle's own specification, if containerd has made one.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use containerd_shim_protos::sandbox_api::CreateSandboxRequest;
use oci_spec::runtime::Spec;
use prost::Message;
use serde_json::{Map, Value, json};

/// The type of the pod's configuration (`runtime.v1` of k8s.io/cri-api).
const POD: &str = "runtime.v1.PodSandboxConfig";

/// Annotations that make it a sandbox, and say how large.
const TYPE: &str = "io.kubernetes.cri.container-type";
const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";
const QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
const PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";
const MEMORY: &str = "io.kubernetes.cri.sandbox-memory";

/// The part of a pod's configuration that matters here.
#[derive(Clone, PartialEq, Message)]
pub(super) struct PodSandboxConfig {
    #[prost(string, tag = "2")]
    pub(super) hostname: String,
    #[prost(message, optional, tag = "4")]
    pub(super) dns: Option<DnsConfig>,
    #[prost(btree_map = "string, string", tag = "7")]
    annotations: BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPodSandboxConfig>,
}

/// What goes into its `resolv.conf`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct DnsConfig {
    #[prost(string, repeated, tag = "1")]
    pub(super) servers: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) searches: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub(super) options: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    cgroup_parent: String,
    #[prost(btree_map = "string, string", tag = "3")]
    sysctls: BTreeMap<String, String>,
    #[prost(message, optional, tag = "5")]
    resources: Option<LinuxContainerResources>,
}

#[derive(Clone, PartialEq, Message)]
struct LinuxContainerResources {
    #[prost(int64, tag = "1")]
    cpu_period: i64,
    #[prost(int64, tag = "2")]
    cpu_quota: i64,
    #[prost(int64, tag = "4")]
    memory_limit_in_bytes: i64,
}

impl PodSandboxConfig {
    /// That of the pod that `request` asks for.
    ///
    /// # Errors
    /// Options that are no pod's.
    pub(super) fn of(request: &CreateSandboxRequest) -> Result<Self> {
        match request.options.as_ref().filter(|any| !any.type_url.is_empty()) {
            None => Ok(Self::default()),
            Some(any) if any.type_url.ends_with(POD) => {
                Self::decode(any.value.as_slice()).context("the pod's configuration")
            }
            Some(any) => bail!("options of type {:?}; {POD} is known", any.type_url),
        }
    }

    /// Its `resolv.conf` (`resolv.conf(5)`); empty if nothing is said of that.
    pub(super) fn resolver(&self) -> String {
        let dns = self.dns.clone().unwrap_or_default();
        let line = |word: &str, values: &[String]| match values {
            [] => String::new(),
            values => format!("{word} {}\n", values.join(" ")),
        };
        let servers = dns.servers.iter().map(|server| format!("nameserver {server}\n"));
        let servers: String = servers.collect();
        line("search", &dns.searches) + &servers + &line("options", &dns.options)
    }
}

/// The specification of the sandbox of `pod` that `request` asks for.
///
/// # Errors
/// A bundle that cannot be read.
pub(super) fn specification(
    request: &CreateSandboxRequest,
    pod: &PodSandboxConfig,
) -> Result<Spec> {
    let mut spec = given(Path::new(&request.bundle_path))?;
    let linux = pod.linux.clone().unwrap_or_default();
    let mut annotations = take(&mut spec, "annotations");
    for (name, value) in pod.annotations.iter().chain(&request.annotations) {
        annotations.insert(name.clone(), json!(value));
    }
    if let Some(resources) = &linux.resources {
        annotations.insert(QUOTA.into(), json!(resources.cpu_quota.to_string()));
        annotations.insert(PERIOD.into(), json!(resources.cpu_period.to_string()));
        annotations.insert(MEMORY.into(), json!(resources.memory_limit_in_bytes.to_string()));
    }
    annotations.insert(TYPE.into(), json!("sandbox"));
    annotations.insert(SANDBOX.into(), json!(request.sandbox_id));
    spec.insert("annotations".into(), Value::Object(annotations));
    // Nothing is executed: it stands for the machine.
    let mut process = take(&mut spec, "process");
    process.insert("args".into(), json!(["/pause"]));
    process.entry("cwd").or_insert_with(|| json!("/"));
    process.entry("user").or_insert_with(|| json!({ "uid": 0, "gid": 0 }));
    spec.insert("process".into(), Value::Object(process));
    if !pod.hostname.is_empty() {
        spec.insert("hostname".into(), json!(pod.hostname));
    }
    let mut section = take(&mut spec, "linux");
    let mut namespaces: Vec<Value> =
        ["pid", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind })).into();
    if request.netns_path.is_empty() {
        namespaces.push(json!({ "type": "network" }));
    } else {
        namespaces.push(json!({ "type": "network", "path": request.netns_path }));
    }
    section.insert("namespaces".into(), json!(namespaces));
    if !linux.sysctls.is_empty() {
        section.insert("sysctl".into(), json!(linux.sysctls));
    }
    if !linux.cgroup_parent.is_empty() {
        section.insert(
            "cgroupsPath".into(),
            json!(cgroups_path(&linux.cgroup_parent, &request.sandbox_id)),
        );
    }
    spec.insert("linux".into(), Value::Object(section));
    serde_json::from_value(Value::Object(spec)).context("the pod as an OCI specification")
}

/// The control group of a sandbox below `parent`, named as containerd names those of containers.
fn cgroups_path(parent: &str, id: &str) -> String {
    let parent = parent.trim_end_matches('/');
    match parent.rsplit('/').next() {
        Some(slice) if slice.ends_with(".slice") => format!("{slice}:cri-containerd:{id}"),
        _ => format!("{parent}/{id}"),
    }
}

/// The specification in the bundle, or an empty one.
fn given(bundle: &Path) -> Result<Map<String, Value>> {
    let path = bundle.join("config.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(Map::from_iter([("ociVersion".to_owned(), json!("1.2.0"))]));
        }
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    serde_json::from_slice(&text).with_context(|| format!("parsing {}", path.display()))
}

/// The object `name`, taken out of `object`; an empty one if there is none.
fn take(object: &mut Map<String, Value>, name: &str) -> Map<String, Value> {
    match object.remove(name) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
#[path = "pod_config_test.rs"]
mod pod_config_test;
