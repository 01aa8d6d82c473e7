//! Linux resources to files of a control group v2 (OCI runtime-spec, config-linux#control-groups;
//! kernel, Documentation/admin-guide/cgroup-v2.rst).
//!
//! The cgroup lives in the guest. So what names CPUs, NUMA nodes or network classes of the host has no
//! meaning there and is a warning.
//!
//! Invariant: a file name has no slash and does not begin with a dot.

use cofferdam_agent_protocol::CgroupSetting;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::{OciError, invalid};

/// The settings for `resources`, in the order in which they must be written.
///
/// # Errors
/// The first value that makes no sense.
pub(crate) fn settings(
    resources: &LinuxResources,
    warnings: &mut Vec<String>,
) -> Result<Vec<CgroupSetting>, OciError> {
    let mut all = Vec::new();
    if let Some(memory) = resources.memory() {
        memory_settings(memory, &mut all)?;
        ignored_memory(memory, warnings);
    }
    if let Some(cpu) = resources.cpu() {
        cpu_settings(cpu, &mut all, warnings)?;
    }
    if let Some(limit) = resources.pids().as_ref().map(|pids| pids.limit()).filter(|n| *n != 0) {
        all.push(setting("pids.max", limit_text(limit)));
    }
    if let Some(io) = resources.block_io() {
        io_settings(io, &mut all)?;
    }
    for limit in resources.hugepage_limits().as_deref().unwrap_or_default() {
        let size = limit.page_size();
        if size.is_empty() || !size.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(invalid("linux.resources.hugepageLimits", format!("page size {size:?}")));
        }
        all.push(setting(&format!("hugetlb.{size}.max"), limit_text(limit.limit())));
        all.push(setting(&format!("hugetlb.{size}.rsvd.max"), limit_text(limit.limit())));
    }
    if resources.network().is_some() {
        warnings.push("linux.resources.network has no counterpart in cgroup v2; ignored".into());
    }
    if resources.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty()) {
        warnings.push("linux.resources.rdma: the guest has no RDMA devices; ignored".into());
    }
    let mut unified: Vec<_> = resources.unified().iter().flatten().collect();
    unified.sort();
    for (file, value) in unified {
        if file.is_empty() || file.contains('/') || file.starts_with('.') {
            return Err(invalid("linux.resources.unified", format!("{file:?} is not a file name")));
        }
        all.push(setting(file, value.clone()));
    }
    Ok(all)
}

fn setting(file: &str, value: impl Into<String>) -> CgroupSetting {
    CgroupSetting { file: file.to_owned(), value: value.into() }
}

/// Negative is "no limit".
fn limit_text(limit: i64) -> String {
    if limit < 0 { "max".into() } else { limit.to_string() }
}

fn memory_settings(memory: &LinuxMemory, all: &mut Vec<CgroupSetting>) -> Result<(), OciError> {
    let limit = memory.limit().filter(|limit| *limit != 0);
    if let Some(swap) = memory.swap().filter(|swap| *swap != 0) {
        all.push(setting("memory.swap.max", swap_only(swap, limit)?));
    }
    if let Some(limit) = limit {
        all.push(setting("memory.max", limit_text(limit)));
    }
    if let Some(reservation) = memory.reservation().filter(|low| *low != 0) {
        all.push(setting("memory.low", limit_text(reservation)));
    }
    Ok(())
}

/// What cgroup v2 has no file for. runc ignores it there, too; not all of it with a warning.
fn ignored_memory(memory: &LinuxMemory, warnings: &mut Vec<String>) {
    #[allow(deprecated, reason = "somebody may still ask for it")]
    let (kernel, kernel_tcp) = (memory.kernel(), memory.kernel_tcp());
    let asked = [
        ("swappiness", memory.swappiness().is_some()),
        ("disableOOMKiller", memory.disable_oom_killer() == Some(true)),
        ("kernel", kernel.is_some_and(|limit| limit != 0)),
        ("kernelTCP", kernel_tcp.is_some_and(|limit| limit != 0)),
    ];
    for (field, _) in asked.into_iter().filter(|(_, asked)| *asked) {
        warnings.push(format!(
            "linux.resources.memory.{field} has no counterpart in cgroup v2; ignored"
        ));
    }
}

/// OCI's `swap` is memory and swap together; cgroup v2 limits swap alone.
fn swap_only(swap: i64, limit: Option<i64>) -> Result<String, OciError> {
    let field = "linux.resources.memory.swap";
    if swap < 0 {
        return Ok("max".into());
    }
    match limit {
        Some(limit) if limit > 0 && swap >= limit => Ok((swap - limit).to_string()),
        Some(limit) if limit > 0 => Err(invalid(
            field,
            format!("memory and swap together ({swap}) are below memory ({limit})"),
        )),
        _ => Err(invalid(field, "set without a memory limit".to_owned())),
    }
}

fn cpu_settings(
    cpu: &LinuxCpu,
    all: &mut Vec<CgroupSetting>,
    warnings: &mut Vec<String>,
) -> Result<(), OciError> {
    let idle = cpu.idle().is_some_and(|idle| idle == 1);
    if idle {
        all.push(setting("cpu.idle", "1"));
    }
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0 && !idle) {
        all.push(setting("cpu.weight", weight(shares).to_string()));
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|q| *q > 0).map_or_else(|| "max".into(), |q| q.to_string());
        all.push(setting("cpu.max", format!("{quota} {}", period.unwrap_or(100_000))));
    }
    if let Some(burst) = cpu.burst().filter(|burst| *burst != 0) {
        all.push(setting("cpu.max.burst", burst.to_string()));
    }
    if cpu.realtime_runtime().is_some_and(|n| n != 0)
        || cpu.realtime_period().is_some_and(|n| n != 0)
    {
        let field = "linux.resources.cpu.realtimeRuntime";
        return Err(super::unsupported(field, "cgroup v2 has no real-time bandwidth control"));
    }
    for (name, value) in [("cpus", cpu.cpus()), ("mems", cpu.mems())] {
        if value.as_ref().is_some_and(|value| !value.is_empty()) {
            warnings.push(format!(
                "linux.resources.cpu.{name} names parts of the host, not of the virtual machine; \
                 only their number counts"
            ));
        }
    }
    Ok(())
}

/// CPU shares (2 to 262144, default 1024) to a weight (1 to 10000, default 100), linearly, as runc and
/// crun have always done it.
fn weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + ((shares - 2) * 9999) / 262_142
}

fn io_settings(io: &LinuxBlockIo, all: &mut Vec<CgroupSetting>) -> Result<(), OciError> {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        all.push(setting("io.weight", io_weight(weight)?.to_string()));
    }
    for device in io.weight_device().as_deref().unwrap_or_default() {
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let weight = io_weight(weight)?;
            all.push(setting(
                "io.weight",
                format!("{}:{} {weight}", device.major(), device.minor()),
            ));
        }
    }
    let throttles = [
        ("rbps", io.throttle_read_bps_device()),
        ("wbps", io.throttle_write_bps_device()),
        ("riops", io.throttle_read_iops_device()),
        ("wiops", io.throttle_write_iops_device()),
    ];
    for (key, devices) in throttles {
        for device in devices.as_deref().unwrap_or_default() {
            let rate = match device.rate() {
                0 => "max".to_owned(),
                rate => rate.to_string(),
            };
            let value = format!("{}:{} {key}={rate}", device.major(), device.minor());
            all.push(setting("io.max", value));
        }
    }
    Ok(())
}

/// Block I/O weight (10 to 1000) to an `io.weight` (1 to 10000), linearly.
fn io_weight(weight: u16) -> Result<u32, OciError> {
    if !(10..=1000).contains(&weight) {
        return Err(invalid(
            "linux.resources.blockIO.weight",
            format!("{weight} is not 10 to 1000"),
        ));
    }
    Ok(1 + (u32::from(weight) - 10) * 9999 / 990)
}

#[cfg(test)]
#[path = "cgroup_test.rs"]
mod cgroup_test;
