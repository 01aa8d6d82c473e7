//! MSI-X (PCI 3.0, 6.8.2): the vector table, masks and pending bits.
//!
//! ```text
//!   raise ──► enabled and unmasked? ──yes──► the vector's eventfd
//!                    │ no
//!                    └──► pending bit ──(unmask)──► the vector's eventfd
//! ```
//!
//! Invariant: a vector is connected exactly while MSI-X is enabled and neither the function nor the
//! entry is masked, with the message that the entry then holds. No interrupt raised while enabled is
//! lost. Workers raise without the function's lock, so that a reset may wait for them.

use std::io;
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};

use super::config::{ConfigSpace, NoRoom};
use crate::ports::{MsiController, MsiMessage, MsiVector};
use crate::regmap::{RegMap, Register, Registers};
use crate::sync;

/// Capability id.
const CAPABILITY: u8 = 0x11;

/// Bytes of a table entry.
pub const ENTRY_SIZE: u64 = 16;

/// Most vectors that this implementation's callers need; the specification allows 2048.
pub const MAX_VECTORS: u16 = 64;

/// Message control: enable and function mask, in its upper byte.
const CONTROL_ENABLE: u8 = 1 << 7;
const CONTROL_MASK: u8 = 1 << 6;

/// Vector control: mask bit.
const ENTRY_MASKED: u32 = 1;

/// A table entry; plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    address: u64,
    data: u32,
    masked: bool,
}

/// All that the guest can set; plain data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsixState {
    enabled: bool,
    function_masked: bool,
    entries: Vec<Entry>,
    pending: Vec<bool>,
}

/// Registers of an entry.
#[derive(Clone, Copy)]
enum Field {
    Address,
    Data,
    Control,
}

const ENTRY: RegMap<Field> = RegMap(&[
    Register { id: Field::Address, offset: 0, size: 8 },
    Register { id: Field::Data, offset: 8, size: 4 },
    Register { id: Field::Control, offset: 12, size: 4 },
]);

impl Registers<Field> for Entry {
    fn get(&self, id: Field) -> u64 {
        match id {
            Field::Address => self.address,
            Field::Data => self.data.into(),
            Field::Control => u64::from(self.masked),
        }
    }

    fn set(&mut self, id: Field, value: u64) {
        // A register of 4 bytes never holds more; the upper half of `value` is zero.
        let word = u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0);
        match id {
            // Addresses are aligned to 4 bytes (PCI 3.0, 6.8.2.9).
            Field::Address => self.address = value & !3,
            Field::Data => self.data = word,
            Field::Control => self.masked = word & ENTRY_MASKED != 0,
        }
    }
}

/// One function's MSI-X.
pub struct Msix {
    inner: Mutex<Inner>,
    vectors: u16,
}

struct Inner {
    state: MsixState,
    ports: Vec<Port>,
}

/// The way out, and what it is connected to.
struct Port {
    vector: Arc<dyn MsiVector>,
    routed: Option<MsiMessage>,
}

impl Msix {
    /// `vectors` vectors (at most [`MAX_VECTORS`]), all masked, MSI-X disabled: the state after reset.
    ///
    /// # Errors
    /// If the hypervisor has no vectors left.
    pub fn new(vectors: u16, controller: &dyn MsiController) -> io::Result<Self> {
        let vectors = vectors.clamp(1, MAX_VECTORS);
        let count = usize::from(vectors);
        let ports = (0..vectors)
            .map(|_| Ok(Port { vector: controller.vector()?, routed: None }))
            .collect::<io::Result<_>>()?;
        let entry = Entry { address: 0, data: 0, masked: true };
        let state = MsixState {
            enabled: false,
            function_masked: false,
            entries: vec![entry; count],
            pending: vec![false; count],
        };
        Ok(Self { inner: Mutex::new(Inner { state, ports }), vectors })
    }

    /// How many vectors there are.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Adds the capability; table and pending bits are in BAR 0 at the offsets given. The offset of
    /// the byte that holds enable and function mask, for [`Msix::control_written`].
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn add_capability(
        &self,
        config: &mut ConfigSpace,
        table: u32,
        pending: u32,
    ) -> Result<u16, NoRoom> {
        let mut body = Vec::with_capacity(10);
        body.extend((self.vectors - 1).to_le_bytes());
        body.extend(table.to_le_bytes());
        body.extend(pending.to_le_bytes());
        let at = config.add_capability(CAPABILITY, &body, &[0, CONTROL_ENABLE | CONTROL_MASK])?;
        Ok(u16::from(at) + 3)
    }

    /// The guest wrote enable and function mask: the upper byte of message control.
    pub fn control_written(&self, control: u8) {
        let mut inner = sync::lock(&self.inner);
        inner.state.enabled = control & CONTROL_ENABLE != 0;
        inner.state.function_masked = control & CONTROL_MASK != 0;
        (0..inner.ports.len()).for_each(|index| inner.refresh(index));
    }

    /// The guest reads the table.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        let inner = sync::lock(&self.inner);
        data.fill(0);
        // An access of 8 bytes may reach into the next entry.
        for (index, entry) in inner.state.entries.iter().enumerate() {
            let base = index as u64 * ENTRY_SIZE;
            let Some(part) = part(base, offset, data.len()) else { continue };
            ENTRY.read(entry, offset + part.0 as u64 - base, &mut data[part.0..part.1]);
        }
    }

    /// The guest writes the table.
    pub fn write_table(&self, offset: u64, data: &[u8]) {
        let mut inner = sync::lock(&self.inner);
        for index in 0..inner.ports.len() {
            let base = index as u64 * ENTRY_SIZE;
            let Some(part) = part(base, offset, data.len()) else { continue };
            let entry = &mut inner.state.entries[index];
            ENTRY.write(entry, offset + part.0 as u64 - base, &data[part.0..part.1]);
            inner.refresh(index);
        }
    }

    /// The guest reads the pending bits.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        let inner = sync::lock(&self.inner);
        for (byte, at) in data.iter_mut().zip(offset..) {
            let first = usize::try_from(at).unwrap_or(usize::MAX).saturating_mul(8);
            let bits = inner.state.pending.iter().skip(first).take(8);
            *byte = bits.enumerate().fold(0, |bits, (i, &pending)| bits | u8::from(pending) << i);
        }
    }

    /// Raises vector `index`: at once, or when it is unmasked. Nothing while MSI-X is disabled.
    pub fn raise(&self, index: u16) {
        let mut inner = sync::lock(&self.inner);
        let index = usize::from(index);
        if !inner.state.enabled || index >= inner.ports.len() {
            return;
        }
        inner.state.pending[index] = true;
        inner.deliver(index);
    }

    /// What the guest has set.
    #[must_use]
    pub fn state(&self) -> MsixState {
        sync::lock(&self.inner).state.clone()
    }
}

impl Inner {
    /// Connects or disconnects vector `index` as the state says, and delivers what is pending.
    fn refresh(&mut self, index: usize) {
        let entry = self.state.entries[index];
        let open = self.state.enabled && !self.state.function_masked && !entry.masked;
        let message = open.then_some(MsiMessage { address: entry.address, data: entry.data });
        if self.ports[index].routed != message {
            // A message that the hypervisor refuses is one that no machine would deliver: the vector
            // stays disconnected and its interrupts pending.
            let routed = self.ports[index].vector.route(message).is_ok();
            self.ports[index].routed = message.filter(|_| routed);
        }
        if !self.state.enabled {
            self.state.pending[index] = false;
        }
        self.deliver(index);
    }

    /// Sends vector `index` if it is pending and connected.
    fn deliver(&mut self, index: usize) {
        if self.state.pending[index] && self.ports[index].routed.is_some() {
            self.state.pending[index] = false;
            self.ports[index].vector.raise();
        }
    }
}

/// The part `from..to` of an access of `len` bytes at `offset` that falls into the entry at `base`.
fn part(base: u64, offset: u64, len: usize) -> Option<(usize, usize)> {
    let end = offset.checked_add(len as u64)?;
    let start = offset.max(base);
    let stop = end.min(base + ENTRY_SIZE);
    if start >= stop {
        return None;
    }
    Some((usize::try_from(start - offset).ok()?, usize::try_from(stop - offset).ok()?))
}

#[cfg(test)]
#[path = "msix_test.rs"]
mod msix_test;
