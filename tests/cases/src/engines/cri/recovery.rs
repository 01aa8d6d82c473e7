//! Processes that die: containerd, a shim, a monitor, a container.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::cases;
use super::super::engine::Engine;
use super::super::sudden::{MONITOR, processes, shim};
use super::Cri;
use super::client::call;
use super::messages::{
    ContainerStatusRequest, ContainerStatusResponse, EXITED, NOT_READY, Nothing, READY,
};
use super::more_messages::StatusResponse;
use super::pod::{ended, exec, remove, runs, says, status, stop};
use crate::call::eventually;

cases!(Cri:
    containerd_restarts_and_finds_the_pods,
    what_ended_while_containerd_was_away,
    a_shim_that_is_killed,
    what_is_killed_under_a_container,
);

/// The exit code of what containerd knows nothing of.
const UNKNOWN: i32 = 255;

/// Kills containerd and starts it again after `pause`; the service answers when it has found its pods.
fn restart(cri: &Cri, pause: Duration) -> Result<()> {
    cri.containerd().restart_after(pause)?;
    eventually("the service", || Ok(call::<StatusResponse>("Status", &Nothing {}).is_ok()))
}

fn containerd_restarts_and_finds_the_pods(cri: &Cri) -> Result<()> {
    let (pod, other) = (cri.shared()?, cri.pod()?);
    let writes = pod.start("while :; do echo tick; sleep 0.2; done")?;
    let sleeps = other.start("trap 'exit 6' TERM; while :; do sleep 0.1; done")?;
    let over = pod.start("exit 3")?;
    ended(&over)?;
    restart(cri, Duration::ZERO)?;
    ensure!(pod.state()? == READY && other.state()? == READY);
    runs(&writes)?;
    runs(&sleeps)?;
    let status_of_over = status(&over)?;
    ensure!(status_of_over.state == EXITED && status_of_over.exit_code == 3, "{status_of_over:?}");
    let ticks = pod.log(&writes)?.len();
    eventually("another tick", || Ok(pod.log(&writes)?.len() > ticks))?;
    ensure!(says(&sleeps, "echo there")? == "there");
    // Its life goes on as any other's.
    stop(&sleeps, 60)?;
    ensure!(status(&sleeps)?.exit_code == 6);
    let third = other.start("sleep 1000")?;
    ensure!(says(&third, "echo there")? == "there");
    other.stop()?;
    other.remove()?;
    runs(&writes)
}

fn what_ended_while_containerd_was_away(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let id = pod.start("until test -e /tmp/go; do sleep 0.1; done; sleep 1; exit 7")?;
    let stays = pod.start("sleep 1000")?;
    exec(&id, "touch /tmp/go")?;
    restart(cri, Duration::from_secs(3))?;
    let over = ended(&id)?;
    // containerd forgets a task without processes when it starts, whatever its shim knows.
    ensure!([7, UNKNOWN].contains(&over.exit_code), "{over:?}");
    runs(&stays)
}

fn a_shim_that_is_killed(cri: &Cri) -> Result<()> {
    let pod = cri.pod()?;
    let id = pod.start("sleep 1000")?;
    kill(shim(&pod.id)?, Signal::SIGKILL)?;
    let over = ended(&id)?;
    // Whether the end of the connection or of the task is heard first is nobody's promise.
    ensure!([137, UNKNOWN].contains(&over.exit_code), "{over:?}");
    eventually("the pod not to be ready", || Ok(pod.state()? == NOT_READY))?;
    if Engine::is_ours() {
        let state = format!("/run/cofferdam-containerd/k8s.io/{}", pod.id);
        eventually("the machine to be gone", || Ok(!std::fs::exists(&state)?))?;
    }
    // It is removed as any other.
    remove(&id)?;
    pod.stop()?;
    pod.remove()?;
    let next = cri.pod()?;
    let id = next.start("sleep 1000")?;
    ensure!(says(&id, "echo there")? == "there");
    Ok(())
}

/// The process of a container on the host.
fn process_of(id: &str) -> Result<Pid> {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: true };
    let answer: ContainerStatusResponse = call("ContainerStatus", &request)?;
    let info = answer.info.get("info").context("no more information")?;
    crate::run::process(&serde_json::from_str(info)?)
}

/// With runc, the process of the container; with Cofferdam, the machine of the whole pod.
fn what_is_killed_under_a_container(cri: &Cri) -> Result<()> {
    let before = processes(MONITOR, "");
    let pod = cri.pod()?;
    let ids = [pod.start("sleep 1000")?, pod.start("sleep 1000")?];
    let victims: Vec<Pid> = if Engine::is_ours() {
        processes(MONITOR, "").into_iter().filter(|pid| !before.contains(pid)).collect()
    } else {
        ids.iter().map(|id| process_of(id)).collect::<Result<_>>()?
    };
    ensure!(!victims.is_empty(), "nobody to kill");
    let begin = SystemTime::now();
    for victim in victims {
        kill(victim, Signal::SIGKILL)?;
    }
    for id in &ids {
        let over = ended(id)?;
        ensure!(over.exit_code == 137, "{over:?}");
        let end = UNIX_EPOCH + Duration::from_nanos(over.finished_at.unsigned_abs());
        let after = end.duration_since(begin)?;
        ensure!(after < Duration::from_secs(1), "it ended after {after:?}");
    }
    if Engine::is_ours() {
        eventually("the pod not to be ready", || Ok(pod.state()? == NOT_READY))?;
    }
    pod.stop()?;
    pod.remove()
}
