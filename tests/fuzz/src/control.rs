//! Control messages: a machine's specification as the monitor gets it, and what a monitor that a guest has
//! taken over may say to its supervisor.

use std::os::fd::AsFd;

use cofferdam_vmm::plan::Plan;
use cofferdam_vmm_api::{Channel, ChannelError, FromMonitor, MAX_MESSAGE, ToMonitor};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Sends `data` as it is, in both directions.
pub fn run(data: &[u8]) {
    let (&fds, data) = data.split_first().unwrap_or((&0, &[]));
    let fds = usize::from(fds % 8);
    if let Some(ToMonitor::Boot(spec)) = passes::<ToMonitor>(data, fds) {
        plan(Plan::new(*spec, fds).ok());
    }
    passes::<FromMonitor>(data, fds);
}

/// What was understood is understood again when it is sent on.
fn passes<T: Serialize + DeserializeOwned + PartialEq>(data: &[u8], fds: usize) -> Option<T> {
    let (ours, theirs) = Channel::pair().unwrap();
    let attached = vec![ours.as_fd(); fds];
    if let Err(error) = ours.send_bytes(data, &attached) {
        assert!(data.len() > MAX_MESSAGE, "{error}");
        return None;
    }
    let message = match theirs.receive::<T>() {
        Ok(message) => message,
        Err(ChannelError::Malformed(_) | ChannelError::Closed) => return None,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(message.fds.len(), fds, "descriptors were lost");
    theirs.send(&message.body, &[]).unwrap();
    assert!(ours.receive::<T>().unwrap().body == message.body, "a message changed on its way");
    Some(message.body)
}

/// A specification that is accepted becomes a plan whose parts do not overlap.
fn plan(plan: Option<Plan>) {
    let Some(plan) = plan else { return };
    let places = plan.disks.iter().chain(&plan.vsock).chain(&plan.rng);
    let places = places.chain(&plan.nets).chain(&plan.balloon).chain(&plan.mem_hotplug);
    let mut devices: Vec<u8> = places.map(|slot| slot.device).collect();
    devices.sort_unstable();
    let count = devices.len();
    devices.dedup();
    assert_eq!(devices.len(), count, "two devices in one place");
    let mut end = 0;
    for (address, bytes) in plan.memory.ram.iter().chain(&plan.memory.pluggable) {
        assert!(*address >= end && *bytes > 0);
        end = address.checked_add(*bytes).expect("memory beyond all addresses");
    }
}
