//! The devices' ports to the world, on the hypervisor layer.
//!
//! Invariant: nothing is decided here; each method is one call of the layer below.

use std::io;
use std::sync::Arc;

use cofferdam_vmm_devices::ports::{
    ConfigPage, ConfigPages, Doorbells, MsiController, MsiMessage, MsiVector,
};
use cofferdam_vmm_hv::{IrqVector, Irqs, MsiTarget, ReadOnlyPage, Vm};
use vmm_sys_util::eventfd::EventFd;

use crate::plan::layout::ECAM;

/// Message-signalled interrupts.
pub(super) struct Interrupts(pub(super) Irqs);

impl MsiController for Interrupts {
    fn vector(&self) -> io::Result<Arc<dyn MsiVector>> {
        Ok(Arc::new(Vector(self.0.vector()?)))
    }
}

struct Vector(IrqVector);

impl MsiVector for Vector {
    fn route(&self, message: Option<MsiMessage>) -> io::Result<()> {
        self.0.connect(message.map(|MsiMessage { address, data }| MsiTarget { address, data }));
        Ok(())
    }

    fn raise(&self) {
        self.0.raise();
    }
}

/// Doorbells.
pub(super) struct Bells(pub(super) Vm);

impl Doorbells for Bells {
    fn connect(&self, address: u64, event: &EventFd) -> io::Result<()> {
        self.0.connect_doorbell(address, event).map_err(io::Error::other)
    }

    fn disconnect(&self, address: u64, event: &EventFd) -> io::Result<()> {
        self.0.disconnect_doorbell(address, event).map_err(io::Error::other)
    }
}

/// Configuration space as memory that is only read.
pub(super) struct Configs(pub(super) Vm);

/// Bytes of a function's share of ECAM.
const FUNCTION_CONFIG: u64 = 1 << 12;

impl ConfigPages for Configs {
    fn page(&self, place: u8) -> Option<Box<dyn ConfigPage>> {
        // A host that cannot do it leaves every read to the bus.
        let page = self.0.read_only_page(ECAM + u64::from(place) * FUNCTION_CONFIG).ok()?;
        Some(Box::new(Config(page)))
    }
}

struct Config(ReadOnlyPage);

impl ConfigPage for Config {
    fn show(&self, bytes: &[u8]) {
        self.0.show(bytes);
    }
}
