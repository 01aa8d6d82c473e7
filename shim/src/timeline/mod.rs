//! When a pod reached which stage.
//!
//! Invariant: stages are in the order of their times, whatever order they were heard of in.

mod svg;

use cofferdam_vmm_api::StageName;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A point in the life of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodStage {
    /// The supervisor's `main` runs.
    SupervisorStarted,
    /// The root file system's layer and the scratch disk exist.
    RootfsReady,
    /// The monitor's process exists.
    MonitorSpawned,
    /// The monitor's `main` runs.
    MonitorStarted,
    /// Kernel and image are in guest memory, devices exist.
    MachineBuilt,
    /// The first vCPU enters the guest.
    KernelEntered,
    /// The guest's driver uses its first virtio device.
    DriversStarted,
    /// The agent said hello.
    AgentHello,
    /// The container's first process exists, before its `execve`.
    ContainerCreated,
    /// It runs.
    ContainerStarted,
    /// It ended.
    ContainerExited,
    /// The machine and its monitor are gone.
    MachineGone,
}

impl PodStage {
    /// A few words for a person.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::SupervisorStarted => "supervisor started",
            Self::RootfsReady => "root file system ready",
            Self::MonitorSpawned => "monitor spawned",
            Self::MonitorStarted => "monitor started",
            Self::MachineBuilt => "machine built",
            Self::KernelEntered => "kernel entered",
            Self::DriversStarted => "drivers started",
            Self::AgentHello => "agent said hello",
            Self::ContainerCreated => "container created",
            Self::ContainerStarted => "container started",
            Self::ContainerExited => "container exited",
            Self::MachineGone => "machine gone",
        }
    }
}

impl std::fmt::Display for PodStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.label())
    }
}

impl From<StageName> for PodStage {
    fn from(name: StageName) -> Self {
        match name {
            StageName::MonitorStarted => Self::MonitorStarted,
            StageName::MachineBuilt => Self::MachineBuilt,
            StageName::KernelEntered => Self::KernelEntered,
            StageName::DriversStarted => Self::DriversStarted,
        }
    }
}

/// A stage and when it was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which.
    pub stage: PodStage,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
}

/// The stages a pod reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    entries: Vec<Entry>,
}

/// `CLOCK_MONOTONIC` in nanoseconds.
#[must_use]
pub fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let part = |n: i64| u64::try_from(n).unwrap_or(0);
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

impl Timeline {
    /// Notes that `stage` is reached now.
    pub fn reach(&mut self, stage: PodStage) {
        self.reach_at(stage, now_ns());
    }

    /// Notes that `stage` was reached at `at_ns`; only the first time counts.
    pub fn reach_at(&mut self, stage: PodStage, at_ns: u64) {
        if self.entries.iter().all(|entry| entry.stage != stage) {
            let place = self.entries.partition_point(|e| (e.at_ns, e.stage) < (at_ns, stage));
            self.entries.insert(place, Entry { stage, at_ns });
        }
    }

    /// The stages, in the order of their times.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The latest stage.
    #[must_use]
    pub fn last(&self) -> Option<PodStage> {
        self.entries.last().map(|entry| entry.stage)
    }

    /// Each stage with the nanoseconds since the first stage and since the one before.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (PodStage, u64, u64)> {
        let first = self.entries.first().map_or(0, |entry| entry.at_ns);
        let before = std::iter::once(first).chain(self.entries.iter().map(|entry| entry.at_ns));
        let step = move |(entry, before): (&Entry, u64)| {
            (entry.stage, entry.at_ns.saturating_sub(first), entry.at_ns.saturating_sub(before))
        };
        self.entries.iter().zip(before).map(step)
    }

    /// A table for a terminal.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::from("       at ms      step ms  stage\n");
        for (stage, at, step) in self.steps() {
            text += &format!("{:>12} {:>12}  {stage}\n", milliseconds(at), milliseconds(step));
        }
        text
    }

    /// An array of stages with their times.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.entries).unwrap_or_default();
        text.push('\n');
        text
    }

    /// A drawing.
    #[must_use]
    pub fn to_svg(&self) -> String {
        svg::draw(self)
    }
}

/// Milliseconds with three decimals.
pub(crate) fn milliseconds(ns: u64) -> String {
    let us = ns / 1000;
    format!("{}.{:03}", us / 1000, us % 1000)
}

#[cfg(test)]
#[path = "timeline_test.rs"]
mod timeline_test;
