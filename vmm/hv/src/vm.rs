//! A virtual machine: memory slots, the interrupt controller, doorbells.
//!
//! Invariant: every memory slot points into memory that the [`Vm`] keeps mapped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::errno;
use vmm_sys_util::eventfd::EventFd;

use crate::chunks::MemoryChunks;
use crate::cpuid::{CpuidTable, Topology};
use crate::irq::Irqs;
use crate::memory::GuestRam;
use crate::page::ReadOnlyPage;
use crate::stats::Statistics;
use crate::vcpu::Vcpu;

/// Three pages below 4 GiB that KVM needs on some Intel hosts; its own default page for the identity map
/// is just below. Nothing else may be there.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// Something that KVM refused.
#[derive(Debug, thiserror::Error)]
#[error("KVM refused to {what}")]
pub struct VmError {
    what: &'static str,
    #[source]
    source: io::Error,
}

impl VmError {
    pub(crate) fn refused(what: &'static str, errno: errno::Error) -> Self {
        Self { what, source: errno.into() }
    }
}

/// A virtual machine; cheap to clone.
#[derive(Clone, Debug)]
pub struct Vm {
    fd: Arc<VmFd>,
    irqs: Irqs,
    /// The next memory slot.
    next_slot: Arc<AtomicU32>,
    /// Behind the memory slots.
    _ram: GuestRam,
}

impl Vm {
    pub(crate) fn new(fd: VmFd, ram: &GuestRam) -> Result<Self, VmError> {
        fd.set_tss_address(TSS_ADDRESS)
            .map_err(|errno| VmError::refused("place the task state segment", errno))?;
        fd.create_irq_chip()
            .map_err(|errno| VmError::refused("create an interrupt controller", errno))?;
        for (slot, region) in (0u32..).zip(ram.iter()) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: region.as_ptr().addr() as u64,
            };
            // SAFETY: the mapping is as long as the slot, and lives as long as `_ram` in this `Vm`, whose
            // clones share it; the guest's writes there are those of a device, to volatile memory.
            unsafe { fd.set_user_memory_region(region) }
                .map_err(|errno| VmError::refused("map guest memory", errno))?;
        }
        let fd = Arc::new(fd);
        let irqs = Irqs::new(Arc::clone(&fd));
        let used = u32::try_from(ram.num_regions()).unwrap_or(u32::MAX);
        Ok(Self { fd, irqs, next_slot: Arc::new(AtomicU32::new(used)), _ram: ram.clone() })
    }

    /// A virtual CPU that sees `cpuid` as CPU `index` of `topology`. All but number 0 wait for the guest to
    /// start them.
    ///
    /// # Errors
    /// [`VmError`].
    pub fn create_vcpu(
        &self,
        index: u8,
        topology: Topology,
        cpuid: &CpuidTable,
    ) -> Result<Vcpu, VmError> {
        let fd = self
            .fd
            .create_vcpu(u64::from(index))
            .map_err(|errno| VmError::refused("create a vCPU", errno))?;
        let entries = cpuid.of_vcpu(index, topology, fd.get_tsc_khz().ok().filter(|khz| *khz != 0));
        Vcpu::new(fd, &entries, self.fd.run_size())
    }

    /// What KVM counts of the machine as a whole, where the host's kernel tells.
    #[must_use]
    pub fn statistics(&self) -> Option<Statistics> {
        Statistics::of(self.fd.as_ref())
    }

    /// A page at `address` that the guest can only read.
    ///
    /// # Errors
    /// [`VmError`]; a host may not have it.
    pub fn read_only_page(&self, address: u64) -> Result<ReadOnlyPage, VmError> {
        ReadOnlyPage::new(&self.fd, self.next_slot.fetch_add(1, Ordering::Relaxed), address)
    }

    /// `memory`, one region of `count` chunks of `size` bytes, none of which the guest has at first.
    #[must_use]
    pub fn memory_chunks(&self, memory: &GuestRam, count: u32, size: u64) -> MemoryChunks {
        let first = self.next_slot.fetch_add(count, Ordering::Relaxed);
        MemoryChunks::new(&self.fd, first, memory, size)
    }

    /// The interrupt vectors of this machine.
    #[must_use]
    pub fn irqs(&self) -> &Irqs {
        &self.irqs
    }

    /// Every guest write of any size at `address` signals `event` instead of leaving the guest.
    ///
    /// # Errors
    /// [`VmError`].
    pub fn connect_doorbell(&self, address: u64, event: &EventFd) -> Result<(), VmError> {
        self.fd
            .register_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(|errno| VmError::refused("connect a doorbell", errno))
    }

    /// Undoes [`Vm::connect_doorbell`].
    ///
    /// # Errors
    /// [`VmError`].
    pub fn disconnect_doorbell(&self, address: u64, event: &EventFd) -> Result<(), VmError> {
        self.fd
            .unregister_ioevent(event, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(|errno| VmError::refused("disconnect a doorbell", errno))
    }
}
