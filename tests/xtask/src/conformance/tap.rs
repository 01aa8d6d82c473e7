//! What the tests print: TAP as bats writes it, with a line before and after each file.
//!
//! Invariant: a test has one outcome, and one that was to run and said nothing has failed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::suite::Test;

/// What precedes the name of a file whose tests follow.
const FILE: &str = "### FILE ";

/// What follows the last test of a file.
const END: &str = "### END";

/// How many lines a failed test keeps of what it said.
const DETAIL_LINES: usize = 40;

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As it should.
    Passed,
    /// Not so.
    Failed,
    /// It did not run, and says why.
    Skipped(String),
}

impl Outcome {
    /// One word for it.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed => "FAILED",
            Self::Skipped(_) => "skipped",
        }
    }
}

/// What is known of a test that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    /// How it ended.
    pub(crate) outcome: Outcome,
    /// How long it took, if it says so.
    pub(crate) time: Option<Duration>,
    /// What it said, if it failed.
    pub(crate) detail: Vec<String>,
}

/// Tests that have ended.
pub(crate) type Results = BTreeMap<Test, Ended>;

/// Reads the tests' output line by line.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    file: String,
    last: Option<Test>,
    results: Results,
}

impl Reader {
    /// Takes one line; the test whose end it tells of.
    pub(crate) fn line(&mut self, line: &str) -> Option<(&Test, &Ended)> {
        let line = line.trim_end_matches(['\r', '\n']);
        if let Some(file) = line.strip_prefix(FILE) {
            file.clone_into(&mut self.file);
            self.last = None;
            return None;
        }
        if line.starts_with(END) {
            self.last = None;
            return None;
        }
        let Some((name, ended)) = result(line) else {
            self.said(line);
            return None;
        };
        let test = Test { file: self.file.clone(), name: name.to_owned() };
        self.last = Some(test.clone());
        self.results.insert(test, ended);
        self.last.as_ref().and_then(|test| self.results.get_key_value(test))
    }

    /// Keeps what a failed test says after its result.
    fn said(&mut self, line: &str) {
        let Some(ended) = self.last.as_ref().and_then(|test| self.results.get_mut(test)) else {
            return;
        };
        if ended.outcome == Outcome::Failed && ended.detail.len() < DETAIL_LINES {
            let line =
                line.strip_prefix('#').map_or(line, |rest| rest.strip_prefix(' ').unwrap_or(rest));
            ended.detail.push(line.to_owned());
        }
    }

    /// The outcome of each of `wanted`.
    pub(crate) fn finish(mut self, wanted: &[Test]) -> Results {
        for test in wanted {
            self.results.entry(test.clone()).or_insert_with(|| Ended {
                outcome: Outcome::Failed,
                time: None,
                detail: vec!["it said nothing: given up, or not reached".to_owned()],
            });
        }
        self.results.retain(|test, _| wanted.contains(test));
        self.results
    }
}

/// The name and the outcome that a line of TAP tells: `not ok 3 name in 12ms # skip why`.
fn result(line: &str) -> Option<(&str, Ended)> {
    let (failed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (true, rest),
        None => (false, line.strip_prefix("ok ")?),
    };
    let (number, rest) = rest.split_once(' ')?;
    number.parse::<u32>().ok()?;
    let (rest, skipped) = match rest.split_once(" # skip") {
        Some((rest, why)) => (rest, Some(why.trim().to_owned())),
        None => (rest, None),
    };
    // bats says of a test that took too long: `name in 60000ms # timeout after 60s`.
    let (rest, late) = match rest.split_once(" # timeout") {
        Some((rest, why)) => (rest, vec![format!("timeout{why}")]),
        None => (rest, Vec::new()),
    };
    let (name, time) = timed(rest);
    let outcome = match skipped {
        _ if failed => Outcome::Failed,
        Some(why) => Outcome::Skipped(why),
        None => Outcome::Passed,
    };
    Some((name, Ended { outcome, time, detail: late }))
}

/// The name and the time of `name in 12ms`.
fn timed(text: &str) -> (&str, Option<Duration>) {
    let parts = text.rsplit_once(" in ").and_then(|(name, time)| {
        let millis = time.strip_suffix("ms")?.parse().ok()?;
        Some((name, Some(Duration::from_millis(millis))))
    });
    parts.unwrap_or((text, None))
}

#[cfg(test)]
#[path = "tap_test.rs"]
mod tap_test;
