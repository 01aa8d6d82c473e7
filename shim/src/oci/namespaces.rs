//! Namespaces, id maps and kernel parameters (OCI runtime-spec, config-linux#namespaces, #sysctl).
//!
//! Invariant: no namespace of the host is ever named to the guest.

use cofferdam_agent_protocol::{IdMap, Namespace, NamespaceKind, Sysctl};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::{OciError, invalid, unsupported};

/// Most lines of a uid or gid map (`user_namespaces(7)`).
const MAX_ID_MAPS: usize = 340;

/// The namespaces a container does not share with the agent.
pub(super) fn namespaces(linux: Option<&Linux>) -> Result<Vec<Namespace>, OciError> {
    let listed = linux.and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let mut all: Vec<Namespace> = Vec::new();
    for namespace in listed {
        let kind = kind(namespace.typ());
        if let Some(path) = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
            return Err(unsupported(
                format!("linux.namespaces {} with path {}", name(kind), path.display()),
                "a container in a virtual machine cannot join a namespace of the host",
            ));
        }
        if all.iter().any(|other| other.kind() == kind) {
            let problem = format!("{} is listed twice", name(kind));
            return Err(invalid("linux.namespaces", problem));
        }
        all.push(Namespace { kind: kind.into(), join: String::new() });
    }
    Ok(all)
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

/// Whether `kind` is among `namespaces`.
pub(super) fn has(namespaces: &[Namespace], kind: NamespaceKind) -> bool {
    namespaces.iter().any(|namespace| namespace.kind() == kind)
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
    namespaces: &[Namespace],
) -> Result<Vec<Sysctl>, OciError> {
    let mut all = Vec::new();
    for (name, value) in linux.and_then(|linux| linux.sysctl().as_ref()).into_iter().flatten() {
        let name = normal_name(name);
        let owner = if name.starts_with("net.") {
            NamespaceKind::Network
        } else if name.starts_with("fs.mqueue.") || IPC_SYSCTLS.contains(&name.as_str()) {
            NamespaceKind::Ipc
        } else if name == "kernel.domainname" || name == "kernel.hostname" {
            NamespaceKind::Uts
        } else {
            let problem = format!("{name:?} is not of a namespace; a container may not change it");
            return Err(invalid("linux.sysctl", problem));
        };
        if !has(namespaces, owner) {
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
