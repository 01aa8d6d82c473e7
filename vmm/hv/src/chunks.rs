//! Memory that the guest gets and loses while it runs, in chunks of one size.
//!
//! Each chunk is a memory slot of its own, so that it comes and goes without the others noticing. To an address of a
//! chunk that is not there, nothing answers: reads give all ones, writes vanish.
//!
//! Invariant: the memory behind a chunk stays mapped here, whether the guest has it or not.

use std::sync::Arc;

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};
use vmm_sys_util::errno::Error as Errno;

use crate::memory::GuestRam;
use crate::vm::VmError;

/// A region of memory in chunks, none of which the guest has at first.
#[derive(Debug)]
pub struct MemoryChunks {
    vm: Arc<VmFd>,
    /// The memory slot of the first chunk; the others follow.
    first_slot: u32,
    /// Bytes of a chunk.
    size: u64,
    /// Behind the memory slots.
    memory: GuestRam,
}

impl MemoryChunks {
    /// `memory`, one region of as many chunks of `size` bytes as there are free slots from `first_slot` on.
    pub(crate) fn new(vm: &Arc<VmFd>, first_slot: u32, memory: &GuestRam, size: u64) -> Self {
        Self { vm: Arc::clone(vm), first_slot, size, memory: memory.clone() }
    }

    /// Gives the guest chunk `index`; it may have it already.
    ///
    /// # Errors
    /// [`VmError`]; the guest does not have it then.
    pub fn map(&self, index: u32) -> Result<(), VmError> {
        self.set(index, self.size).map_err(|errno| VmError::refused("add memory", errno))
    }

    /// Takes chunk `index` from the guest; it need not have it.
    ///
    /// # Errors
    /// [`VmError`].
    pub fn unmap(&self, index: u32) -> Result<(), VmError> {
        self.set(index, 0).map_err(|errno| VmError::refused("take memory away", errno))
    }

    /// Sets the slot of chunk `index` to its first `size` bytes; none of them takes the slot away.
    fn set(&self, index: u32, size: u64) -> Result<(), Errno> {
        let wrong = || Errno::new(libc::EINVAL);
        let region = self.memory.iter().next().ok_or_else(wrong)?;
        let offset = u64::from(index) * self.size;
        if offset.checked_add(self.size).is_none_or(|end| end > region.len()) {
            return Err(wrong());
        }
        let memory = kvm_userspace_memory_region {
            slot: self.first_slot.checked_add(index).ok_or_else(wrong)?,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value() + offset,
            memory_size: size,
            userspace_addr: region.as_ptr().addr() as u64 + offset,
        };
        // SAFETY: the slot lies within the region's mapping, which is never taken away; the guest's writes there are
        // those of a device, to volatile memory.
        match unsafe { self.vm.set_user_memory_region(memory) } {
            // There is no slot to take away.
            Err(errno) if size == 0 && errno.errno() == libc::EINVAL => Ok(()),
            result => result,
        }
    }
}
