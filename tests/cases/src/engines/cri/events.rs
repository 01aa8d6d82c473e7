//! What the service tells of containers without being asked.

use anyhow::{Result, ensure};

use super::super::cases;
use super::Cri;
use super::client::Events;
use super::messages::{EXITED, READY};
use super::pod::{ended, remove, start};
use crate::call::eventually;

cases!(Cri:
    events_of_a_container,
    events_of_a_pod,
);

/// `ContainerEventType`.
const CREATED: i32 = 0;
const STARTED: i32 = 1;
const STOPPED: i32 = 2;
const DELETED: i32 = 3;

/// Listens, and waits until something is heard.
fn listen(cri: &Cri) -> Result<Events> {
    let events = Events::listen()?;
    let pod = cri.shared()?;
    eventually("the service to tell of anything", || {
        let id = pod.create("true", |_| {})?;
        remove(&id)?;
        std::thread::sleep(std::time::Duration::from_millis(200));
        Ok(!events.of(&id).is_empty())
    })?;
    Ok(events)
}

/// Waits until these are told of `id`, in this order.
fn are_told(events: &Events, id: &str, wanted: &[i32]) -> Result<()> {
    let kinds = || events.of(id).iter().map(|event| event.kind).collect::<Vec<_>>();
    let told = eventually("the events", || Ok(kinds() == wanted));
    told.map_err(|error| error.context(format!("{:?} instead of {wanted:?}", kinds())))
}

fn events_of_a_container(cri: &Cri) -> Result<()> {
    let events = listen(cri)?;
    let pod = cri.shared()?;
    let id = pod.create("exit 3", |_| {})?;
    start(&id)?;
    ended(&id)?;
    are_told(&events, &id, &[CREATED, STARTED, STOPPED])?;
    let told = events.of(&id);
    let times: Vec<i64> = told.iter().map(|event| event.created_at).collect();
    ensure!(times.is_sorted() && times[0] > 0, "{times:?}");
    let of_pod = told[2].pod.as_ref();
    ensure!(of_pod.is_some_and(|status| status.id == pod.id && status.state == READY), "{told:?}");
    let own = told[2].containers.iter().find(|container| container.id == id);
    ensure!(own.is_some_and(|own| own.state == EXITED && own.exit_code == 3), "{told:?}");
    remove(&id)?;
    are_told(&events, &id, &[CREATED, STARTED, STOPPED, DELETED])
}

fn events_of_a_pod(cri: &Cri) -> Result<()> {
    let events = listen(cri)?;
    let pod = cri.pod()?;
    let id = pod.start("sleep 1000")?;
    are_told(&events, &pod.id, &[CREATED, STARTED])?;
    pod.stop()?;
    are_told(&events, &id, &[CREATED, STARTED, STOPPED])?;
    are_told(&events, &pod.id, &[CREATED, STARTED, STOPPED])?;
    pod.remove()?;
    are_told(&events, &id, &[CREATED, STARTED, STOPPED, DELETED])?;
    are_told(&events, &pod.id, &[CREATED, STARTED, STOPPED, DELETED])
}
