//! How large the machine of a pod is.
//!
//! Invariant: a container can use all of its memory limit: the guest's own needs come on top.

use cofferdam_vmm_api::{MAX_VCPUS, MiB};
use serde::{Deserialize, Serialize};

use crate::config::Settings;
use crate::oci::Needs;

/// Memory of a machine whose containers have no limit.
pub const DEFAULT_MEMORY: MiB = MiB(256);

/// What the guest needs for itself, whatever its size: kernel text and data, the unpacked image, the
/// agent, slabs and per-CPU data. Measured in a machine of 129 MiB: the kernel keeps 20 MiB to itself, and
/// kernel and agent use 14 MiB more with one container running; the rest is room for page tables, socket
/// buffers and page cache.
const FIXED_OVERHEAD: u64 = 64 << 20;

/// What it needs for each byte of memory: `struct page` is 64 bytes for 4096 (1/64).
const PAGE_STRUCTS: u64 = 64;

/// A size that no machine can have.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    /// CPUs.
    #[error("{0} vCPUs; 1 to {MAX_VCPUS} are possible")]
    Vcpus(u64),
    /// Memory.
    #[error("{0} bytes of memory; at most 1 TiB is possible")]
    Memory(u64),
    /// Memory, here.
    #[error("{wanted} of memory; this host has {there}, its swap included")]
    Host {
        /// What the settings say.
        wanted: MiB,
        /// What the host has.
        there: MiB,
    },
}

/// vCPUs and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Virtual CPUs.
    pub vcpus: u8,
    /// Memory.
    pub memory: MiB,
}

impl Size {
    /// The same on a host that has `there` of memory and swap. A limit over that is common, and means "all"; a setting is
    /// a mistake.
    ///
    /// # Errors
    /// [`SizeError::Host`].
    pub fn on_host(self, settings: &Settings, there: MiB) -> Result<Self, SizeError> {
        match settings.memory {
            Some(_) if self.memory > there => Err(SizeError::Host { wanted: self.memory, there }),
            _ => Ok(Self { memory: self.memory.min(there.max(DEFAULT_MEMORY)), ..self }),
        }
    }
}

/// Memory and swap of this host.
#[must_use]
pub fn host_memory() -> MiB {
    let known = rustix::system::sysinfo();
    let (memory, swap, unit) = (known.totalram, known.totalswap, u64::from(known.mem_unit));
    let bytes = memory.saturating_add(swap).saturating_mul(unit);
    MiB(u32::try_from(bytes >> 20).unwrap_or(u32::MAX))
}

/// The size for a container's `needs`; `host_cpus` is the most that limits alone ask for.
///
/// # Errors
/// [`SizeError`].
pub fn size(needs: &Needs, settings: &Settings, host_cpus: u8) -> Result<Size, SizeError> {
    let vcpus = match settings.vcpus {
        Some(0) => return Err(SizeError::Vcpus(0)),
        Some(vcpus) if vcpus > MAX_VCPUS => return Err(SizeError::Vcpus(vcpus.into())),
        Some(vcpus) => vcpus,
        // A quota over what the host has is common (a limit copied from elsewhere) and means "all".
        None => {
            let numbered = needs.numbered.map_or(1, |cpus| u8::try_from(cpus).unwrap_or(u8::MAX));
            needs.millicpus.map_or(1, whole_cpus).max(numbered).min(host_cpus.max(1))
        }
    };
    let memory = match (settings.memory, needs.memory) {
        (Some(memory), _) => mebibytes(memory.0)?,
        (None, Some(limit)) => mebibytes(with_overhead(limit))?,
        (None, None) => DEFAULT_MEMORY,
    };
    Ok(Size { vcpus: vcpus.clamp(1, MAX_VCPUS), memory })
}

/// The memory of a machine in which a container has `limit` bytes.
fn with_overhead(limit: u64) -> u64 {
    described(limit).saturating_add(FIXED_OVERHEAD)
}

/// `bytes` of memory, and what the guest needs to describe them.
pub(crate) fn described(bytes: u64) -> u64 {
    bytes.saturating_add(bytes / PAGE_STRUCTS)
}

/// As many CPUs as these thousandths need.
pub(crate) fn whole_cpus(millicpus: u64) -> u8 {
    u8::try_from(millicpus.div_ceil(1000)).unwrap_or(u8::MAX)
}

fn mebibytes(bytes: u64) -> Result<MiB, SizeError> {
    let count = u32::try_from(bytes.div_ceil(1 << 20)).ok().filter(|count| *count <= 1 << 20);
    count.map(MiB).ok_or(SizeError::Memory(bytes))
}

#[cfg(test)]
#[path = "sizing_test.rs"]
mod sizing_test;
