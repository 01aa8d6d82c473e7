//! What a plan asks for is waited for.

use super::*;
use crate::GuestHook;

fn list(timeouts: &[u32]) -> Option<GuestHooks> {
    let hook = |timeout: &u32| GuestHook { timeout: *timeout, ..Default::default() };
    Some(GuestHooks { hooks: timeouts.iter().map(hook).collect(), ..Default::default() })
}

#[test]
fn a_creation_may_take_as_long_as_its_hooks_and_a_launch() {
    let plain = ContainerPlan::default();
    let hooks = ContainerPlan { create_hooks: list(&[65, 0, 1000]), ..Default::default() };
    let seconds = 65 + GuestHook::DEFAULT_TIMEOUT + GuestHook::MAX_TIMEOUT;
    let more = Duration::from_secs(seconds.into());
    assert_eq!(hooks.created_within(), plain.created_within() + more);
    assert_eq!(hooks.started_within(), plain.started_within());
    let asked = request::Body::Create(Box::new(hooks.clone()));
    assert_eq!(asked.answered_within(), hooks.created_within());
    assert!(plain.created_within() > JOINED_WITHIN + READY_WITHIN);
}

#[test]
fn a_start_may_take_as_long_as_its_hooks() {
    let plain = ContainerPlan::default();
    let hooks = ContainerPlan { start_hooks: list(&[5, 6]), ..Default::default() };
    assert_eq!(hooks.started_within(), plain.started_within() + Duration::from_secs(11));
    assert_eq!(hooks.created_within(), plain.created_within());
    assert!(plain.started_within() > STARTED_WITHIN);
}

#[test]
fn one_more_process_takes_less_than_a_container() {
    let exec = request::Body::Exec(request::Exec::default()).answered_within();
    assert!(exec > EXECUTED_WITHIN && exec < ContainerPlan::default().created_within());
}
