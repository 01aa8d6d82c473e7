//! The common configuration structure (virtio 1.2, 4.1.4.3) and the status of the device (2.1).
//!
//! Invariant: bits of the status are gained in the specification's order and lost only by a reset;
//! features and queues are frozen once they are agreed on and enabled.

use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::super::F_VERSION_1;
use super::VirtioPci;
use crate::regmap::{RegMap, Register, Registers};

/// Status bits.
pub(super) const ACKNOWLEDGE: u8 = 1;
pub(super) const DRIVER: u8 = 2;
pub(super) const DRIVER_OK: u8 = 4;
pub(super) const FEATURES_OK: u8 = 8;
pub(super) const NEEDS_RESET: u8 = 64;
pub(super) const FAILED: u8 = 128;

/// Fields.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    DeviceFeatureSelect,
    DeviceFeature,
    DriverFeatureSelect,
    DriverFeature,
    ConfigVector,
    NumQueues,
    DeviceStatus,
    ConfigGeneration,
    QueueSelect,
    QueueSize,
    QueueVector,
    QueueEnable,
    QueueNotifyOff,
    QueueDesc,
    QueueDriver,
    QueueDevice,
}

const fn field(id: Field, offset: u64, size: u8) -> Register<Field> {
    Register { id, offset, size }
}

/// The structure.
pub(super) const COMMON: RegMap<Field> = RegMap(&[
    field(Field::DeviceFeatureSelect, 0x00, 4),
    field(Field::DeviceFeature, 0x04, 4),
    field(Field::DriverFeatureSelect, 0x08, 4),
    field(Field::DriverFeature, 0x0c, 4),
    field(Field::ConfigVector, 0x10, 2),
    field(Field::NumQueues, 0x12, 2),
    field(Field::DeviceStatus, 0x14, 1),
    field(Field::ConfigGeneration, 0x15, 1),
    field(Field::QueueSelect, 0x16, 2),
    field(Field::QueueSize, 0x18, 2),
    field(Field::QueueVector, 0x1a, 2),
    field(Field::QueueEnable, 0x1c, 2),
    field(Field::QueueNotifyOff, 0x1e, 2),
    field(Field::QueueDesc, 0x20, 8),
    field(Field::QueueDriver, 0x28, 8),
    field(Field::QueueDevice, 0x30, 8),
]);

/// What the driver has set; plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CommonState {
    device_feature_select: u32,
    driver_feature_select: u32,
    pub(super) driver_features: u64,
    queue_select: u16,
    pub(super) queues: Vec<QueueSetup>,
}

/// What the driver has set of a queue; plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueueSetup {
    pub(super) max_size: u16,
    pub(super) size: u16,
    pub(super) enabled: bool,
    pub(super) descriptors: u64,
    pub(super) driver: u64,
    pub(super) device: u64,
}

impl CommonState {
    /// The state after reset.
    pub(super) fn new(queue_sizes: &[u16]) -> Self {
        let queue = |&max_size: &u16| QueueSetup {
            max_size,
            size: max_size,
            enabled: false,
            descriptors: 0,
            driver: 0,
            device: 0,
        };
        Self {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues: queue_sizes.iter().map(queue).collect(),
        }
    }

    fn queue(&self) -> Option<&QueueSetup> {
        self.queues.get(usize::from(self.queue_select))
    }
}

/// The half of `features` that a select register means.
fn half(features: u64, select: u32) -> u64 {
    match select {
        0 => features & 0xffff_ffff,
        1 => features >> 32,
        _ => 0,
    }
}

impl Registers<Field> for VirtioPci {
    fn get(&self, id: Field) -> u64 {
        let common = &self.common;
        let queue = common.queue();
        let selected = self.link.queue_vectors.get(usize::from(common.queue_select));
        match id {
            Field::DeviceFeatureSelect => common.device_feature_select.into(),
            Field::DeviceFeature => half(self.offered(), common.device_feature_select),
            Field::DriverFeatureSelect => common.driver_feature_select.into(),
            Field::DriverFeature => half(common.driver_features, common.driver_feature_select),
            Field::ConfigVector => self.link.config_vector.load(Ordering::Acquire).into(),
            Field::NumQueues => common.queues.len() as u64,
            Field::DeviceStatus => self.status().into(),
            Field::ConfigGeneration => self.link.generation().into(),
            Field::QueueSelect => common.queue_select.into(),
            Field::QueueSize => queue.map_or(0, |q| q.size.into()),
            Field::QueueVector => {
                selected.map_or(super::link::NO_VECTOR, |v| v.load(Ordering::Acquire)).into()
            }
            Field::QueueEnable => queue.map_or(0, |q| q.enabled.into()),
            Field::QueueNotifyOff => queue.map_or(0, |_| common.queue_select.into()),
            Field::QueueDesc => queue.map_or(0, |q| q.descriptors),
            Field::QueueDriver => queue.map_or(0, |q| q.driver),
            Field::QueueDevice => queue.map_or(0, |q| q.device),
        }
    }

    fn set(&mut self, id: Field, value: u64) {
        let word = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        let short = u16::try_from(value & 0xffff).unwrap_or(0);
        match id {
            Field::DeviceFeatureSelect => self.common.device_feature_select = word,
            Field::DriverFeatureSelect => self.common.driver_feature_select = word,
            Field::DriverFeature => self.accept_features(word),
            Field::ConfigVector => {
                self.link.config_vector.store(self.link.checked_vector(value), Ordering::Release);
            }
            Field::DeviceStatus => self.write_status(u8::try_from(value & 0xff).unwrap_or(0)),
            Field::QueueSelect => self.common.queue_select = short,
            Field::QueueVector => {
                let selected = usize::from(self.common.queue_select);
                if let Some(vector) = self.link.queue_vectors.get(selected) {
                    vector.store(self.link.checked_vector(value), Ordering::Release);
                }
            }
            Field::QueueEnable if value == 1 => self.enable_queue(),
            Field::QueueSize => self.set_queue(|queue| queue.size = short),
            Field::QueueDesc => self.set_queue(|queue| queue.descriptors = value),
            Field::QueueDriver => self.set_queue(|queue| queue.driver = value),
            Field::QueueDevice => self.set_queue(|queue| queue.device = value),
            // Read-only; and a queue is disabled by a reset only (virtio 1.2, 4.1.4.3.2).
            Field::DeviceFeature
            | Field::NumQueues
            | Field::ConfigGeneration
            | Field::QueueEnable
            | Field::QueueNotifyOff => {}
        }
    }
}

impl VirtioPci {
    /// The device's status.
    pub(super) fn status(&self) -> u8 {
        self.link.status.load(Ordering::Acquire)
    }

    fn offered(&self) -> u64 {
        self.device.features() | F_VERSION_1
    }

    /// The driver writes half of its features; too late once they are agreed on.
    fn accept_features(&mut self, word: u32) {
        if self.status() & FEATURES_OK != 0 {
            return;
        }
        let features = self.common.driver_features;
        self.common.driver_features = match self.common.driver_feature_select {
            0 => (features & !0xffff_ffff) | u64::from(word),
            1 => (features & 0xffff_ffff) | u64::from(word) << 32,
            _ => features,
        };
    }

    /// The driver sets up the selected queue; too late once it is enabled or the driver ready.
    fn set_queue(&mut self, change: impl FnOnce(&mut QueueSetup)) {
        if self.status() & DRIVER_OK != 0 {
            return;
        }
        let selected = usize::from(self.common.queue_select);
        if let Some(queue) = self.common.queues.get_mut(selected).filter(|queue| !queue.enabled) {
            change(queue);
        }
    }

    /// Queues are enabled between `FEATURES_OK` and `DRIVER_OK` (virtio 1.2, 3.1.1).
    fn enable_queue(&mut self) {
        if self.status() & FEATURES_OK != 0 {
            self.set_queue(|queue| queue.enabled = true);
        }
    }

    /// The driver writes the status: zero resets, everything else adds bits (virtio 1.2, 2.1).
    fn write_status(&mut self, value: u8) {
        if value == 0 {
            self.reset();
            return;
        }
        self.gain(value & FAILED);
        if self.status() & (FAILED | NEEDS_RESET) != 0 {
            return;
        }
        self.gain(value & ACKNOWLEDGE);
        if self.status() & ACKNOWLEDGE != 0 {
            self.gain(value & DRIVER);
        }
        let agreed = self.common.driver_features & F_VERSION_1 != 0
            && self.common.driver_features & !self.offered() == 0;
        if self.status() & DRIVER != 0 && agreed {
            self.gain(value & FEATURES_OK);
        }
        let starts =
            value & DRIVER_OK != 0 && self.status() & (FEATURES_OK | DRIVER_OK) == FEATURES_OK;
        if starts {
            self.gain(DRIVER_OK);
            self.activate();
        }
    }

    fn gain(&self, bits: u8) {
        self.link.status.fetch_or(bits, Ordering::AcqRel);
    }
}
