//! The accounting of a container as containerd has it: `io.containerd.cgroups.v2.Metrics`.
//!
//! Invariant: the numbers are the guest's.

use containerd_shim_protos::cgroups_v2::metrics::{
    CPUStat, IOEntry, IOStat, MemoryEvents, MemoryStat, Metrics, PidsStat,
};
use containerd_shim_protos::protobuf::well_known_types::any::Any;
use containerd_shim_protos::protobuf::{self, Message, MessageField};

use crate::accounts::Files;

/// Its type, for containerd.
const TYPE: &str = "io.containerd.cgroups.v2.Metrics";

/// `files` for containerd.
///
/// # Errors
/// It cannot be encoded.
pub(super) fn encoded(files: &Files<'_>) -> protobuf::Result<Any> {
    let value = metrics(files).write_to_bytes()?;
    Ok(Any { type_url: TYPE.to_owned(), value, ..Default::default() })
}

fn metrics(files: &Files<'_>) -> Metrics {
    let pids = PidsStat {
        current: files.number("pids.current"),
        limit: files.number("pids.max"),
        ..Default::default()
    };
    Metrics {
        pids: MessageField::some(pids),
        cpu: MessageField::some(cpu(files)),
        memory: MessageField::some(memory(files)),
        io: MessageField::some(io(files)),
        memory_events: MessageField::some(memory_events(files)),
        ..Default::default()
    }
}

fn cpu(files: &Files<'_>) -> CPUStat {
    let of = |key: &str| files.entry("cpu.stat", key);
    CPUStat {
        usage_usec: of("usage_usec"),
        user_usec: of("user_usec"),
        system_usec: of("system_usec"),
        nr_periods: of("nr_periods"),
        nr_throttled: of("nr_throttled"),
        throttled_usec: of("throttled_usec"),
        nr_bursts: of("nr_bursts"),
        burst_usec: of("burst_usec"),
        ..Default::default()
    }
}

fn memory(files: &Files<'_>) -> MemoryStat {
    let of = |key: &str| files.entry("memory.stat", key);
    MemoryStat {
        anon: of("anon"),
        file: of("file"),
        kernel_stack: of("kernel_stack"),
        slab: of("slab"),
        sock: of("sock"),
        shmem: of("shmem"),
        file_mapped: of("file_mapped"),
        file_dirty: of("file_dirty"),
        file_writeback: of("file_writeback"),
        anon_thp: of("anon_thp"),
        inactive_anon: of("inactive_anon"),
        active_anon: of("active_anon"),
        inactive_file: of("inactive_file"),
        active_file: of("active_file"),
        unevictable: of("unevictable"),
        slab_reclaimable: of("slab_reclaimable"),
        slab_unreclaimable: of("slab_unreclaimable"),
        pgfault: of("pgfault"),
        pgmajfault: of("pgmajfault"),
        workingset_refault: of("workingset_refault_anon") + of("workingset_refault_file"),
        workingset_activate: of("workingset_activate_anon") + of("workingset_activate_file"),
        workingset_nodereclaim: of("workingset_nodereclaim"),
        pgrefill: of("pgrefill"),
        pgscan: of("pgscan"),
        pgsteal: of("pgsteal"),
        pgactivate: of("pgactivate"),
        pgdeactivate: of("pgdeactivate"),
        pglazyfree: of("pglazyfree"),
        pglazyfreed: of("pglazyfreed"),
        thp_fault_alloc: of("thp_fault_alloc"),
        thp_collapse_alloc: of("thp_collapse_alloc"),
        usage: files.number("memory.current"),
        usage_limit: files.number("memory.max"),
        max_usage: files.number("memory.peak"),
        swap_usage: files.number("memory.swap.current"),
        swap_limit: files.number("memory.swap.max"),
        swap_max_usage: files.number("memory.swap.peak"),
        ..Default::default()
    }
}

fn memory_events(files: &Files<'_>) -> MemoryEvents {
    let of = |key: &str| files.entry("memory.events", key);
    MemoryEvents {
        low: of("low"),
        high: of("high"),
        max: of("max"),
        oom: of("oom"),
        oom_kill: of("oom_kill"),
        ..Default::default()
    }
}

fn io(files: &Files<'_>) -> IOStat {
    let entry = |(major, minor, counters): (u64, u64, Vec<(&str, u64)>)| {
        let of = |key| counters.iter().find(|(name, _)| *name == key).map_or(0, |(_, n)| *n);
        IOEntry {
            major,
            minor,
            rbytes: of("rbytes"),
            wbytes: of("wbytes"),
            rios: of("rios"),
            wios: of("wios"),
            ..Default::default()
        }
    };
    IOStat { usage: files.io().map(entry).collect(), ..Default::default() }
}

#[cfg(test)]
#[path = "metrics_test.rs"]
mod metrics_test;
