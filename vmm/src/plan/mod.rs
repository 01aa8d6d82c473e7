//! From a [`MachineSpec`] to a [`Plan`]: every address, slot and table, decided before anything is built.
//!
//! Invariant: pure. A plan depends on its specification alone, and building it decides nothing.

pub mod acpi;
pub mod layout;
pub mod pci;

use cofferdam_vmm_api::{Bdf, MachineSpec, SpecError};

use self::acpi::AcpiTables;
use self::layout::MemoryLayout;
use self::pci::{Slot, Slots};

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
    /// The places that are left, for what is plugged in.
    pub slots: Slots,
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
        let mut take = |wanted: bool| match wanted {
            true => slots.take().map(Some).ok_or(PlanError::BusFull),
            false => Ok(None),
        };
        let vsock = take(spec.vsock.is_some())?;
        let rng = take(spec.rng)?;
        let disks = spec.disks.iter().map(|_| slots.take().ok_or(PlanError::BusFull));
        let disks = disks.collect::<Result<_, _>>()?;
        let memory = MemoryLayout::new(spec.memory);
        let acpi = acpi::tables(spec.vcpus, spec.console.is_some());
        Ok(Self { spec, memory, vsock, rng, disks, slots, acpi })
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
