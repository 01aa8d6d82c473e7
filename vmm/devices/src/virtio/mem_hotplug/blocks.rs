//! Which blocks of a memory device's region are plugged in.
//!
//! Invariant: one thread writes; others see each block either way, at any time.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of a block: a huge page, so that plugging one out takes no half of another, and what Linux moves at once.
pub const BLOCK: u64 = 2 << 20;

/// Bytes of a chunk: what the guest has or does not have of the address space. It is Linux' own unit of memory, and that
/// of one word of the bitmap.
pub const CHUNK: u64 = BLOCK * 64;

/// A bit for each block of a region, a word for each chunk; plain data but for who may write.
#[derive(Debug)]
pub struct Blocks(Vec<AtomicU64>);

impl Blocks {
    /// Those of a region of `size` bytes, a multiple of [`CHUNK`]; none is plugged in.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let chunks = usize::try_from(size / CHUNK).unwrap_or(0);
        Self((0..chunks).map(|_| AtomicU64::new(0)).collect())
    }

    /// How many chunks there are.
    #[must_use]
    pub fn chunks(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    /// Whether all of `count` bytes at `offset` are plugged in.
    #[must_use]
    pub fn cover(&self, offset: u64, count: usize) -> bool {
        let last = (count as u64).saturating_sub(1);
        let Some(last) = offset.checked_add(last) else { return false };
        (offset / BLOCK..=last / BLOCK).all(|block| self.is_plugged(block))
    }

    /// Those of `range` that are plugged in.
    pub(super) fn count(&self, range: Range<u64>) -> u64 {
        range.map(|block| u64::from(self.is_plugged(block))).sum()
    }

    /// Plugs the blocks of `range` in or out.
    pub(crate) fn set(&self, range: Range<u64>, plugged: bool) {
        for block in range {
            let (Some(word), bit) = self.place(block) else { continue };
            // There is no other writer.
            let before = word.load(Ordering::Relaxed);
            let after = if plugged { before | bit } else { before & !bit };
            word.store(after, Ordering::Release);
        }
    }

    /// Whether a block of `chunk` is plugged in.
    pub(super) fn in_use(&self, chunk: u32) -> bool {
        let word = usize::try_from(chunk).ok().and_then(|index| self.0.get(index));
        word.is_some_and(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// How many chunks have blocks that are plugged in.
    pub(super) fn chunks_in_use(&self) -> u64 {
        (0..self.chunks()).map(|chunk| u64::from(self.in_use(chunk))).sum()
    }

    fn is_plugged(&self, block: u64) -> bool {
        let (word, bit) = self.place(block);
        word.is_some_and(|word| word.load(Ordering::Acquire) & bit != 0)
    }

    /// The word of `block`, and its bit there.
    fn place(&self, block: u64) -> (Option<&AtomicU64>, u64) {
        let word = usize::try_from(block / 64).ok().and_then(|index| self.0.get(index));
        (word, 1 << (block % 64))
    }
}
