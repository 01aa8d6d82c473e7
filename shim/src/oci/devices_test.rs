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
    let bare = filter(None, &mut warnings).unwrap().len();
    let mut with =
        |rule| filter(Some(&linux(json!({"resources": {"devices": [rule]}}))), &mut warnings);
    assert!(with(json!({"allow": false, "access": "rwm"})).unwrap().len() > bare);
    assert!(with(json!({"allow": true, "type": "c", "major": -2, "access": "r"})).is_err());
    let odd = with(json!({"allow": true, "type": "c", "access": "rx"})).unwrap();
    assert_eq!(odd, with(json!({"allow": true, "type": "c", "access": "r"})).unwrap());
    assert_eq!(warnings, ["linux.resources.devices[0].access: 'x' is none of \"rwm\"; ignored"]);
}
