//! Namespaces, id maps and kernel parameters (OCI runtime-spec, config-linux#namespaces, #sysctl).
//!
//! Invariant: no namespace of the host is ever named to the guest.

use std::path::{Path, PathBuf};

use cofferdam_agent_protocol::{IdMap, Namespace, NamespaceKind, Sysctl};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::{OciError, invalid, unsupported};

/// Most lines of a uid or gid map (`user_namespaces(7)`).
const MAX_ID_MAPS: usize = 340;

/// The network namespace on the host that a container's proxy is to be in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostNetwork {
    /// That of the caller.
    #[default]
    Host,
    /// A new one.
    New,
    /// That at this path.
    At(PathBuf),
}

/// The namespaces of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Namespaces {
    /// Those that it does not share with the agent.
    pub(super) plan: Vec<Namespace>,
    /// All that the specification lists: they are not the host's.
    pub(super) listed: Vec<NamespaceKind>,
    /// Those that are the pod's: the specification names a file of the host, which stands for the pod.
    pub(super) pods: Vec<NamespaceKind>,
    /// On the host.
    pub(super) network: HostNetwork,
}

/// The namespaces of a container; `member` gives the container of the same pod, the process with this number on the host
/// being its proxy.
///
/// A path `/proc/PID/ns/KIND` with such a process joins that container. Any other file is a network, IPC or UTS
/// namespace that the engine made for the pod: its containers share what the guest has.
pub(super) fn namespaces(
    linux: Option<&Linux>,
    member: &dyn Fn(u32) -> Option<String>,
) -> Result<Namespaces, OciError> {
    let listed = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let mut all = Namespaces::default();
    for namespace in listed {
        let kind = kind(namespace.typ());
        if all.listed.contains(&kind) {
            let problem = format!("{} is listed twice", name(kind));
            return Err(invalid("linux.namespaces", problem));
        }
        all.listed.push(kind);
        let path = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty());
        if kind == NamespaceKind::Network {
            all.network = path.map_or(HostNetwork::New, |path| HostNetwork::At(path.clone()));
        }
        let Some(path) = path else {
            all.plan.push(Namespace { kind: kind.into(), join: String::new() });
            continue;
        };
        let shared = [NamespaceKind::Network, NamespaceKind::Ipc, NamespaceKind::Uts];
        match process_of(path) {
            // The host's own, as if none were listed.
            Some(1) if shared.contains(&kind) => all.pods.push(kind),
            Some(pid) => match member(pid) {
                Some(join) => all.plan.push(Namespace { kind: kind.into(), join }),
                None => return Err(foreign(kind, path)),
            },
            None if shared.contains(&kind) => all.pods.push(kind),
            None => return Err(foreign(kind, path)),
        }
    }
    Ok(all)
}

fn foreign(kind: NamespaceKind, path: &Path) -> OciError {
    unsupported(
        format!("linux.namespaces {} with path {}", name(kind), path.display()),
        "a container in a virtual machine cannot join a namespace of the host, nor of another pod",
    )
}

/// The process that a path such as `/proc/12/ns/net` is of.
pub(crate) fn process_of(path: &Path) -> Option<u32> {
    let (pid, rest) = path.to_str()?.strip_prefix("/proc/")?.split_once('/')?;
    rest.strip_prefix("ns/").and_then(|_| pid.parse().ok())
}

fn kind(kind: LinuxNamespaceType) -> NamespaceKind {
    match kind {
        LinuxNamespaceType::Mount => NamespaceKind::Mount,
        LinuxNamespaceType::Cgroup => NamespaceKind::Cgroup,
        LinuxNamespaceType::Uts => NamespaceKind::Uts,
        LinuxNamespaceType::Ipc => NamespaceKind::Ipc,
        LinuxNamespaceType::User => NamespaceKind::User,
        LinuxNamespaceType::Pid => NamespaceKind::Pid,
        LinuxNamespaceType::Network => NamespaceKind::Network,
        LinuxNamespaceType::Time => NamespaceKind::Time,
    }
}

fn name(kind: NamespaceKind) -> &'static str {
    match kind {
        NamespaceKind::Mount => "mount",
        NamespaceKind::Cgroup => "cgroup",
        NamespaceKind::Uts => "uts",
        NamespaceKind::Ipc => "ipc",
        NamespaceKind::User => "user",
        NamespaceKind::Pid => "pid",
        NamespaceKind::Network => "network",
        NamespaceKind::Time => "time",
    }
}

/// The lines of an id map; `field` is `uidMappings` or `gidMappings`.
pub(super) fn id_map(
    mappings: Option<&Vec<LinuxIdMapping>>,
    field: &str,
) -> Result<Vec<IdMap>, OciError> {
    let mappings = mappings.map(Vec::as_slice).unwrap_or_default();
    if mappings.len() > MAX_ID_MAPS {
        let problem = format!("{} lines; the kernel takes {MAX_ID_MAPS}", mappings.len());
        return Err(invalid(format!("linux.{field}"), problem));
    }
    let line = |mapping: &LinuxIdMapping| {
        let (container, host, size) = (mapping.container_id(), mapping.host_id(), mapping.size());
        let fits = |first: u32| size > 0 && first.checked_add(size - 1).is_some();
        if fits(container) && fits(host) {
            Ok(IdMap { container, host, size })
        } else {
            Err(invalid(format!("linux.{field}"), format!("{container} {host} {size} is no range")))
        }
    };
    mappings.iter().map(line).collect()
}

/// Kernel parameters, by name. Each must belong to a namespace that the container has for itself, as runc
/// demands, so that one container of a pod cannot change another's.
pub(super) fn sysctls(
    linux: Option<&Linux>,
    namespaces: &[NamespaceKind],
) -> Result<Vec<Sysctl>, OciError> {
    let mut all = Vec::new();
    for (name, value) in linux.and_then(|linux| linux.sysctl().as_ref()).into_iter().flatten() {
        let name = normal_name(name);
        let owner = if name.starts_with("net.") {
            NamespaceKind::Network
        } else if name.starts_with("fs.mqueue.") || IPC_SYSCTLS.contains(&name.as_str()) {
            NamespaceKind::Ipc
        } else if name == "kernel.domainname" {
            NamespaceKind::Uts
        } else if name == "kernel.hostname" {
            let problem = "\"kernel.hostname\" is what the field hostname sets";
            return Err(invalid("linux.sysctl", problem));
        } else {
            let problem = format!("{name:?} is not of a namespace; a container may not change it");
            return Err(invalid("linux.sysctl", problem));
        };
        if !namespaces.contains(&owner) {
            let problem = format!("{name:?} needs a {} namespace of its own", self::name(owner));
            return Err(invalid("linux.sysctl", problem));
        }
        if name.split('.').any(|part| part.is_empty() || part.contains(['/', '\0'])) {
            return Err(invalid("linux.sysctl", format!("{name:?} is not a name")));
        }
        all.push(Sysctl { name, value: value.clone() });
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

const IPC_SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// `a.b` for either way of writing: `a/b` and `a.b`.
fn normal_name(name: &str) -> String {
    match name.find(['.', '/']) {
        Some(at) if name.as_bytes()[at] == b'/' => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
#[path = "namespaces_test.rs"]
mod namespaces_test;
