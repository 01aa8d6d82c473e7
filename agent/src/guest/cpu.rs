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
