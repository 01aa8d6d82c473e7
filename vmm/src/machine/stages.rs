//! The clock of the stages, and how a device's first use is noticed.
//!
//! Invariant: an observed device behaves as the device itself.

use std::sync::Arc;

use cofferdam_vmm_devices::count::Counters;
use cofferdam_vmm_devices::virtio::{ActivateError, Activation, DeviceId, VirtioDevice, Worker};
use nix::time::{ClockId, clock_gettime};

use super::outcome::Outcome;

/// Now, in nanoseconds of the host's `CLOCK_MONOTONIC`.
#[must_use]
pub fn now_ns() -> u64 {
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(now.tv_sec()) * 1_000_000_000 + part(now.tv_nsec())
}

/// A device whose activation is noted.
pub(super) struct Observed {
    pub(super) device: Box<dyn VirtioDevice>,
    pub(super) outcome: Arc<Outcome>,
}

impl VirtioDevice for Observed {
    fn id(&self) -> DeviceId {
        self.device.id()
    }

    fn queue_sizes(&self) -> &[u16] {
        self.device.queue_sizes()
    }

    fn features(&self) -> u64 {
        self.device.features()
    }

    fn read_config(&self, offset: usize, data: &mut [u8]) {
        self.device.read_config(offset, data);
    }

    fn write_config(&mut self, offset: usize, data: &[u8]) {
        self.device.write_config(offset, data);
    }

    fn counters(&self) -> Arc<dyn Counters> {
        self.device.counters()
    }

    fn activate(&mut self, activation: Activation) -> Result<Box<dyn Worker>, ActivateError> {
        self.outcome.driver_started();
        self.device.activate(activation)
    }
}
