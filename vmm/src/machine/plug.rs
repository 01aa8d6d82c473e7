//! Devices that come to and go from a running machine.
//!
//! Invariant: what fails changes nothing.

use std::os::fd::OwnedFd;

use cofferdam_vmm_api::{Bdf, FS_MEMORY, FS_QUEUE, FS_QUEUE_SIZE, FsSpec, NewDevice};
use cofferdam_vmm_devices::virtio::VirtioDevice;
use cofferdam_vmm_devices::virtio::block::{Block, BlockOptions};
use cofferdam_vmm_devices::virtio::fs::{self, Fs, Server};
use cofferdam_vmm_devices::virtio::net::Net;

use super::board::PlugError;
use super::build::{Files, net_options};
use super::run::Running;

// What file servers are told of the memory is how the device uses it.
const _: () = assert!(FS_MEMORY == fs::MEMORY as u64 && FS_QUEUE_SIZE == fs::QUEUE_SIZE);
const _: () = assert!(FS_QUEUE[0] == fs::DESCRIPTORS as u64);
const _: () = assert!(FS_QUEUE[1] == fs::AVAILABLE as u64 && FS_QUEUE[2] == fs::USED as u64);

impl Running {
    /// Plugs a device in, made of the descriptors that came with it; where. The guest finds it when it looks at the bus
    /// again.
    ///
    /// # Errors
    /// [`PlugError`].
    pub fn attach(&mut self, device: NewDevice, fds: Vec<OwnedFd>) -> Result<Bdf, PlugError> {
        device.check(fds.len())?;
        // Before anything is done to a tap: that may be one that another card has queues of.
        self.devices.board.room(device.name().as_deref(), device.queues())?;
        let (name, mut files) = (device.name(), Files::new(fds));
        let device: Box<dyn VirtioDevice> = match device {
            NewDevice::Disk { disk, bytes } => {
                let file = files.take_file(disk.file)?;
                let (readonly, serial) = (disk.readonly, disk.serial);
                let options = BlockOptions { readonly, serial, queues: 1 };
                Box::new(Block::of_size(file, bytes, options)?)
            }
            NewDevice::Net(net) => {
                Box::new(Net::new(files.take_all(&net.taps)?, net_options(&net))?)
            }
            NewDevice::Fs(fs) => Box::new(file_system(&fs, &mut files)?),
        };
        let metered = self.devices.board.plug(name, device)?;
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

/// The device for the file server whose descriptors came along.
fn file_system(spec: &FsSpec, files: &mut Files) -> Result<Fs, PlugError> {
    let (memory, kick) = (files.take(spec.memory)?, files.take_file(spec.kick)?);
    let (call, end) = (files.take(spec.call)?, files.take(spec.end)?);
    Ok(Fs::new(&spec.tag, Server { memory, kick, call, end })?)
}
