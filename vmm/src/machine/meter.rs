//! The account of a machine: what its parts count, gathered on request.
//!
//! Invariant: reading takes no lock that a vCPU or a device's thread holds, and opens nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use cofferdam_vmm_api::{Bdf, DeviceStats, KvmStats, KvmValue, Stats};
use cofferdam_vmm_devices::count::Counters;
use cofferdam_vmm_hv::{ExitCounts, Statistic, Statistics, total};

use super::stages::now_ns;

/// Where the numbers of a machine are.
#[derive(Default)]
pub(super) struct Meter {
    vcpus: Vec<Arc<ExitCounts>>,
    devices: Vec<MeteredDevice>,
    kvm_machine: Option<Statistics>,
    kvm_vcpus: Vec<Statistics>,
}

/// A device's counters, and which it is.
pub(super) struct MeteredDevice {
    pub(super) address: Bdf,
    pub(super) kind: &'static str,
    pub(super) counters: Arc<dyn Counters>,
}

impl Meter {
    /// Of a machine with these devices.
    pub(super) fn new(
        devices: Vec<MeteredDevice>,
        kvm_machine: Option<Statistics>,
        kvm_vcpus: Vec<Statistics>,
    ) -> Self {
        Self { vcpus: Vec::new(), devices, kvm_machine, kvm_vcpus }
    }

    /// Where the next vCPU counts its exits.
    pub(super) fn add_vcpu(&mut self) -> Arc<ExitCounts> {
        let counts = Arc::new(ExitCounts::default());
        self.vcpus.push(Arc::clone(&counts));
        counts
    }

    /// A device came.
    pub(super) fn add_device(&mut self, device: MeteredDevice) {
        self.devices.push(device);
    }

    /// The device at `address` went.
    pub(super) fn forget_device(&mut self, address: Bdf) {
        self.devices.retain(|device| device.address != address);
    }

    /// All numbers.
    pub(super) fn read(&self, paused: bool) -> Stats {
        let named = |counts: &[(&str, u64)]| {
            counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
        };
        let devices = self.devices.iter().map(|device| DeviceStats {
            address: device.address.to_string(),
            kind: device.kind.to_owned(),
            counts: named(&device.counters.read()),
        });
        Stats {
            at_ns: now_ns(),
            paused,
            vcpus: self.vcpus.iter().map(|counts| named(&counts.read())).collect(),
            devices: devices.collect(),
            kvm: self.kvm(),
        }
    }

    /// What cannot be read is left out.
    fn kvm(&self) -> KvmStats {
        let machine = self.kvm_machine.as_ref().and_then(|statistics| statistics.read().ok());
        let vcpus: Vec<_> =
            self.kvm_vcpus.iter().filter_map(|statistics| statistics.read().ok()).collect();
        KvmStats { machine: by_name(machine.unwrap_or_default()), vcpus: by_name(total(&vcpus)) }
    }
}

fn by_name(statistics: Vec<Statistic>) -> BTreeMap<String, KvmValue> {
    statistics.into_iter().map(|statistic| (statistic.name, statistic.values.into())).collect()
}
