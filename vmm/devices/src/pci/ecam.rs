//! Memory-mapped configuration space of one bus (PCI Firmware 3.0, 4.1.2; PCI Express 3.0, 7.2.2).
//!
//! A function is named as the lower byte of its PCI address: five bits of device number above three of function
//! number. It appears in and vanishes from configuration space between two accesses of the guest.
//!
//! Where the machine has pages for it, the guest reads the space of a function that is there from the start as memory, and
//! only writes come here: nearly all accesses are reads, and most of them at boot. What is plugged in later does without:
//! a page is one of KVM's memory slots, and all vCPUs wait when one is made.
//!
//! Invariant: a function that is not there reads as all ones, and writes to it vanish. A page shows what a read would give.

use std::sync::{Arc, Mutex};

use super::PciFunction;
use crate::ports::{BusDevice, ConfigPage, ConfigPages};
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
    functions: [Option<Plugged>; FUNCTIONS],
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

impl Default for PciBus {
    fn default() -> Self {
        Self::new()
    }
}

impl PciBus {
    /// An empty bus.
    #[must_use]
    pub fn new() -> Self {
        Self { functions: [const { None }; FUNCTIONS], pages: None }
    }

    /// An empty bus that shows the guest `pages`.
    #[must_use]
    pub fn with_pages(pages: Box<dyn ConfigPages>) -> Self {
        Self { pages: Some(pages), ..Self::default() }
    }

    /// Puts `function` at `place`, with a page if there are any, before the guest starts.
    ///
    /// # Errors
    /// [`Taken`].
    pub fn attach(&mut self, place: u8, function: SharedFunction) -> Result<(), Taken> {
        let page = self.pages.as_ref().and_then(|pages| pages.page(place));
        self.insert(place, Plugged { function, page })
    }

    /// Puts `function` at `place`, without a page, at any time.
    ///
    /// # Errors
    /// [`Taken`].
    pub fn plug(&mut self, place: u8, function: SharedFunction) -> Result<(), Taken> {
        self.insert(place, Plugged { function, page: None })
    }

    fn insert(&mut self, place: u8, mut plugged: Plugged) -> Result<(), Taken> {
        match &mut self.functions[usize::from(place)] {
            Some(_) => Err(Taken(place)),
            free => {
                plugged.show();
                *free = Some(plugged);
                Ok(())
            }
        }
    }

    /// Takes the function at `place` away.
    pub fn detach(&mut self, place: u8) -> Option<SharedFunction> {
        Some(self.functions[usize::from(place)].take()?.function)
    }

    /// The function that an offset into ECAM means, and the offset in its space.
    fn find(&mut self, offset: u64) -> Option<(&mut Plugged, u16)> {
        let register = u16::try_from(offset & ((1 << REGISTER_BITS) - 1)).ok()?;
        let function = usize::try_from(offset >> REGISTER_BITS).ok()?;
        // What is above is another bus.
        Some((self.functions.get_mut(function)?.as_mut()?, register))
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
