//! The machine of a sandbox grows when containers join it, and shrinks when they go.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::cases;
use super::sudden::{changed, done, wait_for};
use crate::run::unique_id;

cases!("grow":
    a_container_that_joins_has_what_it_asks_for,
    an_update_makes_the_machine_fit,
    what_a_pod_is_said_to_ask_for_is_there_from_the_start,
);

const KIND: &str = "io.kubernetes.cri.container-type";
const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";

/// Longest time for the guest to take or give back what it is asked to, on a slow machine.
const LIMIT: Duration = Duration::from_secs(180);

/// A running sandbox.
struct Sandbox {
    id: String,
    /// `MemTotal` in MiB when it was empty.
    empty: u64,
}

impl Sandbox {
    /// With more annotations.
    fn start(annotations: &[(&str, &str)]) -> Result<Self> {
        let id = unique_id();
        let bundle = changed(|config| {
            config["annotations"] = json!({ KIND: "sandbox", SANDBOX: id });
            for (name, value) in annotations {
                config["annotations"][name] = (*value).into();
            }
        })?;
        done(&["run", "--detach", "--bundle", &bundle.path().display().to_string(), &id])?;
        let empty = total(&id)?;
        Ok(Self { id, empty })
    }

    /// A container with these limits joins, and runs: its id.
    fn joined(&self, resources: &Value) -> Result<String> {
        let id = unique_id();
        let bundle = changed(|config| {
            config["annotations"] = json!({ KIND: "container", SANDBOX: self.id });
            config["linux"]["resources"] = resources.clone();
            let room = json!({ "destination": "/big", "type": "tmpfs", "source": "tmpfs",
                "options": ["size=1g"] });
            if let Some(mounts) = config["mounts"].as_array_mut() {
                mounts.push(room);
            }
        })?;
        done(&["create", "--bundle", &bundle.path().display().to_string(), &id])?;
        done(&["start", &id])?;
        Ok(id)
    }

    /// Waits until the machine has `more` MiB than it had when it was empty, and `cpus`: the guest brings memory online a
    /// moment after it has taken it, and gives it back in its own time.
    fn becomes(&self, more: u64, cpus: u32) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let (memory, online) = (total(&self.id)?.saturating_sub(self.empty), nproc(&self.id)?);
            if memory == more && online == cpus {
                return Ok(());
            }
            let found = format!("{memory} MiB more and {online} CPUs, not {more} and {cpus}");
            ensure!(Instant::now() < deadline, "{found}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn end(self) -> Result<()> {
        end(&self.id)
    }
}

fn end(id: &str) -> Result<()> {
    done(&["kill", id, "KILL"])?;
    wait_for(id, "stopped")?;
    done(&["delete", id]).map(drop)
}

/// What a shell script in a container prints.
fn says(id: &str, script: &str) -> Result<String> {
    Ok(done(&["exec", id, "sh", "-c", script])?.trim().to_owned())
}

/// `MemTotal` in MiB.
fn total(id: &str) -> Result<u64> {
    Ok(says(id, "awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo")?.parse()?)
}

fn nproc(id: &str) -> Result<u32> {
    Ok(says(id, "nproc")?.parse()?)
}

/// Writes so many MiB, and reads them.
fn fill(id: &str, mib: u32) -> Result<()> {
    let script = format!(
        "dd if=/dev/zero of=/big/full bs=1M count={mib} 2>/dev/null; wc -c < /big/full; rm /big/full"
    );
    let written = says(id, &script)?;
    let wanted = (u64::from(mib) << 20).to_string();
    ensure!(written == wanted, "{written} bytes of {wanted}");
    Ok(())
}

/// A limit that is twice the sandbox's machine can be used; a set of the host's CPUs is as many of the machine's. What the
/// containers leave, the machine loses, and the set of the one that stays fits what is left.
fn a_container_that_joins_has_what_it_asks_for() -> Result<()> {
    let sandbox = Sandbox::start(&[("io.cofferdam.max_vcpus", "4")])?;
    sandbox.becomes(0, 1)?;
    let limits = json!({ "memory": { "limit": 512 << 20 }, "cpu": { "quota": 200_000 } });
    let large = sandbox.joined(&limits)?;
    sandbox.becomes(520, 3)?;
    ensure!(nproc(&large)? == 3);
    fill(&large, 440)?;
    // Fractions count together: no CPU more.
    let half = json!({ "cpu": { "quota": 50_000 } });
    let (half, other) = (sandbox.joined(&half)?, sandbox.joined(&half)?);
    sandbox.becomes(520, 4)?;
    end(&other)?;
    end(&half)?;
    // A set that the machine has is itself; with a quota, it does not ask for CPUs of its numbers.
    let set = sandbox.joined(&json!({ "cpu": { "cpus": "2-3", "quota": 50_000 } }))?;
    sandbox.becomes(520, 4)?;
    let own = "cat /sys/fs/cgroup/cpuset.cpus.effective";
    ensure!(says(&set, own)? == "2-3", "{}", says(&set, own)?);
    // Its process ends: that is enough.
    done(&["kill", &large, "KILL"])?;
    wait_for(&large, "stopped")?;
    sandbox.becomes(0, 2)?;
    ensure!(says(&set, own)? == "0-1", "{}", says(&set, own)?);
    ensure!(nproc(&set)? == 2);
    done(&["delete", &large])?;
    end(&set)?;
    sandbox.becomes(0, 1)?;
    let numbered = sandbox.joined(&json!({ "cpu": { "cpus": "3" } }))?;
    sandbox.becomes(0, 4)?;
    ensure!(says(&numbered, own)? == "3", "{}", says(&numbered, own)?);
    end(&numbered)?;
    sandbox.becomes(0, 1)?;
    sandbox.end()
}

fn an_update_makes_the_machine_fit() -> Result<()> {
    let sandbox = Sandbox::start(&[("io.cofferdam.max_vcpus", "3")])?;
    let id = sandbox.joined(&json!({ "memory": { "limit": 64 << 20 } }))?;
    // 65 MiB, in blocks of 2.
    sandbox.becomes(66, 1)?;
    done(&["update", "--memory", "512M", "--cpu-quota", "150000", &id])?;
    sandbox.becomes(520, 3)?;
    fill(&id, 440)?;
    let one = says(&id, "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max")?;
    ensure!(one == "536870912\n150000 100000", "{one}");
    done(&["update", "--memory", "64M", "--cpu-quota", "-1", &id])?;
    sandbox.becomes(66, 1)?;
    // No limit asks for nothing.
    done(&["update", "--memory", "-1", &id])?;
    sandbox.becomes(0, 1)?;
    end(&id)?;
    sandbox.end()
}

/// What containerd says of a pod is there at its start; beyond `max_memory` nothing grows.
fn what_a_pod_is_said_to_ask_for_is_there_from_the_start() -> Result<()> {
    let sandbox = Sandbox::start(&[
        ("io.kubernetes.cri.sandbox-memory", "134217728"),
        ("io.kubernetes.cri.sandbox-cpu-quota", "100000"),
        ("io.kubernetes.cri.sandbox-cpu-period", "100000"),
        ("io.cofferdam.max_vcpus", "2"),
        ("io.cofferdam.max_memory", "512M"),
    ])?;
    // The kernel keeps some for itself.
    ensure!((330..=386).contains(&sandbox.empty), "{} MiB", sandbox.empty);
    let limits = json!({ "memory": { "limit": 128 << 20 }, "cpu": { "quota": 100_000 } });
    let first = sandbox.joined(&limits)?;
    sandbox.becomes(0, 2)?;
    let much = json!({ "memory": { "limit": 64u64 << 30 }, "cpu": { "quota": 6_400_000 } });
    let second = sandbox.joined(&much)?;
    sandbox.becomes(512 - 386, 2)?;
    end(&second)?;
    sandbox.becomes(0, 2)?;
    end(&first)?;
    sandbox.end()
}
