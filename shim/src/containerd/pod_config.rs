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
struct PodSandboxConfig {
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(btree_map = "string, string", tag = "7")]
    annotations: BTreeMap<String, String>,
    #[prost(message, optional, tag = "8")]
    linux: Option<LinuxPodSandboxConfig>,
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

/// The specification of the sandbox that `request` asks for.
///
/// # Errors
/// Options that are no pod's, or a bundle that cannot be read.
pub(super) fn specification(request: &CreateSandboxRequest) -> Result<Spec> {
    let pod = match request.options.as_ref().filter(|any| !any.type_url.is_empty()) {
        None => PodSandboxConfig::default(),
        Some(any) if any.type_url.ends_with(POD) => {
            PodSandboxConfig::decode(any.value.as_slice()).context("the pod's configuration")?
        }
        Some(any) => bail!("options of type {:?}; {POD} is known", any.type_url),
    };
    let mut spec = given(Path::new(&request.bundle_path))?;
    let linux = pod.linux.unwrap_or_default();
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
        let path = Path::new(&linux.cgroup_parent).join(&request.sandbox_id);
        section.insert("cgroupsPath".into(), json!(path));
    }
    spec.insert("linux".into(), Value::Object(section));
    serde_json::from_value(Value::Object(spec)).context("the pod as an OCI specification")
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
