//! The figures, and what SPECIFICATION.md promises of them.
//!
//! Invariant: pure.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result};
use cofferdam_test_bench::{Exit, Measured};
use serde::Serialize;

use super::runs::{
    CONSOLE, DISK, GIB, HUGE, IDLE, IDLE_SECONDS, OURS, OURS_TRACED, PARKED, QEMU, QEMU_TRACED,
    VCPU,
};

/// Most instructions to the agent's hello in the default shape, in millions.
const MOST_MILLIONS: f64 = 150.0;
/// Most of QEMU's instructions.
const MOST_OF_QEMU: f64 = 0.6;
/// What is allowed beyond those two before it is an error.
const SLACK: f64 = 1.05;
/// Most private memory of a monitor, in KiB.
const MOST_PRIVATE_KIB: u64 = 5 << 10;
/// Most memory that an idle machine of 256 MiB takes, in KiB.
const MOST_GUEST_KIB: u64 = 40 << 10;
/// Exits a second of an idle machine must be below it.
const IDLE_EXITS: f64 = 20.0;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    cofferdam: Boot,
    #[serde(rename = "qemu-microvm")]
    qemu: Boot,
    /// Our instructions by QEMU's.
    ratio: f64,
    /// Instructions that one thing more than the default shape costs.
    more: BTreeMap<&'static str, i64>,
    huge_pages: Huge,
    idle: Idle,
}

/// One monitor in the default shape.
#[derive(Debug, Serialize)]
struct Boot {
    /// From exec to hello: the median of the runs.
    instructions: u64,
    /// The least and the most of the runs.
    spread: (u64, u64),
    exits: u64,
    exits_by_reason: BTreeMap<String, u64>,
    system_calls: u64,
    private_kib: u64,
    guest_kib: u64,
    stages: Vec<(String, u64)>,
}

/// All memory in huge pages.
#[derive(Debug, Serialize)]
struct Huge {
    instructions: u64,
    guest_kib: u64,
}

/// An idle machine of 256 MiB.
#[derive(Debug, Serialize)]
struct Idle {
    exits_per_second: f64,
    guest_kib: u64,
}

impl Report {
    /// Of what was measured.
    ///
    /// # Errors
    /// If a run is missing.
    pub(super) fn new(measured: &BTreeMap<String, Vec<Measured>>) -> Result<Self> {
        let one = |name: &str| {
            let runs = measured.get(name).and_then(|runs| runs.first());
            runs.with_context(|| format!("the run {name:?} is missing"))
        };
        let cofferdam = Boot::new(measured.get(OURS), one(OURS_TRACED)?)?;
        let qemu = Boot::new(measured.get(QEMU), one(QEMU_TRACED)?)?;
        let mut more = BTreeMap::new();
        for name in [VCPU, PARKED, GIB, DISK, CONSOLE] {
            let [with, without] = [one(name)?.hello, cofferdam.instructions].map(signed);
            more.insert(name, with - without);
        }
        let idle = one(IDLE)?;
        let huge = one(HUGE)?;
        Ok(Self {
            ratio: number(cofferdam.instructions) / number(qemu.instructions),
            cofferdam,
            qemu,
            more,
            huge_pages: Huge { instructions: huge.hello, guest_kib: huge.guest_kib },
            idle: Idle {
                exits_per_second: number(idle.idle_exits.values().sum()) / number(IDLE_SECONDS),
                guest_kib: idle.guest_kib,
            },
        })
    }

    /// The promises that are not kept.
    pub(super) fn broken(&self) -> Vec<String> {
        let ours = &self.cofferdam;
        let idle = &self.idle;
        let promises = [
            (
                millions(ours.instructions) <= MOST_MILLIONS * SLACK,
                format!("{:.1} M instructions, not {MOST_MILLIONS}", millions(ours.instructions)),
            ),
            (
                self.ratio <= MOST_OF_QEMU * SLACK,
                format!("{:.3} of QEMU's instructions, not {MOST_OF_QEMU}", self.ratio),
            ),
            (
                ours.private_kib <= MOST_PRIVATE_KIB,
                format!("{} KiB of private memory, not {MOST_PRIVATE_KIB}", ours.private_kib),
            ),
            (
                idle.guest_kib <= MOST_GUEST_KIB,
                format!("{} KiB of guest memory when idle, not {MOST_GUEST_KIB}", idle.guest_kib),
            ),
            (
                idle.exits_per_second < IDLE_EXITS,
                format!("{:.1} exits a second when idle, not {IDLE_EXITS}", idle.exits_per_second),
            ),
        ];
        promises.into_iter().filter(|(kept, _)| !kept).map(|(_, text)| text).collect()
    }
}

impl Boot {
    fn new(runs: Option<&Vec<Measured>>, traced: &Measured) -> Result<Self> {
        let mut runs: Vec<&Measured> = runs.into_iter().flatten().collect();
        runs.sort_by_key(|run| run.hello);
        let middle = runs.get(runs.len() / 2).context("a monitor without runs")?;
        let [first, last] = [runs.first(), runs.last()].map(|run| run.map_or(0, |run| run.hello));
        Ok(Self {
            instructions: middle.hello,
            spread: (first, last),
            exits: number_of(traced.exits.len()),
            exits_by_reason: by_reason(&traced.exits),
            system_calls: traced.calls.values().sum(),
            private_kib: middle.private_kib,
            guest_kib: middle.guest_kib,
            stages: middle.stages.clone(),
        })
    }
}

fn by_reason(exits: &[Exit]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for exit in exits {
        *all.entry(exit.reason.clone()).or_default() += 1;
    }
    all
}

fn number_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "figures to be read, far below 2^52")]
fn number(value: u64) -> f64 {
    value as f64
}

fn millions(instructions: u64) -> f64 {
    number(instructions) / 1e6
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "From the monitor's exec to the agent's hello, 1 vCPU, 128 MiB, two disks:\n")?;
        writeln!(f, "{:26}{:>14}{:>14}", "", "cofferdam", "qemu-microvm")?;
        let (ours, qemu) = (&self.cofferdam, &self.qemu);
        let mut row =
            |name: &str, ours: u64, qemu: u64| writeln!(f, "{name:26}{ours:>14}{qemu:>14}");
        row("instructions", ours.instructions, qemu.instructions)?;
        row("exits", ours.exits, qemu.exits)?;
        for (reason, count) in &qemu.exits_by_reason {
            let of_ours = ours.exits_by_reason.get(reason).copied().unwrap_or(0);
            row(&format!("  {reason}"), of_ours, *count)?;
        }
        row("system calls", ours.system_calls, qemu.system_calls)?;
        row("private memory, KiB", ours.private_kib, qemu.private_kib)?;
        row("guest memory taken, KiB", ours.guest_kib, qemu.guest_kib)?;
        writeln!(f, "\n{:.3} of QEMU's instructions", self.ratio)?;
        for (name, at) in &ours.stages {
            writeln!(f, "{name:26}{:>12.1} M", millions(*at))?;
        }
        for (name, difference) in &self.more {
            let sign = if *difference < 0 { '-' } else { '+' };
            writeln!(f, "{name:26}{sign:>6}{:>6.1} M", millions(difference.unsigned_abs()))?;
        }
        let huge = &self.huge_pages;
        writeln!(f, "{HUGE:26}{:>12.1} M, {} KiB", millions(huge.instructions), huge.guest_kib)?;
        let Idle { exits_per_second, guest_kib } = self.idle;
        write!(f, "{IDLE:26}{exits_per_second:>12.1} exits/s, {guest_kib} KiB")
    }
}

#[cfg(test)]
#[path = "report_test.rs"]
mod report_test;
