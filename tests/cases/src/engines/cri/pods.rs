//! Pods: their states, and what cannot be.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::super::cases;
use super::client::call;
use super::messages::{
    ContainerFilter, EXITED, Id, ListContainersRequest, ListContainersResponse,
    ListPodSandboxRequest, ListPodSandboxResponse, NOT_READY, Nothing, PodFilter, READY, State,
};
use super::more_messages::{StatusResponse, VersionResponse};
use super::pod::{ended, exec, refusal, remove, runs, start, status, stop};
use super::{Cri, Pod};
use crate::run::unique_id;

cases!(Cri:
    the_service_is_ready,
    a_pod_tells_its_state,
    pods_are_found_by_filters,
    stopping_and_removing_twice_is_no_error,
    a_pod_with_running_containers_stops,
    a_pod_with_running_containers_is_removed,
    the_same_name_in_two_pods,
    a_name_is_taken_once,
    unknown_ids_are_told,
    an_unknown_runtime_is_told,
);

/// What the service says of something that does not exist (`google.rpc.Code`).
pub(super) const NOT_FOUND: u32 = 5;

fn the_service_is_ready(_: &Cri) -> Result<()> {
    let version: VersionResponse = call("Version", &Nothing {})?;
    ensure!(version.runtime_name == "containerd", "{version:?}");
    ensure!(version.runtime_api_version == "v1", "{version:?}");
    let status: StatusResponse = call("Status", &Nothing {})?;
    let conditions = status.status.context("no status")?.conditions;
    for kind in ["RuntimeReady", "NetworkReady"] {
        ensure!(conditions.iter().any(|c| c.kind == kind && c.status), "{kind}: {conditions:?}");
    }
    Ok(())
}

fn a_pod_tells_its_state(cri: &Cri) -> Result<()> {
    let labels = BTreeMap::from([("app".to_owned(), "case".to_owned())]);
    let annotations = BTreeMap::from([("note".to_owned(), "of no meaning".to_owned())]);
    let pod = cri.pod_with(|config| {
        config.labels = labels.clone();
        config.annotations = annotations.clone();
    })?;
    let status = cri.status(&pod.id)?;
    ensure!(status.state == READY && status.id == pod.id, "{status:?}");
    ensure!(status.metadata == pod.config.metadata, "{status:?}");
    ensure!(status.labels == labels && status.annotations == annotations, "{status:?}");
    ensure!(status.runtime_handler == Cri::handler(), "{status:?}");
    ensure!(status.created_at > 0, "{status:?}");
    let ip = status.network.as_ref().map(|network| network.ip.as_str()).unwrap_or_default();
    ensure!(ip.starts_with("10.88.77."), "{status:?}");
    pod.stop()?;
    ensure!(pod.state()? == NOT_READY);
    pod.remove()?;
    let refused = refusal(cri.status(&pod.id))?;
    ensure!(refused.code == NOT_FOUND, "{refused}");
    Ok(())
}

fn pods(filter: PodFilter) -> Result<Vec<String>> {
    let request = ListPodSandboxRequest { filter: Some(filter) };
    let list: ListPodSandboxResponse = call("ListPodSandbox", &request)?;
    Ok(list.items.into_iter().map(|pod| pod.id).collect())
}

fn pods_are_found_by_filters(cri: &Cri) -> Result<()> {
    let mark = BTreeMap::from([("mark".to_owned(), unique_id())]);
    let first = cri.pod_with(|config| config.labels = mark.clone())?;
    let second = cri.pod()?;
    let of_id = |id: &str| pods(PodFilter { id: id.to_owned(), ..PodFilter::default() });
    ensure!(of_id(&first.id)? == [first.id.as_str()]);
    // The beginning of an id is enough.
    ensure!(of_id(&second.id[..13])? == [second.id.as_str()]);
    let of_label = || pods(PodFilter { label_selector: mark.clone(), ..PodFilter::default() });
    ensure!(of_label()? == [first.id.as_str()]);
    first.stop()?;
    let of_state = |state| pods(PodFilter { state: Some(State { state }), ..PodFilter::default() });
    let (ready, ended) = (of_state(READY)?, of_state(NOT_READY)?);
    ensure!(ready.contains(&second.id) && !ready.contains(&first.id), "{ready:?}");
    ensure!(ended == [first.id.as_str()], "{ended:?}");
    first.remove()?;
    ensure!(of_label()?.is_empty());
    Ok(())
}

fn stopping_and_removing_twice_is_no_error(cri: &Cri) -> Result<()> {
    let pod = cri.pod()?;
    let id = pod.start("exit 3")?;
    ensure!(ended(&id)?.exit_code == 3);
    for _ in 0..2 {
        stop(&id, 1)?;
    }
    ensure!(status(&id)?.exit_code == 3);
    for _ in 0..2 {
        remove(&id)?;
    }
    for _ in 0..2 {
        pod.stop()?;
    }
    for _ in 0..2 {
        pod.remove()?;
    }
    remove("no-such-container")?;
    let question = Id { id: "no-such-pod".to_owned() };
    let _: Nothing = call("StopPodSandbox", &question)?;
    let _: Nothing = call("RemovePodSandbox", &question)?;
    Ok(())
}

fn a_pod_with_running_containers_stops(cri: &Cri) -> Result<()> {
    let pod = cri.pod()?;
    let ids = [pod.start("sleep 1000")?, pod.start("sleep 1000")?];
    let waits = pod.create("sleep 1000", |_| {})?;
    pod.stop()?;
    ensure!(pod.state()? == NOT_READY);
    for id in &ids {
        let status = status(id)?;
        ensure!(status.state == EXITED && status.exit_code == 137, "{status:?}");
        refusal(exec(id, "true"))?;
    }
    // What was never started cannot be started any more.
    refusal(start(&waits))?;
    // Nor can anything be added: containerd 2 says so at the start.
    refusal(pod.start("true"))?;
    Ok(())
}

fn a_pod_with_running_containers_is_removed(cri: &Cri) -> Result<()> {
    let pod = cri.pod()?;
    let id = pod.start("trap '' TERM; while :; do sleep 1; done")?;
    // One alone, while it runs.
    let other = pod.start("sleep 1000")?;
    remove(&other)?;
    ensure!(refusal(status(&other))?.code == NOT_FOUND);
    runs(&id)?;
    // containerd wants a pod stopped first, unless it is asked to remove it as it is.
    pod.remove()?;
    ensure!(refusal(status(&id))?.code == NOT_FOUND);
    ensure!(refusal(cri.status(&pod.id))?.code == NOT_FOUND);
    ensure!(containers(&pod)?.is_empty());
    Ok(())
}

/// The containers of a pod.
fn containers(pod: &Pod<'_>) -> Result<Vec<String>> {
    let filter = ContainerFilter { pod_sandbox_id: pod.id.clone(), ..Default::default() };
    let request = ListContainersRequest { filter: Some(filter) };
    let list: ListContainersResponse = call("ListContainers", &request)?;
    Ok(list.containers.into_iter().map(|container| container.id).collect())
}

fn the_same_name_in_two_pods(cri: &Cri) -> Result<()> {
    let (first, second) = (cri.shared()?, cri.pod()?);
    let named = |pod: &Pod<'_>| {
        pod.start_with("sleep 1000", |config| {
            let metadata = config.metadata.get_or_insert_default();
            metadata.name = "same".to_owned();
        })
    };
    let (one, other) = (named(&first)?, named(&second)?);
    ensure!(one != other);
    ensure!(containers(&first)? == [one.as_str()] && containers(&second)? == [other.as_str()]);
    second.stop()?;
    second.remove()?;
    // The other one's namesake is untouched.
    runs(&one)
}

fn a_name_is_taken_once(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let attempt = |attempt| {
        pod.create("sleep 1000", |config| {
            let metadata = config.metadata.get_or_insert_default();
            (metadata.name, metadata.attempt) = ("once".to_owned(), attempt);
        })
    };
    let first = attempt(0)?;
    let refused = refusal(attempt(0))?;
    ensure!(refused.message.contains("is reserved for"), "{refused}");
    let second = attempt(1)?;
    remove(&first)?;
    remove(&second)?;
    remove(&attempt(0)?)?;
    let refused = refusal(Pod::run(cri, pod.config.clone()).map(|pod| pod.id))?;
    ensure!(refused.message.contains("is reserved for"), "{refused}");
    Ok(())
}

fn unknown_ids_are_told(cri: &Cri) -> Result<()> {
    let unknown = "no-such-id";
    let refused = [
        refusal(status(unknown))?,
        refusal(start(unknown))?,
        refusal(exec(unknown, "true"))?,
        refusal(cri.status(unknown))?,
    ];
    for refused in refused {
        ensure!(refused.code == NOT_FOUND, "{refused}");
    }
    Ok(())
}

fn an_unknown_runtime_is_told(cri: &Cri) -> Result<()> {
    let config = super::pod::config(&cri.file("logs"));
    let request = super::messages::RunPodSandboxRequest {
        config: Some(config),
        runtime_handler: "no-such-runtime".to_owned(),
    };
    let refused = refusal(call::<Id>("RunPodSandbox", &request))?;
    ensure!(refused.message.contains("no-such-runtime"), "{refused}");
    ensure!(
        pods(PodFilter { state: Some(State { state: NOT_READY }), ..Default::default() })?
            .is_empty()
    );
    Ok(())
}
