//! The users that monitors run as: a range of numbers that belong to nobody else on the host.
//!
//! Invariant: a range is not empty, and holds neither root nor the number that stands for nobody.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// User ids, first and last; group ids are the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UidRange {
    first: u32,
    last: u32,
}

/// Above what systemd, container engines and directories of people give out by default.
impl Default for UidRange {
    fn default() -> Self {
        Self { first: 2_000_000_000, last: 2_000_065_535 }
    }
}

impl UidRange {
    /// One that is not in `taken`; which of them follows from `seed`, so that those who cannot see what each
    /// other have taken seldom take the same.
    #[must_use]
    pub fn pick(self, seed: u64, taken: &BTreeSet<u32>) -> Option<u32> {
        let count = u64::from(self.last - self.first) + 1;
        let at = |index: u64| {
            let offset = (seed % count + index) % count;
            self.first + u32::try_from(offset).unwrap_or(0)
        };
        // One more than are taken is enough to find one that is not.
        (0..count.min(taken.len() as u64 + 1)).map(at).find(|uid| !taken.contains(uid))
    }
}

impl FromStr for UidRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| part.trim().parse::<u32>().ok();
        let ends = text.split_once('-').and_then(|(a, b)| Some((number(a)?, number(b)?)));
        match ends {
            Some((first, last)) if 0 < first && first <= last && last < u32::MAX => {
                Ok(Self { first, last })
            }
            _ => Err(format!(
                "{text:?} is not a range of user ids, for example \"{}\"",
                Self::default()
            )),
        }
    }
}

impl fmt::Display for UidRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl<'de> Deserialize<'de> for UidRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[path = "uids_test.rs"]
mod uids_test;
