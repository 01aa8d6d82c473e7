//! A 64-bit memory BAR (PCI 3.0, 6.2.5.1), BAR 0 of its function.
//!
//! Invariant: its size is a power of two; sizing works by the write mask alone: the guest writes all
//! ones and reads back where it may write.

use serde::{Deserialize, Serialize};

use super::config::ConfigSpace;

/// Offset of BAR 0.
const BAR0: usize = 0x10;

/// Low bits: memory, 64-bit, not prefetchable.
const KIND: u64 = 0b0100;

/// Smallest size: the low four bits are not part of the address.
const MIN_SIZE: u64 = 16;

/// A BAR; its current value is in the configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryBar {
    address: u64,
    size: u64,
}

/// A BAR that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "BAR of {size:#x} bytes at {address:#x}: the size must be a power of two and the address a multiple of it"
)]
pub struct BarError {
    /// Planned address.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
}

impl MemoryBar {
    /// Puts BAR 0 into `config`, programmed to `address`.
    ///
    /// # Errors
    /// [`BarError`].
    pub fn new(config: &mut ConfigSpace, address: u64, size: u64) -> Result<Self, BarError> {
        let fits = address.checked_add(size).is_some();
        if !size.is_power_of_two() || size < MIN_SIZE || !address.is_multiple_of(size) || !fits {
            return Err(BarError { address, size });
        }
        config.set(BAR0, &(address | KIND).to_le_bytes());
        config.set_writable(BAR0, &(!(size - 1)).to_le_bytes());
        Ok(Self { address, size })
    }

    /// Whether the function answers at the planned address right now.
    #[must_use]
    pub fn decodes(&self, config: &ConfigSpace) -> bool {
        config.memory_enabled() && u64::from_le_bytes(config.get(BAR0)) == self.address | KIND
    }

    /// The planned address.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}
