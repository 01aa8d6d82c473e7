//! Resources and the cgroup files they become.

use serde_json::json;

use super::*;

fn files(resources: serde_json::Value) -> Result<Vec<String>, String> {
    let resources: LinuxResources = serde_json::from_value(resources).unwrap();
    let all = settings(&resources, &mut Vec::new()).map_err(|error| error.to_string())?;
    Ok(all.into_iter().map(|s| format!("{}={}", s.file, s.value)).collect())
}

#[test]
fn memory_and_swap() {
    let both = files(json!({"memory": {"limit": 100, "swap": 300, "reservation": 50}})).unwrap();
    assert_eq!(both, ["memory.swap.max=200", "memory.max=100", "memory.low=50"]);
    let none = files(json!({"memory": {"limit": -1, "swap": -1}})).unwrap();
    assert_eq!(none, ["memory.swap.max=max", "memory.max=max"]);
    assert_eq!(files(json!({"memory": {"limit": -1}})).unwrap(), none);
    assert!(files(json!({"memory": {"limit": 0, "swap": 0}})).unwrap().is_empty());
    assert!(
        files(json!({"memory": {"limit": 300, "swap": 100}})).unwrap_err().contains("memory.swap")
    );
    assert!(
        files(json!({"memory": {"swap": 100}})).unwrap_err().contains("without a memory limit")
    );
}

#[test]
fn what_cgroup_v2_lacks_for_memory_is_a_warning_by_field() {
    let warnings = |memory: serde_json::Value| {
        let resources = serde_json::from_value(json!({ "memory": memory })).unwrap();
        let mut warnings = Vec::new();
        assert!(settings(&resources, &mut warnings).unwrap().is_empty());
        warnings
    };
    for (field, value) in [
        ("swappiness", json!(60)),
        ("disableOOMKiller", json!(true)),
        ("kernel", json!(1 << 20)),
        ("kernelTCP", json!(-1)),
    ] {
        let told = warnings(json!({ field: value }));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(&format!("linux.resources.memory.{field} ")), "{told:?}");
    }
    // As Docker writes it for containers that ask for nothing.
    assert!(warnings(json!({"disableOOMKiller": false, "kernel": 0, "kernelTCP": 0})).is_empty());
}

#[test]
fn cpu_shares_quota_and_idle() {
    let weights = |shares: u64| files(json!({"cpu": {"shares": shares}})).unwrap().remove(0);
    assert_eq!(weights(2), "cpu.weight=1");
    assert_eq!(weights(1024), "cpu.weight=100");
    // As runc 1.3.2 is documented to do.
    assert_eq!(weights(2000), "cpu.weight=170");
    assert_eq!(weights(22_000), "cpu.weight=1204");
    assert_eq!(weights(262_144), "cpu.weight=10000");
    assert_eq!(weights(u64::MAX), "cpu.weight=10000");
    assert_eq!(files(json!({"cpu": {"quota": 50000}})).unwrap(), ["cpu.max=50000 100000"]);
    assert_eq!(files(json!({"cpu": {"quota": -1, "period": 1000}})).unwrap(), ["cpu.max=max 1000"]);
    assert_eq!(files(json!({"cpu": {"idle": 1, "shares": 5}})).unwrap(), ["cpu.idle=1"]);
    assert_eq!(
        files(json!({"cpu": {"idle": 0, "shares": 2}})).unwrap(),
        ["cpu.idle=0", "cpu.weight=1"]
    );
    assert!(
        files(json!({"cpu": {"idle": 2}})).unwrap_err().starts_with("linux.resources.cpu.idle: ")
    );
    assert_eq!(files(json!({"cpu": {"burst": 0}})).unwrap(), ["cpu.max.burst=0"]);
    let both = json!({"cpu": {"quota": 1, "burst": 9}});
    assert_eq!(files(both).unwrap(), ["cpu.max=1 100000", "cpu.max.burst=9"]);
}

#[test]
fn sets_of_cpus_are_passed_on_and_memory_nodes_are_not() {
    let told = |cpu: serde_json::Value| {
        let resources = serde_json::from_value(json!({ "cpu": cpu })).unwrap();
        let mut warnings = Vec::new();
        let all = settings(&resources, &mut warnings).unwrap();
        (all.into_iter().map(|s| format!("{}={}", s.file, s.value)).collect::<Vec<_>>(), warnings)
    };
    let (files_of_set, warnings) = told(json!({"cpus": "0-1,4 ", "mems": "0"}));
    assert_eq!((files_of_set, warnings.len()), (vec!["cpuset.cpus=0-1,4".to_owned()], 0));
    let (none, warnings) = told(json!({"mems": "1"}));
    assert!(
        none.is_empty() && warnings[0].starts_with("linux.resources.cpu.mems "),
        "{warnings:?}"
    );
    let (none, warnings) = told(json!({"realtimeRuntime": 5, "realtimePeriod": 9}));
    assert!(none.is_empty() && warnings.len() == 2, "{warnings:?}");
    let message = files(json!({"cpu": {"cpus": "all\n"}})).unwrap_err();
    assert!(message.starts_with("linux.resources.cpu.cpus: "), "{message}");
}

proptest::proptest! {
    #[test]
    fn weights_rise_with_shares_and_stay_in_range(a in 2..262_145u64, b in 2..262_145u64) {
        let (low, high) = (weight(a.min(b)), weight(a.max(b)));
        proptest::prop_assert!((1..=10_000).contains(&low) && low <= high && high <= 10_000);
    }
}

#[test]
fn pids_hugetlb_io_and_unified() {
    assert_eq!(files(json!({"pids": {"limit": 10}})).unwrap(), ["pids.max=10"]);
    assert_eq!(files(json!({"pids": {"limit": -1}})).unwrap(), ["pids.max=max"]);
    assert!(files(json!({"pids": {"limit": 0}})).unwrap().is_empty());
    let huge = files(json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4096}]})).unwrap();
    assert_eq!(huge, ["hugetlb.2MB.max=4096", "hugetlb.2MB.rsvd.max=4096"]);
    assert!(files(json!({"hugepageLimits": [{"pageSize": "../x", "limit": 1}]})).is_err());
    let io = json!({"blockIO": {"weight": 1000, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 5}]}});
    assert_eq!(files(io).unwrap(), ["io.weight=10000", "io.max=8:0 rbps=5"]);
    let message = files(json!({"blockIO": {"weight": 5}})).unwrap_err();
    assert!(message.starts_with("linux.resources.blockIO.weight: "), "{message}");
    let unified = files(json!({"unified": {"memory.high": "5", "cpu.max": "1 2"}})).unwrap();
    assert_eq!(unified, ["cpu.max=1 2", "memory.high=5"]);
    assert!(files(json!({"unified": {"../cgroup.procs": "1"}})).unwrap_err().contains("file name"));
}
