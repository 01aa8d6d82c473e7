//! Containers: what they run, and how they end.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::super::cases;
use super::Cri;
use super::client::call;
use super::messages::{
    CREATED, ContainerFilter, EXITED, KeyValue, ListContainersRequest, ListContainersResponse,
    RUNNING, State,
};
use super::pod::{ended, refusal, remove, runs, start, status, stop};
use crate::run::unique_id;

cases!(Cri:
    a_container_lives_and_ends,
    how_it_ended_is_told,
    containers_are_found_by_filters,
    what_cannot_be_started_is_told,
    a_working_directory_that_is_a_file_is_told,
    environment_directory_and_arguments,
    a_container_starts_once,
    one_that_was_never_started_is_removed,
    an_image_that_is_not_there_is_told,
);

fn a_container_lives_and_ends(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let labels = BTreeMap::from([("label".to_owned(), "kept".to_owned())]);
    let annotations = BTreeMap::from([("note".to_owned(), "kept, too".to_owned())]);
    let script = "trap 'exit 4' USR1; echo ready; while :; do sleep 0.1; done";
    let id = pod.create(script, |config| {
        config.labels = labels.clone();
        config.annotations = annotations.clone();
    })?;
    let created = status(&id)?;
    ensure!(created.state == CREATED && created.created_at > 0, "{created:?}");
    ensure!(created.started_at == 0 && created.finished_at == 0, "{created:?}");
    ensure!(created.labels == labels && created.annotations == annotations, "{created:?}");
    start(&id)?;
    let running = status(&id)?;
    ensure!(running.state == RUNNING && running.started_at > created.created_at, "{running:?}");
    ensure!(running.finished_at == 0, "{running:?}");
    crate::call::eventually("the trap", || Ok(pod.log(&id)? == "ready\n"))?;
    super::pod::says(&id, "kill -USR1 1")?;
    let over = ended(&id)?;
    ensure!(over.exit_code == 4 && over.reason == "Error", "{over:?}");
    ensure!(over.finished_at > running.started_at, "{over:?}");
    ensure!(over.started_at == running.started_at, "{over:?}");
    remove(&id)
}

fn how_it_ended_is_told(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let ways = [
        ("true", 0, "Completed"),
        ("exit 7", 7, "Error"),
        ("exit 255", 255, "Error"),
        ("kill -9 $$; sleep 10", 137, "Error"),
    ];
    for (script, code, reason) in ways {
        // The first process of a namespace cannot kill itself.
        let script = format!("sh -c '{script}'; exit $?");
        let over = ended(&pod.start(&script)?)?;
        ensure!(over.exit_code == code && over.reason == reason, "{script}: {over:?}");
        ensure!(over.message.is_empty(), "{over:?}");
    }
    Ok(())
}

fn containers_are_found_by_filters(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let mark = BTreeMap::from([("mark".to_owned(), unique_id())]);
    let runs = pod.start_with("sleep 1000", |config| config.labels = mark.clone())?;
    let over = pod.start("true")?;
    ended(&over)?;
    let waits = pod.create("true", |_| {})?;
    let found = |filter: ContainerFilter| {
        let request = ListContainersRequest { filter: Some(filter) };
        let list: ListContainersResponse = call("ListContainers", &request)?;
        ensure!(list.containers.iter().all(|c| c.pod_sandbox_id == pod.id), "{list:?}");
        Ok(list.containers.into_iter().map(|container| container.id).collect::<Vec<_>>())
    };
    let of_state =
        |state| found(ContainerFilter { state: Some(State { state }), ..Default::default() });
    ensure!(of_state(RUNNING)? == [runs.as_str()]);
    ensure!(of_state(EXITED)? == [over.as_str()]);
    ensure!(of_state(CREATED)? == [waits.as_str()]);
    let of_label = ContainerFilter { label_selector: mark, ..Default::default() };
    ensure!(found(of_label)? == [runs.as_str()]);
    ensure!(
        found(ContainerFilter { id: waits.clone(), ..Default::default() })? == [waits.as_str()]
    );
    let all = ContainerFilter { pod_sandbox_id: pod.id.clone(), ..Default::default() };
    ensure!(found(all)?.len() == 3);
    Ok(())
}

fn what_cannot_be_started_is_told(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let ways = [
        ("no-such-program", "\"no-such-program\": executable file not found in $PATH"),
        ("/no/such/program", "no such file or directory"),
        ("/etc/passwd", "\"/etc/passwd\": permission denied"),
    ];
    for (program, sentence) in ways {
        let id = pod.create("", |config| config.command = vec![program.to_owned()])?;
        let refused = refusal(start(&id))?;
        ensure!(refused.message.contains(sentence), "{refused}");
        let status = status(&id)?;
        ensure!(status.state == EXITED && status.reason == "StartError", "{status:?}");
        ensure!(status.exit_code == 128 && status.message.contains(sentence), "{status:?}");
        remove(&id)?;
    }
    // The pod is as it was.
    ensure!(pod.prints("echo fine", |_| {})? == "fine\n");
    Ok(())
}

fn a_working_directory_that_is_a_file_is_told(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let id = pod.create("true", |config| config.working_dir = "/etc/passwd".to_owned())?;
    let refused = refusal(start(&id))?;
    let text = refused.message.to_lowercase();
    ensure!(text.contains("/etc/passwd") && text.contains("not a directory"), "{refused}");
    Ok(())
}

fn environment_directory_and_arguments(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let printed = pod.prints("", |config| {
        let pair = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into() };
        config.envs = vec![pair("OWN", "with space"), pair("EMPTY", ""), pair("PATH", "/bin")];
        config.working_dir = "/a/new/directory".to_owned();
        config.command = vec!["sh".to_owned(), "-c".to_owned()];
        config.args = ["echo \"$OF:$OWN:${EMPTY-none}:$PATH:$0:$1\"; pwd", "name", "argument"]
            .map(str::to_owned)
            .to_vec();
    })?;
    ensure!(printed == "image:with space::/bin:name:argument\n/a/new/directory\n", "{printed}");
    // Of the image, where nothing is said.
    let printed = pod.prints("", |config| {
        config.command = Vec::new();
        config.args = ["sh", "-c", "pwd"].map(str::to_owned).to_vec();
    })?;
    ensure!(printed == "/etc\n", "{printed}");
    Ok(())
}

fn a_container_starts_once(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let id = pod.start("sleep 1000")?;
    let refused = refusal(start(&id))?;
    ensure!(refused.message.contains("is in CONTAINER_RUNNING state"), "{refused}");
    runs(&id)?;
    stop(&id, 0)?;
    let refused = refusal(start(&id))?;
    ensure!(refused.message.contains("is in CONTAINER_EXITED state"), "{refused}");
    Ok(())
}

fn one_that_was_never_started_is_removed(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let id = pod.create("echo ran > /dev/shm/ran", |_| {})?;
    stop(&id, 0)?;
    remove(&id)?;
    let printed = pod.prints("ls /dev/shm/ran 2>/dev/null; echo $?", |_| {})?;
    ensure!(printed == "1\n", "{printed}");
    Ok(())
}

fn an_image_that_is_not_there_is_told(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let created = pod.create("true", |config| {
        config.image.get_or_insert_default().image = "localhost/no-such-image:latest".to_owned();
    });
    let refused = refusal(created)?;
    ensure!(refused.message.contains("localhost/no-such-image:latest"), "{refused}");
    Ok(())
}
