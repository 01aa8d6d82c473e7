//! One virtual CPU.
//!
//! Invariant: only its own thread enters it; others reach it through its [`Kicker`] alone.

use kvm_bindings::{CpuId, Msrs, kvm_cpuid_entry2, kvm_msr_entry};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno::Error as Errno;

use crate::exit::{Exit, decode};
use crate::kick::Kicker;
use crate::regs::EntryState;
use crate::run::Enter;
use crate::stats::Statistics;
use crate::vm::VmError;

/// What the guest's firmware would have set. A host that does not know one of these does without.
const BOOT_MSRS: [(u32, u64); 2] = [
    // IA32_MISC_ENABLE: fast strings.
    (0x1a0, 1),
    // IA32_MTRR_DEF_TYPE: enabled, write-back.
    (0x2ff, 0x806),
];

/// A virtual CPU.
#[derive(Debug)]
pub struct Vcpu {
    fd: VcpuFd,
    page_size: usize,
}

impl Vcpu {
    /// `page_size` is the size of the page that it shares with KVM.
    pub(crate) fn new(
        fd: VcpuFd,
        cpuid: &[kvm_cpuid_entry2],
        page_size: usize,
    ) -> Result<Self, VmError> {
        let table = CpuId::from_entries(cpuid)
            .map_err(|_| VmError::refused("take this much CPUID", Errno::new(libc::E2BIG)))?;
        fd.set_cpuid2(&table).map_err(|errno| VmError::refused("set the CPUID", errno))?;
        for (index, data) in BOOT_MSRS {
            let entry = kvm_msr_entry { index, data, ..Default::default() };
            if let Ok(msrs) = Msrs::from_entries(&[entry]) {
                let _ = fd.set_msrs(&msrs);
            }
        }
        Ok(Self { fd, page_size })
    }

    /// Sets the registers for the first entry.
    ///
    /// # Errors
    /// [`VmError`].
    pub fn set_entry(&self, state: EntryState) -> Result<(), VmError> {
        let refused = |errno| VmError::refused("set a vCPU's registers", errno);
        let mut sregs = self.fd.get_sregs().map_err(refused)?;
        state.apply(&mut sregs);
        self.fd.set_sregs(&sregs).map_err(refused)?;
        self.fd.set_regs(&state.regs()).map_err(refused)
    }

    /// Lets it enter the guest again after a kick, and tells a guest that cares that it stood still
    /// meanwhile, so that its watchdogs do not take the time for its own.
    pub fn rearm(&mut self) {
        self.fd.set_kvm_immediate_exit(0);
        // Refused for a guest that does not use KVM's clock.
        let _ = self.fd.kvmclock_ctrl();
    }

    /// What KVM counts of it, where the host's kernel tells.
    #[must_use]
    pub fn statistics(&self) -> Option<Statistics> {
        Statistics::of(&self.fd)
    }

    /// What makes it leave the guest.
    ///
    /// # Errors
    /// [`VmError`].
    pub fn kicker(&self) -> Result<Kicker, VmError> {
        Kicker::new(&self.fd)
    }
}

impl Enter for Vcpu {
    fn enter(&mut self) -> Exit<'_> {
        match self.fd.run() {
            Ok(_) => {}
            Err(errno) => match errno.errno() {
                // EAGAIN: a vCPU that waits to be started was woken.
                libc::EINTR | libc::EAGAIN => return Exit::Interrupted,
                _ => return Exit::Failed(format!("cannot run a vCPU: {errno}")),
            },
        }
        decode(self.fd.get_kvm_run(), self.page_size)
    }
}
