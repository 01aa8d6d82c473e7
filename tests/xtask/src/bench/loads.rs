//! What load on a device costs, and what SPECIFICATION.md promises of it.
//!
//! Invariant: pure.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, ensure};
use cofferdam_test_bench::Phase;
use serde::Serialize;

/// Most doorbells and system calls of a request, by its phase's name, of which each must be there on a disk. Halves of a
/// hundredth are counted as what happens at the begin and the end of a phase.
const PROMISES: [(&str, f64, f64); 4] = [
    ("read 4 KiB, depth 1", 1.0, 3.0),
    ("write 4 KiB, depth 1", 1.0, 3.0),
    ("read 4 KiB, depth 32", 0.3, 3.0),
    ("write 4 KiB, depth 32", 0.3, 3.0),
];
const SLACK: f64 = 0.005;

/// The phases of a network card and of vsock.
const STREAMS: [&str; 3] = ["one byte and back", "to the host", "from the host"];

/// The exit by which a guest rings a doorbell: it touches memory that is not there.
const DOORBELL: &str = "npf";

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    phases: Vec<Row>,
}

/// One phase, by unit of what was done.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    unit: String,
    count: u64,
    /// Exits with which the guest rings.
    doorbells: f64,
    /// All exits.
    exits: f64,
    exits_by_reason: BTreeMap<String, f64>,
    system_calls: f64,
    /// By their numbers.
    system_calls_by_number: BTreeMap<u32, f64>,
}

impl Report {
    /// Of what the measuring program printed.
    ///
    /// # Errors
    /// If that is nothing, or something else.
    pub(super) fn new(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let phases = lines.map(|line| {
            let phase: Phase = serde_json::from_str(line)
                .with_context(|| format!("what the measuring program printed: {line:.80}"))?;
            Ok(Row::new(phase))
        });
        let phases = phases.collect::<Result<Vec<_>>>()?;
        ensure!(!phases.is_empty(), "nothing was measured");
        Ok(Self { phases })
    }

    /// What of a network card or of vsock was not measured.
    pub(super) fn missing(&self) -> Vec<String> {
        let there = |name: &&str| self.phases.iter().any(|row| row.name == **name);
        let missing = STREAMS.iter().filter(|name| !there(name));
        missing.map(|name| format!("{name}: it was not measured")).collect()
    }

    /// The promises of a disk that are not kept, or were not measured.
    pub(super) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (name, doorbells, calls) in PROMISES {
            let Some(row) = self.phases.iter().find(|row| row.name == name) else {
                broken.push(format!("{name}: it was not measured"));
                continue;
            };
            // A disk is read and written without doorbells only if nobody counts them.
            let counted = row.doorbells > 0.0 && row.system_calls > 0.0;
            let kept = row.doorbells <= doorbells + SLACK && row.system_calls <= calls + SLACK;
            if !counted || !kept {
                broken.push(format!(
                    "{name}: {:.3} doorbells and {:.3} system calls, not {doorbells} and {calls}",
                    row.doorbells, row.system_calls
                ));
            }
        }
        broken
    }
}

impl Row {
    fn new(phase: Phase) -> Self {
        let Phase { name, unit, count, exits, calls } = phase;
        let by_unit = |number: u64| number_of(number) / number_of(count.max(1));
        let sum = |numbers: &mut dyn Iterator<Item = u64>| by_unit(numbers.sum());
        Self {
            doorbells: by_unit(exits.get(DOORBELL).copied().unwrap_or(0)),
            exits: sum(&mut exits.values().copied()),
            system_calls: sum(&mut calls.values().copied()),
            exits_by_reason: exits.into_iter().map(|(key, n)| (key, by_unit(n))).collect(),
            system_calls_by_number: calls.into_iter().map(|(key, n)| (key, by_unit(n))).collect(),
            name,
            unit,
            count,
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "figures to be read, far below 2^52")]
fn number_of(value: u64) -> f64 {
    value as f64
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:24}{:>11}{:>10}{:>8}{:>8}", "", "per", "doorbells", "exits", "calls")?;
        for row in &self.phases {
            write!(
                f,
                "\n{:24}{:>11}{:>10.2}{:>8.2}{:>8.2}",
                row.name, row.unit, row.doorbells, row.exits, row.system_calls
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "loads_test.rs"]
mod loads_test;
