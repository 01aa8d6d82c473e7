//! Making a vCPU's thread leave the guest.
//!
//! A signal alone can arrive between the thread's last look at its orders and its entry into the guest, and
//! would then be lost; so the vCPU's `immediate_exit` flag is set first, in the page that it shares with KVM.
//!
//! Invariant: after [`Kicker::kick`] the vCPU's next or current entry ends, and so do all later ones until
//! [`Vcpu::rearm`](crate::Vcpu::rearm).

use std::sync::atomic::{Ordering, compiler_fence};

use kvm_bindings::kvm_run;
use kvm_ioctls::{KvmRunWrapper, VcpuFd};
use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::vm::VmError;

/// Makes one vCPU leave the guest.
#[derive(Debug)]
pub struct Kicker {
    /// The vCPU's page, mapped a second time.
    run: KvmRunWrapper,
}

impl Kicker {
    pub(crate) fn new(vcpu: &VcpuFd) -> Result<Self, VmError> {
        let run = KvmRunWrapper::mmap_from_fd(vcpu, size_of::<kvm_run>())
            .map_err(|errno| VmError::refused("map a vCPU's page", errno))?;
        Ok(Self { run })
    }

    /// Makes the vCPU that runs on `thread` leave the guest and not enter again before it is rearmed.
    pub fn kick(&mut self, thread: &impl Killable) {
        self.run.as_mut_ref().immediate_exit = 1;
        compiler_fence(Ordering::SeqCst);
        // It fails only for a thread that has ended already.
        let _ = thread.kill(SIGRTMIN());
    }
}

/// Installs the handler that [`Kicker::kick`] needs, once per process. It does nothing: what matters is that
/// the signal interrupts the entry into the guest.
///
/// # Errors
/// [`VmError`].
pub fn install_kick_handler() -> Result<(), VmError> {
    extern "C" fn ignore(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}
    register_signal_handler(SIGRTMIN(), ignore)
        .map_err(|errno| VmError::refused("take signals", errno))
}
