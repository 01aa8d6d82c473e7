//! Addresses to devices, for memory-mapped I/O as for I/O ports.
//!
//! Invariant: ranges do not overlap; a device sees one access at a time, of 1, 2, 4 or 8 bytes, wholly
//! within its range. Everything else reads as all ones and is dropped when written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, RwLock};

use crate::ports::BusDevice;
use crate::sync;

/// A device as several owners hold it.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

/// A range that cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// Empty, or past the end of the address space.
    #[error("bus range {base:#x}+{len:#x} is empty or wraps around")]
    Invalid {
        /// First address.
        base: u64,
        /// Length in bytes.
        len: u64,
    },
    /// Taken.
    #[error("bus range {base:#x}+{len:#x} overlaps the one at {other:#x}")]
    Overlap {
        /// First address.
        base: u64,
        /// Length in bytes.
        len: u64,
        /// First address of the range in the way.
        other: u64,
    },
}

/// One address space.
#[derive(Default)]
pub struct Bus {
    ranges: RwLock<BTreeMap<u64, Range>>,
}

/// What answers from a key of the map on.
struct Range {
    len: u64,
    device: SharedDevice,
}

impl Bus {
    /// An empty address space.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets `device` answer `len` bytes from `base` on. Possible at any time.
    ///
    /// # Errors
    /// If the range is invalid or overlaps another.
    pub fn insert(&self, base: u64, len: u64, device: SharedDevice) -> Result<(), BusError> {
        let Some(last) = len.checked_sub(1).and_then(|rest| base.checked_add(rest)) else {
            return Err(BusError::Invalid { base, len });
        };
        let mut ranges = sync::write(&self.ranges);
        // Ranges do not overlap each other, so only the last one that starts at or before our end can
        // reach into us.
        if let Some((&other, range)) = ranges.range(..=last).next_back()
            && other.saturating_add(range.len - 1) >= base
        {
            return Err(BusError::Overlap { base, len, other });
        }
        ranges.insert(base, Range { len, device });
        Ok(())
    }

    /// Takes the range at `base` away; `false` if there is none.
    pub fn remove(&self, base: u64) -> bool {
        sync::write(&self.ranges).remove(&base).is_some()
    }

    /// The guest reads; `false` if nothing answers there.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        data.fill(0xff);
        let Some((device, offset)) = self.find(address, data.len()) else { return false };
        sync::lock(&device).read(offset, data);
        true
    }

    /// The guest writes; `false` if nothing answers there.
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        let Some((device, offset)) = self.find(address, data.len()) else { return false };
        sync::lock(&device).write(offset, data);
        true
    }

    /// The device that answers the whole access, and the offset within it. The map's lock is not held
    /// any more when this returns, so that a device may change the bus.
    fn find(&self, address: u64, len: usize) -> Option<(SharedDevice, u64)> {
        // An access across pages may reach us in odd pieces; no driver does that to a device.
        if !matches!(len, 1 | 2 | 4 | 8) {
            return None;
        }
        let ranges = sync::read(&self.ranges);
        let (base, range) = ranges.range(..=address).next_back()?;
        let offset = address - base;
        let end = offset.checked_add(u64::try_from(len).ok()?)?;
        (end <= range.len).then(|| (Arc::clone(&range.device), offset))
    }
}

#[cfg(test)]
#[path = "bus_test.rs"]
mod bus_test;
