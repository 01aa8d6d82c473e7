//! The plans of hooks in the guest, and the state they are told.

use serde_json::{Value, json};

use super::*;

fn planned(hooks: Value) -> Result<(Option<GuestHooks>, Option<GuestHooks>), String> {
    let hooks: oci_spec::runtime::Hooks = serde_json::from_value(hooks).unwrap();
    let annotations = BTreeMap::from([("a\"b".to_owned(), "c}".to_owned())]);
    let about = About { id: "c1", bundle: Path::new("/b"), annotations: &annotations };
    super::hooks(Some(&hooks), &about).map_err(|error| error.to_string())
}

#[test]
fn both_lists_are_planned_in_order() {
    let (create, start) = planned(json!({
        "createContainer": [{"path": "/bin/one"}, {"path": "/bin/two", "args": ["2", "x"], "timeout": 7}],
        "startContainer": [{"path": "/bin/three", "env": ["A=b", "C"]}],
        "poststop": [{"path": "/bin/host"}],
    }))
    .unwrap();
    let (create, start) = (create.unwrap(), start.unwrap());
    let paths: Vec<_> = create.hooks.iter().map(|hook| hook.path.as_slice()).collect();
    assert_eq!(paths, [b"/bin/one", b"/bin/two"]);
    assert_eq!(create.hooks[0].args, [b"/bin/one".to_vec()]);
    assert_eq!(create.hooks[0].seconds(), GuestHook::DEFAULT_TIMEOUT);
    assert_eq!(create.hooks[1].args, [b"2".to_vec(), b"x".to_vec()]);
    assert_eq!(create.hooks[1].seconds(), 7);
    assert_eq!(start.hooks[0].env, [b"A=b".to_vec(), b"C=".to_vec()]);
    assert_eq!((create.name.as_str(), start.name.as_str()), ("createContainer", "startContainer"));
}

#[test]
fn the_state_is_json_once_the_number_is_in() {
    let (create, start) =
        planned(json!({"createContainer": [{"path": "/a"}], "startContainer": [{"path": "/a"}]}))
            .unwrap();
    for (hooks, status) in [(create.unwrap(), "creating"), (start.unwrap(), "created")] {
        let text = format!("{}17{}", hooks.state_before_pid, hooks.state_after_pid);
        let state: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({"ociVersion": "1.2.0", "id": "c1", "status": status, "pid": 17,
            "bundle": "/b", "annotations": {"a\"b": "c}"}});
        assert_eq!(state, expected);
    }
}

#[test]
fn none_is_none_and_a_bad_one_is_named() {
    assert_eq!(planned(json!({"createContainer": []})).unwrap(), (None, None));
    for (hook, field) in [
        (json!({"path": "bin/x"}), "hooks.startContainer[1].path: "),
        (json!({"path": "/x", "timeout": 0}), "hooks.startContainer[1].timeout: "),
        (json!({"path": "/x", "timeout": -1}), "hooks.startContainer[1].timeout: "),
        (json!({"path": "/x", "args": ["a\u{0}"]}), "hooks.startContainer[1].args: "),
        (json!({"path": "/x", "env": ["a=\u{0}"]}), "hooks.startContainer[1].env: "),
    ] {
        let message = planned(json!({"startContainer": [{"path": "/fine"}, hook]})).unwrap_err();
        assert!(message.starts_with(field), "{message}");
    }
}
