//! What a monitor's process has of the host's memory, from `/proc/PID/smaps`.
//!
//! Invariant: pure but for [`of`]; a mapping counts either as the guest's memory or as the monitor's own, never as both.

use anyhow::{Context, Result};

/// Memory of the host.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Pages that no other process has, outside of the guest's memory.
    pub(crate) private_kib: u64,
    /// Pages behind the guest's memory, whatever their kind.
    pub(crate) guest_kib: u64,
}

/// One mapping.
#[derive(Debug, Default)]
struct Mapping {
    start: u64,
    end: u64,
    /// Private, written to, and left out of dumps: that is what our monitor does with a guest's memory.
    no_dump: bool,
    private: bool,
    private_kib: u64,
    resident_kib: u64,
}

/// That of process `pid`, whose guest has `guest_mib` of memory.
pub(crate) fn of(pid: u32, guest_mib: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    count(&text, u64::from(guest_mib) << 20).context("no mapping is the guest's memory")
}

/// The guest's memory is a mapping of just its size, or else all that is left out of dumps.
fn count(smaps: &str, guest_bytes: u64) -> Option<Memory> {
    let mappings = parse(smaps);
    let marked = |mapping: &Mapping| mapping.private && mapping.no_dump;
    let sized = |mapping: &Mapping| mapping.end - mapping.start == guest_bytes;
    // Other monitors leave other things out of dumps.
    let whole = mappings.iter().any(sized);
    let (guest, own): (Vec<_>, Vec<_>) =
        mappings.iter().partition(|mapping| if whole { sized(mapping) } else { marked(mapping) });
    (!guest.is_empty()).then(|| Memory {
        private_kib: own.iter().map(|mapping| mapping.private_kib).sum(),
        guest_kib: guest.iter().map(|mapping| mapping.resident_kib).sum(),
    })
}

fn parse(smaps: &str) -> Vec<Mapping> {
    let mut mappings: Vec<Mapping> = Vec::new();
    for line in smaps.lines() {
        if let Some(mapping) = header(line) {
            mappings.push(mapping);
            continue;
        }
        let (Some((key, value)), Some(mapping)) = (line.split_once(':'), mappings.last_mut())
        else {
            continue;
        };
        if key == "VmFlags" {
            mapping.no_dump = value.split_whitespace().any(|flag| flag == "dd");
        }
        let kib: u64 = value.trim().trim_end_matches(" kB").parse().unwrap_or(0);
        match key {
            "Private_Clean" | "Private_Dirty" => mapping.private_kib += kib,
            "Rss" => mapping.resident_kib += kib,
            _ => {}
        }
    }
    mappings
}

/// The first line of a mapping: addresses, permissions, offset, device, inode, name.
fn header(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).ok());
    let private = words.next()? == "rw-p";
    Some(Mapping { start: start?, end: end?, private, ..Mapping::default() })
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod memory_test;
