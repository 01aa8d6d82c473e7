//! What is on a machine's PCI bus, from the boot on and as it comes and goes.
//!
//! A function that comes answers at its BAR before it appears in configuration space; one that goes leaves
//! configuration space first. In between two accesses of the guest it is there as a whole or not at all.
//!
//! A function goes when the supervisor says so, whether the guest has let go of it or not: its work is stopped,
//! and what was its BAR reads as all ones from then on. Nothing of it stays: its thread has ended, its descriptors
//! are closed, its doorbells and interrupt vectors are free again when [`Board::unplug`] returns. But a guest that
//! had not let go of it still believes in it, and would take another device in that place for it: such a place is
//! not used again.
//!
//! Invariant: one owner, the machine's; places are those of the plan's [`Slots`], and each is held by one function.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use cofferdam_vmm_api::Bdf;
use cofferdam_vmm_devices::bus::BusError;
use cofferdam_vmm_devices::pci::{HostBridge, PciBus, Taken};
use cofferdam_vmm_devices::virtio::block::BlockError;
use cofferdam_vmm_devices::virtio::pci::{BAR_SIZE, TransportError, VirtioPci, Wiring};
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
    /// All places are taken.
    #[error("no place on the PCI bus is free")]
    Full,
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
    /// Something that building a machine needs as well.
    #[error(transparent)]
    Build(#[from] BuildError),
}

impl From<TransportError> for PlugError {
    fn from(error: TransportError) -> Self {
        Self::Build(error.into())
    }
}

impl From<BusError> for PlugError {
    fn from(error: BusError) -> Self {
        Self::Build(error.into())
    }
}

impl From<Taken> for PlugError {
    fn from(error: Taken) -> Self {
        Self::Build(error.into())
    }
}

type Function = Arc<Mutex<VirtioPci>>;

/// See the module.
pub(super) struct Board {
    bus: Arc<Mutex<PciBus>>,
    space: Arc<Space>,
    slots: Slots,
    wiring: Wiring,
    outcome: Arc<Outcome>,
    present: BTreeMap<Bdf, Present>,
}

/// A function that is there.
struct Present {
    slot: Slot,
    id: DeviceId,
    function: Function,
}

impl Board {
    /// A bus with its host bridge, in `space`.
    pub(super) fn new(
        space: Arc<Space>,
        slots: Slots,
        wiring: Wiring,
        outcome: Arc<Outcome>,
    ) -> Result<Self, BuildError> {
        let mut bus = PciBus::new();
        bus.attach(0, Arc::new(Mutex::new(HostBridge::new())))?;
        let bus = Arc::new(Mutex::new(bus));
        space.memory.insert(ECAM, ECAM_SIZE, bus.clone())?;
        Ok(Self { bus, space, slots, wiring, outcome, present: BTreeMap::new() })
    }

    /// Puts `device` at `slot`, which the plan has for it, before the guest starts.
    pub(super) fn place(
        &mut self,
        slot: Slot,
        device: Box<dyn VirtioDevice>,
    ) -> Result<MeteredDevice, BuildError> {
        let device = Box::new(Observed { device, outcome: Arc::clone(&self.outcome) });
        self.insert(slot, device, VirtioPci::new)
    }

    /// Puts `device` at the next free place. `ready` is asked before the guest can see it.
    pub(super) fn plug(
        &mut self,
        device: Box<dyn VirtioDevice>,
        ready: impl FnOnce() -> Result<(), BuildError>,
    ) -> Result<MeteredDevice, PlugError> {
        let slot = self.slots.plug().ok_or(PlugError::Full)?;
        let plugged = self.insert(slot, device, |device, bar, wiring| {
            let function = VirtioPci::plugged(device, bar, wiring)?;
            ready().map(|()| function)
        });
        plugged.map_err(|error| {
            self.slots.release(slot.bdf());
            error.into()
        })
    }

    fn insert<E: Into<BuildError>>(
        &mut self,
        slot: Slot,
        device: Box<dyn VirtioDevice>,
        make: impl FnOnce(Box<dyn VirtioDevice>, u64, Wiring) -> Result<VirtioPci, E>,
    ) -> Result<MeteredDevice, BuildError> {
        let (id, address, counters) = (device.id(), slot.bdf(), device.counters());
        let function = make(device, slot.bar, self.wiring.clone()).map_err(Into::into)?;
        let function = Arc::new(Mutex::new(function));
        self.space.memory.insert(slot.bar, BAR_SIZE, function.clone())?;
        let appears = self.bus().attach(slot.place(), function.clone());
        if let Err(taken) = appears {
            self.space.memory.remove(slot.bar);
            return Err(taken.into());
        }
        self.present.insert(address, Present { slot, id, function });
        Ok(MeteredDevice { address, kind: id.name(), counters })
    }

    /// Takes the device at `address` away. Whether the guest still used it.
    pub(super) fn unplug(&mut self, address: Bdf) -> Result<bool, PlugError> {
        let present = self.present.get(&address).ok_or(PlugError::Absent(address))?;
        if !matches!(present.id, DeviceId::Block | DeviceId::Net) {
            return Err(PlugError::Fixed { kind: present.id.name(), address });
        }
        let Some(Present { slot, function, .. }) = self.present.remove(&address) else {
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
        if !in_use {
            self.slots.release(address);
        }
        Ok(in_use)
    }

    fn bus(&self) -> std::sync::MutexGuard<'_, PciBus> {
        self.bus.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
