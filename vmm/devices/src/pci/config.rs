//! The first 256 bytes of a function's configuration space (PCI 3.0, 6).
//!
//! Invariant: the guest changes only bits that were made writable; the capability list is what the
//! constructor built. There is no extended space: it reads as all ones.

use serde::{Deserialize, Serialize};

/// Bytes that there are.
pub const CONFIG_SIZE: usize = 256;

/// Command register.
const COMMAND: usize = 0x04;
/// `Memory Space Enable` of the command register.
const COMMAND_MEMORY: u8 = 1 << 1;
/// What of the command register can be written: memory space, bus master, and (in the upper byte)
/// interrupt disable.
const COMMAND_WRITABLE: [u8; 2] = [0x06, 0x04];
/// Status register.
const STATUS: usize = 0x06;
/// `Capabilities List` of the status register.
const STATUS_CAPABILITIES: u8 = 1 << 4;
/// Header type.
const HEADER_TYPE: usize = 0x0e;
/// `Multi-Function Device` of the header type.
const HEADER_MULTIFUNCTION: u8 = 1 << 7;
/// First capability's offset.
const CAPABILITIES: usize = 0x34;
/// Interrupt line: scratch space of the operating system.
const INTERRUPT_LINE: usize = 0x3c;
/// Where capabilities start.
const FIRST_CAPABILITY: usize = 0x40;

/// What a function says it is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Base class, sub-class, programming interface.
    pub class: [u8; 3],
    /// Subsystem vendor.
    pub subsystem_vendor: u16,
    /// Subsystem.
    pub subsystem: u16,
}

/// The configuration space; plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigSpace {
    bytes: Vec<u8>,
    /// Which bits the guest may write.
    writable: Vec<u8>,
    /// The last capability, whose link the next one is put into.
    last_capability: usize,
    /// Where the next capability goes.
    end: usize,
}

/// A capability that does not fit any more; a mistake of the device's author.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for capability {id:#x} of {len} bytes in configuration space")]
pub struct NoRoom {
    /// Which capability.
    pub id: u8,
    /// Its length.
    pub len: usize,
}

impl ConfigSpace {
    /// A type 0 header without capabilities and BARs; decoding is off.
    #[must_use]
    pub fn new(identity: &Identity) -> Self {
        let mut space = Self {
            bytes: vec![0; CONFIG_SIZE],
            writable: vec![0; CONFIG_SIZE],
            last_capability: 0,
            end: FIRST_CAPABILITY,
        };
        space.set(0x00, &identity.vendor.to_le_bytes());
        space.set(0x02, &identity.device.to_le_bytes());
        let [base, sub, interface] = identity.class;
        space.set(0x08, &[identity.revision, interface, sub, base]);
        space.set(0x2c, &identity.subsystem_vendor.to_le_bytes());
        space.set(0x2e, &identity.subsystem.to_le_bytes());
        space.set_writable(COMMAND, &COMMAND_WRITABLE);
        space.set_writable(INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Appends a capability with `body` after its two-byte header, of which the bits `writable` can be
    /// written (shorter means read-only). The offset of its header.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn add_capability(&mut self, id: u8, body: &[u8], writable: &[u8]) -> Result<u8, NoRoom> {
        let no_room = NoRoom { id, len: body.len() + 2 };
        let at = self.end;
        // Capabilities are aligned to 4 bytes (PCI 3.0, 6.7).
        let end = (at + 2 + body.len()).next_multiple_of(4);
        let offset = u8::try_from(at).map_err(|_| no_room)?;
        if end > CONFIG_SIZE || writable.len() > body.len() {
            return Err(no_room);
        }
        self.set(at, &[id, 0]);
        self.set(at + 2, body);
        self.set_writable(at + 2, writable);
        let link = if self.last_capability == 0 { CAPABILITIES } else { self.last_capability + 1 };
        self.set(link, &[offset]);
        self.bytes[STATUS] |= STATUS_CAPABILITIES;
        self.last_capability = at;
        self.end = end;
        Ok(offset)
    }

    /// The guest reads. Bytes past the end stay as they are.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (byte, value) in data.iter_mut().zip(self.bytes.iter().skip(offset.into())) {
            *byte = *value;
        }
    }

    /// The guest writes: only writable bits change.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        let start = usize::from(offset);
        let bytes = self.bytes.iter_mut().zip(&self.writable).skip(start);
        for (value, (byte, mask)) in data.iter().zip(bytes) {
            *byte = (*byte & !mask) | (value & mask);
        }
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Says that its device has more functions than number 0.
    pub fn set_multifunction(&mut self) {
        self.bytes[HEADER_TYPE] |= HEADER_MULTIFUNCTION;
    }

    /// Whether memory decoding is on.
    #[must_use]
    pub fn memory_enabled(&self) -> bool {
        self.bytes[COMMAND] & COMMAND_MEMORY != 0
    }

    /// The device's own view of bytes; zeros past the end.
    #[must_use]
    pub fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut data = [0; N];
        for (byte, value) in data.iter_mut().zip(self.bytes.iter().skip(offset)) {
            *byte = *value;
        }
        data
    }

    /// The device sets bytes, writable or not; what is past the end is dropped.
    pub fn set(&mut self, offset: usize, data: &[u8]) {
        for (byte, value) in self.bytes.iter_mut().skip(offset).zip(data) {
            *byte = *value;
        }
    }

    /// Sets which bits from `offset` on the guest may write.
    pub fn set_writable(&mut self, offset: usize, mask: &[u8]) {
        for (byte, value) in self.writable.iter_mut().skip(offset).zip(mask) {
            *byte = *value;
        }
    }
}

#[cfg(test)]
#[path = "config_test.rs"]
mod config_test;
