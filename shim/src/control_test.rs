//! Plans in files, and what a failure of the pod becomes.

use super::*;
use cofferdam_agent_protocol::ContainerPlan;

#[test]
fn a_plan_arrives_as_it_was() {
    let content = vec![7; 300 << 10];
    let plan = ContainerPlan { id: "c".into(), masked_paths: vec![content], ..Default::default() };
    assert_eq!(unpack::<ContainerPlan>(parcel(&plan).unwrap()).unwrap(), plan);
}

#[test]
fn what_is_no_plan_is_refused() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[0xff; 10]).unwrap();
    file.rewind().unwrap();
    unpack::<ContainerPlan>(file.into()).unwrap_err();
    let file = tempfile::tempfile().unwrap();
    file.set_len(MAX_PLAN + 1).unwrap();
    let error = unpack::<ContainerPlan>(file.into()).unwrap_err().to_string();
    assert!(error.contains("8388608"), "{error}");
}

#[test]
fn failures_keep_what_can_be_done_about_them() {
    let kind = |cause| Failure::from(PodError { stage: None, cause }).kind;
    let agent = |kind| Cause::Agent { kind, message: String::new() };
    assert_eq!(kind(agent(ErrorKind::CommandNotFound)), FailureKind::CommandNotFound);
    assert_eq!(kind(Cause::NoHello(1)), FailureKind::Machine);
    assert_eq!(kind(Cause::AgentLost(String::new())), FailureKind::Guest);
    assert_eq!(kind(Cause::Stopped), FailureKind::Other);
}
