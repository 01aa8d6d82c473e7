//! Addresses, groups and answers.

use super::*;

#[test]
fn what_is_of_one_sandbox_has_one_address() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("config.json");
    let of = |text: &str| {
        std::fs::write(&config, text).unwrap();
        group(&config, "own")
    };
    assert_eq!(of("{}").unwrap(), "own");
    let sandbox = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod"}}"#;
    assert_eq!(of(sandbox).unwrap(), "pod");
    let both = r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"pod","io.containerd.runc.v2.group":"g"}}"#;
    assert_eq!(of(both).unwrap(), "g");
    assert!(of("{").unwrap_err().to_string().contains("config.json"));
    let at = |id| socket_path(Path::new("/s"), ["/run/c.sock", "k8s.io", id]);
    assert_eq!(at("pod"), at("pod"));
    assert_ne!(at("pod"), at("other"));
    // As long as sockets' names may be.
    assert_eq!(at("pod").as_os_str().len(), "/s/".len() + 64);
}

#[test]
fn a_socket_that_was_left_is_replaced_and_a_living_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s/socket");
    let first = listen(&path).unwrap();
    assert!(first.is_some());
    assert!(listen(&path).unwrap().is_none());
    drop(first);
    assert!(listen(&path).unwrap().is_some());
}

#[test]
fn only_who_speaks_of_itself_gets_version_3() {
    let params = BootstrapParams {
        instance_id: "c".into(),
        containerd_version: "2.3.0".into(),
        ..Default::default()
    };
    let bytes = params.write_to_bytes().unwrap();
    assert!(bootstrap(&bytes, "c").is_some());
    assert!(bootstrap(&bytes, "other").is_none());
    assert!(bootstrap(&[], "c").is_none());
    // Options of a runtime: an `Any`.
    assert!(bootstrap(b"\x0a\x04type\x12\x01x", "c").is_none());
    assert_eq!(answer(false, "unix:///s"), "unix:///s");
    let told: Value = serde_json::from_str(&answer(true, "unix:///s")).unwrap();
    assert_eq!(told, json!({ "version": 3, "address": "unix:///s", "protocol": "ttrpc" }));
}
