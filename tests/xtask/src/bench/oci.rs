//! What a container in an existing pod costs, beside runc, and what SPECIFICATION.md promises of it.
//!
//! Invariant: pure.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
use cofferdam_test_bench::{Calls, Runtime};
use serde::Serialize;

/// Rounds, of which the first does not count.
pub(super) const ROUNDS: u32 = 6;

/// Everything that was measured: instructions by runtime.
#[derive(Debug, Serialize)]
pub(super) struct Report(BTreeMap<Runtime, Row>);

/// The middle of what one runtime's rounds took, in instructions.
#[derive(Debug, Serialize)]
struct Row {
    rounds: usize,
    create: u64,
    start: u64,
    delete: u64,
    all: u64,
}

impl Report {
    /// Of what the measuring program printed.
    ///
    /// # Errors
    /// If that is not some rounds of both runtimes.
    pub(super) fn new(text: &str) -> Result<Self> {
        let mut rounds: BTreeMap<Runtime, Vec<Calls>> = BTreeMap::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let calls: Calls = serde_json::from_str(line)
                .with_context(|| format!("what the measuring program printed: {line:.80}"))?;
            rounds.entry(calls.runtime).or_default().push(calls);
        }
        ensure!(rounds.len() == 2, "not both runtimes were measured");
        Ok(Self(rounds.into_iter().map(|(runtime, calls)| (runtime, Row::new(&calls))).collect()))
    }

    /// Whether ours takes no fewer instructions than runc.
    pub(super) fn broken(&self) -> Vec<String> {
        let all = |runtime| self.0.get(&runtime).map_or(0, |row| row.all);
        let (ours, runc) = (all(Runtime::Cofferdam), all(Runtime::Runc));
        let kept = 0 < ours && ours < runc;
        let broken = (!kept).then(|| {
            format!("create, start and delete in a pod: {ours} instructions, not fewer than runc's {runc}")
        });
        broken.into_iter().collect()
    }
}

impl Row {
    fn new(calls: &[Calls]) -> Self {
        let middle = |part: fn(&Calls) -> u64| {
            let mut values: Vec<u64> = calls.iter().map(part).collect();
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or(0)
        };
        Self {
            rounds: calls.len(),
            create: middle(|calls| calls.create),
            start: middle(|calls| calls.start),
            delete: middle(|calls| calls.delete),
            all: middle(|calls| calls.create + calls.start + calls.delete),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:12}{:>14}{:>14}{:>14}{:>14}", "", "create", "start", "delete", "all")?;
        for (runtime, row) in &self.0 {
            let name = format!("{runtime:?}").to_lowercase();
            let Row { create, start, delete, all, .. } = row;
            write!(f, "\n{name:12}{create:>14}{start:>14}{delete:>14}{all:>14}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "oci_test.rs"]
mod oci_test;
