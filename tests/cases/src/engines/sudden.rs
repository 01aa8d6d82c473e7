//! Processes of Cofferdam and containerd that die under a container.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cases;
use super::containerd::Containerd;
use super::engine::Engine;
use crate::call::eventually;

cases!(Containerd:
    containerd_is_restarted,
    a_shim_that_is_killed_is_cleaned_up_after,
    a_monitor_that_is_killed_ends_its_container_at_once,
);

/// Processes called `program` whose command line holds `text`.
pub(super) fn processes(program: &str, text: &str) -> Vec<Pid> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let own = line.split(' ').next().and_then(|path| path.rsplit('/').next());
        if own == Some(program) && line.contains(text) {
            found.extend(pid.map(Pid::from_raw));
        }
    }
    found
}

/// Our shims.
pub(super) const SHIM: &str = "containerd-shim-cofferdam-v2";

/// Monitors.
pub(super) const MONITOR: &str = "cofferdam-vmm";

/// The shim of a container.
pub(super) fn shim(id: &str) -> Result<Pid> {
    let name = if Engine::is_ours() { SHIM } else { "containerd-shim-runc-v2" };
    let found = processes(name, &format!("-id {id} "));
    ensure!(found.len() == 1, "shims of {id}: {found:?}");
    found.first().copied().context("no shim")
}

fn containerd_is_restarted(containerd: &Containerd) -> Result<()> {
    let script = "trap 'exit 7' USR1; while :; do echo tick; sleep 0.1; done";
    let (id, log) = containerd.logged(&[], script)?;
    eventually("a tick", || Ok(fs::read_to_string(&log).is_ok_and(|text| !text.is_empty())))?;
    containerd.restart()?;
    ensure!(containerd.status(&id)? == "RUNNING");
    let ticks = fs::read_to_string(&log)?.len();
    eventually("another tick", || Ok(fs::read_to_string(&log)?.len() > ticks))?;
    containerd.exec(&id, "echo there")?.exits(0)?.prints("there")?;
    let events = containerd.events()?;
    containerd.ctr(&["task", "kill", "--signal", "USR1", &id])?.exits(0)?;
    // Those that containerd could not be told of meanwhile may come first.
    eventually("the exit", || {
        let of_first = |exit: &serde_json::Value| exit["id"] == *id && exit["exit_status"] == 7;
        Ok(events.of(&id)?.iter().any(|(topic, exit)| topic == "/tasks/exit" && of_first(exit)))
    })?;
    ensure!(containerd.delete(&id)? == 7);
    Ok(())
}

/// What else is left is looked for after all cases.
fn a_shim_that_is_killed_is_cleaned_up_after(containerd: &Containerd) -> Result<()> {
    let events = containerd.events()?;
    let id = containerd.detached(&[], "sleep 1000")?;
    kill(shim(&id)?, Signal::SIGKILL)?;
    let seen = events.end_with(&id, &["/tasks/exit", "/tasks/delete"])?;
    let exit = seen.iter().rev().nth(1).map(|(_, exit)| exit["exit_status"].clone());
    ensure!(exit == Some(137.into()), "{seen:?}");
    eventually("the task to be gone", || Ok(containerd.status(&id)?.is_empty()))?;
    eventually("the machine to be gone", || Ok(processes(MONITOR, "").is_empty()))?;
    let state = format!("/run/cofferdam-containerd/default/{id}");
    ensure!(!fs::exists(&state)?, "{state} is left");
    // Its name is free.
    containerd.ctr(&["task", "start", "--detach", &id])?.exits(0)?;
    ensure!(containerd.status(&id)? == "RUNNING");
    Ok(())
}

fn a_monitor_that_is_killed_ends_its_container_at_once(containerd: &Containerd) -> Result<()> {
    if !Engine::is_ours() {
        return Ok(());
    }
    let events = containerd.events()?;
    let id = containerd.detached(&[], "sleep 1000")?;
    let monitors = processes(MONITOR, "");
    ensure!(monitors.len() == 1, "monitors: {monitors:?}");
    kill(monitors[0], Signal::SIGKILL)?;
    let begin = Instant::now();
    let seen = events.end_with(&id, &["/tasks/exit"])?;
    // On the emulated host, ctr alone takes some tenths of a second to print it.
    ensure!(begin.elapsed() < Duration::from_secs(1), "told after {:?}", begin.elapsed());
    ensure!(seen.last().is_some_and(|(_, exit)| exit["exit_status"] == 137), "{seen:?}");
    ensure!(containerd.delete(&id)? == 137);
    Ok(())
}
