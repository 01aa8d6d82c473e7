//! Nodes with their defaults, and rules that make no sense.

use serde_json::json;

use super::*;

fn linux(value: serde_json::Value) -> Linux {
    serde_json::from_value(value).unwrap()
}

#[test]
fn the_default_nodes_are_there_unless_listed() {
    assert_eq!(nodes(None).unwrap().len(), 6);
    let own = linux(json!({"devices": [
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 7},
        {"path": "/dev/pipe", "type": "p", "major": 0, "minor": 0},
    ]}));
    let nodes = nodes(Some(&own)).unwrap();
    assert_eq!(nodes.len(), 7);
    assert_eq!((nodes[0].uid, nodes[0].mode), (7, 0o666));
    assert_eq!(nodes[1].kind(), DeviceType::Fifo);
}

#[test]
fn senseless_nodes_are_refused_by_path() {
    for device in [
        json!({"path": "/dev/x", "type": "c", "major": 5000, "minor": 0}),
        json!({"path": "/dev/x", "type": "b", "major": 1, "minor": -1}),
        json!({"path": "/dev/x", "type": "a", "major": 1, "minor": 1}),
    ] {
        let error = nodes(Some(&linux(json!({"devices": [device]})))).unwrap_err();
        assert!(error.to_string().contains("/dev/x"), "{error}");
    }
}

#[test]
fn rules_become_a_program() {
    let mut warnings = Vec::new();
    let bare = rules(None, &mut warnings).unwrap().0.len();
    let mut with =
        |rule| rules(Some(&linux(json!({"resources": {"devices": [rule]}}))), &mut warnings);
    assert!(with(json!({"allow": false, "access": "rwm"})).unwrap().0.len() > bare);
    assert!(with(json!({"allow": true, "type": "c", "major": -2, "access": "r"})).is_err());
    let mut program_of = |rule| program(&with(rule).unwrap().0, &[]).unwrap();
    let odd = program_of(json!({"allow": true, "type": "c", "access": "rx"}));
    assert_eq!(odd, program_of(json!({"allow": true, "type": "c", "access": "r"})));
    assert_eq!(warnings, ["linux.resources.devices[0].access: 'x' is none of \"rwm\"; ignored"]);
}

/// Nodes and rules of a container with these devices and rules about them.
fn listed(
    devices: &serde_json::Value,
    allowed: &serde_json::Value,
) -> (Vec<DeviceNode>, DeviceRules) {
    let linux = linux(json!({"devices": devices, "resources": {"devices": allowed}}));
    (nodes(Some(&linux)).unwrap(), rules(Some(&linux), &mut Vec::new()).unwrap())
}

#[test]
fn a_block_device_that_may_be_used_is_given_once() {
    let node = |path: &str, minor| json!({"path": path, "type": "b", "major": 7, "minor": minor});
    let devices = json!([
        node("/dev/read", 1), node("/dev/both", 2), node("/dev/again", 2), node("/dev/none", 3),
        {"path": "/dev/character", "type": "c", "major": 7, "minor": 1},
    ]);
    let allow = |minor, access: &str| json!({"allow": true, "type": "b", "major": 7, "minor": minor, "access": access});
    let allowed = json!([
        {"allow": false, "access": "rwm"}, allow(1, "r"), allow(2, "rwm"), allow(3, "m")
    ]);
    let (nodes, rules) = listed(&devices, &allowed);
    let disk = |path: &str, minor, writable| HostDisk {
        field: format!("linux.devices ({path})"),
        number: (7, minor),
        writable,
    };
    let expected = [disk("/dev/read", 1, false), disk("/dev/both", 2, true)];
    assert_eq!(host_disks(&nodes, &rules), expected);
}

#[test]
fn what_the_guest_has_takes_the_place_of_the_hosts() {
    let devices = json!([
        {"path": "/dev/a", "type": "b", "major": 7, "minor": 1},
        {"path": "/dev/b", "type": "b", "major": 7, "minor": 2},
    ]);
    let (devices, rules) = listed(&devices, &json!([{"allow": true, "access": "rwm"}]));
    let setting = |file: &str, value: &str| cofferdam_agent_protocol::CgroupSetting {
        file: file.into(),
        value: value.into(),
    };
    let settings =
        ["7:1 rbps=5", "7:2 rbps=5", "default 7:1"].map(|value| setting("io.max", value));
    let cgroup = Some(cofferdam_agent_protocol::CgroupPlan {
        settings: settings.to_vec(),
        device_filter: Vec::new(),
        delegated: false,
    });
    let mut container = ContainerPlan { devices, cgroup, ..ContainerPlan::default() };
    let disks = [Substitute { host: (7, 1), guest: (254, 32) }];
    substitute(&mut container, &rules, &disks).unwrap();
    let numbers: Vec<_> = container.devices.iter().take(2).map(|n| (n.major, n.minor)).collect();
    assert_eq!(numbers, [(254, 32), (7, 2)]);
    let cgroup = container.cgroup.unwrap();
    let values: Vec<_> = cgroup.settings.iter().map(|setting| setting.value.as_str()).collect();
    assert_eq!(values, ["254:32 rbps=5", "7:2 rbps=5", "default 7:1"]);
    assert_eq!(cgroup.device_filter, program(&rules.0, &disks).unwrap());
}
