//! Which PCI function is where: its address and its BAR.
//!
//! The guest changes none of it: each of the 256 functions of the bus has its piece of the window that the host
//! bridge decodes, whether it is there or not. What is there at boot has a device number of its own, because a
//! second function makes the guest look for all eight. What is plugged in later shares the device numbers that
//! are left:
//!
//! ```text
//! device   0       1      2    3      4        5          6        7 ...
//!         bridge  vsock  rng  layer  scratch  01234567   0123....
//!                └── at boot, function 0 ──┘  └── plugged in ──┘
//! ```
//!
//! Linux looks for other functions of a device only if it finds number 0, so the lowest free place is always the
//! next one: number 0 of a device is taken before any other of it. Who takes number 0 away before the guest has
//! looked for the others hides them until it is there again.
//!
//! Invariant: pure; functions and BARs are distinct, and a BAR lies in the window, aligned to its size. A device
//! number is used at boot or for plugging in, never for both at once.

use cofferdam_vmm_api::{Bdf, MAX_DISKS, MAX_NETS};
use cofferdam_vmm_devices::virtio::pci::BAR_SIZE;

use super::layout::{BARS, BARS_SIZE};

/// Address space that each function has, whatever it uses of it.
pub(super) const STRIDE: u64 = 1 << 20;

/// Device numbers of a bus, and functions of a device.
const DEVICES: u8 = 32;
const FUNCTIONS: u8 = 8;

const _: () = assert!(DEVICES as u64 * FUNCTIONS as u64 * STRIDE <= BARS_SIZE);
const _: () = assert!(STRIDE.is_multiple_of(BAR_SIZE));
// The host bridge, vsock, rng and balloon besides. A memory device has a place where one of all these is missing.
const _: () = assert!(MAX_DISKS + MAX_NETS + 4 <= DEVICES as usize);

/// A place on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Device number, 1 to 31; the host bridge has 0.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
    /// Address of the function's BAR.
    pub bar: u64,
}

impl Slot {
    fn new(device: u8, function: u8) -> Self {
        let bar = BARS + u64::from(device << 3 | function) * STRIDE;
        Self { device, function, bar }
    }

    /// Device and function as the lower byte of an address.
    #[must_use]
    pub fn place(self) -> u8 {
        self.device << 3 | self.function
    }

    /// Its bus, device and function.
    #[must_use]
    pub fn bdf(self) -> Bdf {
        Bdf(u16::from(self.place()))
    }
}

/// A device number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Free,
    /// One function, there since the boot.
    Boot,
    /// Functions plugged in: a bit for each. There is at least one.
    Plugged(u8),
    /// Not to be used again, whatever of it is still there.
    Spent,
}

/// Gives out places, the lowest first, and takes them back.
#[derive(Clone, Debug)]
pub struct Slots {
    devices: [Use; DEVICES as usize],
}

impl Slots {
    /// A bus with nothing but its host bridge.
    #[must_use]
    pub fn new() -> Self {
        let mut devices = [Use::Free; DEVICES as usize];
        devices[0] = Use::Boot;
        Self { devices }
    }

    /// The next place for what is there at boot, if there is one.
    pub fn take(&mut self) -> Option<Slot> {
        let (device, use_) = (0..).zip(&mut self.devices).find(|(_, use_)| **use_ == Use::Free)?;
        *use_ = Use::Boot;
        Some(Slot::new(device, 0))
    }

    /// The next place for what is plugged in, if there is one.
    pub fn plug(&mut self) -> Option<Slot> {
        for (device, use_) in (0..).zip(&mut self.devices) {
            let taken = match use_ {
                Use::Free => 0,
                Use::Boot | Use::Spent | Use::Plugged(u8::MAX) => continue,
                Use::Plugged(taken) => *taken,
            };
            let function = u8::try_from(taken.trailing_ones()).ok()?;
            *use_ = Use::Plugged(taken | 1 << function);
            return Some(Slot::new(device, function));
        }
        None
    }

    /// Never gives out `bdf` again, nor any other function of its device: while the guest believes in a number 0 that is
    /// not there, or no longer does, it would not find the others.
    pub fn spend(&mut self, bdf: Bdf) {
        if let Some(use_) = self.devices.get_mut(usize::from(bdf.0 >> 3)) {
            *use_ = Use::Spent;
        }
    }

    /// Takes the place of `bdf` back. `false` if nobody has it, if it is the host bridge's, or if its device is spent.
    pub fn release(&mut self, bdf: Bdf) -> bool {
        let (device, function) = (usize::from(bdf.0 >> 3), bdf.0 & 7);
        match self.devices.get_mut(device).filter(|_| device != 0) {
            Some(use_ @ Use::Boot) if function == 0 => *use_ = Use::Free,
            Some(Use::Plugged(taken)) if *taken & 1 << function != 0 => {
                *taken &= !(1 << function);
                if *taken == 0 {
                    self.devices[device] = Use::Free;
                }
            }
            _ => return false,
        }
        true
    }
}

impl Default for Slots {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
#[path = "pci_test.rs"]
mod pci_test;
