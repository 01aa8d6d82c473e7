//! What answers a guest's accesses: a bus of I/O ports and a bus of memory.
//!
//! Invariant: an access that no device takes is harmless: reads give all ones, writes vanish.

use cofferdam_vmm_devices::bus::Bus;
use cofferdam_vmm_hv::AddressSpace;

/// Both buses of a machine.
#[derive(Default)]
pub(super) struct Space {
    pub(super) ports: Bus,
    pub(super) memory: Bus,
}

impl AddressSpace for Space {
    fn port_in(&self, port: u16, data: &mut [u8]) {
        self.ports.read(port.into(), data);
    }

    fn port_out(&self, port: u16, data: &[u8]) {
        self.ports.write(port.into(), data);
    }

    fn mmio_read(&self, address: u64, data: &mut [u8]) {
        self.memory.read(address, data);
    }

    fn mmio_write(&self, address: u64, data: &[u8]) {
        self.memory.write(address, data);
    }
}
