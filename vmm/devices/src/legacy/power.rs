//! How a guest ends its machine: the sleep and reset registers of hardware-reduced ACPI (ACPI 6.5,
//! 4.8.3.7 and 4.8.3.6), and the panic notifier (QEMU's `pvpanic`, one byte).
//!
//! Invariant: the guest only signals; what then happens is the monitor's.

use std::sync::Arc;

use crate::ports::{BusDevice, PowerControl, PowerEvent};

/// Ports of [`Power`]: sleep control, sleep status, reset.
pub const POWER_PORTS: u64 = 3;

/// Offset of the sleep control register (FADT `SLEEP_CONTROL_REG`).
pub const SLEEP_CONTROL: u64 = 0;

/// Offset of the sleep status register (FADT `SLEEP_STATUS_REG`).
pub const SLEEP_STATUS: u64 = 1;

/// Offset of the reset register (FADT `RESET_REG`).
pub const RESET: u64 = 2;

/// The sleep type that means S5, "soft off" (DSDT `_S5`).
pub const SLEEP_TYPE_S5: u8 = 5;

/// What the reset register wants to be written (FADT `RESET_VALUE`).
pub const RESET_VALUE: u8 = 1;

/// `SLP_EN` of the sleep control register.
const SLEEP_ENABLE: u8 = 1 << 5;

/// Ports of [`PanicNotifier`].
pub const PANIC_PORTS: u64 = 1;

/// Bit 0 of the notifier: the guest's kernel panicked. The only event that is offered.
const PANICKED: u8 = 1;

/// The ACPI registers.
pub struct Power(Arc<dyn PowerControl>);

impl Power {
    /// Registers that tell `control`.
    #[must_use]
    pub fn new(control: Arc<dyn PowerControl>) -> Self {
        Self(control)
    }
}

impl BusDevice for Power {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        // Both sleep registers read as "nothing happened"; a machine that sleeps is gone.
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        for (register, &byte) in (offset..POWER_PORTS).zip(data) {
            match register {
                SLEEP_CONTROL if byte & SLEEP_ENABLE != 0 && (byte >> 2) & 7 == SLEEP_TYPE_S5 => {
                    self.0.signal(PowerEvent::PowerOff);
                }
                RESET if byte == RESET_VALUE => self.0.signal(PowerEvent::Reset),
                _ => {}
            }
        }
    }
}

/// The panic notifier.
pub struct PanicNotifier(Arc<dyn PowerControl>);

impl PanicNotifier {
    /// A notifier that tells `control`.
    #[must_use]
    pub fn new(control: Arc<dyn PowerControl>) -> Self {
        Self(control)
    }
}

impl BusDevice for PanicNotifier {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
        data[0] = PANICKED;
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        if data[0] & PANICKED != 0 {
            self.0.signal(PowerEvent::Panic);
        }
    }
}

#[cfg(test)]
#[path = "power_test.rs"]
mod power_test;
