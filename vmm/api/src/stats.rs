//! What a machine has done so far, in numbers.
//!
//! Invariant: that of the largest machine fits in one message.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Numbers by name.
pub type Counts = BTreeMap<String, u64>;

/// What a machine has done so far. Counts begin with the machine and survive resets of its devices.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stats {
    /// When they were taken, in nanoseconds of the host's `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Whether the machine is paused.
    pub paused: bool,
    /// Exits of each vCPU to the monitor, by reason.
    pub vcpus: Vec<Counts>,
    /// Each device.
    pub devices: Vec<DeviceStats>,
    /// KVM's own statistics.
    pub kvm: KvmStats,
}

/// What a device has done so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceStats {
    /// Its PCI address, as the guest sees it.
    pub address: String,
    /// Its kind: `block`, `vsock` and so on.
    pub kind: String,
    /// What it counts.
    pub counts: Counts,
}

/// KVM's statistics, by its own names; empty on a host whose kernel does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KvmStats {
    /// Of the machine.
    pub machine: BTreeMap<String, KvmValue>,
    /// Of all vCPUs together: sums, and the greatest of peaks.
    pub vcpus: BTreeMap<String, KvmValue>,
}

/// One of KVM's statistics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KvmValue {
    /// A number.
    One(u64),
    /// The numbers of a histogram.
    Many(Vec<u64>),
}

impl From<Vec<u64>> for KvmValue {
    fn from(values: Vec<u64>) -> Self {
        match values[..] {
            [value] => Self::One(value),
            _ => Self::Many(values),
        }
    }
}

#[cfg(test)]
#[path = "stats_test.rs"]
mod stats_test;
