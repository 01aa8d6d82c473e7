//! A bundle to the plan of a container and what the machine needs for it.
//!
//! Invariant: pure but for the given function that reads small files.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use cofferdam_agent_protocol::{
    CgroupPlan, ContainerPlan, IdMap, Mount, Namespace, NamespaceKind, RootfsPlan,
};
use oci_spec::runtime::{Linux, LinuxResources, LinuxSchedulerPolicy, Process};
use serde::{Deserialize, Serialize};

use super::guest_hooks::{self, About};
use super::hooks::{self, Hooks};
use super::host_file::HostFile;
use super::mount_options::propagation;
use super::mounts::{Around, MAX_FILES, Volume, clean, mounts};
use super::namespaces::HostNetwork;
use super::{
    Bundle, DeviceRules, HostDisk, OciError, cgroup, devices, invalid, namespaces, process, time,
    unsupported,
};

/// What a container's limits ask of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Memory limit in bytes.
    pub memory: Option<u64>,
    /// Thousandths of a CPU, rounded up, from quota and period, or from the number of CPUs in the set.
    pub millicpus: Option<u64>,
    /// Without a quota, as many CPUs as there are up to the last one of a set that can stay what it is.
    pub numbered: Option<u64>,
}

/// A bundle, translated.
#[derive(Clone, Debug)]
pub struct Translated {
    /// The container; its layers, upper side and streams are filled in when the machine runs.
    pub container: ContainerPlan,
    /// Those of its mounts that are volumes; their sources are filled in when they are mounted.
    pub(crate) volumes: Vec<Volume>,
    /// The process wants a terminal.
    pub terminal: bool,
    /// For the machine's size.
    pub needs: Needs,
    /// `annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Hooks to run on the host.
    pub hooks: Hooks,
    /// The network namespace on the host.
    pub network: HostNetwork,
    /// `hostname`, which is the pod's as well.
    pub hostname: String,
    /// Block devices of the host that it is given.
    pub disks: Vec<HostDisk>,
    /// Its device rules, which name devices of the host.
    pub device_rules: DeviceRules,
    /// What was ignored, and why.
    pub warnings: Vec<String>,
}

/// Translates `bundle` for the container `id`; `read` gives the content of a small file of the host, `member` the
/// container of the same pod whose proxy is the process with that number.
///
/// # Errors
/// The first thing that makes no sense or cannot be done in a pod.
pub fn translate(
    id: &str,
    bundle: &Bundle,
    read: &dyn Fn(&Path) -> io::Result<HostFile>,
    member: &dyn Fn(u32) -> Option<String>,
) -> Result<Translated, OciError> {
    let spec = &bundle.spec;
    let linux = spec.linux().as_ref();
    let mut warnings = bundle.warnings.clone();
    refuse_what_cannot_be(linux, &mut warnings)?;
    let process =
        spec.process().as_ref().ok_or_else(|| invalid("process", "there is nothing to run"))?;
    refuse_deadline_on_some_cpus(process, linux)?;
    let own = namespaces::namespaces(linux, member)?;
    let has = |kind| own.listed.contains(&kind);
    let mut hostname = spec.hostname().clone().unwrap_or_default();
    let mut domainname = spec.domainname().clone().unwrap_or_default();
    host_name("hostname", &hostname, has(NamespaceKind::Uts))?;
    host_name("domainname", &domainname, has(NamespaceKind::Uts))?;
    let pod_hostname = hostname.clone();
    if own.pods.contains(&NamespaceKind::Uts) {
        // It is the pod's, which was named when it was made.
        (hostname, domainname) = (String::new(), String::new());
    }
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let settings = resources.map(|r| cgroup::settings(r, &mut warnings)).transpose()?;
    let (uid_map, gid_map) = id_maps(linux, has(NamespaceKind::User), &mut warnings)?;
    let around = Around {
        bundle: &bundle.directory,
        rootfs: &bundle.rootfs,
        read,
        user_namespace: has(NamespaceKind::User).then_some((&uid_map, &gid_map)),
        room: Cell::new(MAX_FILES),
    };
    let (mounts, volumes) =
        mounts(spec.mounts().as_deref().unwrap_or_default(), &around, &mut warnings)?;
    let delegated = delegated(&own.plan, &mounts);
    let annotations = spec.annotations().iter().flatten();
    let annotations = annotations.map(|(key, value)| (key.clone(), value.clone())).collect();
    let about = About { id, bundle: &bundle.directory, annotations: &annotations };
    let (create_hooks, start_hooks) = guest_hooks::hooks(spec.hooks().as_ref(), &about)?;
    let (nodes, device_rules) = (devices::nodes(linux)?, devices::rules(linux, &mut warnings)?);
    let disks = devices::host_disks(&nodes, &device_rules);
    let readonly = spec.root().as_ref().and_then(|root| root.readonly()).unwrap_or(false);
    let mut container = ContainerPlan {
        id: id.to_owned(),
        rootfs: Some(RootfsPlan {
            readonly,
            propagation: rootfs_propagation(linux)?,
            ..Default::default()
        }),
        mounts,
        uid_map,
        gid_map,
        time_offsets: time::offsets(linux, &own.plan)?,
        create_hooks,
        start_hooks,
        sysctls: namespaces::sysctls(linux, &own.listed)?,
        namespaces: own.plan,
        hostname,
        domainname,
        cgroup: Some(CgroupPlan {
            settings: settings.unwrap_or_default(),
            device_filter: Vec::new(),
            delegated,
        }),
        devices: nodes,
        masked_paths: paths("maskedPaths", linux.and_then(|l| l.masked_paths().as_ref()))?,
        readonly_paths: paths("readonlyPaths", linux.and_then(|l| l.readonly_paths().as_ref()))?,
        process: Some(process::plan(process, linux, &mut warnings)?),
    };
    devices::substitute(&mut container, &device_rules, &[])?;
    Ok(Translated {
        container,
        volumes,
        terminal: process.terminal().unwrap_or(false),
        needs: needs(resources),
        annotations,
        hooks: hooks::hooks(spec.hooks().as_ref())?,
        network: own.network,
        hostname: pod_hostname,
        disks,
        device_rules,
        warnings,
    })
}

/// The maps of user and group ids. As with runc, which does not look at them then, there are none without a
/// `user_namespace`.
fn id_maps(
    linux: Option<&Linux>,
    user_namespace: bool,
    warnings: &mut Vec<String>,
) -> Result<(Vec<IdMap>, Vec<IdMap>), OciError> {
    let mut uid = namespaces::id_map(linux.and_then(|l| l.uid_mappings().as_ref()), "uidMappings")?;
    let mut gid = namespaces::id_map(linux.and_then(|l| l.gid_mappings().as_ref()), "gidMappings")?;
    for (map, field) in [(&mut uid, "uidMappings"), (&mut gid, "gidMappings")] {
        if !user_namespace && !map.is_empty() {
            let cause = "there is no user namespace in linux.namespaces; ignored";
            warnings.push(format!("linux.{field}: {cause}"));
            map.clear();
        }
    }
    Ok((uid, gid))
}

/// Whether the container's user owns its control group: in a control group namespace of its own, where the container can
/// write to it (OCI runtime-spec, config-linux#cgroup-ownership; as runc sees it).
fn delegated(namespaces: &[Namespace], mounts: &[Mount]) -> bool {
    let own = |namespace: &Namespace| {
        namespace.kind() == NamespaceKind::Cgroup && namespace.join.is_empty()
    };
    let writable = |mount: &Mount| {
        mount.source == b"cgroup"
            && clean(&mount.destination) == b"/sys/fs/cgroup"
            && mount.flags & libc::MS_RDONLY == 0
    };
    namespaces.iter().any(own) && mounts.iter().any(writable)
}

fn refuse_what_cannot_be(
    linux: Option<&Linux>,
    warnings: &mut Vec<String>,
) -> Result<(), OciError> {
    let Some(linux) = linux else { return Ok(()) };
    if linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()) {
        return Err(unsupported(
            "linux.netDevices",
            "a device of the host cannot move into a guest",
        ));
    }
    if linux.memory_policy().is_some() {
        return Err(unsupported("linux.memoryPolicy", "the machine has one NUMA node"));
    }
    if linux.intel_rdt().is_some() {
        warnings.push("linux.intelRdt is about the host's processors; ignored".into());
    }
    if linux.mount_label().as_ref().is_some_and(|label| !label.is_empty()) {
        warnings.push("linux.mountLabel: the guest has no SELinux; ignored".into());
    }
    Ok(())
}

/// The kernel lets a process have a deadline only where it may run on every CPU (`sched_setattr(2)`, `EPERM`). A set that
/// was written for the host would be all of the machine's; refused in runc's words all the same.
fn refuse_deadline_on_some_cpus(process: &Process, linux: Option<&Linux>) -> Result<(), OciError> {
    let cpu = linux.and_then(|linux| linux.resources().as_ref()?.cpu().as_ref());
    let set = cpu.and_then(|cpu| cpu.cpus().as_deref()).unwrap_or_default();
    let policy = process.scheduler().as_ref().map(|scheduler| *scheduler.policy());
    if policy == Some(LinuxSchedulerPolicy::SchedDeadline) && !set.is_empty() {
        let problem = "process scheduler can't be used together with AllowedCPUs";
        return Err(invalid("process.scheduler.policy", problem));
    }
    Ok(())
}

/// `sethostname(2)` takes 64 bytes, and only in a uts namespace of its own.
fn host_name(field: &str, name: &str, own: bool) -> Result<(), OciError> {
    if name.len() > 64 || name.contains('\0') {
        return Err(invalid(field, "over 64 bytes, or holds a NUL byte"));
    }
    if !name.is_empty() && !own {
        return Err(invalid(field, "needs a uts namespace in linux.namespaces"));
    }
    Ok(())
}

/// Paths in the container, of the list `field`.
fn paths(field: &str, list: Option<&Vec<String>>) -> Result<Vec<Vec<u8>>, OciError> {
    let one = |(index, path): (usize, &String)| {
        if path.is_empty() || path.contains('\0') {
            let field = format!("linux.{field}[{index}]");
            return Err(invalid(field, "an empty path or a NUL byte"));
        }
        Ok(path.clone().into_bytes())
    };
    list.into_iter().flatten().enumerate().map(one).collect()
}

fn rootfs_propagation(linux: Option<&Linux>) -> Result<u64, OciError> {
    match linux.and_then(|linux| linux.rootfs_propagation().as_deref()) {
        None | Some("") => Ok(0),
        Some(name) => propagation(name)
            .ok_or_else(|| invalid("linux.rootfsPropagation", format!("{name:?} is unknown"))),
    }
}

/// Sets of CPUs below this number are the same in the machine: a program that is told by number where to run finds it.
const LOW_CPUS: u64 = 8;

/// What `resources` ask of the machine.
pub(super) fn needs(resources: Option<&LinuxResources>) -> Needs {
    let Some(resources) = resources else { return Needs::default() };
    let limit = resources.memory().as_ref().and_then(|memory| memory.limit());
    let memory = limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit != 0);
    let cpu = resources.cpu().as_ref();
    let quota = cpu.and_then(|cpu| cpu.quota()).and_then(|quota| u64::try_from(quota).ok());
    let period = cpu.and_then(|cpu| cpu.period()).filter(|p| *p != 0).unwrap_or(100_000);
    let limited = quota.and_then(|quota| millicpus(quota, period));
    let set = cpu.and_then(|cpu| cpu.cpus().as_deref()).filter(|_| limited.is_none());
    let (count, numbered) = set.and_then(cpus_for_set).unzip();
    let counted = count.map(|count| count.saturating_mul(1000));
    Needs { memory, millicpus: limited.or(counted), numbered: numbered.flatten() }
}

/// The CPUs that a quota in each period is, in thousandths; neither is a limit if it is 0.
pub(crate) fn millicpus(quota: u64, period: u64) -> Option<u64> {
    let limited = quota != 0 && period != 0;
    limited.then(|| quota.saturating_mul(1000).div_ceil(period.max(1)))
}

/// How many CPUs a set such as `0-3,8` has; and of one of low numbers, which can stay what it is, how many a machine has
/// that has the last of them.
fn cpus_for_set(list: &str) -> Option<(u64, Option<u64>)> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        Some((last.checked_sub(first)?.checked_add(1)?, last))
    };
    let ranges = list.split(',').map(|part| range(part.trim())).collect::<Option<Vec<_>>>()?;
    let last = ranges.iter().map(|(_, last)| *last).max().filter(|last| *last < LOW_CPUS);
    let count = ranges.iter().try_fold(0u64, |sum, (count, _)| sum.checked_add(*count));
    Some((count.filter(|n| *n > 0)?, last.map(|last| last + 1)))
}
