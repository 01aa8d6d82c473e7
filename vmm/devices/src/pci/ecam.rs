//! Memory-mapped configuration space of one bus (PCI Firmware 3.0, 4.1.2; PCI Express 3.0, 7.2.2).
//!
//! A function is named as the lower byte of its PCI address: five bits of device number above three of function
//! number. It appears in and vanishes from configuration space between two accesses of the guest.
//!
//! Invariant: a function that is not there reads as all ones, and writes to it vanish.

use std::sync::{Arc, Mutex};

use super::PciFunction;
use crate::ports::BusDevice;
use crate::sync;

/// Functions of a bus.
const FUNCTIONS: usize = 256;

/// Bytes of ECAM for one bus: 32 devices x 8 functions x 4 KiB.
pub const ECAM_BUS_SIZE: u64 = 1 << 20;

/// Bits of an offset within a function's space.
const REGISTER_BITS: u32 = 12;

/// A function as several owners hold it.
pub type SharedFunction = Arc<Mutex<dyn PciFunction>>;

/// A place that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PCI function {:02x}.{} is taken", .0 >> 3, .0 & 7)]
pub struct Taken(pub u8);

/// Bus 0.
pub struct PciBus {
    functions: [Option<SharedFunction>; FUNCTIONS],
}

impl Default for PciBus {
    fn default() -> Self {
        Self::new()
    }
}

impl PciBus {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self { functions: [const { None }; FUNCTIONS] }
    }

    /// Puts `function` at `place`.
    ///
    /// # Errors
    /// [`Taken`].
    pub fn attach(&mut self, place: u8, function: SharedFunction) -> Result<(), Taken> {
        match &mut self.functions[usize::from(place)] {
            Some(_) => Err(Taken(place)),
            free => {
                *free = Some(function);
                Ok(())
            }
        }
    }

    /// Takes the function at `place` away.
    pub fn detach(&mut self, place: u8) -> Option<SharedFunction> {
        self.functions[usize::from(place)].take()
    }

    /// The function that an offset into ECAM means, and the offset in its space.
    fn find(&self, offset: u64) -> Option<(&SharedFunction, u16)> {
        let register = u16::try_from(offset & ((1 << REGISTER_BITS) - 1)).ok()?;
        let function = usize::try_from(offset >> REGISTER_BITS).ok()?;
        // What is above is another bus.
        Some((self.functions.get(function)?.as_ref()?, register))
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
