//! Which PCI device is where: device numbers and BARs.
//!
//! The guest changes none of it: BARs are programmed before it starts, in a window that the host bridge
//! decodes, and it finds them in order.
//!
//! Invariant: pure; device numbers and BARs are distinct, and a BAR lies in the window, aligned to its size.

use cofferdam_vmm_api::{Bdf, MAX_DISKS, MAX_NETS};
use cofferdam_vmm_devices::virtio::pci::BAR_SIZE;

use super::layout::{BARS, BARS_SIZE};

/// Address space that each device has, whatever it uses of it.
pub(super) const STRIDE: u64 = 1 << 20;

/// Device numbers of a bus.
const DEVICES: u8 = 32;

const _: () = assert!(DEVICES as u64 * STRIDE <= BARS_SIZE);
const _: () = assert!(STRIDE.is_multiple_of(BAR_SIZE));
// The host bridge, vsock, rng and balloon besides. A memory device has a place where one of all these is missing.
const _: () = assert!(MAX_DISKS + MAX_NETS + 4 <= DEVICES as usize);

/// A place on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Device number, 1 to 31; the host bridge has 0.
    pub device: u8,
    /// Address of the device's BAR.
    pub bar: u64,
}

impl Slot {
    /// Its bus, device and function.
    #[must_use]
    pub fn bdf(self) -> Bdf {
        Bdf(u16::from(self.device) << 3)
    }
}

/// Gives out places, in order.
#[derive(Debug)]
pub struct Slots {
    next: u8,
}

impl Slots {
    /// A bus with nothing but its host bridge.
    #[must_use]
    pub fn new() -> Self {
        Self { next: 1 }
    }

    /// The next place, if there is one.
    pub fn take(&mut self) -> Option<Slot> {
        let device = self.next;
        if device >= DEVICES {
            return None;
        }
        self.next += 1;
        Some(Slot { device, bar: BARS + u64::from(device) * STRIDE })
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self::new()
    }
}
