//! Policies, priorities and lists of CPUs.
#![allow(clippy::needless_pass_by_value, reason = "json! makes values")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn process(member: &str, value: Value) -> Process {
    serde_json::from_value(json!({"user": {}, "cwd": "/", member: value})).unwrap()
}

fn policy(value: Value) -> Result<protocol::Scheduler, String> {
    let process = process("scheduler", value);
    scheduler(process.scheduler().as_ref().unwrap()).map_err(|error| error.to_string())
}

#[test]
fn each_policy_has_its_own_numbers() {
    let fifo =
        policy(json!({"policy": "SCHED_FIFO", "priority": 7, "flags": ["SCHED_RESET_ON_FORK"]}));
    let expected = protocol::Scheduler { policy: 1, flags: 1, priority: 7, ..Default::default() };
    assert_eq!(fifo, Ok(expected));
    let deadline =
        policy(json!({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3}));
    let expected =
        protocol::Scheduler { policy: 6, runtime: 1, deadline: 2, period: 3, ..Default::default() };
    assert_eq!(deadline, Ok(expected));
    for (value, field) in [
        (json!({"policy": "SCHED_OTHER", "nice": 20}), "process.scheduler.nice: "),
        (json!({"policy": "SCHED_BATCH", "nice": -21}), "process.scheduler.nice: "),
        (json!({"policy": "SCHED_BATCH", "priority": 1}), "process.scheduler.priority: "),
        (json!({"policy": "SCHED_FIFO", "priority": -1}), "process.scheduler.priority: "),
        (json!({"policy": "SCHED_FIFO", "runtime": 1}), "process.scheduler.runtime: "),
        (json!({"policy": "SCHED_OTHER", "period": 1}), "process.scheduler.period: "),
        (json!({"policy": "SCHED_ISO"}), "process.scheduler.policy "),
    ] {
        let message = policy(value).unwrap_err();
        assert!(message.starts_with(field), "{message}");
    }
}

#[test]
fn io_priorities_have_eight_levels() {
    let of = |priority: i64| {
        let value = json!({"class": "IOPRIO_CLASS_IDLE", "priority": priority});
        io_priority(&process("ioPriority", value)).map_err(|error| error.to_string())
    };
    assert_eq!(of(7), Ok(Some(protocol::IoPriority { class: 3, level: 7 })));
    assert!(of(8).unwrap_err().starts_with("process.ioPriority.priority: "));
    assert!(of(-1).unwrap_err().starts_with("process.ioPriority.priority: "));
}

#[test]
fn lists_of_cpus_are_sets() {
    let set = |list: &str| cpus("final", Some(list)).map_err(|error| error.to_string());
    assert_eq!(set("3,0-2, 1 ,,"), Ok(vec![0, 1, 2, 3]));
    assert_eq!(set(""), Ok(Vec::new()));
    assert_eq!(set("1023"), Ok(vec![1023]));
    for bad in ["1024", "2-1", "a", "1-", "-1", "0-4294967295", "99999999999"] {
        let message = set(bad).unwrap_err();
        assert!(message.starts_with("process.execCPUAffinity.final: "), "{message}");
    }
    let none = process("execCPUAffinity", json!({}));
    assert_eq!(affinity(&none).unwrap(), None);
}

proptest! {
    #[test]
    fn any_list_is_a_sorted_set_or_an_error(list in "[0-9,\\- ]{0,16}") {
        if let Ok(set) = cpus("initial", Some(&list)) {
            prop_assert!(set.is_sorted_by(|a, b| a < b) && set.iter().all(|cpu| *cpu < MAX_CPUS));
        }
    }
}
