//! Random numbers, the same again for the same seed.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A generator (xorshift64).
pub(crate) struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// With the seed in `COFFERDAM_STRESS_SEED`, or one that nobody knows.
    pub(crate) fn new() -> Self {
        let given = std::env::var("COFFERDAM_STRESS_SEED").ok();
        let given = given.map(|text| text.parse().expect("COFFERDAM_STRESS_SEED: a number"));
        let seed = given.unwrap_or_else(|| RandomState::new().build_hasher().finish()) | 1;
        Self { seed, state: seed }
    }

    /// Where it began.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 16) as usize % end.max(1)
    }
}
