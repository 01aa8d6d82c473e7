//! Any process may be killed at any time: an error that says so, and nothing left.
//!
//! What is left is looked for after every case, so most of the test is not in sight here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::cases;
use crate::leftovers::{Host, own_group};
use crate::run::{Run, Started, busybox_rootfs};

cases!("kills":
    what_is_left_is_seen,
    the_command_at_each_stage,
    the_supervisor_at_each_stage,
    the_monitor_at_each_stage,
    the_command_and_the_supervisor_together,
    during_the_first_image_build,
    while_a_hook_runs,
    control_c_during_boot,
    control_c_while_running,
    the_monitor_while_the_container_runs,
);

/// Delays after the start, in milliseconds: from before the monitor to a running container.
const DELAYS: [u64; 5] = [0, 60, 400, 2000, 4000];

/// The process whose command line holds `name` and which descends from `ancestor`.
fn helper(ancestor: Pid, name: &str) -> Option<Pid> {
    let mut parents = BTreeMap::new();
    let mut named = Vec::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let file = entry.file_name();
        let Some(pid) = file.to_str().and_then(|text| text.parse::<i32>().ok()) else { continue };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let command = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let parent = rest.split(' ').nth(1).and_then(|text| text.parse::<i32>().ok());
        parents.insert(pid, parent.unwrap_or(0));
        if command.contains(name) && pid != ancestor.as_raw() {
            named.push(pid);
        }
    }
    let descends = |pid: &i32| {
        let mut above = std::iter::successors(Some(*pid), |pid| parents.get(pid).copied());
        above.any(|pid| pid == ancestor.as_raw())
    };
    named.into_iter().find(descends).map(Pid::from_raw)
}

/// Waits for the process whose command line holds `name` and which descends from `run`.
pub(super) fn wait_for_helper(run: &Started, name: &str) -> Result<Pid> {
    // The first run may have to make the root file system's image.
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline {
        if let Some(pid) = helper(run.pid(), name) {
            return Ok(pid);
        }
        thread::sleep(Duration::from_millis(2));
    }
    anyhow::bail!("no process {name}")
}

/// Of what nothing but this program would make: a monitor's group, and an interface.
fn what_is_left_is_seen() -> Result<()> {
    let before = Host::now();
    let group = own_group().context("no cgroup v2")?.join("cofferdam-0");
    fs::create_dir(&group)?;
    let seen = Host::now() != before;
    fs::remove_dir(&group)?;
    ensure!(seen, "{} was not seen", group.display());
    // Where it is built in, there is nothing to load.
    let _built_in = Command::new("modprobe").arg("tun").status();
    let tap = crate::tap::make("cofftest0")?;
    let seen = Host::now() != before;
    drop(tap);
    ensure!(seen, "an interface was not seen");
    Ok(())
}

fn sleeper() -> Result<Started> {
    Run::shell("echo ready; sleep 1000").start()
}

fn the_command_at_each_stage() -> Result<()> {
    for delay in DELAYS {
        let before = Host::now();
        let run = sleeper()?;
        thread::sleep(Duration::from_millis(delay));
        run.signal(Signal::SIGKILL)?;
        run.finish()?.exits(137)?;
        before.unchanged().with_context(|| format!("killed after {delay} ms"))?;
    }
    Ok(())
}

fn the_supervisor_at_each_stage() -> Result<()> {
    for delay in DELAYS {
        let before = Host::now();
        let run = sleeper()?;
        let supervisor = wait_for_helper(&run, "supervisor")?;
        thread::sleep(Duration::from_millis(delay));
        kill(supervisor, Signal::SIGKILL)?;
        let outcome = run.finish()?;
        ensure!(
            outcome.code != 0 && outcome.stderr.contains("supervisor"),
            "{delay} ms: {outcome}"
        );
        before.unchanged().with_context(|| format!("killed after {delay} ms"))?;
    }
    Ok(())
}

fn the_monitor_at_each_stage() -> Result<()> {
    for delay in DELAYS {
        let before = Host::now();
        let run = sleeper()?;
        let monitor = wait_for_helper(&run, "cofferdam-vmm")?;
        thread::sleep(Duration::from_millis(delay));
        kill(monitor, Signal::SIGKILL)?;
        let outcome = run.finish()?;
        ensure!(outcome.code != 0 && outcome.stderr.contains("monitor"), "{delay} ms: {outcome}");
        before.unchanged().with_context(|| format!("killed after {delay} ms"))?;
    }
    Ok(())
}

fn the_command_and_the_supervisor_together() -> Result<()> {
    let mut run = sleeper()?;
    run.wait_for("ready")?;
    let supervisor = wait_for_helper(&run, "supervisor")?;
    run.signal(Signal::SIGSTOP)?;
    kill(supervisor, Signal::SIGKILL)?;
    run.signal(Signal::SIGKILL)?;
    run.finish()?.exits(137)?;
    // Nobody was left to clean up; the next run does.
    Run::shell("true").output()?.exits(0).map(drop)
}

/// A root file system of which it takes long to make an image.
fn large_rootfs() -> Result<(TempDir, PathBuf)> {
    let (directory, root) = busybox_rootfs()?;
    fs::create_dir(root.join("many"))?;
    for number in 0..2000 {
        fs::write(root.join(format!("many/{number}")), format!("{number}").repeat(1000))?;
    }
    fs::write(root.join("large"), b"0123456789abcdef".repeat(8 << 20))?;
    Ok((directory, root))
}

fn during_the_first_image_build() -> Result<()> {
    let (_directory, root) = large_rootfs()?;
    for (signal, code) in [(Signal::SIGKILL, 137), (Signal::SIGINT, 130)] {
        for delay in [0, 100] {
            let before = Host::now();
            let run = Run::in_rootfs(&root, &["true"]).start()?;
            wait_for_helper(&run, "mkfs.erofs")?;
            thread::sleep(Duration::from_millis(delay));
            run.signal(signal)?;
            run.finish()?.exits(code)?;
            before.unchanged().with_context(|| format!("{signal} {delay} ms into the build"))?;
        }
    }
    Ok(())
}

fn while_a_hook_runs() -> Result<()> {
    for (signal, code) in [(Signal::SIGKILL, 137), (Signal::SIGINT, 130)] {
        let directory = TempDir::with_prefix("hook-")?;
        let file = directory.path().join("pids");
        let name = file.display();
        let hook = format!("sleep 1000 & echo $$ $! > {name}.new; mv {name}.new {name}; wait");
        let run = Run::bundle("true", |config| {
            let hook = serde_json::json!({ "path": "/bin/sh", "args": ["sh", "-c", hook] });
            config["hooks"] = serde_json::json!({ "createRuntime": [hook] });
        })?;
        let run = run.start()?;
        ensure!(within(Duration::from_secs(120), || file.exists()), "the hook never ran");
        run.signal(signal)?;
        run.finish()?.exits(code)?;
        let pids = fs::read_to_string(&file)?;
        let gone = |pid: &str| !Path::new("/proc").join(pid).exists();
        let all_gone = || pids.split_whitespace().all(gone);
        ensure!(within(Duration::from_secs(5), all_gone), "{signal}: one of {pids} lives");
    }
    Ok(())
}

/// Whether `condition` comes true in time.
fn within(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

fn control_c_during_boot() -> Result<()> {
    for delay in [30, 300, 1000] {
        let run = sleeper()?;
        thread::sleep(Duration::from_millis(delay));
        run.signal(Signal::SIGINT)?;
        run.finish()?.exits(130).with_context(|| format!("interrupted after {delay} ms"))?;
    }
    Ok(())
}

fn control_c_while_running() -> Result<()> {
    let mut run =
        Run::command(&["python3", "-c", "print('ready', flush=True)\nwhile True: pass"]).start()?;
    run.wait_for("ready")?;
    run.signal(Signal::SIGINT)?;
    let outcome = run.finish()?;
    ensure!(outcome.code != 0 && outcome.stderr.contains("KeyboardInterrupt"), "{outcome}");
    Ok(())
}

fn the_monitor_while_the_container_runs() -> Result<()> {
    let mut run = sleeper()?;
    run.wait_for("ready")?;
    let monitor = wait_for_helper(&run, "cofferdam-vmm")?;
    kill(monitor, Signal::SIGKILL)?;
    let outcome = run.finish()?;
    ensure!(outcome.stderr.contains("container started"), "no last stage in {outcome}");
    ensure!(outcome.stderr.contains("signal 9") || outcome.stderr.contains("SIGKILL"), "{outcome}");
    Ok(())
}
