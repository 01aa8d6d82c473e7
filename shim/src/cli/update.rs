//! `cofferdam update`: new resources for a container.
//!
//! Invariant: what is written into the guest is what the container's configuration says from then on.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use super::Global;
use super::common::{block_on, find};
use crate::container::Status;
use crate::living;
use crate::units::Bytes;

/// Longest file of resources.
const MAX_RESOURCES: u64 = 1 << 20;

/// Options of `cofferdam update`.
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// File with linux.resources, - for standard input; other options are ignored then
    #[arg(short, long, value_name = "FILE")]
    resources: Option<PathBuf>,
    /// Weight of I/O, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// Period of the CPU limit in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// CPU time in a period, in microseconds; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_quota: Option<i64>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_burst: Option<u64>,
    /// Share of the CPUs, beside other containers
    #[arg(long, value_name = "SHARES")]
    cpu_share: Option<u64>,
    /// 1: run only when nothing else does
    #[arg(long, value_name = "0|1", allow_negative_numbers = true)]
    cpu_idle: Option<i64>,
    /// Ignored: cgroup v2 has no real-time limits
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<u64>,
    /// Ignored: cgroup v2 has no real-time limits
    #[arg(long, value_name = "MICROSECONDS", allow_negative_numbers = true)]
    cpu_rt_runtime: Option<i64>,
    /// CPUs to run on, for example 0-3
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Memory limit, for example 512M; -1 for none
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Memory that is left alone as long as it can be
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_reservation: Option<String>,
    /// Limit of memory and swap together; -1 for none
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Ignored: cgroup v2 does not count the kernel's memory apart
    #[arg(long, value_name = "SIZE")]
    kernel_memory: Option<String>,
    /// Ignored: cgroup v2 does not count the kernel's memory apart
    #[arg(long, value_name = "SIZE")]
    kernel_memory_tcp: Option<String>,
    /// Most processes; -1 for no limit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Ignored: about the host's caches
    #[arg(long, value_name = "SCHEMA")]
    l3_cache_schema: Option<String>,
    /// Ignored: about the host's memory
    #[arg(long, value_name = "SCHEMA")]
    mem_bw_schema: Option<String>,
    /// The container
    id: String,
}

impl Update {
    /// Changes the resources.
    pub(super) fn execute(&self, global: &Global) -> Result<()> {
        let (saved, status) = find(&global.root, &self.id)?;
        if status == Status::Stopped {
            bail!("container not running");
        }
        let wanted = self.wanted()?;
        block_on(living::update(&global.root, &saved, &wanted))
    }

    /// What is asked for, as `linux.resources` has it.
    fn wanted(&self) -> Result<Vec<u8>> {
        if let Some(path) = &self.resources {
            let mut text = Vec::new();
            let file: Box<dyn Read> = if path.as_os_str() == "-" {
                Box::new(std::io::stdin())
            } else {
                let opened = std::fs::File::open(path);
                Box::new(opened.with_context(|| format!("opening {}", path.display()))?)
            };
            file.take(MAX_RESOURCES).read_to_end(&mut text).context("reading the resources")?;
            return Ok(text);
        }
        let size = |name: &str, text: &Option<String>| -> Result<Option<i64>> {
            let Some(text) = text else { return Ok(None) };
            if text == "-1" {
                return Ok(Some(-1));
            }
            let bytes: Bytes = text
                .parse()
                .map_err(|error| anyhow::anyhow!("invalid value for {name}: {text}: {error}"))?;
            Ok(Some(i64::try_from(bytes.0)?))
        };
        let memory = object([
            ("limit", json!(size("memory", &self.memory)?)),
            ("reservation", json!(size("memory-reservation", &self.memory_reservation)?)),
            ("swap", json!(size("memory-swap", &self.memory_swap)?)),
        ]);
        let cpu = object([
            ("shares", json!(self.cpu_share)),
            ("quota", json!(self.cpu_quota)),
            ("period", json!(self.cpu_period)),
            ("burst", json!(self.cpu_burst)),
            ("idle", json!(self.cpu_idle)),
            ("cpus", json!(self.cpuset_cpus)),
            ("mems", json!(self.cpuset_mems)),
            ("realtimePeriod", json!(self.cpu_rt_period)),
            ("realtimeRuntime", json!(self.cpu_rt_runtime)),
        ]);
        let all = object([
            ("memory", memory),
            ("cpu", cpu),
            ("pids", object([("limit", json!(self.pids_limit))])),
            ("blockIO", object([("weight", json!(self.blkio_weight))])),
        ]);
        Ok(if all.is_null() { b"{}".to_vec() } else { serde_json::to_vec(&all)? })
    }
}

/// An object of those members that are not null; null if all are.
fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let members = members.into_iter().filter(|(_, value)| !value.is_null());
    let map: Map<String, Value> = members.map(|(name, value)| (name.to_owned(), value)).collect();
    if map.is_empty() { Value::Null } else { Value::Object(map) }
}

#[cfg(test)]
#[path = "update_test.rs"]
mod update_test;
