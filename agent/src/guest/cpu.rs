//! CPUs that are brought online and offline (Linux, cputopology and core-api/cpu_hotplug).
//!
//! Those with the lowest numbers are online. The first has no switch: it always is.
//!
//! Invariant: a change that fails is undone, as far as the kernel lets it.

use std::fs;
use std::path::{Path, PathBuf};

use cofferdam_agent_protocol::Cpus;

use crate::error::{Context, Failure, Result};

/// Brings `wanted` of the CPUs in `directory` online and the others offline.
///
/// # Errors
/// A number that cannot be, and what the kernel says.
pub(crate) fn set_online(directory: &Path, wanted: u32) -> Result<Cpus> {
    let cpus = list(directory)?;
    let present = u32::try_from(cpus.len()).unwrap_or(u32::MAX);
    if wanted == 0 || wanted > present {
        let text = format!("{wanted} CPUs online: the machine has 1 to {present}");
        return Err(Failure::unsupported(text));
    }
    let mut changed = Vec::new();
    for (cpu, order) in cpus.iter().zip(1..) {
        match cpu.switch(order <= wanted) {
            Ok(true) => changed.push((cpu, order > wanted)),
            Ok(false) => {}
            Err(failure) => {
                for (cpu, before) in changed.iter().rev() {
                    if let Err(failure) = cpu.switch(*before) {
                        crate::log!("undoing a change: {failure}");
                    }
                }
                return Err(failure);
            }
        }
    }
    let online = cpus.iter().filter(|cpu| cpu.is_online()).count();
    Ok(Cpus { online: u32::try_from(online).unwrap_or(u32::MAX), present })
}

/// The set `wanted` of a container, such as `0-1,4`, on a machine with the CPUs in `directory`.
///
/// A set that is online is itself. Of another, which was written for the host, only the number counts: it becomes as
/// many of the machine's first CPUs.
///
/// # Errors
/// What the file system says.
pub(crate) fn fit(directory: &Path, wanted: &str) -> Result<String> {
    let cpus = list(directory)?;
    let online: Vec<u32> =
        cpus.iter().filter(|cpu| cpu.is_online()).map(|cpu| cpu.number).collect();
    Ok(fit_to(&online, wanted).unwrap_or_else(|| wanted.to_owned()))
}

/// As [`fit`]; `None` for what is no set, about which the kernel has its own words.
fn fit_to(online: &[u32], wanted: &str) -> Option<String> {
    let ranges = wanted.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        (first <= last).then_some(first..=last)
    });
    let ranges = ranges.collect::<Option<Vec<_>>>()?;
    let is_there = |cpu: &u32| ranges.iter().any(|range| range.contains(cpu));
    let there = online.iter().copied().filter(is_there).count();
    let count = |range: &std::ops::RangeInclusive<u32>| {
        u64::from(range.end() - range.start()).saturating_add(1)
    };
    let all = ranges.iter().map(count).fold(0, u64::saturating_add);
    if u64::try_from(there).ok()? == all {
        return Some(wanted.trim().to_owned());
    }
    let number = usize::try_from(all).unwrap_or(usize::MAX);
    let first: Vec<String> = online.iter().take(number).map(u32::to_string).collect();
    (!first.is_empty()).then(|| first.join(","))
}

/// A CPU of the guest.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cpu {
    number: u32,
    directory: PathBuf,
}

impl Cpu {
    /// Turns it on or off; whether that was a change.
    fn switch(&self, on: bool) -> Result<bool> {
        if self.is_online() == on {
            return Ok(false);
        }
        let word = if on { "online" } else { "offline" };
        let attempted = || format!("bringing CPU {} {word}", self.number);
        fs::write(self.file(), if on { "1" } else { "0" }).context(attempted)?;
        Ok(true)
    }

    /// A CPU without a switch is online.
    fn is_online(&self) -> bool {
        fs::read_to_string(self.file()).map_or(true, |text| text.trim() == "1")
    }

    fn file(&self) -> PathBuf {
        self.directory.join("online")
    }
}

/// All CPUs, by rising number.
fn list(directory: &Path) -> Result<Vec<Cpu>> {
    let attempted = || format!("listing the CPUs in {}", directory.display());
    let mut cpus = Vec::new();
    for entry in fs::read_dir(directory).context(attempted)? {
        let entry = entry.context(attempted)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
        cpus.extend(number.map(|number| Cpu { number, directory: entry.path() }));
    }
    cpus.sort();
    Ok(cpus)
}

#[cfg(test)]
#[path = "cpu_test.rs"]
mod cpu_test;
