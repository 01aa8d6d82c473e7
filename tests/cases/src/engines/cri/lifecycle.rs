//! What Kubernetes makes of containers: init containers, sidecars, restarts, graceful ends.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::super::cases;
use super::Cri;
use super::messages::READY;
use super::pod::{ended, exec, remove, runs, says, status, stop};
use crate::call::eventually;

cases!(Cri:
    init_containers_run_before_the_others,
    a_sidecar_outlives_what_it_serves,
    a_container_restarts_many_times_in_the_living_pod,
    each_container_of_a_pod_restarts,
    a_graceful_end,
    one_that_ignores_the_request_is_killed,
    without_patience_it_is_killed_at_once,
    what_it_has_started_ends_with_it,
    out_of_memory_is_told,
);

fn init_containers_run_before_the_others(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let volume = cri.file("init");
    std::fs::create_dir_all(&volume)?;
    for number in [1, 2] {
        let script = format!("echo {number} >> /between/order; exit 0");
        let id = pod.start_with(&script, |config| config.mount(&volume, "/between", false))?;
        let over = ended(&id)?;
        ensure!(over.exit_code == 0 && over.reason == "Completed", "{over:?}");
    }
    let main = pod.start_with("cat /between/order; sleep 1000", |config| {
        config.mount(&volume, "/between", false);
    })?;
    eventually("the order", || Ok(pod.log(&main)? == "1\n2\n"))
}

fn a_sidecar_outlives_what_it_serves(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let sidecar = pod.start("while :; do echo tick; sleep 0.2; done")?;
    let main = pod.start("exit 3")?;
    ensure!(ended(&main)?.exit_code == 3);
    remove(&main)?;
    let ticks = pod.log(&sidecar)?.len();
    eventually("another tick", || Ok(pod.log(&sidecar)?.len() > ticks))?;
    runs(&sidecar)?;
    ensure!(pod.state()? == READY);
    Ok(())
}

/// As the kubelet does: each time a new container of the same name, the one before is removed later.
fn a_container_restarts_many_times_in_the_living_pod(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let witness = pod.start("sleep 1000")?;
    let mut before: Option<String> = None;
    for attempt in 0..5 {
        let id =
            pod.start_with("cat /tmp/own; echo $$ > /tmp/own; echo run; exit 9", |config| {
                let metadata = config.metadata.get_or_insert_default();
                (metadata.name, metadata.attempt) = ("again".to_owned(), attempt);
                config.log_path = format!("again-{attempt}.log");
            })?;
        ensure!(ended(&id)?.exit_code == 9);
        // What the one before has written is not there.
        let log = pod.log(&id)?;
        ensure!(log.ends_with("run\n") && log.contains("No such file"), "{log}");
        if let Some(before) = before.replace(id) {
            ensure!(status(&before)?.exit_code == 9);
            remove(&before)?;
        }
    }
    runs(&witness)?;
    ensure!(says(&witness, "echo there")? == "there");
    Ok(())
}

fn each_container_of_a_pod_restarts(cri: &Cri) -> Result<()> {
    let pod = cri.pod()?;
    let mut ids = [pod.start("sleep 1000")?, pod.start("sleep 1000")?];
    // The first one, the last one, and all at a time.
    for round in [&[0][..], &[1], &[0, 1]] {
        for &number in round {
            stop(&ids[number], 0)?;
            ensure!(status(&ids[number])?.exit_code == 137);
            remove(&ids[number])?;
        }
        for &number in round {
            ids[number] = pod.start("sleep 1000")?;
        }
        for id in &ids {
            runs(id)?;
            ensure!(says(id, "echo there")? == "there");
        }
        ensure!(pod.state()? == READY);
    }
    Ok(())
}

fn a_graceful_end(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let script = "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    let id = pod.start(script)?;
    eventually("the trap", || Ok(pod.log(&id)? == "ready\n"))?;
    let begin = Instant::now();
    stop(&id, 60)?;
    ensure!(begin.elapsed() < Duration::from_secs(30), "it took {:?}", begin.elapsed());
    let over = status(&id)?;
    ensure!(over.exit_code == 5, "{over:?}");
    ensure!(pod.log(&id)? == "ready\nasked\n");
    Ok(())
}

fn one_that_ignores_the_request_is_killed(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let script = "trap 'echo ignored' TERM; echo ready; while :; do sleep 0.1; done";
    let id = pod.start(script)?;
    eventually("the trap", || Ok(pod.log(&id)? == "ready\n"))?;
    let begin = Instant::now();
    stop(&id, 3)?;
    ensure!(begin.elapsed() >= Duration::from_secs(3), "it took {:?}", begin.elapsed());
    let over = status(&id)?;
    ensure!(over.exit_code == 137 && over.reason == "Error", "{over:?}");
    ensure!(pod.log(&id)?.contains("ignored"));
    Ok(())
}

fn without_patience_it_is_killed_at_once(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let id = pod.start("trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done")?;
    eventually("the trap", || Ok(pod.log(&id)? == "ready\n"))?;
    stop(&id, 0)?;
    ensure!(status(&id)?.exit_code == 137);
    Ok(())
}

fn what_it_has_started_ends_with_it(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let script = "(while :; do echo x >> /dev/shm/ticks; sleep 0.1; done) & sleep 1000";
    let id = pod.start(script)?;
    let witness = pod.start("sleep 1000")?;
    let ticks = || Ok::<_, anyhow::Error>(exec(&witness, "wc -c < /dev/shm/ticks")?.stdout);
    eventually("a tick", || Ok(!ticks()?.is_empty()))?;
    stop(&id, 0)?;
    let before = ticks()?;
    std::thread::sleep(Duration::from_millis(500));
    ensure!(ticks()? == before, "it goes on");
    says(&witness, "rm /dev/shm/ticks").map(drop)
}

fn out_of_memory_is_told(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let witness = pod.start("sleep 1000")?;
    let id = pod.start_with("a=x; while :; do a=$a$a; done", |config| {
        config.resources().memory_limit_in_bytes = 32 << 20;
    })?;
    let over = ended(&id)?;
    ensure!(over.exit_code == 137, "{over:?}");
    // containerd hears of it by an event of its own.
    eventually("the reason", || Ok(status(&id)?.reason == "OOMKilled"))?;
    runs(&witness)
}
