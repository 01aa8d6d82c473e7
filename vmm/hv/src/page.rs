//! Pages that the guest can only read: reading one does not leave the guest, writing to it is an access to a device.
//!
//! Invariant: the page is mapped here for as long as the guest can read it.

use std::sync::Arc;

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, VmFd};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};
use vmm_sys_util::errno::Error as Errno;

use crate::vm::VmError;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// A page at one guest address.
#[derive(Debug)]
pub struct ReadOnlyPage {
    vm: Arc<VmFd>,
    slot: u32,
    address: u64,
    /// Behind the memory slot.
    memory: MmapRegion,
}

impl ReadOnlyPage {
    /// At `address`, a multiple of the page's size, as memory slot `slot`, which must be free; all ones.
    pub(crate) fn new(vm: &Arc<VmFd>, slot: u32, address: u64) -> Result<Self, VmError> {
        let refused = |errno| VmError::refused("map a page that is only read", errno);
        if !vm.check_extension(Cap::ReadonlyMem) {
            return Err(refused(Errno::new(libc::EOPNOTSUPP)));
        }
        let memory = MmapRegion::new(PAGE).map_err(|_| refused(Errno::new(libc::ENOMEM)))?;
        let page = Self { vm: Arc::clone(vm), slot, address, memory };
        page.show(&[0xff; PAGE]);
        page.map(PAGE).map_err(refused)?;
        Ok(page)
    }

    /// What the page begins with from now on; what does not fit is dropped.
    pub fn show(&self, bytes: &[u8]) {
        let length = bytes.len().min(PAGE);
        // The memory is as long as a page.
        let _ = self.memory.as_volatile_slice().write_slice(&bytes[..length], 0);
    }

    /// Gives KVM the first `size` bytes; none of them takes the page away.
    fn map(&self, size: usize) -> Result<(), Errno> {
        let region = kvm_userspace_memory_region {
            slot: self.slot,
            flags: KVM_MEM_READONLY,
            guest_phys_addr: self.address,
            memory_size: size as u64,
            userspace_addr: self.memory.as_ptr().addr() as u64,
        };
        // SAFETY: the mapping is as long as the slot and lives as long as `self`, which takes the slot away when it is
        // dropped; the guest cannot write there.
        unsafe { self.vm.set_user_memory_region(region) }
    }
}

impl Drop for ReadOnlyPage {
    fn drop(&mut self) {
        // A slot that exists can be taken away.
        let _ = self.map(0);
    }
}
