//! From a [`MachineSpec`] to a [`Plan`]: every address, slot and table, decided before anything is built.
//!
//! Invariant: pure. A plan depends on its specification alone, and building it decides nothing.

pub mod acpi;
mod cmdline;
pub mod layout;
pub mod pci;

use cofferdam_vmm_api::{Bdf, MachineSpec, SpecError};

use self::acpi::AcpiTables;
use self::layout::MemoryLayout;
use self::pci::{Slot, Slots};

/// Most queues of one disk: more vCPUs share them. Each costs the monitor a thread once it is in use.
const MAX_QUEUES: u16 = 4;

/// I/O ports of the serial console.
pub const SERIAL_PORT: u16 = 0x3f8;
/// IOAPIC pin of the serial console.
pub const SERIAL_PIN: u8 = 4;
/// I/O port of the panic notifier.
pub const PANIC_PORT: u16 = 0x505;
/// I/O ports of the power device: sleep control, sleep status, reset.
pub const POWER_PORT: u16 = 0x600;

/// A specification that cannot become a machine.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The specification itself is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// More devices than the bus has places.
    #[error("more devices than a PCI bus has places for")]
    BusFull,
}

/// A machine, decided to the last address.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it was made from.
    pub spec: MachineSpec,
    /// Memory.
    pub memory: MemoryLayout,
    /// The place of the vsock device.
    pub vsock: Option<Slot>,
    /// The place of the entropy device.
    pub rng: Option<Slot>,
    /// The places of the disks, in order.
    pub disks: Vec<Slot>,
    /// The places of the network cards, in order.
    pub nets: Vec<Slot>,
    /// The place of the memory balloon.
    pub balloon: Option<Slot>,
    /// The places that are left, for what is plugged in.
    pub slots: Slots,
    /// The place of the memory device.
    pub mem_hotplug: Option<Slot>,
    /// The kernel's command line.
    pub cmdline: String,
    /// The ACPI tables.
    pub acpi: AcpiTables,
}

impl Plan {
    /// Plans `spec`, with which `sent` descriptors came.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(spec: MachineSpec, sent: usize) -> Result<Self, PlanError> {
        spec.check(sent)?;
        let mut slots = Slots::new();
        let take = |slots: &mut Slots, wanted: bool| match wanted {
            true => slots.take().map(Some).ok_or(PlanError::BusFull),
            false => Ok(None),
        };
        let vsock = take(&mut slots, spec.vsock.is_some())?;
        let rng = take(&mut slots, spec.rng)?;
        let take_all = |slots: &mut Slots, count: usize| {
            (0..count).map(|_| slots.take().ok_or(PlanError::BusFull)).collect::<Result<_, _>>()
        };
        let disks = take_all(&mut slots, spec.disks.len())?;
        let nets = take_all(&mut slots, spec.nets.len())?;
        let balloon = take(&mut slots, spec.balloon)?;
        let memory = MemoryLayout::new(spec.memory).growing_to(spec.all_memory());
        // Last, so that it moves no other.
        let mem_hotplug = take(&mut slots, memory.pluggable.is_some())?;
        let mut spare = slots.clone();
        if (0..spec.spare_queues).any(|_| spare.plug().is_none()) {
            return Err(PlanError::BusFull);
        }
        let cmdline = cmdline::of(&spec)?;
        let acpi = acpi::tables(spec.all_vcpus(), spec.console.is_some());
        Ok(Self {
            spec,
            memory,
            vsock,
            rng,
            disks,
            nets,
            balloon,
            slots,
            mem_hotplug,
            cmdline,
            acpi,
        })
    }

    /// Queues of each device that can have several: each vCPU has its own, up to a few. Parked vCPUs count: there
    /// are no more queues later.
    #[must_use]
    pub fn queues(&self) -> u16 {
        u16::from(self.spec.all_vcpus()).min(MAX_QUEUES)
    }

    /// The addresses of the disks, in order.
    #[must_use]
    pub fn disk_addresses(&self) -> Vec<Bdf> {
        self.disks.iter().map(|slot| slot.bdf()).collect()
    }
}

#[cfg(test)]
#[path = "plan_test.rs"]
pub(crate) mod plan_test;
