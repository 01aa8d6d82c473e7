//! A virtio device on the bus: where its registers are, and how it is started (virtio 1.2, 4.1).
//!
//! Invariant: [`Device::restore`] makes it reachable again, whatever was written to its configuration.

use crate::garbage::{ARENA, Garbage};
use crate::metal::{read, write};

/// Configuration space of the bus.
const ECAM: u64 = 0xe000_0000;

/// Devices on the bus.
pub(crate) const SLOTS: u64 = 32;

/// Status of a driver that is ready.
const READY: u64 = 0xf;
const FEATURES_OK: u64 = 0xb;

/// The entropy device.
pub(crate) const ENTROPY: u64 = 0x1044;

/// The memory balloon.
pub(crate) const BALLOON: u64 = 0x1045;

/// Where in the BAR the queues are rung; the common configuration is at its start.
const NOTIFY: u64 = 0x1000;

/// A device.
pub(crate) struct Device {
    /// Its configuration space.
    pub(crate) config: u64,
    /// Its BAR.
    pub(crate) bar: u64,
}

impl Device {
    /// The virtio device at `slot`, if there is one.
    pub(crate) fn find(slot: u64) -> Option<Self> {
        let config = ECAM + (slot << 15);
        let bar = read(config + 0x10, 8) & !0xf;
        (read(config, 2) == 0x1af4).then_some(Self { config, bar })
    }

    /// Which device it is.
    pub(crate) fn id(&self) -> u64 {
        read(self.config + 2, 2)
    }

    /// Decoding on, BAR where it was.
    pub(crate) fn restore(&self) {
        write(self.config + 0x10, 8, self.bar);
        write(self.config + 4, 2, 6);
    }

    /// Resets it; whether that worked.
    pub(crate) fn reset(&self) -> bool {
        write(self.bar + 0x14, 1, 0);
        read(self.bar + 0x14, 1) == 0
    }

    /// How many queues it has.
    pub(crate) fn queues(&self) -> u64 {
        read(self.bar + 0x12, 2)
    }

    /// Agrees on those of the features offered that are in `mask`.
    pub(crate) fn agree(&self, mask: u64) {
        write(self.bar + 0x14, 1, 3);
        for half in 0..2 {
            write(self.bar, 4, half);
            let offered = read(self.bar + 4, 4);
            write(self.bar + 8, 4, half);
            let wanted = mask >> (32 * half) & 0xffff_ffff | half;
            write(self.bar + 12, 4, offered & wanted);
        }
        write(self.bar + 0x14, 1, FEATURES_OK);
    }

    /// Sets queue `index` up and enables it.
    pub(crate) fn set_queue(&self, index: u64, size: u64, rings: &[u64; 3]) {
        write(self.bar + 0x16, 2, index);
        write(self.bar + 0x18, 2, size);
        write(self.bar + 0x1a, 2, index + 1);
        for (field, ring) in (self.bar + 0x20..).step_by(8).zip(rings) {
            write(field, 8, *ring);
        }
        write(self.bar + 0x1c, 2, 1);
    }

    /// The driver is ready; whether the device is.
    pub(crate) fn start(&self) -> bool {
        write(self.bar + 0x14, 1, READY);
        read(self.bar + 0x14, 1) == READY
    }

    /// Rings queue `index`.
    pub(crate) fn ring(&self, index: u64) {
        write(self.bar + NOTIFY + 4 * index, 2, index);
    }

    /// Has the entropy device fill 64 bytes, as a good driver does it.
    pub(crate) fn fill(&self) -> Result<(), &'static str> {
        let (table, avail, used, room) = (ARENA, ARENA + 0x1000, ARENA + 0x2000, ARENA + 0x3000);
        for at in (ARENA..ARENA + 0x4000).step_by(8) {
            write(at, 8, 0);
        }
        self.restore();
        if !self.reset() {
            return Err("the entropy device does not reset");
        }
        self.agree(0);
        self.set_queue(0, 8, &[table, avail, used]);
        write(table, 8, room);
        write(table + 8, 8, 64 | 2 << 32);
        write(avail + 2, 2, 1);
        if !self.start() {
            return Err("the entropy device does not start");
        }
        self.ring(0);
        for _ in 0..100_000_000_u32 {
            if read(used + 2, 2) == 1 {
                let any = (room..room + 64).step_by(8).any(|at| read(at, 8) != 0);
                let sound = any && read(used + 8, 4) == 64;
                return if sound { Ok(()) } else { Err("the entropy device gave nothing") };
            }
            core::hint::spin_loop();
        }
        Err("the entropy device does not answer")
    }

    /// One of its queues' numbers, or one that there is not.
    pub(crate) fn any_queue(&self, garbage: &mut Garbage) -> u64 {
        garbage.below(self.queues().min(64) + 1)
    }
}
