//! The monitor of a running container has given up what it does not need, and a call that it should not make
//! ends its own pod only.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;
use serde_json::Value;

use super::cases;
use super::kills::wait_for_helper;
use crate::monitor::{Boot, KERNEL};
use crate::run::{Run, Started};

cases!("jail":
    every_thread_is_confined,
    its_namespaces_are_its_own_and_its_root_is_empty,
    it_holds_what_it_was_given_and_no_more,
    two_pods_have_different_users_and_groups,
    a_busy_monitor_makes_few_calls_and_no_dangerous_one,
    a_forbidden_call_is_named_and_ends_its_pod_only,
    metrics_tell_of_devices_and_of_kvm,
);

/// Users of monitors, unless the configuration says otherwise.
const UIDS: std::ops::RangeInclusive<u32> = 2_000_000_000..=2_000_065_535;

/// A container that runs until it is killed, and its monitor.
struct Pod {
    run: Started,
    monitor: Pid,
}

impl Pod {
    /// One that runs a shell script, which says `ready` when it is.
    fn start(script: &str) -> Result<Self> {
        let mut run = Run::shell(script).start()?;
        let monitor = wait_for_helper(&run, "cofferdam-vmm")?;
        run.wait_for("ready")?;
        Ok(Self { run, monitor })
    }

    fn idle() -> Result<Self> {
        Self::start("echo ready; sleep 1000")
    }

    fn proc(&self, name: &str) -> PathBuf {
        Path::new("/proc").join(self.monitor.to_string()).join(name)
    }

    fn end(self) -> Result<()> {
        self.run.signal(nix::sys::signal::Signal::SIGKILL)?;
        self.run.finish().map(drop)
    }
}

/// The value of a field of a `status` file in `/proc`.
fn field(directory: &Path, name: &str) -> Result<String> {
    let text = fs::read_to_string(directory.join("status"))?;
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(key, _)| *key == name);
    Ok(found.with_context(|| format!("no field {name}"))?.1.trim().to_owned())
}

fn uid(pod: &Pod) -> Result<u32> {
    let text = field(&pod.proc(""), "Uid")?;
    let ids: BTreeSet<&str> = text.split_whitespace().collect();
    ensure!(ids.len() == 1, "several users: {text}");
    text.split_whitespace().next().context("no user")?.parse().context("a user")
}

fn every_thread_is_confined() -> Result<()> {
    let pod = Pod::idle()?;
    let threads: Vec<_> = fs::read_dir(pod.proc("task"))?.collect::<std::io::Result<_>>()?;
    // The first, a vCPU, and those of vsock, rng and two disks.
    ensure!(threads.len() >= 6, "{} threads", threads.len());
    for thread in threads {
        for (name, value) in [
            ("NoNewPrivs", "1"),
            ("Seccomp", "2"),
            ("CapInh", "0000000000000000"),
            ("CapPrm", "0000000000000000"),
            ("CapEff", "0000000000000000"),
            ("CapBnd", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("Groups", ""),
        ] {
            let found = field(&thread.path(), name)?;
            ensure!(found == value, "{}: {name} is {found:?}", thread.path().display());
        }
    }
    ensure!(UIDS.contains(&uid(&pod)?), "it is the user {}", uid(&pod)?);
    let limits = fs::read_to_string(pod.proc("limits"))?;
    let core = limits.lines().find(|line| line.starts_with("Max core")).context("no limit")?;
    ensure!(core.split_whitespace().nth(4) == Some("0"), "{core}");
    pod.end()
}

fn its_namespaces_are_its_own_and_its_root_is_empty() -> Result<()> {
    let pod = Pod::idle()?;
    for space in ["mnt", "net", "ipc", "pid", "uts"] {
        let (theirs, ours) = (pod.proc("ns").join(space), Path::new("/proc/self/ns").join(space));
        ensure!(fs::read_link(theirs)? != fs::read_link(ours)?, "the host's {space} namespace");
    }
    let names: Vec<_> = fs::read_dir(pod.proc("root"))?.flatten().collect();
    ensure!(names.is_empty(), "in its root: {names:?}");
    let mounts = fs::read_to_string(pod.proc("mounts"))?;
    ensure!(mounts.lines().count() == 1 && mounts.contains(" ro,"), "its mounts: {mounts}");
    let links = fs::read_to_string(pod.proc("net/dev"))?;
    ensure!(!links.contains("eth0"), "its links: {links}");
    let numbers = field(&pod.proc(""), "NSpid")?;
    ensure!(numbers.split_whitespace().last() == Some("1"), "its number: {numbers}");
    pod.end()
}

fn it_holds_what_it_was_given_and_no_more() -> Result<()> {
    let pod = Pod::idle()?;
    let kinds = [
        "socket:[",
        "pipe:[",
        "anon_inode:[eventfd]",
        "anon_inode:[eventpoll]",
        "anon_inode:[io_uring]",
        "anon_inode:kvm-",
        "anon_inode:[kvm-",
        "/dev/kvm",
        "/dev/null",
        "/var/lib/cofferdam/",
        "/run/cofferdam/",
    ];
    for entry in fs::read_dir(pod.proc("fd"))?.flatten() {
        let target = fs::read_link(entry.path())?.display().to_string();
        ensure!(kinds.iter().any(|kind| target.starts_with(kind)), "it holds {target}");
    }
    pod.end()
}

fn two_pods_have_different_users_and_groups() -> Result<()> {
    let (first, second) = (Pod::idle()?, Pod::idle()?);
    ensure!(uid(&first)? != uid(&second)?, "both are the user {}", uid(&first)?);
    let group = |pod: &Pod| fs::read_to_string(pod.proc("cgroup"));
    ensure!(group(&first)? != group(&second)?, "both are in {}", group(&first)?);
    ensure!(group(&first)?.contains("/cofferdam-"), "it is in {}", group(&first)?);
    first.end()?;
    second.end()
}

fn a_busy_monitor_makes_few_calls_and_no_dangerous_one() -> Result<()> {
    // The disk and the socket device have something to do.
    let pod = Pod::start(
        "echo ready; while :; do dd if=/dev/urandom of=/tmp/f bs=64k count=8 2>/dev/null; sync; cat /tmp/f; done",
    )?;
    let report = tempfile::NamedTempFile::new()?;
    let status = Command::new("timeout")
        .args(["-s", "INT", "20", "strace", "-f", "-c", "-o"])
        .arg(report.path())
        .args(["-p", &pod.monitor.to_string()])
        .stderr(Stdio::null())
        .status()?;
    let text = fs::read_to_string(report.path())?;
    // % time, seconds, usecs/call, calls, [errors,] name; rules above and below, and a total.
    let counted =
        |line: &&str| line.split_whitespace().next().is_some_and(|n| n.parse::<f64>().is_ok());
    let names = text.lines().filter(counted).filter_map(|line| line.split_whitespace().last());
    let names: BTreeSet<&str> = names.filter(|name| *name != "total").collect();
    ensure!(names.len() >= 5 && names.len() <= 40, "{status}: {text}");
    let wrote = names.contains("io_uring_enter") || names.contains("pwritev2");
    let busy = wrote && names.contains("epoll_wait") && names.contains("write");
    ensure!(busy, "it was not busy: {text}");
    for name in
        ["open", "openat", "socket", "connect", "clone", "clone3", "execve", "kill", "prctl"]
    {
        ensure!(!names.contains(name), "{name}: {text}");
    }
    ensure!(pod.proc("").exists(), "the monitor has ended");
    pod.end()
}

fn a_forbidden_call_is_named_and_ends_its_pod_only() -> Result<()> {
    let (victim, other) = (Pod::idle()?, Pod::start("echo ready; sleep 3; echo alive")?);
    // The tracer puts another call in the place of one that a thread makes.
    let mut tracer = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-p", &victim.monitor.to_string()])
        .args(["-e", "inject=ioctl,epoll_wait,poll:retval=0:syscall=getuid"])
        .stderr(Stdio::null())
        .spawn()?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while victim.proc("").exists() && Instant::now() < deadline {
        // A thread that sleeps has to be woken to call anything.
        let _ = nix::sys::signal::kill(victim.monitor, nix::sys::signal::Signal::SIGCONT);
        thread::sleep(Duration::from_millis(100));
    }
    let outcome = victim.run.finish()?.complains("stopped by its system-call filter: getuid")?;
    ensure!(outcome.code != 0, "{outcome}");
    tracer.wait()?;
    other.run.finish()?.exits(0)?.has("alive").map(drop)
}

fn metrics_tell_of_devices_and_of_kvm() -> Result<()> {
    let metrics = tempfile::NamedTempFile::new()?;
    let path = metrics.path().display().to_string();
    Boot::new(KERNEL, "test.action=print").flags(&["--metrics", &path]).succeeds()?;
    let metrics: Value = serde_json::from_slice(&fs::read(metrics.path())?)?;
    let positive = |value: &Value| value.as_u64().is_some_and(|count| count > 0);
    ensure!(positive(&metrics["vcpus"][0]["mmio_writes"]), "{metrics:#}");
    ensure!(metrics["devices"][0]["kind"] == "rng", "{metrics:#}");
    ensure!(positive(&metrics["kvm"]["vcpus"]["exits"]), "{metrics:#}");
    ensure!(
        metrics["kvm"]["machine"].as_object().is_some_and(|all| !all.is_empty()),
        "{metrics:#}"
    );
    Ok(())
}
