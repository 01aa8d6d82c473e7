//! Memory-mapped configuration space of one bus (PCI Firmware 3.0, 4.1.2; PCI Express 3.0, 7.2.2).
//!
//! Where the machine has pages for it, the guest reads a function's space as memory, and only writes come here: nearly all
//! accesses are reads, and most of them at boot.
//!
//! Invariant: function 0 of 32 devices; everything else reads as all ones. A page shows what a read would give.

use std::sync::{Arc, Mutex};

use super::PciFunction;
use crate::ports::{BusDevice, ConfigPage, ConfigPages};
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
    functions: [Option<Plugged>; DEVICES as usize],
    pages: Option<Box<dyn ConfigPages>>,
}

/// A function on the bus.
struct Plugged {
    function: SharedFunction,
    page: Option<Box<dyn ConfigPage>>,
}

impl Plugged {
    /// Shows the guest what it reads from now on.
    fn show(&mut self) {
        let function = sync::lock(&self.function);
        match (function.snapshot(), &self.page) {
            (Some(bytes), Some(page)) => page.show(bytes),
            (None, Some(_)) => self.page = None,
            (_, None) => {}
        }
    }
}

impl PciBus {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty bus that shows the guest `pages`.
    #[must_use]
    pub fn with_pages(pages: Box<dyn ConfigPages>) -> Self {
        Self { pages: Some(pages), ..Self::default() }
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
        let page = self.pages.as_ref().and_then(|pages| pages.page(device));
        slot.insert(Plugged { function, page }).show();
        Ok(())
    }

    /// Takes the function at `device` away.
    pub fn detach(&mut self, device: u8) -> Option<SharedFunction> {
        Some(self.functions.get_mut(usize::from(device))?.take()?.function)
    }

    /// The function that an offset into ECAM means, and the offset in its space.
    fn find(&mut self, offset: u64) -> Option<(&mut Plugged, u16)> {
        let register = u16::try_from(offset & ((1 << REGISTER_BITS) - 1)).ok()?;
        let function = usize::try_from(offset >> REGISTER_BITS).ok()?;
        // Three bits of function number, of which only 0 exists, below five of device number; what is
        // above is another bus.
        if function % 8 != 0 {
            return None;
        }
        Some((self.functions.get_mut(function / 8)?.as_mut()?, register))
    }
}

impl BusDevice for PciBus {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if let Some((Plugged { function, .. }, register)) = self.find(offset) {
            sync::lock(function).read_config(register, data);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some((plugged, register)) = self.find(offset) {
            sync::lock(&plugged.function).write_config(register, data);
            plugged.show();
        }
    }
}

#[cfg(test)]
#[path = "ecam_test.rs"]
mod ecam_test;
