//! Devices that come to and go from a running machine.
//!
//! Invariant: what fails changes nothing.

use cofferdam_vmm_api::{Bdf, DiskSpec};
use cofferdam_vmm_devices::virtio::VirtioDevice;
use cofferdam_vmm_devices::virtio::block::{Block, BlockOptions};

use super::board::PlugError;
use super::build::{BuildError, Files};
use super::run::Running;

impl Running {
    /// Plugs a disk in; where. The guest finds it when it looks at the bus again.
    ///
    /// # Errors
    /// [`PlugError`].
    pub fn attach(&mut self, disk: &DiskSpec, mut files: Files) -> Result<Bdf, PlugError> {
        let file = files.take_file(disk.file)?;
        let options = BlockOptions { readonly: disk.readonly, serial: disk.serial.clone() };
        self.plug(Box::new(Block::new(file, options)?))
    }

    fn plug(&mut self, device: Box<dyn VirtioDevice>) -> Result<Bdf, PlugError> {
        let ready = || self.crew.mustered().map_err(BuildError::host("confine a device's thread"));
        let metered = self.devices.board.plug(device, ready)?;
        let address = metered.address;
        self.meter.add_device(metered);
        Ok(address)
    }

    /// Takes the device at `address` away; whether the guest still used it. A guest that did sees a device that
    /// answers nothing any more.
    ///
    /// # Errors
    /// [`PlugError`].
    pub fn detach(&mut self, address: Bdf) -> Result<bool, PlugError> {
        let in_use = self.devices.board.unplug(address)?;
        self.meter.forget_device(address);
        Ok(in_use)
    }
}
