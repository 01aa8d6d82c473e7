//! A running machine grows and shrinks.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cofferdam_vmm_api::MiB;

use super::cases;
use super::memory::private_memory;
use crate::pod::ShellPod;

const MIB: u64 = 1 << 20;

cases!("resize":
    cpus_come_and_go,
    memory_comes_and_goes,
);

/// One vCPU of four at boot; all four; two. In between nothing runs for a moment.
fn cpus_come_and_go() -> Result<()> {
    let mut pod = ShellPod::start(MiB(256), |machine| machine.max_vcpus = Some(4))?;
    let offline = pod.says("nproc; cat /sys/devices/system/cpu/offline")?;
    ensure!(offline == "1\n1-3", "{offline}");
    for wanted in [4, 2, 3, 1, 4] {
        let online = pod.with(async |pod| pod.set_cpus(wanted).await)??;
        ensure!(online == wanted, "{online} online, not {wanted}");
        pod.with(async |pod| pod.pause_machine().await)??;
        thread::sleep(Duration::from_millis(100));
        pod.with(async |pod| pod.resume_machine().await)??;
        let seen = pod.says("nproc")?;
        ensure!(seen == wanted.to_string(), "nproc says {seen}, not {wanted}");
    }
    let error = pod.with(async |pod| pod.set_cpus(5).await)?;
    let text = error.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(text.contains("has 1 to 4"), "{text}");
    Ok(())
}

/// Longest time for the guest to take or give back memory, on a slow machine: to take a block offline its kernel moves
/// every page of it, and may have to try more than once.
const LIMIT: Duration = Duration::from_secs(180);

/// 256 MiB at boot, 1 GiB, 512 MiB, as a container sees it, with most of it written to. What is given back is the host's
/// again; what is left is as it was.
fn memory_comes_and_goes() -> Result<()> {
    let mut pod = ShellPod::start(MiB(256), |machine| machine.max_memory = Some(MiB(1024)))?;
    let small = total(&mut pod)?;
    ensure!((200..=256).contains(&small), "{small} MiB at first");
    set_memory(&mut pod, 1024, small + 760..small + 769)?;
    pod.says("mount -o remount,size=100% /dev/shm")?;
    let fill = "cd /dev/shm; dd if=/dev/urandom of=kept bs=1M count=64 2>&1; sha256sum kept > sum";
    pod.says(fill)?;
    pod.says("cd /dev/shm; dd if=/dev/zero of=full bs=1M count=640 2>&1")?;
    let full = private_memory(pod.monitor())?;
    ensure!(full >= 700 * MIB, "{full} bytes with 704 MiB written");
    pod.says("rm /dev/shm/full")?;
    set_memory(&mut pod, 512, small + 250..small + 257)?;
    let after = private_memory(pod.monitor())?;
    // The monitor needs a little for itself.
    ensure!(after <= 520 * MIB, "{after} bytes after {full}");
    pod.says("cd /dev/shm; sha256sum -c sum")?;
    set_memory(&mut pod, 1024, small + 760..small + 769)?;
    let error = pod.with(async |pod| pod.set_memory(MiB(1025), LIMIT).await)?.err();
    let text = error.context("1025 MiB were taken")?.to_string();
    ensure!(text.contains("this machine can have 256 MiB to 1024 MiB"), "{text}");
    Ok(())
}

/// Sets the pod's memory and waits until a container sees `expected` MiB: the guest brings a block online a moment after
/// it has taken it.
fn set_memory(pod: &mut ShellPod, mib: u32, expected: Range<u64>) -> Result<()> {
    let size = pod.with(async |pod| pod.set_memory(MiB(mib), LIMIT).await)??;
    ensure!(size == MiB(mib), "{size}, not {mib} MiB");
    let deadline = Instant::now() + LIMIT;
    loop {
        let seen = total(pod)?;
        if expected.contains(&seen) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{seen} MiB, not {expected:?}, with {mib} in all");
        thread::sleep(Duration::from_millis(100));
    }
}

/// `MemTotal` in MiB.
fn total(pod: &mut ShellPod) -> Result<u64> {
    Ok(pod.says("awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo")?.parse()?)
}
