//! How many tests passed: by what libtest, and programs that print as it does, say.
//!
//! Invariant: a run that ended badly counts at least one failure.

use std::io::{BufRead, BufReader, Read, Write};

use anyhow::{Context, Result};

/// What a test prints that could not run.
const SKIPPED: &str = "SKIPPED:";

/// What an end-to-end case prints before it is tried a second time.
pub(super) const AGAIN: &str = "AGAIN:";

/// How the tests of one level ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) skipped: u32,
    /// Those that were tried a second time.
    pub(super) again: u32,
}

impl Counts {
    /// A run that ended badly without a failed test (it did not compile, or died) is one failure.
    pub(super) fn judge(&mut self, success: bool) {
        if !success && self.failed == 0 {
            self.failed = 1;
        }
    }

    /// Adds what others counted.
    pub(super) fn extend(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.again += other.again;
    }

    /// Adds what one line of libtest's output tells.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        for part in rest.split([';', '.']) {
            let mut words = part.split_whitespace();
            let number = words.next().and_then(|word| word.parse::<u32>().ok());
            match (number, words.next()) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("failed")) => self.failed += number,
                (Some(number), Some("ignored")) => self.skipped += number,
                _ => {}
            }
        }
    }
}

/// Writes the lines of `stream` that say something `to` somewhere, and counts.
pub(super) fn show_and_count(stream: impl Read, mut to: impl Write) -> Result<Counts> {
    let mut counts = Counts::default();
    let (mut not_run, mut list) = (0, false);
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).context("reading the tests' output")? > 0 {
        let text = String::from_utf8_lossy(&line);
        counts.add(text.trim_end());
        if text.trim_start().starts_with(SKIPPED) {
            not_run += 1;
        }
        // The name of the test stands before it on the same line.
        counts.again += u32::from(text.contains(AGAIN));
        // The names of those that passed come after this, and once more after their output.
        list = text.trim() == "successes:"
            || list && (text.trim().is_empty() || text.starts_with("    "));
        let idle = list
            || matches!(text.trim(), "" | "running 0 tests")
            || text.starts_with("test result: ok. 0 passed; 0 failed; 0 ignored");
        if !idle {
            write!(to, "{text}").context("showing the tests' output")?;
        }
        line.clear();
    }
    // To libtest, a test that could not run has passed.
    counts.passed = counts.passed.saturating_sub(not_run);
    counts.skipped += not_run;
    Ok(counts)
}

#[cfg(test)]
#[path = "count_test.rs"]
mod count_test;
