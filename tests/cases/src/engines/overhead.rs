//! What a pod takes of its host beside what its containers use: the `overhead` of the RuntimeClass.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::unistd::Pid;

use super::cases;
use super::containerd::{Containerd, IMAGE};
use super::engine::Engine;
use super::pods::marks;
use super::sudden::{MONITOR, SHIM, processes};
use crate::run::unique_id;

cases!(Containerd: a_pod_costs_what_its_runtime_class_says);

/// What is told to Kubernetes.
const CLASS: &str = include_str!("../../../../docs/kubernetes/runtimeclass.yaml");

/// How long an idle pod is watched.
const IDLE: Duration = Duration::from_secs(20);

/// The number of the line `NAME: "123UNIT"`.
fn promised(name: &str, unit: &str) -> Result<u64> {
    let lines = CLASS.lines().map(str::trim);
    let line = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": \"")).next();
    let number = line.and_then(|line| line.strip_suffix('"')?.strip_suffix(unit)?.parse().ok());
    number.with_context(|| format!("{name} in the RuntimeClass"))
}

/// The processes of all pods.
fn pods() -> Vec<Pid> {
    [MONITOR, SHIM, "cofferdam", "virtiofsd"]
        .iter()
        .flat_map(|program| processes(program, ""))
        .collect()
}

/// Memory of `processes` in KiB; what several share counts once in all.
fn memory(processes: &[Pid]) -> Result<u64> {
    let mut sum = 0;
    for pid in processes {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        sum += kib.with_context(|| format!("Pss of {pid}"))?;
    }
    Ok(sum)
}

/// Time that all threads of `processes` have run.
fn time(processes: &[Pid]) -> Result<Duration> {
    let mut sum = 0;
    for pid in processes {
        for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
            let text = fs::read_to_string(thread?.path().join("schedstat"))?;
            let ran = text.split_whitespace().next().and_then(|ns| ns.parse::<u64>().ok());
            sum += ran.with_context(|| format!("schedstat of {pid}: {text:?}"))?;
        }
    }
    Ok(Duration::from_nanos(sum))
}

/// What a container uses in its machine, in KiB.
fn used(containerd: &Containerd, id: &str) -> Result<u64> {
    let text = containerd.exec(id, "cat /sys/fs/cgroup/memory.current")?.exits(0)?.text();
    let bytes: u64 = text.trim().parse().with_context(|| format!("memory.current: {text:?}"))?;
    Ok(bytes >> 10)
}

fn a_pod_costs_what_its_runtime_class_says(containerd: &Containerd) -> Result<()> {
    if !Engine::is_ours() {
        return Ok(());
    }
    ensure!(pods().is_empty(), "pods: {:?}", pods());
    let (sandbox, id) = (unique_id(), unique_id());
    let volume = containerd.file("volume");
    fs::create_dir(&volume)?;
    let mount = format!("type=bind,src={},dst=/volume,options=rbind:rw", volume.display());
    let fixed = ["run", "--detach", "--runtime", Containerd::runtime()];
    let of = |kind: &str, flags: &[&str], id: &str| {
        let marks = marks(kind, &sandbox);
        let marks: Vec<&str> = marks.iter().map(String::as_str).collect();
        let command = [IMAGE, id, "sleep", "1000"];
        containerd.ctr(&[&fixed, flags, &marks[..], &command].concat())?.exits(0).map(drop)
    };
    of("sandbox", &[], &sandbox)?;
    let limit = ["--memory-limit", "134217728"];
    of("container", &[&limit[..], &["--mount", &mount]].concat(), &id)?;
    ensure!(Path::new(&volume).exists() && pods().len() >= 3, "processes: {:?}", pods());

    let most = promised("memory", "Mi")?;
    let check = |when: &str| -> Result<()> {
        let (host, inside) = (memory(&pods())? >> 10, used(containerd, &id)? >> 10);
        println!("\na pod {when}: {host} MiB of the host, {inside} MiB of them its container's");
        ensure!(
            host.saturating_sub(inside) <= most,
            "{when}: {host} - {inside} MiB, {most} promised"
        );
        Ok(())
    };
    check("that is idle")?;
    // Files in its own and in the host's file systems, processes, memory that comes and goes.
    let work = "for i in 1 2 3 4; do head -c 40000000 /dev/zero > /tmp/file$i; \
                cp /tmp/file$i /volume/file; rm /volume/file; (ls -R / > /dev/null) & done; wait; \
                rm /tmp/file1 /tmp/file2";
    containerd.exec(&id, work)?.exits(0)?;
    check("after work")?;
    // What is free goes back in a while.
    thread::sleep(Duration::from_secs(10));
    check("some time after work")?;

    let most = promised("cpu", "m")?;
    let (begin, before) = (Instant::now(), time(&pods())?);
    thread::sleep(IDLE);
    let ran = time(&pods())?.saturating_sub(before);
    let share = ran.as_secs_f64() / begin.elapsed().as_secs_f64() * 1000.0;
    println!("\nan idle pod: {share:.1} thousandths of a CPU, on a host that is emulated");
    let promise = f64::from(u32::try_from(most)?);
    ensure!(share <= promise, "{share:.1} of {promise} thousandths");
    Ok(())
}
