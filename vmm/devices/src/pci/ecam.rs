//! Memory-mapped configuration space of one bus (PCI Firmware 3.0, 4.1.2; PCI Express 3.0, 7.2.2).
//!
//! Invariant: function 0 of 32 devices; everything else reads as all ones.

use std::sync::{Arc, Mutex};

use super::PciFunction;
use crate::ports::BusDevice;
use crate::sync;

/// Device numbers on a bus.
pub const DEVICES: u8 = 32;

/// Bytes of ECAM for one bus: 32 devices x 8 functions x 4 KiB.
pub const ECAM_BUS_SIZE: u64 = 1 << 20;

/// Bits of an offset within a function's space.
const REGISTER_BITS: u32 = 12;

/// A function as several owners hold it.
pub type SharedFunction = Arc<Mutex<dyn PciFunction>>;

/// A device that cannot be put on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EcamError {
    /// No such device number.
    #[error("PCI device number {0}; there are 0 to 31")]
    NoSuchDevice(u8),
    /// Taken.
    #[error("PCI device number {0} is taken")]
    Taken(u8),
}

/// Bus 0.
#[derive(Default)]
pub struct PciBus {
    functions: [Option<SharedFunction>; DEVICES as usize],
}

impl PciBus {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `function` at `device`, function 0.
    ///
    /// # Errors
    /// [`EcamError`].
    pub fn attach(&mut self, device: u8, function: SharedFunction) -> Result<(), EcamError> {
        let slot = self.functions.get_mut(usize::from(device));
        let slot = slot.ok_or(EcamError::NoSuchDevice(device))?;
        if slot.is_some() {
            return Err(EcamError::Taken(device));
        }
        *slot = Some(function);
        Ok(())
    }

    /// Takes the function at `device` away.
    pub fn detach(&mut self, device: u8) -> Option<SharedFunction> {
        self.functions.get_mut(usize::from(device))?.take()
    }

    /// The function that an offset into ECAM means, and the offset in its space.
    fn find(&self, offset: u64) -> Option<(&SharedFunction, u16)> {
        let register = u16::try_from(offset & ((1 << REGISTER_BITS) - 1)).ok()?;
        let function = usize::try_from(offset >> REGISTER_BITS).ok()?;
        // Three bits of function number, of which only 0 exists, below five of device number; what is
        // above is another bus.
        if function % 8 != 0 {
            return None;
        }
        Some((self.functions.get(function / 8)?.as_ref()?, register))
    }
}

impl BusDevice for PciBus {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some((function, register)) = self.find(offset) {
            sync::lock(function).read_config(register, data);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some((function, register)) = self.find(offset) {
            sync::lock(function).write_config(register, data);
        }
    }
}

#[cfg(test)]
#[path = "ecam_test.rs"]
mod ecam_test;
