//! Random numbers, the same again for the same seed.

use std::hash::{BuildHasher, Hasher, RandomState};

/// A generator (xorshift64).
pub(crate) struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    /// With the seed in `COFFERDAM_STRESS_SEED`, as it is printed or decimal, or one that nobody knows.
    pub(crate) fn new() -> Self {
        let given = std::env::var("COFFERDAM_STRESS_SEED").ok();
        let given = given.map(|text| parse(&text).expect("COFFERDAM_STRESS_SEED: a number"));
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

/// The number that `text` is, hexadecimal after `0x`.
fn parse(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

#[test]
fn a_seed_is_taken_as_it_is_printed() {
    let seed = Random::new().seed();
    assert_eq!(parse(&format!("{seed:#x}")), Some(seed));
    assert_eq!(parse(&seed.to_string()), Some(seed));
    assert_eq!((parse("0x"), parse("ten")), (None, None));
}
