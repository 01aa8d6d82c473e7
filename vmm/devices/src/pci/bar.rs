//! A 64-bit memory BAR (PCI 3.0, 6.2.5.1), BAR 0 of its function.
//!
//! Linux keeps what firmware has programmed for the functions that it finds at boot, but chooses addresses for
//! those that come later. A function that is plugged in has its address fixed instead, by an Enhanced Allocation
//! capability in the place of the BAR (PCI Express 4.0, 7.8.5): nobody may move it.
//!
//! Invariant: its size is a power of two; sizing of one that is not fixed works by the write mask alone: the guest writes all
//! ones and reads back where it may write.

use serde::{Deserialize, Serialize};

use super::config::{ConfigSpace, NoRoom};

/// Offset of BAR 0.
const BAR0: usize = 0x10;

/// Low bits: memory, 64-bit, not prefetchable.
const KIND: u64 = 0b0100;

/// Enhanced Allocation: capability id.
const FIXED: u8 = 0x14;

/// Its only entry is enabled, stands for BAR 0, is memory, and has two more words.
const FIXED_ENTRY: u32 = 1 << 31 | 2;

/// Smallest size: the low four bits are not part of the address.
const MIN_SIZE: u64 = 16;

/// A BAR; its current value is in the configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryBar {
    address: u64,
    size: u64,
    fixed: bool,
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
        check(address, size)?;
        config.set(BAR0, &(address | KIND).to_le_bytes());
        config.set_writable(BAR0, &(!(size - 1)).to_le_bytes());
        Ok(Self { address, size, fixed: false })
    }

    /// Fixes what would be BAR 0 at `address`, below 4 GiB.
    ///
    /// # Errors
    /// [`BarError`].
    pub fn fixed(config: &mut ConfigSpace, address: u64, size: u64) -> Result<Self, BarError> {
        check(address, size)?;
        let wrong = BarError { address, size };
        let start = u32::try_from(address).map_err(|_| wrong)?;
        let reach = u32::try_from(size - 1).map_err(|_| wrong)?;
        let mut body = vec![1, 0];
        // The low two bits of each say how long it is, and nothing of the value.
        for word in [FIXED_ENTRY, start, reach & !3] {
            body.extend(word.to_le_bytes());
        }
        config.add_capability(FIXED, &body, &[]).map_err(|NoRoom { .. }| wrong)?;
        Ok(Self { address, size, fixed: true })
    }

    /// Whether the function answers at the planned address right now.
    #[must_use]
    pub fn decodes(&self, config: &ConfigSpace) -> bool {
        let programmed = || u64::from_le_bytes(config.get(BAR0)) == self.address | KIND;
        config.memory_enabled() && (self.fixed || programmed())
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

fn check(address: u64, size: u64) -> Result<(), BarError> {
    let fits = address.checked_add(size).is_some();
    if !size.is_power_of_two() || size < MIN_SIZE || !address.is_multiple_of(size) || !fits {
        return Err(BarError { address, size });
    }
    Ok(())
}
