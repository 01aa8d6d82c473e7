//! Linux resources to files of a control group v2 (OCI runtime-spec, config-linux#control-groups;
//! kernel, Documentation/admin-guide/cgroup-v2.rst).
//!
//! The cgroup lives in the guest. So what names NUMA nodes or network classes of the host has no meaning there and
//! is a warning. A set of CPUs goes to the agent as it is, which fits it to the CPUs of the machine.
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
    for (index, limit) in resources.hugepage_limits().iter().flatten().enumerate() {
        let size = limit.page_size();
        if size.is_empty() || !size.bytes().all(|b| b.is_ascii_alphanumeric()) {
            let field = format!("linux.resources.hugepageLimits[{index}].pageSize");
            return Err(invalid(field, format!("{size:?} is not a page size")));
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
        if value.contains('\0') {
            return Err(invalid(format!("linux.resources.unified.{file}"), "a NUL byte"));
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
    match memory.swap().filter(|swap| *swap != 0) {
        Some(swap) => all.push(setting("memory.swap.max", swap_only(swap, limit)?)),
        // No limit of memory, in cgroup v1's words, is none of both together.
        None if limit == Some(-1) => all.push(setting("memory.swap.max", "max")),
        None => {}
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
    match cpu.idle() {
        None => {}
        Some(idle @ (0 | 1)) => all.push(setting("cpu.idle", idle.to_string())),
        Some(idle) => {
            let problem = format!("{idle} is neither 0 nor 1");
            return Err(invalid("linux.resources.cpu.idle", problem));
        }
    }
    // An idle group has no weight.
    if let Some(shares) = cpu.shares().filter(|shares| *shares != 0 && cpu.idle() != Some(1)) {
        all.push(setting("cpu.weight", weight(shares).to_string()));
    }
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    if quota.is_some() || period.is_some() {
        let quota = quota.filter(|q| *q > 0).map_or_else(|| "max".into(), |q| q.to_string());
        all.push(setting("cpu.max", format!("{quota} {}", period.unwrap_or(100_000))));
    }
    if let Some(burst) = cpu.burst() {
        all.push(setting("cpu.max.burst", burst.to_string()));
    }
    let asked = [
        ("realtimeRuntime", cpu.realtime_runtime().is_some_and(|n| n != 0)),
        ("realtimePeriod", cpu.realtime_period().is_some_and(|n| n != 0)),
    ];
    for (field, _) in asked.into_iter().filter(|(_, asked)| *asked) {
        let text = "has no counterpart in cgroup v2; ignored";
        warnings.push(format!("linux.resources.cpu.{field} {text}"));
    }
    if let Some(cpus) = cpu.cpus().as_ref().filter(|cpus| !cpus.is_empty()) {
        if !cpus.bytes().all(|b| b.is_ascii_digit() || b" ,-\n".contains(&b)) {
            return Err(invalid(
                "linux.resources.cpu.cpus",
                format!("{cpus:?} is not a list of CPUs"),
            ));
        }
        all.push(setting("cpuset.cpus", cpus.trim()));
    }
    if cpu.mems().as_ref().is_some_and(|mems| !mems.is_empty() && mems.trim() != "0") {
        let text = "names memory nodes of the host; the virtual machine has one; ignored";
        warnings.push(format!("linux.resources.cpu.mems {text}"));
    }
    Ok(())
}

/// CPU shares (2 to 262144, default 1024) to a weight (1 to 10000, default 100), as runc 1.3.2 and crun do it: a
/// curve through both ends and both defaults, quadratic in the logarithms.
fn weight(shares: u64) -> u32 {
    let shares = u32::try_from(shares.clamp(2, 262_144)).unwrap_or(262_144);
    let log = f64::from(shares).log2();
    let exact = 10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
    // The default is a whole number but for the rounding of its terms.
    let exact = exact - 1e-9 * exact;
    (1..10_000).find(|weight| f64::from(*weight) >= exact).unwrap_or(10_000)
}

fn io_settings(io: &LinuxBlockIo, all: &mut Vec<CgroupSetting>) -> Result<(), OciError> {
    if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
        all.push(setting("io.weight", io_weight("weight", weight)?.to_string()));
    }
    for (index, device) in io.weight_device().iter().flatten().enumerate() {
        if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
            let weight = io_weight(&format!("weightDevice[{index}].weight"), weight)?;
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
fn io_weight(field: &str, weight: u16) -> Result<u32, OciError> {
    if !(10..=1000).contains(&weight) {
        let field = format!("linux.resources.blockIO.{field}");
        return Err(invalid(field, format!("{weight} is not 10 to 1000")));
    }
    Ok(1 + (u32::from(weight) - 10) * 9999 / 990)
}

#[cfg(test)]
#[path = "cgroup_test.rs"]
mod cgroup_test;
