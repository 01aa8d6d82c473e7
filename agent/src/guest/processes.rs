//! What `/proc` says of processes.
//!
//! Invariant: the answer fits into a frame, however long command lines are.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;

use cofferdam_agent_protocol::{Described, Description};

/// Most processes that are described.
const MOST: usize = 256;

/// Longest part of a command line, in bytes.
const MAX_COMMAND: u64 = 128;

/// Describes the processes `pids`; those that have ended meanwhile are left out.
pub(crate) fn describe(pids: &[u32]) -> Described {
    let processes = pids.iter().take(MOST).filter_map(|pid| one(*pid)).collect();
    Described { processes, uptime: uptime().unwrap_or(0) }
}

/// In clock ticks.
fn uptime() -> Option<u64> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    // Seconds with two decimals: without the point, hundredths.
    text.split(' ').next()?.replace('.', "").parse().ok()
}

fn one(pid: u32) -> Option<Description> {
    let directory = format!("/proc/{pid}");
    // A process names itself by any bytes.
    let stat = fs::read(format!("{directory}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let uid = fs::metadata(&directory).ok()?.uid();
    let mut line = Vec::new();
    let file = File::open(format!("{directory}/cmdline")).ok()?;
    file.take(MAX_COMMAND).read_to_end(&mut line).ok()?;
    while line.last() == Some(&0) {
        line.pop();
    }
    let mut command = String::from_utf8_lossy(&line).replace('\0', " ");
    if command.is_empty() {
        let name = stat.split_once('(').and_then(|(_, rest)| Some(rest.rsplit_once(')')?.0));
        command = format!("[{}]", name.unwrap_or_default());
    }
    Some(Description { stat: stat.trim_end().to_owned(), uid, command })
}

#[cfg(test)]
#[path = "processes_test.rs"]
mod processes_test;
