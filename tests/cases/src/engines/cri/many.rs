//! Many pods at a time, again and again; and a pod in which nothing happens.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::cases;
use super::super::engine::Engine;
use super::super::sudden::{MONITOR, SHIM, processes};
use super::Cri;
use super::pod::{self, Pod, says, start};
use crate::call::eventually;
use crate::leftovers;

cases!(Cri:
    pods_at_a_time_again_and_again,
    an_idle_pod_costs_next_to_nothing,
);

/// Containers in each pod.
const CONTAINERS: usize = 3;

/// How many pods at a time, in this environment variable, and without it: emulated machines are slow.
const PODS: &str = "COFFERDAM_CASE_PARALLEL";
const FEW_PODS: usize = 4;

/// How often, likewise.
const ROUNDS: &str = "COFFERDAM_CASE_ROUNDS";
const FEW_ROUNDS: usize = 1;

/// From so many rounds on, memory is looked at, too.
const ROUNDS_FOR_MEMORY: usize = 9;

/// What pods may leave on the host.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    host: leftovers::Host,
    shims: usize,
    sockets: BTreeSet<String>,
    bundles: BTreeSet<String>,
    networks: BTreeSet<String>,
    states: BTreeSet<String>,
}

impl Traces {
    fn now() -> Self {
        Self {
            host: leftovers::Host::now(),
            shims: processes(SHIM, "").len() + processes("containerd-shim-runc-v2", "").len(),
            sockets: leftovers::entries("/run/containerd/s"),
            bundles: leftovers::entries("/run/containerd/io.containerd.runtime.v2.task/k8s.io"),
            networks: leftovers::entries("/run/netns"),
            states: leftovers::entries("/run/cofferdam-containerd/k8s.io"),
        }
    }
}

fn pods_at_a_time_again_and_again(cri: &Cri) -> Result<()> {
    let (rounds, pods) = (number(ROUNDS, FEW_ROUNDS)?, number(PODS, FEW_PODS)?);
    let logs = cri.file("logs");
    // The first pod of all makes what stays: the network's bridge, and directories.
    cri.shared()?;
    let before = Traces::now();
    let mut memory = Vec::new();
    for round in 0..rounds {
        let results: Vec<Result<()>> = thread::scope(|scope| {
            let pods: Vec<_> = (0..pods).map(|_| scope.spawn(|| one(&logs))).collect();
            let joined = pods.into_iter().map(|pod| pod.join());
            joined.map(|pod| pod.unwrap_or_else(|_| Err(anyhow::anyhow!("panic")))).collect()
        });
        for result in results {
            result.with_context(|| format!("round {round}"))?;
        }
        let cleared = eventually("nothing of the pods", || Ok(Traces::now() == before));
        cleared.with_context(|| format!("round {round}: {before:#?}\n{:#?}", Traces::now()))?;
        memory.push(resident(&fs::read_to_string(cri.containerd().version.pid_file())?)?);
    }
    println!("\n{rounds} rounds of {pods} pods; containerd has {memory:?} KiB");
    if rounds >= ROUNDS_FOR_MEMORY {
        // The first third may fill caches.
        let third = rounds / 3;
        let most = |part: &[u64]| part.iter().copied().max().unwrap_or(0);
        let (middle, last) = (most(&memory[third..2 * third]), most(&memory[2 * third..]));
        ensure!(last <= middle + middle / 10, "containerd grows: {memory:?}");
    }
    Ok(())
}

/// The number in an environment variable, or the `usual` one.
fn number(variable: &str, usual: usize) -> Result<usize> {
    let given = std::env::var(variable).ok().map(|number| number.parse()).transpose();
    Ok(given.context(variable.to_owned())?.unwrap_or(usual))
}

/// The life of one pod.
fn one(logs: &Path) -> Result<()> {
    let config = pod::config(logs);
    let id = pod::run(&config)?;
    let lived = (|| {
        for number in 0..CONTAINERS {
            let container = pod::create(&id, &config, "sleep 1000", |_| {})?;
            start(&container)?;
            let said = says(&container, &format!("echo {number} $OF; hostname"))?;
            ensure!(said == format!("{number} image\n{}", config.hostname), "{said}");
        }
        Ok(())
    })();
    // Whatever it was, the pod goes.
    let stopped = pod::stop_pod(&id);
    let removed = pod::remove_pod(&id);
    lived.and(stopped).and(removed)
}

/// The resident memory of a process in KiB.
fn resident(pid: &str) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no VmRSS: {status}"))
}

/// Where the kernel counts the exits of each machine.
const KVM: &str = "/sys/kernel/debug/kvm";
const DEBUG: &str = "/sys/kernel/debug";

/// How long the idle pod is looked at, and after how long.
const LOOK: Duration = Duration::from_secs(20);
const SETTLED: Duration = Duration::from_secs(20);

/// Fewer exits than this in a second.
const FEW_EXITS: u64 = 20;

fn an_idle_pod_costs_next_to_nothing(cri: &Cri) -> Result<()> {
    if !Engine::is_ours() {
        return Ok(());
    }
    let others = processes(MONITOR, "");
    let pod: Pod<'_> = cri.pod()?;
    for _ in 0..CONTAINERS {
        pod.start("sleep 1000")?;
    }
    let monitors = processes(MONITOR, "");
    let monitor = monitors.iter().find(|pid| !others.contains(pid)).context("no monitor")?;
    let (counter, _mounted) = counter(&monitor.to_string())?;
    let count = || -> Result<u64> { Ok(fs::read_to_string(&counter)?.trim().parse()?) };
    thread::sleep(SETTLED);
    let before = count()?;
    thread::sleep(LOOK);
    let exits = count()? - before;
    println!("\nan idle pod of {CONTAINERS} containers: {exits} exits in {LOOK:?}");
    ensure!(exits < FEW_EXITS * LOOK.as_secs(), "{exits} exits in {LOOK:?}");
    Ok(())
}

/// debugfs, as long as this lives, if nobody else has mounted it.
struct Mounted;

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(DEBUG, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// The file with the exits of the machine of a monitor, and what keeps it there.
fn counter(monitor: &str) -> Result<(PathBuf, Option<Mounted>)> {
    let mut mounted = None;
    if fs::read_dir(KVM).is_err() {
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("debugfs"), DEBUG, Some("debugfs"), flags, None::<&str>)
            .context("mounting debugfs")?;
        mounted = Some(Mounted);
    }
    let prefix = format!("{monitor}-");
    let machines = leftovers::entries(KVM);
    let name = machines.iter().find(|name| name.starts_with(&prefix));
    let name = name.with_context(|| format!("{KVM} has no machine of {monitor}: {machines:?}"))?;
    Ok((Path::new(KVM).join(name).join("exits"), mounted))
}
