//! Containers of engines, with sudden deaths: whatever is killed, every command afterwards answers correctly, and a
//! deletion leaves nothing.
//!
//! `COFFERDAM_CASE_CYCLES` and `COFFERDAM_CASE_PARALLEL` ask for more than the few that an emulated host has time for.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::cases;
use crate::call::Call;
use crate::run::{COFFERDAM, Outcome, ROOTFS, bundle, process, unique_id};

cases!("sudden":
    whoever_dies_a_deletion_leaves_nothing,
    a_sandbox_is_joined_again_and_ends_with_its_first_process,
    the_first_container_of_a_pod_goes_before_the_others,
    what_stands_for_a_container_sees_no_file_of_the_host,
);

/// What dies, and when.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Nothing: the container is killed by its command.
    Ordinary,
    /// The supervisor of the pod.
    Supervisor,
    /// Its monitor.
    Monitor,
    /// What stands for the container.
    Proxy,
    /// The command that creates it, after so many milliseconds.
    Creation(u64),
}

/// Those of one round, each at a time when the container is created and when it runs.
const DEATHS: [Death; 6] = [
    Death::Ordinary,
    Death::Supervisor,
    Death::Monitor,
    Death::Proxy,
    Death::Creation(50),
    Death::Creation(1500),
];

fn number(name: &str, default: usize) -> Result<usize> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(default),
    }
}

/// Runs a command. Its output goes to files: what it creates has the same.
fn cofferdam(arguments: &[&str]) -> Result<Outcome> {
    let directory = TempDir::with_prefix("call-")?;
    let mut command = Command::new(COFFERDAM);
    command.args(arguments).stdin(Stdio::null());
    Call::start(command, directory.path())?.finish()
}

/// Runs a command that has to succeed; what it printed.
pub(super) fn done(arguments: &[&str]) -> Result<String> {
    let outcome = cofferdam(arguments).and_then(|outcome| outcome.exits(0));
    Ok(outcome.with_context(|| arguments.join(" "))?.text())
}

/// A bundle whose process sleeps, with these annotations.
pub(super) fn sleeper(annotations: &[(&str, &str)]) -> Result<TempDir> {
    let annotations = annotations.iter().copied().collect::<BTreeMap<_, _>>();
    changed(|config| config["annotations"] = annotations.into_iter().collect())
}

/// A bundle whose process sleeps, in a control group of the host, changed by `edit`.
pub(super) fn changed(edit: impl FnOnce(&mut serde_json::Value)) -> Result<TempDir> {
    let bundle = bundle()?;
    let path = bundle.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    config["root"] = serde_json::json!({ "path": ROOTFS, "readonly": false });
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = serde_json::json!(["sleep", "1000"]);
    config["linux"]["cgroupsPath"] = format!("/cofferdam-case-{}", unique_id()).into();
    edit(&mut config);
    fs::write(&path, serde_json::to_vec(&config)?)?;
    Ok(bundle)
}

fn status(id: &str) -> Result<String> {
    let state: serde_json::Value = serde_json::from_str(&done(&["state", id])?)?;
    Ok(state["status"].as_str().unwrap_or_default().to_owned())
}

/// Waits until the container has `wanted` as its status.
pub(super) fn wait_for(id: &str, wanted: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let found = status(id)?;
        if found == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{id} is {found}, not {wanted}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The processes whose command line fits.
pub(super) fn processes(fits: impl Fn(&str) -> bool) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let pid = entry.file_name().to_str()?.parse().ok()?;
        fits(&line).then_some(Pid::from_raw(pid))
    });
    named.collect()
}

fn supervisor(id: &str) -> Result<Pid> {
    let end = format!("/{id} ");
    let found = processes(|line| line.contains(" supervisor ") && line.contains(&end));
    found.first().copied().with_context(|| format!("no supervisor of {id}"))
}

/// The child of `parent` that is a monitor.
fn monitor(parent: Pid) -> Result<Pid> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
    let child = children.split_whitespace().next().context("the supervisor has no monitor")?;
    Ok(Pid::from_raw(child.parse()?))
}

/// One life of a container in which `death` comes, before its start or after.
fn cycle(death: Death, early: bool) -> Result<()> {
    let id = unique_id();
    let bundle = sleeper(&[])?;
    let path = bundle.path().to_str().context("a path that is not UTF-8")?;
    if let Death::Creation(delay) = death {
        let mut command = Command::new(COFFERDAM);
        command.args(["create", "--bundle", path, &id]).stdin(Stdio::null());
        let mut creation = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        thread::sleep(Duration::from_millis(delay));
        creation.kill()?;
        creation.wait()?;
    } else {
        done(&["create", "--bundle", path, &id])?;
        if !early {
            done(&["start", &id])?;
            ensure!(status(&id)? == "running", "it is {}", status(&id)?);
        }
        let proxy = || process(&serde_json::from_str(&done(&["state", &id])?)?);
        match death {
            Death::Supervisor => kill(supervisor(&id)?, Signal::SIGKILL)?,
            Death::Monitor => kill(monitor(supervisor(&id)?)?, Signal::SIGKILL)?,
            Death::Proxy => kill(proxy()?, Signal::SIGKILL)?,
            _ => drop(done(&["kill", &id, "KILL"])?),
        }
        wait_for(&id, "stopped")?;
        cofferdam(&["exec", &id, "true"])?
            .exits(255)?
            .complains("cannot exec in a stopped container")?;
    }
    done(&["delete", "--force", &id])?;
    cofferdam(&["state", &id])?.exits(1)?.complains("does not exist")?;
    done(&["delete", "--force", &id])?;
    Ok(())
}

fn whoever_dies_a_deletion_leaves_nothing() -> Result<()> {
    let cycles = number("COFFERDAM_CASE_CYCLES", 20)?;
    let parallel = number("COFFERDAM_CASE_PARALLEL", 4)?;
    let lives = |lane: usize| -> Result<()> {
        for number in (lane..cycles).step_by(parallel) {
            let death = DEATHS[number % DEATHS.len()];
            let early = number / DEATHS.len() % 2 == 1;
            cycle(death, early).with_context(|| format!("cycle {number}: {death:?}"))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..parallel).map(|lane| scope.spawn(move || lives(lane))).collect();
        lanes.into_iter().try_for_each(|lane| match lane.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread panicked"),
        })
    })
}

fn a_sandbox_is_joined_again_and_ends_with_its_first_process() -> Result<()> {
    const KIND: &str = "io.kubernetes.cri.container-type";
    const SANDBOX: &str = "io.kubernetes.cri.sandbox-id";
    let sandbox = unique_id();
    let pause = sleeper(&[(KIND, "sandbox"), (SANDBOX, &sandbox)])?;
    let member = sleeper(&[(KIND, "container"), (SANDBOX, &sandbox)])?;
    let path = |bundle: &TempDir| bundle.path().display().to_string();
    cofferdam(&["create", "--bundle", &path(&member), "too-early"])?
        .exits(1)?
        .complains("does not run")?;
    done(&["create", "--bundle", &path(&pause), &sandbox])?;
    done(&["start", &sandbox])?;
    // The second one joins when the first has gone, and the third is there when the sandbox ends.
    for round in 0..3 {
        let id = unique_id();
        done(&["create", "--bundle", &path(&member), &id])?;
        done(&["start", &id])?;
        let out = done(&["exec", &id, "cat", "/proc/version"])?;
        ensure!(out.contains("cofferdam"), "{out}");
        ensure!(processes(|line| line.contains("cofferdam-vmm")).len() == 1, "one machine");
        if round < 2 {
            done(&["kill", &id, "KILL"])?;
            wait_for(&id, "stopped")?;
            ensure!(status(&sandbox)? == "running", "the sandbox is {}", status(&sandbox)?);
        } else {
            done(&["kill", &sandbox, "KILL"])?;
            wait_for(&sandbox, "stopped")?;
            wait_for(&id, "stopped")?;
        }
        done(&["delete", &id])?;
    }
    done(&["delete", &sandbox]).map(drop)
}

fn the_first_container_of_a_pod_goes_before_the_others() -> Result<()> {
    let path = |bundle: &TempDir| bundle.path().display().to_string();
    let (first, second) = (unique_id(), unique_id());
    let own = sleeper(&[])?;
    done(&["run", "--detach", "--bundle", &path(&own), &first])?;
    let state: serde_json::Value = serde_json::from_str(&done(&["state", &first])?)?;
    let joining = changed(|config| {
        for namespace in config["linux"]["namespaces"].as_array_mut().into_iter().flatten() {
            if namespace["type"] == "network" {
                namespace["path"] = format!("/proc/{}/ns/net", state["pid"]).into();
            }
        }
    })?;
    done(&["run", "--detach", "--bundle", &path(&joining), &second])?;
    done(&["kill", &first, "KILL"])?;
    wait_for(&first, "stopped")?;
    done(&["delete", &first])?;
    cofferdam(&["state", &first])?.exits(1)?.complains("does not exist")?;
    // The pod goes on, and the id is free for another.
    let again = sleeper(&[])?;
    done(&["run", "--detach", "--bundle", &path(&again), &first])?;
    for id in [&first, &second] {
        ensure!(status(id)? == "running", "{id} is {}", status(id)?);
        done(&["exec", id, "true"])?;
        done(&["delete", "--force", id])?;
    }
    Ok(())
}

fn what_stands_for_a_container_sees_no_file_of_the_host() -> Result<()> {
    let id = unique_id();
    let bundle = sleeper(&[])?;
    done(&["run", "--detach", "--bundle", &bundle.path().display().to_string(), &id])?;
    let state: serde_json::Value = serde_json::from_str(&done(&["state", &id])?)?;
    let root = format!("/proc/{}/root", state["pid"]);
    let names: Vec<_> = fs::read_dir(&root)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(names == ["proc"], "{root} has {names:?}");
    // It is the first process of a namespace of its own, with a /proc of that.
    let pids = fs::read_dir(format!("{root}/proc"))?.flatten();
    let pids = pids.filter(|entry| entry.file_name().as_encoded_bytes()[0].is_ascii_digit());
    ensure!(pids.count() == 1, "there are other processes in {root}/proc");
    let written = fs::write(format!("{root}/file"), "x");
    ensure!(written.is_err(), "{root} can be written to");
    done(&["delete", "--force", &id]).map(drop)
}
