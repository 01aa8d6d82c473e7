//! Virtio over PCI (virtio 1.2, 4.1): one function, one BAR, MSI-X only.
//!
//! ```text
//!            ACKNOWLEDGE, DRIVER, FEATURES_OK          DRIVER_OK
//!   reset ───────────────────────────────► set up ─────────────► running
//!     ▲                                       │                     │
//!     └───────────── status := 0 ─────────────┴──── NEEDS_RESET ◄───┘ (bad queue, device error)
//! ```
//!
//! Invariant: a worker runs only between `DRIVER_OK` and the next reset; a reset returns after it has
//! stopped. The worker never takes the function's lock: it reaches the driver through [`Link`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use vmm_sys_util::eventfd::EventFd;

use super::thread::DeviceThread;
use super::{VirtioDevice, Worker};
use crate::pci::PciFunction;
use crate::pci::bar::{BarError, MemoryBar};
use crate::pci::config::{ConfigSpace, NoRoom};
use crate::pci::msix::Msix;
use crate::ports::{BusDevice, Doorbells, MsiController, Ram, Threads};

mod activate;
mod common;
mod layout;
mod link;
mod state;

pub use layout::BAR_SIZE;
pub use link::Link;
pub use state::TransportState;

use common::CommonState;
use layout::{PciConfigAccess, Region};

/// What a function needs from the machine it is plugged into.
#[derive(Clone)]
pub struct Wiring {
    /// Guest memory.
    pub ram: Ram,
    /// Where interrupt vectors come from.
    pub msi: Arc<dyn MsiController>,
    /// Where doorbells are connected.
    pub doorbells: Arc<dyn Doorbells>,
    /// Where its threads come from.
    pub threads: Arc<dyn Threads>,
}

/// A function that cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The planned address.
    #[error(transparent)]
    Bar(#[from] BarError),
    /// Too many capabilities.
    #[error(transparent)]
    Capability(#[from] NoRoom),
    /// No interrupt vectors.
    #[error("allocating interrupt vectors for a virtio device")]
    Vectors(#[source] std::io::Error),
    /// No threads.
    #[error("starting the threads of a virtio device")]
    Thread(#[source] std::io::Error),
    /// The device's own numbers.
    #[error("a virtio device with {0} queues or with a queue size that is not a power of two")]
    Queues(usize),
}

/// A virtio device as a PCI function: attach it to a [`crate::pci::PciBus`], and insert it at its BAR's
/// address into the [`crate::bus::Bus`] of memory with [`BAR_SIZE`] bytes.
pub struct VirtioPci {
    device: Box<dyn VirtioDevice>,
    wiring: Wiring,
    config: ConfigSpace,
    bar: MemoryBar,
    /// Offset of the upper byte of MSI-X message control.
    msix_control: u16,
    window: PciConfigAccess,
    link: Arc<Link>,
    common: CommonState,
    threads: Vec<Arc<DeviceThread>>,
    running: Option<Box<dyn Worker>>,
    doorbells: Vec<(u16, EventFd)>,
    failure: Option<String>,
}

impl VirtioPci {
    /// A function for `device`, there when the guest starts, whose BAR is at the guest-physical address `bar`,
    /// a multiple of [`BAR_SIZE`].
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn new(
        device: Box<dyn VirtioDevice>,
        bar: u64,
        wiring: Wiring,
    ) -> Result<Self, TransportError> {
        let start = |_| DeviceThread::start(device.id(), wiring.threads.as_ref()).map(Arc::new);
        let threads = (0..device.threads()).map(start).collect::<Result<_, _>>();
        let threads = threads.map_err(TransportError::Thread)?;
        Self::with_bar(device, wiring, threads, |config| MemoryBar::new(config, bar, BAR_SIZE))
    }

    /// A function that is plugged into a running machine: its BAR cannot be moved, its device may have other
    /// functions, too, and it works on `threads`, which stay its caller's.
    ///
    /// # Errors
    /// [`TransportError`].
    pub fn plugged(
        device: Box<dyn VirtioDevice>,
        bar: u64,
        wiring: Wiring,
        threads: Vec<Arc<DeviceThread>>,
    ) -> Result<Self, TransportError> {
        Self::with_bar(device, wiring, threads, |config| {
            config.set_multifunction();
            MemoryBar::fixed(config, bar, BAR_SIZE)
        })
    }

    fn with_bar(
        device: Box<dyn VirtioDevice>,
        wiring: Wiring,
        threads: Vec<Arc<DeviceThread>>,
        bar: impl FnOnce(&mut ConfigSpace) -> Result<MemoryBar, BarError>,
    ) -> Result<Self, TransportError> {
        let sizes = device.queue_sizes();
        let count = u16::try_from(sizes.len()).unwrap_or(u16::MAX);
        if count > layout::MAX_QUEUES || !sizes.iter().all(|size| size.is_power_of_two()) {
            return Err(TransportError::Queues(sizes.len()));
        }
        let msix = Msix::new(count + 1, wiring.msi.as_ref()).map_err(TransportError::Vectors)?;
        let mut config = ConfigSpace::new(&layout::identity(device.id()));
        let bar = bar(&mut config)?;
        let window = layout::add_capabilities(&mut config, count)?;
        let msix_control =
            msix.add_capability(&mut config, layout::MSIX_TABLE, layout::MSIX_PENDING)?;
        let common = CommonState::new(sizes);
        let link = Arc::new(Link::new(msix, count));
        Ok(Self {
            device,
            wiring,
            config,
            bar,
            msix_control,
            window,
            link,
            common,
            threads,
            running: None,
            doorbells: Vec::new(),
            failure: None,
        })
    }

    /// Whether a driver has begun to use the device, and has not let go of it: it leaves no more than that the device was
    /// seen (virtio 1.2, 2.1).
    #[must_use]
    pub fn in_use(&self) -> bool {
        self.link.status.load(Ordering::Acquire) & !common::ACKNOWLEDGE != 0
    }

    /// Why the device went to `DEVICE_NEEDS_RESET` when the driver was last ready, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Everything the guest has set; plain data.
    #[must_use]
    pub fn state(&self) -> TransportState {
        TransportState::of(&self.config, &self.common, &self.link)
    }

    /// An access to the BAR, by way of memory or of the window in configuration space.
    fn bar_read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some((region, offset)) = Region::find(offset) else { return };
        match region {
            Region::Common => common::COMMON.read(self, offset, data),
            Region::Isr => data[0] = if offset == 0 { self.link.take_isr() } else { 0 },
            Region::Device => {
                if let Ok(offset) = usize::try_from(offset) {
                    self.device.read_config(offset, data);
                }
            }
            Region::Notify => {}
            Region::MsixTable => self.link.msix().read_table(offset, data),
            Region::MsixPending => self.link.msix().read_pending(offset, data),
        }
    }

    /// See [`VirtioPci::bar_read`].
    fn bar_write(&mut self, offset: u64, data: &[u8]) {
        let Some((region, offset)) = Region::find(offset) else { return };
        match region {
            Region::Common => common::COMMON.write(self, offset, data),
            Region::Device => {
                if let Ok(offset) = usize::try_from(offset) {
                    self.device.write_config(offset, data);
                }
            }
            Region::Notify => self.notify(offset),
            Region::MsixTable => self.link.msix().write_table(offset, data),
            Region::Isr | Region::MsixPending => {}
        }
    }

    /// A notification that did not come through a doorbell: through the window, or of another width.
    fn notify(&self, offset: u64) {
        let queue = offset / u64::from(layout::NOTIFY_MULTIPLIER);
        if let Some((_, event)) =
            self.doorbells.iter().find(|(index, _)| u64::from(*index) == queue)
        {
            // Fails only if the counter is full, and then the worker is awake anyway.
            let _full = event.write(1);
        }
    }

    /// An access to the window: reads the BAR into it, or writes it into the BAR
    /// (virtio 1.2, 4.1.4.9.1).
    fn window_access(&mut self, write: bool) {
        let Some((offset, len)) = self.window.target(&self.config) else { return };
        let mut data = self.window.data(&self.config);
        if write {
            self.bar_write(offset, &data[..len]);
        } else {
            self.bar_read(offset, &mut data[..len]);
            self.window.set_data(&mut self.config, data);
        }
    }
}

impl PciFunction for VirtioPci {
    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        if self.window.touched(offset, data.len()) {
            self.window_access(false);
        }
        self.config.read(offset, data);
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
        let end = usize::from(offset) + data.len();
        if (usize::from(offset)..end).contains(&self.msix_control.into()) {
            let [control] = self.config.get(self.msix_control.into());
            self.link.msix().control_written(control);
        }
        if self.window.touched(offset, data.len()) {
            self.window_access(true);
        }
    }

    fn snapshot(&self) -> Option<&[u8]> {
        // Once the driver has pointed the window at something, reading the window's data is reading the BAR.
        let plain = self.window.target(&self.config).is_none();
        plain.then(|| self.config.bytes())
    }
}

impl BusDevice for VirtioPci {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        if self.bar.decodes(&self.config) {
            self.bar_read(offset, data);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if self.bar.decodes(&self.config) {
            self.bar_write(offset, data);
        }
    }
}

impl Drop for VirtioPci {
    fn drop(&mut self) {
        self.reset();
    }
}

#[cfg(test)]
#[path = "transport_test.rs"]
mod transport_test;
