//! What a pod does not use any more goes back to the host while the pod runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use super::cases;
use super::kills::wait_for_helper;
use crate::run::Run;

cases!("memory":
    free_memory_goes_back_to_the_host,
    the_room_of_deleted_files_goes_back_to_the_host,
);

const MIB: u64 = 1 << 20;

/// Longest time for the guest to report what it has freed; it does so every two seconds.
const LIMIT: Duration = Duration::from_secs(90);

fn free_memory_goes_back_to_the_host() -> Result<()> {
    gives_back("/dev/shm/f", private_memory)
}

fn the_room_of_deleted_files_goes_back_to_the_host() -> Result<()> {
    gives_back("/f", scratch_disk)
}

/// A pod fills the file `name` and deletes it: what its monitor has of the host, as `bytes` tells, grows and shrinks.
fn gives_back(name: &str, bytes: fn(i32) -> Result<u64>) -> Result<()> {
    let fill = format!("dd if=/dev/urandom of={name} bs=1M count=48 status=none; sync; echo full");
    let script = format!("echo begin; sleep 6; {fill}; sleep 6; rm {name}; sync; sleep 1000");
    let mut run = Run::shell(&script).start()?;
    run.wait_for("begin")?;
    let monitor = wait_for_helper(&run, "cofferdam-vmm")?.as_raw();
    let before = bytes(monitor)?;
    run.wait_for("full")?;
    let full = bytes(monitor)?;
    ensure!(full >= before + 40 * MIB, "{before} bytes before, {full} with 48 MiB more");
    let deadline = Instant::now() + LIMIT;
    loop {
        let now = bytes(monitor)?;
        if now + 32 * MIB <= full {
            break;
        }
        ensure!(Instant::now() < deadline, "{before} bytes, then {full}, then still {now}");
        thread::sleep(Duration::from_millis(200));
    }
    run.signal(Signal::SIGKILL)?;
    run.finish()?.exits(137).map(drop)
}

/// The memory that is a process's own.
pub(super) fn private_memory(pid: i32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no RssAnon")?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// The room that the unnamed files which a process has open take on the host.
fn scratch_disk(pid: i32) -> Result<u64> {
    let mut bytes = 0;
    let mut seen = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        // A descriptor may close meanwhile.
        let Ok(target) = fs::read_link(&path) else { continue };
        let Ok(file) = fs::metadata(&path) else { continue };
        let name = target.to_string_lossy();
        let unnamed = name.contains('#') && name.ends_with("(deleted)");
        if unnamed && !seen.contains(&file.ino()) {
            seen.push(file.ino());
            bytes += file.blocks() * 512;
        }
    }
    ensure!(!seen.is_empty(), "no such file is open in process {pid}");
    Ok(bytes)
}
