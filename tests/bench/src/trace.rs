//! Exits of vCPUs and system calls of a monitor, from the host's tracepoints: the same for every monitor.
//!
//! Invariant: of the calls, only those from the monitor's `execve` on are counted, and none of this process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use cofferdam_test_bench::Exit;

const TRACING: &str = "/sys/kernel/tracing";

/// KiB of events: a start has a few thousand of about a hundred bytes.
const BUFFER_KIB: &str = "32768";

/// `execve(2)`.
const EXECVE: u32 = 59;

/// What is recorded.
pub(crate) struct Tracer;

impl Tracer {
    /// Records exits and system calls of what this process starts from now on.
    pub(crate) fn start() -> Result<Self> {
        write("options/event-fork", "1")?;
        write("set_event_pid", &std::process::id().to_string())?;
        write("events/raw_syscalls/sys_enter/enable", "1")?;
        Self::start_again()
    }

    /// Records exits of all machines from now on.
    pub(crate) fn start_again() -> Result<Self> {
        write("tracing_on", "0")?;
        write("trace_clock", "mono")?;
        write("buffer_size_kb", BUFFER_KIB)?;
        write("trace", "")?;
        write("events/kvm/kvm_exit/enable", "1")?;
        write("tracing_on", "1")?;
        Ok(Self)
    }

    /// As [`Tracer::stop`], of the system calls of the threads in `tasks` alone, whenever they were started.
    pub(crate) fn stop_for(&mut self, tasks: &BTreeSet<u32>) -> Result<Counted> {
        let text = Self::text()?;
        Ok(count_for(&text, tasks))
    }

    /// Records system calls of all processes from now on, and exits.
    pub(crate) fn start_all() -> Result<Self> {
        write("events/raw_syscalls/sys_enter/enable", "1")?;
        Self::start_again()
    }

    /// Stops; the exits and calls from `start` to `end` of `CLOCK_MONOTONIC`, exits in nanoseconds after `start`.
    pub(crate) fn stop(&mut self, start: u64, end: u64) -> Result<(Vec<Exit>, BTreeMap<u32, u64>)> {
        Ok(count(&Self::text()?, std::process::id(), start..end))
    }

    /// Stops; the trace.
    fn text() -> Result<String> {
        write("tracing_on", "0")?;
        write("events/enable", "0")?;
        write("options/event-fork", "0")?;
        write("set_event_pid", "")?;
        let path = format!("{TRACING}/trace");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
        write("trace", "")?;
        ensure!(!text.contains("LOST"), "the buffer of the trace is too small");
        Ok(text)
    }
}

/// Exits by reason, and system calls by number.
pub(crate) type Counted = (BTreeMap<String, u64>, BTreeMap<u32, u64>);

/// What `trace` holds of all vCPUs and of the threads in `tasks`.
fn count_for(trace: &str, tasks: &BTreeSet<u32>) -> Counted {
    let (mut exits, mut calls) = Counted::default();
    for event in trace.lines().filter_map(Event::parse) {
        match event.name {
            "kvm_exit" => {
                let reason = word_after(event.text, "reason").unwrap_or("unknown");
                *exits.entry(reason.to_owned()).or_default() += 1;
            }
            "sys_enter" if tasks.contains(&event.task) => {
                let number = word_after(event.text, "NR").and_then(|n| n.parse().ok());
                number.into_iter().for_each(|n| *calls.entry(n).or_default() += 1);
            }
            _ => {}
        }
    }
    (exits, calls)
}

fn write(file: &str, text: &str) -> Result<()> {
    let path = format!("{TRACING}/{file}");
    fs::write(&path, text).with_context(|| format!("writing {text:?} to {path}"))
}

/// What `trace`, in which this process is `own`, holds of the time in `range`.
fn count(trace: &str, own: u32, range: std::ops::Range<u64>) -> (Vec<Exit>, BTreeMap<u32, u64>) {
    let (mut exits, mut calls) = (Vec::new(), BTreeMap::new());
    let mut executed = false;
    for line in trace.lines().filter(|line| !line.starts_with('#')) {
        let Some(event) = Event::parse(line).filter(|event| range.contains(&event.at)) else {
            continue;
        };
        match event.name {
            "kvm_exit" => exits.extend(exit(&event, range.start)),
            "sys_enter" if event.task != own => {
                let Some(number) = word_after(event.text, "NR").and_then(|n| n.parse().ok()) else {
                    continue;
                };
                executed |= number == EXECVE;
                if executed {
                    *calls.entry(number).or_default() += 1;
                }
            }
            _ => {}
        }
    }
    (exits, calls)
}

/// One line: `comm-PID [CPU] flags SECONDS.MICROSECONDS: name: text`.
struct Event<'a> {
    task: u32,
    at: u64,
    name: &'a str,
    text: &'a str,
}

impl<'a> Event<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (task, rest) = line.split_once(" [")?;
        let task = task.trim_end().rsplit('-').next()?.parse().ok()?;
        let (head, rest) = rest.split_once(": ")?;
        let (seconds, fraction) = head.rsplit(' ').next()?.split_once('.')?;
        let micros: u64 = fraction.parse().ok()?;
        let at = seconds.parse::<u64>().ok()? * 1_000_000_000 + micros * 1000;
        let (name, text) = match rest.split_once(": ") {
            Some((name, text)) => (name, text),
            None => rest.split_once(' ')?,
        };
        Some(Self { task, at, name, text })
    }
}

fn exit(event: &Event<'_>, start: u64) -> Option<Exit> {
    let number = |name| {
        let text = word_after(event.text, name)?.strip_prefix("0x")?;
        u64::from_str_radix(text, 16).ok()
    };
    Some(Exit {
        at: event.at - start,
        reason: word_after(event.text, "reason")?.to_owned(),
        rip: number("rip")?,
        info: number("info2").unwrap_or(0),
    })
}

/// The word after the word `name`.
fn word_after<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut words = text.split_whitespace();
    words.find(|word| *word == name)?;
    words.next()
}

#[cfg(test)]
#[path = "trace_test.rs"]
mod trace_test;
