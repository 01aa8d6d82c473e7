//! `cofferdam events`: the accounting of a container, in runc's form, and what happens to it.
//!
//! Invariant: a line is an event; the numbers are the guest's.

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Map, Value, json};

use super::Global;
use super::common::{block_on, find};
use crate::accounts::Files;
use crate::container::{Saved, Status};
use crate::control::{Answer, ToSupervisor};
use crate::living::{connect, stats};
use crate::socket::Socket;

/// Options of `cofferdam events`.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Time between two accounts, for example 5s
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    interval: Duration,
    /// One account, and no more
    #[arg(long)]
    stats: bool,
    /// The container
    id: String,
}

impl Events {
    /// Prints events until the container has ended.
    pub(super) fn execute(&self, global: &Global) -> Result<()> {
        if self.interval.is_zero() {
            bail!("duration interval must be greater than 0");
        }
        let (saved, status) = find(&global.root, &self.id)?;
        if status == Status::Stopped {
            bail!("container with id {} is not running", self.id);
        }
        block_on(async {
            let socket = connect(&global.root, &saved)?;
            if self.stats {
                return account(&socket, &saved).await;
            }
            let events = connect(&global.root, &saved)?;
            events.send(&ToSupervisor::OutOfMemory(saved.id.clone()), &[]).await?;
            // It ends with the container, and then there is nobody to ask.
            let _ = self.follow((&socket, &events), &saved, &global.root).await;
            Ok(())
        })
    }

    async fn follow(
        &self,
        (socket, events): (&Socket, &Socket),
        saved: &Saved,
        root: &std::path::Path,
    ) -> Result<()> {
        let mut ticks = tokio::time::interval(self.interval);
        // The first comes at once.
        ticks.tick().await;
        let mut looks = tokio::time::interval(Duration::from_millis(200));
        loop {
            tokio::select! {
                _ = ticks.tick() => account(socket, saved).await?,
                _ = looks.tick() => {
                    if saved.status(root) == Status::Stopped {
                        return Ok(());
                    }
                }
                event = events.receive::<Answer>() => match event?.body {
                    Answer::OutOfMemory => print("oom", &saved.id, None)?,
                    _ => bail!("the supervisor says something else"),
                },
            }
        }
    }
}

async fn account(socket: &Socket, saved: &Saved) -> Result<()> {
    let files = stats(socket, &saved.id).await?;
    print("stats", &saved.id, Some(Files(&files).data()))
}

/// An event, with its members in the order that runc gives them.
#[derive(serde::Serialize)]
struct Event<'a> {
    r#type: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
}

fn print(r#type: &str, id: &str, data: Option<Value>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(&Event { r#type, id, data })?)?;
    Ok(out.flush()?)
}

/// `5s`, `300ms`, `1m`, `2h`, or seconds with a fraction.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let unit = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)));
    let seconds = unit.and_then(|(number, factor)| Some(number.parse::<f64>().ok()? * factor));
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{text:?} is no duration, such as 5s"))
}

impl Files<'_> {
    fn raw(&self, name: &str) -> Map<String, Value> {
        let pair = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            Some((key.to_owned(), value.parse::<u64>().ok()?.into()))
        };
        self.text(name).lines().filter_map(pair).collect()
    }

    /// What runc calls the data of an event of accounting.
    fn data(&self) -> Value {
        let cpu = |key: &str| self.entry("cpu.stat", key).saturating_mul(1000);
        let throttled = |key: &str| self.entry("cpu.stat", key);
        let memory = |limit: &str, usage: &str, max: &str| {
            json!({ "limit": self.number(limit), "usage": self.number(usage),
                "max": self.number(max), "failcnt": 0 })
        };
        json!({
            "cpu": {
                "usage": { "total": cpu("usage_usec"), "kernel": cpu("system_usec"),
                    "user": cpu("user_usec") },
                "throttling": { "periods": throttled("nr_periods"),
                    "throttledPeriods": throttled("nr_throttled"),
                    "throttledTime": cpu("throttled_usec") },
            },
            "cpuset": {},
            "memory": {
                "cache": self.entry("memory.stat", "file"),
                "usage": memory("memory.max", "memory.current", "memory.peak"),
                "swap": memory("memory.swap.max", "memory.swap.current", "memory.swap.peak"),
                "kernel": { "failcnt": 0 },
                "kernelTCP": { "failcnt": 0 },
                "raw": self.raw("memory.stat"),
            },
            "pids": { "current": self.number("pids.current"),
                "limit": Some(self.number("pids.max")).filter(|max| *max != u64::MAX).unwrap_or(0) },
            "blkio": self.blkio(),
            "hugetlb": {},
            "intel_rdt": {},
            "network_interfaces": null,
        })
    }

    /// Bytes and operations by device (`io.stat`).
    fn blkio(&self) -> Value {
        let mut bytes = Vec::new();
        let mut operations = Vec::new();
        for (major, minor, counters) in self.io() {
            for (key, value) in counters {
                let (list, op) = match key {
                    "rbytes" => (&mut bytes, "Read"),
                    "wbytes" => (&mut bytes, "Write"),
                    "rios" => (&mut operations, "Read"),
                    "wios" => (&mut operations, "Write"),
                    _ => continue,
                };
                list.push(json!({ "major": major, "minor": minor, "op": op, "value": value }));
            }
        }
        json!({ "ioServiceBytesRecursive": bytes, "ioServicedRecursive": operations })
    }
}

#[cfg(test)]
#[path = "events_test.rs"]
mod events_test;
