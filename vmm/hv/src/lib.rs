//! The hypervisor layer: the only crate that names KVM.
//!
//! ```text
//! Hypervisor ──create_vm──► Vm ──create_vcpu──► Vcpu ──enter──► Exit
//!  (/dev/kvm)               ├─ msi_controller ──► MsiVectors (irqfd + MSI route)
//!                           └─ doorbells (ioeventfd)
//! ```
//!
//! What runs above sees plain data only: [`Exit`], [`EntryState`], [`Topology`]. The loop that turns exits
//! into accesses of an [`AddressSpace`] is [`run_vcpu`]; it runs on scripted exits without KVM.
//!
//! Invariant: no device is known here, and a guest can make none of this panic, allocate or loop.

mod chunks;
mod cpuid;
mod exit;
mod irq;
mod kick;
mod kvm;
mod memory;
mod page;
mod regs;
mod run;
mod stats;
mod vcpu;
mod vm;

pub use chunks::MemoryChunks;
pub use cpuid::{CpuidTable, Topology};
pub use exit::Exit;
pub use irq::{IOAPIC_PINS, IrqVector, Irqs, MsiTarget};
pub use kick::{Kicker, install_kick_handler};
pub use kvm::{Hypervisor, OpenError, open_kvm};
pub use memory::{GuestRam, MemoryError, allocate_ram, give_back, map_file, prefer_huge_pages};
pub use page::ReadOnlyPage;
pub use regs::EntryState;
pub use run::{AddressSpace, End, Enter, ExitCounts, run_vcpu};
pub use stats::{Statistic, Statistics, total};
pub use vcpu::Vcpu;
pub use vm::{Vm, VmError};

#[cfg(test)]
mod guests_test;
