//! Exit codes of `cofferdam-vmm boot`; its help lists them.
//!
//! Invariant: each reason has its own.

use cofferdam_vmm_api::ExitReason;

/// The machine could not be built.
pub(crate) const FAILED: u8 = 1;

/// Stopped by a signal, as a shell would say for Ctrl-C.
pub(crate) const STOPPED: u8 = 130;

/// The exit code for the end of a machine.
pub(crate) fn code(reason: &ExitReason) -> u8 {
    match reason {
        ExitReason::PowerOff => 0,
        ExitReason::Reboot => 3,
        ExitReason::Panic => 4,
        ExitReason::TripleFault => 5,
        ExitReason::Error(_) => 6,
        ExitReason::Stopped => STOPPED,
    }
}
