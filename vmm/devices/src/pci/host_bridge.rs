//! The host bridge at 00:00.0.
//!
//! Invariant: it does nothing; it is there because systems expect one.

use super::PciFunction;
use super::config::{ConfigSpace, Identity};

/// Red Hat's generic PCIe host bridge: no quirks of real chipsets apply to it.
const IDENTITY: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0008,
    revision: 0,
    class: [0x06, 0x00, 0x00],
    subsystem_vendor: 0,
    subsystem: 0,
};

/// The host bridge.
pub struct HostBridge(ConfigSpace);

impl Default for HostBridge {
    fn default() -> Self {
        Self::new()
    }
}

impl HostBridge {
    /// A host bridge.
    #[must_use]
    pub fn new() -> Self {
        Self(ConfigSpace::new(&IDENTITY))
    }
}

impl PciFunction for HostBridge {
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        self.0.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.0.write(offset, data);
    }

    fn snapshot(&self) -> Option<&[u8]> {
        Some(self.0.bytes())
    }
}
