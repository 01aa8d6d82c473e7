//! What is on a machine's PCI bus, from the boot on and as it comes and goes.
//!
//! A function that comes answers at its BAR before it appears in configuration space; one that goes leaves
//! configuration space first. In between two accesses of the guest it is there as a whole or not at all.
//!
//! A function goes when the supervisor says so, whether the guest has let go of it or not: its work is stopped,
//! and what was its BAR reads as all ones from then on. Nothing of it stays: its work has ended, its descriptors
//! are closed, its doorbells and interrupt vectors are free again when [`Board::unplug`] returns. But a guest that
//! had not let go of it still believes in it, and would take another device in that place for it: such a place is
//! not used again, and no other function of its device number.
//!
//! No thread may be started while the guest runs. What is plugged in works on spare threads, which are there from the
//! start, as many as the specification says, and serve again after it has gone.
//!
//! Invariant: one owner, the machine's; places are those of the plan's [`Slots`], and each is held by one function; a
//! spare thread serves one function at a time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use cofferdam_vmm_api::{Bdf, SpecError};
use cofferdam_vmm_devices::pci::{HostBridge, PciBus};
use cofferdam_vmm_devices::ports::ConfigPages;
use cofferdam_vmm_devices::virtio::block::BlockError;
use cofferdam_vmm_devices::virtio::fs::FsError;
use cofferdam_vmm_devices::virtio::net::NetError;
use cofferdam_vmm_devices::virtio::pci::{BAR_SIZE, VirtioPci, Wiring};
use cofferdam_vmm_devices::virtio::thread::DeviceThread;
use cofferdam_vmm_devices::virtio::{DeviceId, VirtioDevice};

use super::build::BuildError;
use super::meter::MeteredDevice;
use super::outcome::Outcome;
use super::space::Space;
use super::stages::Observed;
use crate::plan::layout::{ECAM, ECAM_SIZE};
use crate::plan::pci::{Slot, Slots};

/// A device that cannot come or go.
#[derive(Debug, thiserror::Error)]
pub enum PlugError {
    /// The specification.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// All places are taken.
    #[error("no place on the PCI bus is free")]
    Full,
    /// The spare threads are at work.
    #[error("it needs {wanted} of the machine's spare threads, and {free} are free")]
    Busy {
        /// How many threads it works on.
        wanted: usize,
        /// How many there are for it.
        free: usize,
    },
    /// Two of the same name.
    #[error("{0} is plugged in already")]
    Twice(String),
    /// Nothing is there.
    #[error("there is no device at {0}")]
    Absent(Bdf),
    /// A device that the machine cannot do without.
    #[error("the {kind} device at {address} cannot be taken away")]
    Fixed {
        /// Its kind.
        kind: &'static str,
        /// Where it is.
        address: Bdf,
    },
    /// A disk.
    #[error("the disk")]
    Disk(#[from] BlockError),
    /// A network card.
    #[error("the network card")]
    Net(#[from] NetError),
    /// A file system.
    #[error("the file system")]
    Fs(#[from] FsError),
    /// Something that building a machine needs as well.
    #[error(transparent)]
    Build(#[from] BuildError),
}

type Function = Arc<Mutex<VirtioPci>>;

/// See the module.
pub(super) struct Board {
    bus: Arc<Mutex<PciBus>>,
    space: Arc<Space>,
    slots: Slots,
    wiring: Wiring,
    outcome: Arc<Outcome>,
    spares: Vec<Arc<DeviceThread>>,
    present: BTreeMap<Bdf, Present>,
}

/// A function that is there.
struct Present {
    slot: Slot,
    id: DeviceId,
    /// What it is known by, if it was plugged in under a name.
    name: Option<String>,
    function: Function,
    /// What it works on, of the spares.
    threads: Vec<Arc<DeviceThread>>,
}

impl Board {
    /// A bus with its host bridge, in `space`.
    pub(super) fn new(
        space: Arc<Space>,
        slots: Slots,
        pages: Box<dyn ConfigPages>,
        wiring: Wiring,
        outcome: Arc<Outcome>,
    ) -> Result<Self, BuildError> {
        let mut bus = PciBus::with_pages(pages);
        bus.attach(0, Arc::new(Mutex::new(HostBridge::new())))?;
        let bus = Arc::new(Mutex::new(bus));
        space.memory.insert(ECAM, ECAM_SIZE, bus.clone())?;
        let (spares, present) = (Vec::new(), BTreeMap::new());
        Ok(Self { bus, space, slots, wiring, outcome, spares, present })
    }

    /// Has `spares` serve what is plugged in.
    pub(super) fn with_spares(self, spares: Vec<Arc<DeviceThread>>) -> Self {
        Self { spares, ..self }
    }

    /// Puts `device` at `slot`, which the plan has for it, before the guest starts.
    pub(super) fn place(
        &mut self,
        slot: Slot,
        device: Box<dyn VirtioDevice>,
    ) -> Result<MeteredDevice, BuildError> {
        let metered = metered(slot, device.as_ref());
        let id = device.id();
        let device = Box::new(Observed { device, outcome: Arc::clone(&self.outcome) });
        let function = VirtioPci::new(device, slot.bar, self.wiring.clone())?;
        let function = Arc::new(Mutex::new(function));
        self.space.memory.insert(slot.bar, BAR_SIZE, function.clone())?;
        self.bus().attach(slot.place(), function.clone())?;
        let present = Present { slot, id, name: None, function, threads: Vec::new() };
        self.present.insert(slot.bdf(), present);
        Ok(metered)
    }

    /// Puts `device` at the next free place, unless another one of this name was plugged in.
    pub(super) fn plug(
        &mut self,
        name: Option<String>,
        device: Box<dyn VirtioDevice>,
    ) -> Result<MeteredDevice, PlugError> {
        let rest = self.room(name.as_deref(), device.threads())?;
        let slot = self.slots.plug().ok_or(PlugError::Full)?;
        let (id, metered) = (device.id(), metered(slot, device.as_ref()));
        let threads = self.spares.split_off(rest);
        match self.insert(slot, device, threads.clone()) {
            Ok(function) => {
                self.present.insert(slot.bdf(), Present { slot, id, name, function, threads });
                Ok(metered)
            }
            Err(error) => {
                self.spares.extend(threads);
                self.slots.release(slot.bdf());
                Err(error.into())
            }
        }
    }

    /// Whether a device of this name that works on `wanted` threads may come; how many spares are left then.
    pub(super) fn room(&self, name: Option<&str>, wanted: usize) -> Result<usize, PlugError> {
        let twice = |name: &&str| self.present.values().any(|p| p.name.as_deref() == Some(*name));
        if let Some(name) = name.filter(twice) {
            return Err(PlugError::Twice(name.to_owned()));
        }
        let free = self.spares.len();
        free.checked_sub(wanted).ok_or(PlugError::Busy { wanted, free })
    }

    fn insert(
        &self,
        slot: Slot,
        device: Box<dyn VirtioDevice>,
        threads: Vec<Arc<DeviceThread>>,
    ) -> Result<Function, BuildError> {
        let function = VirtioPci::plugged(device, slot.bar, self.wiring.clone(), threads)?;
        let function = Arc::new(Mutex::new(function));
        self.space.memory.insert(slot.bar, BAR_SIZE, function.clone())?;
        let appears = self.bus().plug(slot.place(), function.clone());
        if let Err(taken) = appears {
            self.space.memory.remove(slot.bar);
            return Err(taken.into());
        }
        Ok(function)
    }

    /// Takes the device at `address` away. Whether the guest still used it.
    pub(super) fn unplug(&mut self, address: Bdf) -> Result<bool, PlugError> {
        let present = self.present.get(&address).ok_or(PlugError::Absent(address))?;
        if !matches!(present.id, DeviceId::Block | DeviceId::Net | DeviceId::Fs) {
            return Err(PlugError::Fixed { kind: present.id.name(), address });
        }
        let Some(Present { slot, function, threads, .. }) = self.present.remove(&address) else {
            return Err(PlugError::Absent(address));
        };
        drop(self.bus().detach(slot.place()));
        self.space.memory.remove(slot.bar);
        // A vCPU may be in the middle of its last access. Nobody else can find it any more.
        while Arc::strong_count(&function) > 1 {
            thread::yield_now();
        }
        let in_use = function.lock().unwrap_or_else(PoisonError::into_inner).in_use();
        drop(function);
        self.spares.extend(threads);
        if in_use {
            self.slots.spend(address);
        } else {
            self.slots.release(address);
        }
        Ok(in_use)
    }

    fn bus(&self) -> MutexGuard<'_, PciBus> {
        self.bus.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The account of `device`, at `slot`.
fn metered(slot: Slot, device: &dyn VirtioDevice) -> MeteredDevice {
    let (kind, counters) = (device.id().name(), device.counters());
    MeteredDevice { address: slot.bdf(), kind, counters }
}

#[cfg(test)]
#[path = "board_test.rs"]
mod board_test;
