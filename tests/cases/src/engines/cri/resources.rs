//! What containers may use, and what they do use.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};

use super::super::cases;
use super::Cri;
use super::client::call;
use super::messages::{Id, LinuxPodSandboxConfig, Nothing, Resources};
use super::more_messages::{
    ContainerStats, ContainerStatsResponse, ListContainerStatsRequest, ListContainerStatsResponse,
    PodStatsResponse, StatsFilter, UpdateContainerResourcesRequest,
};
use super::pod::{ended, refusal, says, status};
use super::pods::NOT_FOUND;
use crate::call::eventually;
use crate::run::unique_id;

cases!(Cri:
    limits_are_in_the_containers_group,
    limits_are_changed_while_it_runs,
    an_update_of_an_unknown_container_is_told,
    oom_scores,
    usage_of_a_container,
    usage_of_many_containers,
    usage_of_a_pod,
);

/// A file of a container's control group.
fn group(id: &str, file: &str) -> Result<String> {
    says(id, &format!("cat /sys/fs/cgroup/{file}"))
}

fn limits_are_in_the_containers_group(cri: &Cri) -> Result<()> {
    let id = cri.shared()?.start_with("sleep 1000", |config| {
        let resources = config.resources();
        resources.memory_limit_in_bytes = 40 << 20;
        (resources.cpu_period, resources.cpu_quota) = (50_000, 25_000);
        resources.cpu_shares = 512;
        resources.cpuset_cpus = "0".to_owned();
        resources.unified = BTreeMap::from([
            ("memory.low".into(), "1048576".into()),
            ("pids.max".into(), "77".into()),
        ]);
    })?;
    ensure!(group(&id, "memory.max")? == (40 << 20).to_string());
    ensure!(group(&id, "cpu.max")? == "25000 50000");
    // The weight of 512 shares: runc has another conversion since 1.3.
    let weight = group(&id, "cpu.weight")?;
    ensure!(["20", "59"].contains(&&*weight), "{weight}");
    ensure!(group(&id, "cpuset.cpus")? == "0");
    ensure!(group(&id, "memory.low")? == "1048576");
    ensure!(group(&id, "pids.max")? == "77");
    Ok(())
}

fn update(id: &str, resources: Resources) -> Result<()> {
    let container_id = id.to_owned();
    let request = UpdateContainerResourcesRequest { container_id, linux: Some(resources) };
    let _: Nothing = call("UpdateContainerResources", &request)?;
    Ok(())
}

fn limits_are_changed_while_it_runs(cri: &Cri) -> Result<()> {
    let id = cri.shared()?.start_with("sleep 1000", |config| {
        config.resources().memory_limit_in_bytes = 40 << 20;
    })?;
    for memory in [64_i64 << 20, 48 << 20] {
        let resources = Resources {
            memory_limit_in_bytes: memory,
            cpu_period: 100_000,
            cpu_quota: 50_000,
            cpu_shares: 2048,
            ..Resources::default()
        };
        update(&id, resources)?;
        ensure!(group(&id, "memory.max")? == memory.to_string());
        ensure!(group(&id, "cpu.max")? == "50000 100000");
        let weight = group(&id, "cpu.weight")?;
        ensure!(["79", "174"].contains(&&*weight), "{weight}");
        let told = status(&id)?.resources.and_then(|resources| resources.linux);
        let told = told.context("no resources in the status")?;
        ensure!(told.memory_limit_in_bytes == memory && told.cpu_quota == 50_000, "{told:?}");
    }
    // It may use more than at first, and no more than now.
    let fill = "head -c 44m /dev/zero | tail -c 44m | wc -c";
    ensure!(says(&id, fill)? == (44 << 20).to_string());
    Ok(())
}

fn an_update_of_an_unknown_container_is_told(_: &Cri) -> Result<()> {
    let unknown = Resources { cpu_shares: 512, ..Resources::default() };
    let refused = refusal(update("no-such-container", unknown))?;
    ensure!(refused.code == NOT_FOUND, "{refused}");
    Ok(())
}

fn oom_scores(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    for score in [1000, 2] {
        let id = pod.start_with("sleep 1000", |config| config.resources().oom_score_adj = score)?;
        let seen = says(&id, "cat /proc/1/oom_score_adj /proc/self/oom_score_adj")?;
        ensure!(seen == format!("{score}\n{score}"), "{seen}");
    }
    Ok(())
}

fn stats(id: &str) -> Result<ContainerStats> {
    let answer: ContainerStatsResponse = call("ContainerStats", &Id { id: id.to_owned() })?;
    answer.stats.context("no stats")
}

/// Nanoseconds of processors.
fn cpu(stats: &ContainerStats) -> u64 {
    let used = stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds.as_ref());
    used.map_or(0, |used| used.value)
}

/// Bytes of memory that it cannot do without.
fn memory(stats: &ContainerStats) -> u64 {
    let used = stats.memory.as_ref().and_then(|memory| memory.working_set_bytes.as_ref());
    used.map_or(0, |used| used.value)
}

fn usage_of_a_container(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let labels = BTreeMap::from([("label".to_owned(), "of stats".to_owned())]);
    let id = pod.start_with("sleep 1000", |config| {
        config.labels = labels.clone();
        config.resources().memory_limit_in_bytes = 64 << 20;
    })?;
    let before = stats(&id)?;
    let attributes = before.attributes.as_ref().context("no attributes")?;
    ensure!(attributes.id == id && attributes.labels == labels, "{before:?}");
    ensure!(memory(&before) > 0 && memory(&before) < 8 << 20, "{before:?}");
    ensure!(cpu(&before) > 0, "{before:?}");
    let free = before.memory.as_ref().and_then(|memory| memory.available_bytes.as_ref());
    ensure!(free.map(|free| free.value) == Some((64 << 20) - memory(&before)), "{before:?}");
    // It works, and it keeps much.
    says(
        &id,
        "n=0; while [ $n -lt 20000 ]; do n=$((n+1)); done; head -c 20m /dev/zero > /dev/shm/kept",
    )?;
    let after = stats(&id)?;
    ensure!(cpu(&after) > cpu(&before) + 1_000_000, "{before:?} {after:?}");
    ensure!(memory(&after) >= memory(&before) + (19 << 20), "{before:?} {after:?}");
    says(&id, "rm /dev/shm/kept")?;
    Ok(())
}

fn usage_of_many_containers(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let mark = BTreeMap::from([("mark".to_owned(), unique_id())]);
    let marked = pod.start_with("sleep 1000", |config| config.labels = mark.clone())?;
    let other = pod.start("sleep 1000")?;
    let over = pod.start("true")?;
    ended(&over)?;
    let list = |filter| {
        let request = ListContainerStatsRequest { filter: Some(filter) };
        let list: ListContainerStatsResponse = call("ListContainerStats", &request)?;
        let used = list.stats.iter().filter(|stats| stats.cpu.is_some());
        ensure!(used.clone().all(|stats| cpu(stats) > 0 && memory(stats) > 0), "{list:?}");
        // Of one that has ended, nothing is said but its name.
        let ids = used.cloned().filter_map(|stats| Some(stats.attributes?.id));
        Ok(ids.collect::<std::collections::BTreeSet<_>>())
    };
    let of_pod = StatsFilter { pod_sandbox_id: pod.id.clone(), ..Default::default() };
    ensure!(list(of_pod)? == [marked.clone(), other].into());
    let of_label = StatsFilter { label_selector: mark, ..Default::default() };
    ensure!(list(of_label)? == [marked.clone()].into());
    let of_id = StatsFilter { id: marked.clone(), ..Default::default() };
    ensure!(list(of_id)? == [marked].into());
    Ok(())
}

fn usage_of_a_pod(cri: &Cri) -> Result<()> {
    let parent = format!("/{}", unique_id());
    let pod = cri.pod_with(|config| {
        config.linux.get_or_insert_with(LinuxPodSandboxConfig::default).cgroup_parent =
            parent.clone();
    })?;
    let busy = pod.start("while :; do :; done")?;
    let idle = pod.start("sleep 1000")?;
    let ask = || -> Result<_> {
        let answer: PodStatsResponse = call("PodSandboxStats", &Id { id: pod.id.clone() })?;
        let stats = answer.stats.context("no stats")?;
        let id = stats.attributes.as_ref().map(|attributes| attributes.id.clone());
        ensure!(id.as_ref() == Some(&pod.id), "{stats:?}");
        stats.linux.context("not of Linux")
    };
    let used = |stats: &super::more_messages::LinuxPodStats| {
        let used = stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds.as_ref());
        used.map_or(0, |used| used.value)
    };
    let before = ask()?;
    let ids: Vec<_> = before.containers.iter().filter_map(|c| c.attributes.as_ref()).collect();
    ensure!(ids.len() == 2 && ids.iter().all(|a| a.id == busy || a.id == idle), "{before:?}");
    let bytes = before.memory.as_ref().and_then(|memory| memory.usage_bytes.as_ref());
    ensure!(bytes.is_some_and(|bytes| bytes.value > 0), "{before:?}");
    // The pod has used at least what its container has meanwhile.
    eventually("a tenth of a second of work", || Ok(used(&ask()?) > used(&before) + 100_000_000))
}
