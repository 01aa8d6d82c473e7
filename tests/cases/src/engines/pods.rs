//! Pods: a sandbox and containers that join it, as containerd's CRI service marks them.

use std::fs;

use anyhow::{Result, ensure};

use super::cases;
use super::containerd::{Containerd, IMAGE};
use super::engine::Engine;
use super::sudden::{MONITOR, SHIM, processes, shim};
use crate::run::unique_id;

cases!(Containerd:
    containers_share_the_machine_of_their_sandbox,
    a_container_shares_the_processes_of_its_sandbox,
    a_pause_container_costs_no_process,
    a_shim_is_small,
);

/// Annotations of a container of `sandbox`; a "pause" is a sandbox that only waits.
pub(super) fn marks(kind: &str, sandbox: &str) -> [String; 4] {
    let kind = if kind == "pause" { "sandbox" } else { kind };
    let kind = format!("io.kubernetes.cri.container-type={kind}");
    let sandbox = format!("io.kubernetes.cri.sandbox-id={sandbox}");
    ["--annotation".into(), kind, "--annotation".into(), sandbox]
}

/// Starts the container `id` of `sandbox`.
fn start(containerd: &Containerd, kind: &str, (sandbox, id): (&str, &str)) -> Result<()> {
    start_with(containerd, kind, (sandbox, id), &[])
}

/// The same with `flags`.
fn start_with(
    containerd: &Containerd,
    kind: &str,
    (sandbox, id): (&str, &str),
    flags: &[&str],
) -> Result<()> {
    let marks = marks(kind, sandbox);
    let marks: Vec<&str> = marks.iter().map(String::as_str).collect();
    let fixed = ["run", "--detach", "--runtime", Containerd::runtime()];
    let command: &[&str] = match kind {
        "pause" => &["/pause"],
        _ => &["sleep", "1000"],
    };
    let all = [&fixed, flags, &marks[..], &[IMAGE, id], command].concat();
    containerd.ctr(&all)?.exits(0).map(drop)
}

/// What Kubernetes calls shareProcessNamespace.
fn a_container_shares_the_processes_of_its_sandbox(containerd: &Containerd) -> Result<()> {
    let (sandbox, alone, shares) = (unique_id(), unique_id(), unique_id());
    start(containerd, "sandbox", (&sandbox, &sandbox))?;
    start(containerd, "container", (&sandbox, &alone))?;
    let namespace = format!("pid:/proc/{}/ns/pid", containerd.pid(&sandbox)?);
    start_with(containerd, "container", (&sandbox, &shares), &["--with-ns", &namespace])?;
    let sleepers = |id: &str| containerd.exec(id, "ps | grep -c '[s]leep 1000'");
    sleepers(&shares)?.exits(0)?.prints("2")?;
    sleepers(&alone)?.exits(0)?.prints("1").map(drop)
}

/// The sandbox is there, and its namespaces can be joined, although nothing runs in it.
fn a_pause_container_costs_no_process(containerd: &Containerd) -> Result<()> {
    let (sandbox, alone, shares) = (unique_id(), unique_id(), unique_id());
    start(containerd, "pause", (&sandbox, &sandbox))?;
    if Engine::is_ours() {
        let number = containerd.pid(&sandbox)?.to_string();
        containerd.ctr(&["task", "ps", &sandbox])?.exits(0)?.has(&number)?;
        let refused = containerd.exec(&sandbox, "true")?.exits(1)?;
        ensure!(refused.stderr.contains("it is a sandbox, which runs no process"), "{refused}");
    }
    start(containerd, "container", (&sandbox, &alone))?;
    let of = |kind: &str, name: &str| -> Result<String> {
        Ok(format!("{kind}:/proc/{}/ns/{name}", containerd.pid(&sandbox)?))
    };
    let (pid, ipc, uts) = (of("pid", "pid")?, of("ipc", "ipc")?, of("uts", "uts")?);
    let joins = ["--with-ns", &pid, "--with-ns", &ipc, "--with-ns", &uts];
    start_with(containerd, "container", (&sandbox, &shares), &joins)?;
    containerd.exec(&alone, "ps | grep -c '[/]pause'")?.exits(1)?.prints("0")?;
    containerd.exec(&shares, "ps | grep -c 'pause'")?.exits(0)?;
    containerd.exec(&shares, "tr '\\0' '\\n' < /proc/1/cmdline | grep -c pause")?.exits(0)?;
    // The first process of the namespace takes care of orphans.
    let orphan = "sh -c 'sleep 0.2 & exec true'; sleep 0.6; ps -o stat | grep -c Z";
    containerd.exec(&shares, orphan)?.exits(1)?.prints("0")?;
    let status = containerd.ctr(&["task", "metrics", &sandbox])?.exits(0)?.text();
    ensure!(status.contains("memory.usage"), "{status}");
    containerd.ctr(&["task", "kill", "--signal", "TERM", &sandbox])?.exits(0)?;
    containerd.wait_for(&sandbox, "STOPPED")?;
    ensure!(containerd.delete(&sandbox)? == 0);
    Ok(())
}

fn containers_share_the_machine_of_their_sandbox(containerd: &Containerd) -> Result<()> {
    let (sandbox, first, second) = (unique_id(), unique_id(), unique_id());
    start(containerd, "sandbox", (&sandbox, &sandbox))?;
    for id in [&first, &second] {
        start(containerd, "container", (&sandbox, id))?;
    }
    if Engine::is_ours() {
        shim(&sandbox)?;
        let all = processes(SHIM, "");
        ensure!(all.len() == 1, "shims: {all:?}");
        let monitors = processes(MONITOR, "");
        ensure!(monitors.len() == 1, "monitors: {monitors:?}");
        containerd.exec(&first, "echo of-first > /dev/shm/shared-by-all; hostname")?.exits(0)?;
    }
    // Each has its own files and processes.
    containerd.exec(&first, "echo first > /tmp/own")?.exits(0)?;
    containerd.exec(&second, "ls /tmp/own")?.exits(1)?;
    containerd.exec(&second, "ps | grep -c 'sleep 1000'")?.exits(0)?;
    // One is killed, deleted, and started again in the living pod.
    for _ in 0..3 {
        containerd.ctr(&["task", "kill", "--signal", "KILL", &first])?.exits(0)?;
        containerd.wait_for(&first, "STOPPED")?;
        ensure!(containerd.end(&first)? == 137);
        containerd.ctr(&["task", "start", "--detach", &first])?.exits(0)?;
        containerd.exec(&first, "ls /tmp/own")?.exits(1)?;
    }
    ensure!(containerd.status(&second)? == "RUNNING");
    if Engine::is_ours() {
        // The machine ends with its sandbox.
        containerd.ctr(&["task", "kill", "--signal", "KILL", &sandbox])?.exits(0)?;
        for id in [&sandbox, &first, &second] {
            containerd.wait_for(id, "STOPPED")?;
        }
        ensure!(processes(MONITOR, "").is_empty());
        for id in [&first, &second, &sandbox] {
            ensure!(containerd.delete(id)? == 137);
        }
        crate::call::eventually("the shim's end", || Ok(processes(SHIM, "").is_empty()))?;
    }
    Ok(())
}

/// Most private memory of the shim of a pod with three containers, in KiB.
const MOST_PRIVATE: u64 = 6 << 10;

fn a_shim_is_small(containerd: &Containerd) -> Result<()> {
    if !Engine::is_ours() {
        return Ok(());
    }
    // Two pods: what they share, the program, is no pod's own.
    let (sandbox, other) = (unique_id(), unique_id());
    for pod in [&sandbox, &other] {
        start(containerd, "sandbox", (pod, pod))?;
        for _ in 0..2 {
            start(containerd, "container", (pod, &unique_id()))?;
        }
    }
    let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", shim(&sandbox)?))?;
    let private: u64 = rollup
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    println!("\nthe shim of a pod with three containers: {private} KiB private");
    ensure!(private > 0 && private <= MOST_PRIVATE, "{private} KiB: {rollup}");
    Ok(())
}
