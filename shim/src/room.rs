//! How large the machine of a sandbox is, and becomes as containers join it and leave it.
//!
//! ```text
//! base + the containers' limits, at least `boot` and what sets of CPUs name, at most `max`
//! ```
//!
//! The base is what an empty sandbox has. A container without a limit adds nothing: it shares that with the others.
//!
//! Invariant: pure, but for [`host_cpus`] and [`Host::of_this`]; a machine is never smaller than it started nor larger than
//! it can be.

use std::collections::BTreeMap;

use cofferdam_vmm_api::{MAX_VCPUS, MiB};
use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, Settings};
use crate::oci::{Needs, millicpus};
use crate::sizing::{Size, described, whole_cpus};

/// Most vCPUs of a sandbox's machine unless `max_vcpus` says otherwise: one that is parked costs the machine's start some
/// instructions and the host some memory.
pub const DEFAULT_MAX_VCPUS: u8 = 8;

/// Most memory of any machine.
const MOST_MEMORY: MiB = MiB(1 << 20);

/// Memory comes and goes in blocks of this size.
const BLOCK: u64 = 2 << 20;

/// What containerd says of the pod's limits, all containers together: annotations of the sandbox.
const POD_QUOTA: &str = "io.kubernetes.cri.sandbox-cpu-quota";
const POD_PERIOD: &str = "io.kubernetes.cri.sandbox-cpu-period";
const POD_MEMORY: &str = "io.kubernetes.cri.sandbox-memory";

/// What a machine can have at most, by what this host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// CPUs that this process may use.
    pub cpus: u8,
    /// Memory; none if the host counts what is only reserved.
    pub memory: MiB,
}

/// The sizes of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// What the containers' limits come on top of.
    pub base: Size,
    /// What it starts with.
    pub boot: Size,
    /// What it can have.
    pub max: Size,
}

/// CPUs that this process may use.
#[must_use]
pub fn host_cpus() -> u8 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    u8::try_from(cpus).unwrap_or(u8::MAX)
}

impl Host {
    /// This one, with its `cpus`. Looks at its memory, which only a machine that grows has to know.
    #[must_use]
    pub fn of_this(cpus: u8) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let strict = read("/proc/sys/vm/overcommit_memory").trim() == "2";
        let memory = if strict { MiB(0) } else { memory_total(&read("/proc/meminfo")) };
        Self { cpus, memory }
    }
}

/// `MemTotal` of `/proc/meminfo`.
fn memory_total(meminfo: &str) -> MiB {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let count = u32::try_from(kilobytes.unwrap_or(0) >> 10).unwrap_or(u32::MAX);
    MiB(count & !1)
}

impl Room {
    /// That of a machine which stays as it is.
    #[must_use]
    pub fn none(size: Size) -> Self {
        Self { base: size, boot: size, max: size }
    }

    /// That of a sandbox on `host` that has `base` while it is empty, and whose `annotations` may tell what its
    /// containers will ask for together: then it has that from the start.
    ///
    /// # Errors
    /// An annotation that is no number.
    pub fn of_sandbox(
        base: Size,
        annotations: &BTreeMap<String, String>,
        settings: &Settings,
        host: Host,
    ) -> Result<Self, ConfigError> {
        let cpus = settings.max_vcpus.unwrap_or(host.cpus.min(DEFAULT_MAX_VCPUS)).min(MAX_VCPUS);
        let memory = settings.max_memory.map_or(host.memory, |bytes| whole(bytes.0));
        let max =
            Size { vcpus: cpus.max(base.vcpus), memory: memory.min(MOST_MEMORY).max(base.memory) };
        let room = Self { base, boot: base, max };
        let boot = room.size(&[pod_needs(annotations)?]);
        Ok(Self { boot, ..room })
    }

    /// Whether the machine can become larger than it starts.
    #[must_use]
    pub fn grows(&self) -> bool {
        self.max != self.boot
    }

    /// The size of the machine with containers that ask for `needs`.
    #[must_use]
    pub fn size<'a>(&self, needs: impl IntoIterator<Item = &'a Needs>) -> Size {
        let mut numbered = None;
        let add = |(memory, millicpus): (u64, u64), needs: &Needs| {
            let of = |limit: Option<u64>| limit.unwrap_or(0);
            (memory.saturating_add(of(needs.memory)), millicpus.saturating_add(of(needs.millicpus)))
        };
        let needs = needs.into_iter().inspect(|needs| numbered = numbered.max(needs.numbered));
        let (memory, millicpus) = needs.fold((0, 0), add);
        let numbered = numbered.map_or(0, |cpus| u8::try_from(cpus).unwrap_or(u8::MAX));
        let vcpus = self.base.vcpus.saturating_add(whole_cpus(millicpus)).max(numbered);
        let more = described(memory).div_ceil(BLOCK).saturating_mul(BLOCK);
        let memory = whole(self.base.memory.bytes().saturating_add(more));
        let Self { boot, max, .. } = self;
        Size {
            vcpus: vcpus.clamp(boot.vcpus, max.vcpus.max(boot.vcpus)),
            memory: memory.clamp(boot.memory, max.memory.max(boot.memory)),
        }
    }
}

fn whole(bytes: u64) -> MiB {
    MiB(u32::try_from(bytes >> 20).unwrap_or(u32::MAX))
}

/// What the containers of a pod ask for together. `cpu-shares` is a weight and asks for no CPU.
fn pod_needs(annotations: &BTreeMap<String, String>) -> Result<Needs, ConfigError> {
    let number = |name: &str| -> Result<Option<u64>, ConfigError> {
        let Some(value) = annotations.get(name) else { return Ok(None) };
        let number: i64 = value.trim().parse().map_err(|_| ConfigError::Annotation {
            name: name.to_owned(),
            value: value.clone(),
            problem: "not a number".to_owned(),
        })?;
        // Nothing, or less, is no limit.
        Ok(u64::try_from(number).ok().filter(|number| *number != 0))
    };
    let (quota, period) = (number(POD_QUOTA)?, number(POD_PERIOD)?);
    let millicpus = quota.and_then(|quota| millicpus(quota, period.unwrap_or(100_000)));
    Ok(Needs { memory: number(POD_MEMORY)?, millicpus, numbered: None })
}

#[cfg(test)]
#[path = "room_test.rs"]
mod room_test;
