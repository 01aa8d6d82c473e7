//! Garbage: numbers, addresses and sizes that a driver had better not write.
//!
//! Invariant: the same seed gives the same; no address points into the first [`OWN`] bytes of memory.

/// Memory that devices must not be pointed at: the kernel, its stack and its page tables.
pub(crate) const OWN: u64 = 4 << 20;

/// Memory for rings and buffers, well within the least that a machine has.
pub(crate) const ARENA: u64 = 16 << 20;
/// See [`ARENA`].
pub(crate) const ARENA_SIZE: u64 = 8 << 20;

/// Addresses on edges: holes, registers, the end of all addresses.
const EDGES: [u64; 12] = [
    ARENA + ARENA_SIZE - 1,
    0x1fff_fff8,
    0x4000_0000,
    0xbfff_fff0,
    0xc010_0000,
    0xc010_2000,
    0xe000_0000,
    0xfec0_0000,
    0xfee0_0000,
    0xffff_ffff,
    1 << 63,
    u64::MAX - 7,
];

/// The source.
pub(crate) struct Garbage(u64);

impl Garbage {
    /// Starts at `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// Any number (xorshift64*).
    pub(crate) fn long(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.long() >> 16) % end
    }

    /// A number of bytes that an access may have.
    pub(crate) fn width(&mut self) -> u8 {
        [1, 2, 4, 8][self.index(4)]
    }

    /// An index below `len`.
    pub(crate) fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// An address, mostly that of a page of memory.
    pub(crate) fn address(&mut self) -> u64 {
        match self.below(8) {
            0 => EDGES[self.index(EDGES.len())],
            1 => OWN + (self.long() >> 1),
            2 => ARENA + (self.below(ARENA_SIZE) & !0xf),
            _ => self.page(),
        }
    }

    /// A page of memory.
    pub(crate) fn page(&mut self) -> u64 {
        ARENA + (self.below(ARENA_SIZE) & !0xfff)
    }

    /// The length of a buffer.
    pub(crate) fn len(&mut self) -> u64 {
        [0, 1, 16, 44, 64, 512, 4096, 0x1_0000, 0xffff_ffff][self.index(9)]
    }

    /// The size of a queue.
    pub(crate) fn queue_size(&mut self) -> u64 {
        [1, 2, 8, 16, 16, 16, 256, 3, 0, 0x8000][self.index(10)]
    }
}

#[cfg(test)]
#[path = "garbage_test.rs"]
mod garbage_test;
