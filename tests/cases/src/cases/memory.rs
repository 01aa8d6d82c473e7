//! What a pod does not use any more goes back to the host while the pod runs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
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
    gives_back("/dev/shm/f", |path| path.starts_with("/memfd:guest-ram"))
}

fn the_room_of_deleted_files_goes_back_to_the_host() -> Result<()> {
    gives_back("/f", |path| path.contains("#") && path.ends_with("(deleted)"))
}

/// A pod fills the file `name` and deletes it: the open files of its monitor whose path `is` so grow and
/// shrink on the host.
fn gives_back(name: &str, is: fn(&str) -> bool) -> Result<()> {
    let fill = format!("dd if=/dev/urandom of={name} bs=1M count=48 status=none; sync; echo full");
    let script = format!("echo begin; sleep 6; {fill}; sleep 6; rm {name}; sync; sleep 1000");
    let mut run = Run::shell(&script).start()?;
    run.wait_for("begin")?;
    let monitor = wait_for_helper(&run, "cofferdam-vmm")?.as_raw();
    let before = host_bytes(monitor, is)?;
    run.wait_for("full")?;
    let full = host_bytes(monitor, is)?;
    ensure!(full >= before + 40 * MIB, "{before} bytes before, {full} with 48 MiB more");
    let deadline = Instant::now() + LIMIT;
    loop {
        let now = host_bytes(monitor, is)?;
        if now + 32 * MIB <= full {
            break;
        }
        ensure!(Instant::now() < deadline, "{before} bytes, then {full}, then still {now}");
        thread::sleep(Duration::from_millis(200));
    }
    run.signal(Signal::SIGKILL)?;
    run.finish()?.exits(137).map(drop)
}

/// The room that open files of a process take on the host.
fn host_bytes(pid: i32, is: fn(&str) -> bool) -> Result<u64> {
    let mut bytes = 0;
    let mut seen = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        // A descriptor may close meanwhile.
        let Ok(target) = fs::read_link(&path) else { continue };
        let Ok(file) = fs::metadata(&path) else { continue };
        if is(&target.to_string_lossy()) && !seen.contains(&file.ino()) {
            seen.push(file.ino());
            bytes += file.blocks() * 512;
        }
    }
    ensure!(!seen.is_empty(), "no such file is open in process {pid}");
    Ok(bytes)
}
