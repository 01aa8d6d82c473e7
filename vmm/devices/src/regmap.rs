//! Byte ranges to registers: accesses of any width and alignment are turned into whole-register ones.
//!
//! Invariant: a partial write keeps the other bytes of its register; bytes between registers read as
//! zero and are dropped when written.

/// One register: which, at what offset, of how many bytes (1 to 8).
#[derive(Clone, Copy, Debug)]
pub struct Register<Id> {
    /// Which.
    pub id: Id,
    /// Offset of its first byte.
    pub offset: u64,
    /// Its bytes, 1 to 8.
    pub size: u8,
}

/// A block of registers, by rising offset, not overlapping.
#[derive(Clone, Copy, Debug)]
pub struct RegMap<Id: 'static>(pub &'static [Register<Id>]);

/// Holds the values of the registers of a [`RegMap`].
pub trait Registers<Id> {
    /// The value of a register.
    fn get(&self, id: Id) -> u64;

    /// The guest writes a register. What is read-only ignores it.
    fn set(&mut self, id: Id, value: u64);
}

/// The part of a register that an access touches: bytes `from..to` of the register are bytes
/// `at..at + (to - from)` of the access.
struct Overlap {
    from: usize,
    to: usize,
    at: usize,
}

impl<Id: Copy> RegMap<Id> {
    /// Reads `data.len()` bytes at `offset`.
    pub fn read(&self, registers: &impl Registers<Id>, offset: u64, data: &mut [u8]) {
        data.fill(0);
        for register in self.0 {
            let Some(part) = overlap(register, offset, data.len()) else { continue };
            let value = registers.get(register.id).to_le_bytes();
            data[part.at..][..part.to - part.from].copy_from_slice(&value[part.from..part.to]);
        }
    }

    /// Writes `data` at `offset`: each register touched is set once, in rising order.
    pub fn write(&self, registers: &mut impl Registers<Id>, offset: u64, data: &[u8]) {
        for register in self.0 {
            let Some(part) = overlap(register, offset, data.len()) else { continue };
            let whole = part.from == 0 && part.to == usize::from(register.size);
            let mut value = if whole { [0; 8] } else { registers.get(register.id).to_le_bytes() };
            value[part.from..part.to].copy_from_slice(&data[part.at..][..part.to - part.from]);
            registers.set(register.id, u64::from_le_bytes(value));
        }
    }
}

/// What of `register` an access of `len` bytes at `offset` touches.
fn overlap<Id>(register: &Register<Id>, offset: u64, len: usize) -> Option<Overlap> {
    let end = offset.checked_add(u64::try_from(len).ok()?)?;
    let start = offset.max(register.offset);
    let stop = end.min(register.offset + u64::from(register.size));
    if start >= stop {
        return None;
    }
    Some(Overlap {
        from: usize::try_from(start - register.offset).ok()?,
        to: usize::try_from(stop - register.offset).ok()?,
        at: usize::try_from(start - offset).ok()?,
    })
}

#[cfg(test)]
#[path = "regmap_test.rs"]
mod regmap_test;
