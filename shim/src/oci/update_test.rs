//! What a change writes, and what it leaves.
#![allow(clippy::needless_pass_by_value, reason = "json! makes values")]

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parsed(resources: Value) -> LinuxResources {
    serde_json::from_value(resources).unwrap()
}

fn change(current: Value, wanted: Value) -> Result<(Vec<String>, Update), String> {
    let update = update(wanted.to_string().as_bytes(), Some(&parsed(current)));
    let update = update.map_err(|error| error.to_string())?;
    let settings = update.settings.iter().map(|s| format!("{}={}", s.file, s.value)).collect();
    Ok((settings, update))
}

fn files(current: Value, wanted: Value) -> Vec<String> {
    change(current, wanted).unwrap().0
}

#[test]
fn only_what_is_asked_for_is_written() {
    let current = json!({"pids": {"limit": 5}, "cpu": {"shares": 1024, "burst": 7},
        "memory": {"limit": 100, "reservation": 10}, "unified": {"memory.high": "3"}});
    assert_eq!(files(current.clone(), json!({"pids": {"limit": 6}})), ["pids.max=6"]);
    assert!(files(current.clone(), json!({})).is_empty());
    let (_, update) =
        change(current, json!({"cpu": {"burst": 0}, "unified": {"cpu.max": "1"}})).unwrap();
    let settings: Vec<_> = update.settings.iter().map(|s| s.file.as_str()).collect();
    assert_eq!(settings, ["cpu.max.burst", "cpu.max"]);
    let expected = json!({"pids": {"limit": 5}, "cpu": {"shares": 1024, "burst": 0},
        "memory": {"limit": 100, "reservation": 10}, "unified": {"memory.high": "3", "cpu.max": "1"}});
    assert_eq!(serde_json::to_value(&update.resources).unwrap(), expected);
    assert_eq!(update.needs.memory, Some(100));
}

#[test]
fn quota_and_period_go_together() {
    let current = || json!({"cpu": {"quota": 5000, "period": 10_000}});
    assert_eq!(files(current(), json!({"cpu": {"quota": 6000}})), ["cpu.max=6000 10000"]);
    assert_eq!(files(current(), json!({"cpu": {"period": 20_000}})), ["cpu.max=5000 20000"]);
    assert_eq!(files(current(), json!({"cpu": {"quota": 1, "period": 0}})), ["cpu.max=1 10000"]);
    assert_eq!(files(current(), json!({"cpu": {"quota": -1}})), ["cpu.max=max 10000"]);
    assert!(files(current(), json!({"cpu": {"quota": 0, "period": 0}})).is_empty());
    assert_eq!(files(json!({}), json!({"cpu": {"quota": 9}})), ["cpu.max=9 100000"]);
    assert_eq!(files(json!({"cpu": {"shares": 2}}), json!({"cpu": {"idle": 1}})), ["cpu.idle=1"]);
}

#[test]
fn memory_and_swap_go_together() {
    let current = || json!({"memory": {"limit": 100, "swap": 300}});
    let limit = |limit: i64| change(current(), json!({"memory": {"limit": limit}}));
    assert_eq!(limit(200).unwrap().0, ["memory.swap.max=100", "memory.max=200"]);
    assert!(limit(400).unwrap_err().starts_with("linux.resources.memory.swap: "));
    assert_eq!(limit(-1).unwrap().0, ["memory.swap.max=max", "memory.max=max"]);
    let swap = |swap: i64| files(current(), json!({"memory": {"swap": swap}}));
    assert_eq!(swap(500), ["memory.swap.max=400", "memory.max=100"]);
    assert_eq!(swap(-1), ["memory.swap.max=max", "memory.max=100"]);
    assert_eq!(files(current(), json!({"memory": {"reservation": 7}})), ["memory.low=7"]);
}

#[test]
fn a_limit_below_what_is_used_is_refused_where_that_is_asked_for() {
    let memory =
        |check: bool| json!({"memory": {"limit": 100, "swap": 150, "checkBeforeUpdate": check}});
    let (_, unchecked) = change(json!({}), memory(false)).unwrap();
    unchecked.check_memory(1000, 0).unwrap();
    let (_, checked) = change(json!({}), memory(true)).unwrap();
    checked.check_memory(100, 50).unwrap();
    let error = checked.check_memory(101, 0).unwrap_err().to_string();
    assert_eq!(error, "linux.resources.memory.limit: rejecting memory limit 100: 101 is used");
    let error = checked.check_memory(100, 51).unwrap_err().to_string();
    assert!(error.contains("memory.swap: rejecting memory+swap limit 150"), "{error}");
    let (_, unlimited) =
        change(json!({}), json!({"memory": {"limit": -1, "checkBeforeUpdate": true}})).unwrap();
    unlimited.check_memory(u64::MAX, 1).unwrap();
}

#[test]
fn what_is_wrong_is_named_as_in_a_configuration() {
    let fault = |text: &str| update(text.as_bytes(), None).unwrap_err().to_string();
    assert!(
        fault("{\"memory\": {\"limit\": \"5g\"}}").starts_with("linux.resources.memory.limit: ")
    );
    assert!(fault("{\"cpu\": {\"idle\": 7}}").starts_with("linux.resources.cpu.idle: "));
    assert!(fault("{").contains("EOF"));
}

fn some_resources() -> impl Strategy<Value = Value> {
    let number = || proptest::option::of(prop_oneof![-1..3i64, 1..1_000_000i64]);
    (number(), number(), number(), number(), number()).prop_map(
        |(limit, swap, quota, period, pids)| {
            let mut value = json!({"memory": {"limit": limit, "swap": swap}, "cpu": {"quota": quota,
                "period": period.filter(|p| *p >= 0)}});
            if let Some(pids) = pids {
                value["pids"] = json!({ "limit": pids });
            }
            value
        },
    )
}

proptest! {
    /// What is stored after a change writes the same again, and a change to nothing writes nothing.
    #[test]
    fn a_change_is_settled_after_it(current in some_resources(), wanted in some_resources()) {
        let current = current.to_string();
        let Ok(first) = update(current.as_bytes(), None) else { return Ok(()) };
        let Ok(second) = update(wanted.to_string().as_bytes(), Some(&first.resources)) else { return Ok(()) };
        let again = update_to(&second.resources, Some(&second.resources));
        prop_assert_eq!(again.unwrap().resources, second.resources.clone());
        let nothing = update(b"{}", Some(&second.resources)).unwrap();
        prop_assert!(nothing.settings.is_empty());
        for setting in &second.settings {
            prop_assert!(!setting.value.is_empty() && !setting.file.contains('/'));
        }
    }
}
