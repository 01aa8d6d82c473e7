//! containerd's CRI service: pods as Kubernetes runs them.
//!
//! Invariant: a case asserts what runc does, too; what it leaves is removed after it, but for one pod that cases share.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::containerd::{Containerd, Version};
use super::engine::Engine;

mod client;
mod containers;
mod events;
mod execs;
mod failing;
mod forward;
mod identity;
mod lifecycle;
mod logs;
mod many;
mod messages;
mod more_messages;
mod mounts;
mod pod;
mod pods;
mod recovery;
mod resources;
mod security;
mod sharing;
mod stream;
mod streams;

use messages::{
    Id, ListContainersRequest, ListContainersResponse, ListPodSandboxRequest,
    ListPodSandboxResponse, Nothing, PodSandboxConfig, PodSandboxStatus, PodSandboxStatusResponse,
};
use pod::Pod;

/// The cases.
pub(super) const CASES: &[&[super::Case<Cri>]] = &[
    pods::CASES,
    sharing::CASES,
    containers::CASES,
    lifecycle::CASES,
    execs::CASES,
    streams::CASES,
    forward::CASES,
    logs::CASES,
    mounts::CASES,
    identity::CASES,
    security::CASES,
    resources::CASES,
    events::CASES,
    recovery::CASES,
    failing::CASES,
    many::CASES,
];

/// Those that are run with containerd 2, too, which leaves the sandbox to the shim.
pub(super) const CASES_FOR_TWO: &[&[super::Case<Cri>]] =
    &[pods::CASES, sharing::CASES, lifecycle::CASES, execs::CASES, forward::CASES, recovery::CASES];

/// containerd's configuration.
const CONFIG: &str = "/etc/containerd/config.toml";

/// A running containerd whose CRI service has the runtime under test.
pub(super) struct Cri {
    /// Before the service: it is stopped first.
    containerd: Option<Containerd>,
    /// Put back after that.
    _config: Config,
    /// The pod that cases share, if there is one.
    shared: RefCell<Option<(String, PodSandboxConfig)>>,
}

/// A configuration as it was before, put back when this goes.
struct Config {
    path: &'static str,
    text: Option<Vec<u8>>,
}

impl Config {
    /// What is at `path` now.
    fn now(path: &'static str) -> Self {
        Self { path, text: fs::read(path).ok() }
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        let _ = match &self.text {
            Some(text) => fs::write(self.path, text),
            None => fs::remove_file(self.path),
        };
    }
}

impl Cri {
    /// Starts it.
    pub(super) fn start(version: Version) -> Result<Self> {
        let config = Config::now(CONFIG);
        let containerd = Containerd::start_with(version, |directory| {
            let network = directory.join("network");
            fs::create_dir_all(&network)?;
            let addresses = directory.join("addresses").display().to_string();
            let ipam = json!({ "type": "host-local", "dataDir": addresses,
                "ranges": [[{ "subnet": "10.88.77.0/24" }]] });
            let bridge =
                json!({ "type": "bridge", "bridge": "case0", "isGateway": true, "ipam": ipam });
            let list = json!({ "cniVersion": "1.0.0", "name": "case", "plugins": [bridge] });
            fs::write(network.join("10-case.conflist"), list.to_string())?;
            fs::create_dir_all("/etc/containerd")?;
            let networks = network.display().to_string();
            let text = match version {
                Version::One => configuration(&networks),
                Version::Two => configuration_of_two(&networks, directory),
            };
            Ok(fs::write(CONFIG, text)?)
        })?;
        containerd.import(NAMESPACE)?;
        Ok(Self { containerd: Some(containerd), _config: config, shared: RefCell::default() })
    }

    fn containerd(&self) -> &Containerd {
        self.containerd.as_ref().unwrap_or_else(|| unreachable!("it runs as long as this"))
    }

    /// What the runtime under test is called in the configuration.
    fn handler() -> &'static str {
        if Engine::is_ours() { "cofferdam" } else { "runc" }
    }

    /// A path for a file of a case.
    fn file(&self, name: &str) -> PathBuf {
        self.containerd().file(name)
    }

    /// Runs a new pod.
    fn pod(&self) -> Result<Pod<'_>> {
        self.pod_with(|_| {})
    }

    /// The same, its configuration changed by `edit`.
    fn pod_with(&self, edit: impl FnOnce(&mut PodSandboxConfig)) -> Result<Pod<'_>> {
        let mut config = pod::config(&self.file("logs"));
        edit(&mut config);
        Pod::run(self, config)
    }

    /// A pod that cases share which do not disturb each other: it has no containers.
    fn shared(&self) -> Result<Pod<'_>> {
        let kept = self.shared.borrow().clone();
        if let Some((id, config)) = kept
            && self.status(&id).is_ok_and(|status| status.state == messages::READY)
        {
            return Ok(Pod::of(self, id, config));
        }
        let pod = self.pod()?;
        *self.shared.borrow_mut() = Some((pod.id.clone(), pod.config.clone()));
        Ok(pod)
    }

    /// The status of a pod.
    fn status(&self, id: &str) -> Result<PodSandboxStatus> {
        let answer: PodSandboxStatusResponse =
            client::call("PodSandboxStatus", &Id { id: id.to_owned() })?;
        answer.status.context("no status of the pod")
    }

    /// Removes all pods and containers but the pod that is shared.
    pub(super) fn clear(&self) -> Result<()> {
        let kept = self.shared.borrow().as_ref().map(|(id, _)| id.clone());
        let containers: ListContainersResponse =
            client::call("ListContainers", &ListContainersRequest::default())?;
        for container in containers.containers {
            if Some(&container.pod_sandbox_id) == kept.as_ref() {
                let _: Nothing = client::call("RemoveContainer", &Id { id: container.id })?;
            }
        }
        let pods: ListPodSandboxResponse =
            client::call("ListPodSandbox", &ListPodSandboxRequest::default())?;
        for pod in pods.items.into_iter().filter(|pod| Some(&pod.id) != kept.as_ref()) {
            let _: Nothing = client::call("StopPodSandbox", &Id { id: pod.id.clone() })?;
            let _: Nothing = client::call("RemovePodSandbox", &Id { id: pod.id })?;
        }
        let left: ListContainersResponse =
            client::call("ListContainers", &ListContainersRequest::default())?;
        ensure!(left.containers.is_empty(), "{left:?}");
        Ok(())
    }
}

impl Drop for Cri {
    fn drop(&mut self) {
        *self.shared.borrow_mut() = None;
        if let Err(error) = self.clear() {
            println!("removing the pods: {error:#}");
        }
        if let Some(containerd) = self.containerd.take() {
            containerd.forget(NAMESPACE);
        }
        if !Engine::is_ours() {
            // A container that mounts control groups without it takes it from the host's.
            let remount = ["-o", "remount,nsdelegate", "/sys/fs/cgroup"];
            let _ = Command::new("mount").args(remount).status();
        }
    }
}

/// containerd's namespace of the CRI service.
const NAMESPACE: &str = "k8s.io";

/// The configuration of containerd 1.7, with CNI's networks in the directory `networks`.
fn configuration(networks: &str) -> String {
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    let mut text = format!(
        "version = 2\n\
         [{cri}]\n\
         sandbox_image = \"{}\"\n\
         enable_unprivileged_ports = true\n\
         stream_server_address = \"127.0.0.1\"\n\
         [{cri}.cni]\n\
         bin_dir = \"/usr/lib/cni\"\n\
         conf_dir = \"{networks}\"\n\
         [{cri}.containerd]\n\
         default_runtime_name = \"runc\"\n",
        super::image::PAUSE
    );
    for (name, kind) in
        [("runc", "io.containerd.runc.v2"), ("cofferdam", "io.containerd.cofferdam.v2")]
    {
        text += &format!(
            "[{cri}.containerd.runtimes.{name}]\n\
             runtime_type = \"{kind}\"\n\
             privileged_without_host_devices = true\n\
             pod_annotations = [\"case.*\"]\n"
        );
    }
    text
}

/// The configuration of containerd 2, which keeps what it has in `directory`.
fn configuration_of_two(networks: &str, directory: &Path) -> String {
    let cri = "plugins.'io.containerd.cri.v1.runtime'";
    let mut text = format!(
        "version = 3\n\
         root = \"{}\"\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\n\
         sandbox = \"{}\"\n\
         [plugins.'io.containerd.grpc.v1.cri']\n\
         stream_server_address = \"127.0.0.1\"\n\
         [{cri}]\n\
         enable_unprivileged_ports = true\n\
         [{cri}.cni]\n\
         conf_dir = \"{networks}\"\n\
         [{cri}.containerd]\n\
         default_runtime_name = \"runc\"\n",
        directory.join("root").display(),
        super::image::PAUSE
    );
    for (name, kind, sandboxer) in [
        ("runc", "io.containerd.runc.v2", "podsandbox"),
        ("cofferdam", "io.containerd.cofferdam.v2", "shim"),
    ] {
        text += &format!(
            "[{cri}.containerd.runtimes.{name}]\n\
             runtime_type = \"{kind}\"\n\
             sandboxer = \"{sandboxer}\"\n\
             privileged_without_host_devices = true\n\
             pod_annotations = [\"case.*\"]\n"
        );
    }
    text
}
