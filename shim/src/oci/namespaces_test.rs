//! Namespaces of the host, of the pod, and of other containers.

use serde_json::json;

use super::*;

fn linux(namespaces: &serde_json::Value) -> Linux {
    serde_json::from_value(json!({ "namespaces": namespaces })).unwrap()
}

/// A pod in which the container "infra" has the proxy 12.
fn found(listed: &serde_json::Value) -> Result<Namespaces, String> {
    let member = |pid: u32| (pid == 12).then(|| "infra".to_owned());
    namespaces(Some(&linux(listed)), &member).map_err(|error| error.to_string())
}

#[test]
fn the_namespaces_of_a_proxy_are_those_of_its_container() {
    let all = found(&json!([
        {"type": "pid"}, {"type": "ipc", "path": "/proc/12/ns/ipc"},
        {"type": "network", "path": "/proc/12/ns/net"},
    ]))
    .unwrap();
    let joins: Vec<&str> = all.plan.iter().map(|namespace| namespace.join.as_str()).collect();
    assert_eq!(joins, ["", "infra", "infra"]);
    assert_eq!(all.network, HostNetwork::At("/proc/12/ns/net".into()));
    assert!(all.pods.is_empty());
}

#[test]
fn those_of_another_process_are_refused_by_name() {
    let error = found(&json!([{"type": "uts", "path": "/proc/13/ns/uts"}])).unwrap_err();
    assert!(error.starts_with("linux.namespaces uts with path /proc/13/ns/uts"), "{error}");
    let error = found(&json!([{"type": "pid", "path": "/proc/1/ns/pid"}])).unwrap_err();
    assert!(error.contains("pid with path /proc/1/ns/pid"), "{error}");
    let error = found(&json!([{"type": "pid", "path": "/run/pidns/x"}])).unwrap_err();
    assert!(error.contains("pid with path /run/pidns/x"), "{error}");
}

#[test]
fn a_file_that_an_engine_made_and_the_host_s_own_stand_for_the_pod() {
    let all = found(&json!([
        {"type": "network", "path": "/run/netns/x"}, {"type": "uts", "path": "/run/utsns/x"},
        {"type": "mount"}, {"type": "ipc", "path": "/proc/1/ns/ipc"},
    ]))
    .unwrap();
    assert_eq!(all.plan.len(), 1);
    assert_eq!(all.pods, [NamespaceKind::Network, NamespaceKind::Uts, NamespaceKind::Ipc]);
    assert_eq!(all.listed.len(), 4);
    assert_eq!(all.network, HostNetwork::At("/run/netns/x".into()));
}

#[test]
fn without_a_path_the_network_is_new_and_without_any_the_callers() {
    assert_eq!(found(&json!([{"type": "network"}])).unwrap().network, HostNetwork::New);
    assert_eq!(found(&json!([])).unwrap().network, HostNetwork::Host);
}
