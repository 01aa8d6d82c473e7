//! Hooks run, fail and are refused.

use serde_json::json;

use super::*;

fn parse(value: serde_json::Value) -> Result<Hooks, String> {
    let hooks: oci_spec::runtime::Hooks = serde_json::from_value(value).unwrap();
    hooks_of(&hooks)
}

fn hooks_of(value: &oci_spec::runtime::Hooks) -> Result<Hooks, String> {
    hooks(Some(value)).map_err(|error| error.to_string())
}

fn shell(script: &str, timeout: Option<u64>) -> Hook {
    Hook {
        path: "/bin/sh".into(),
        args: vec!["sh".into(), "-c".into(), script.into()],
        env: vec![("NAME".into(), "value".into())],
        timeout: timeout.map(Duration::from_secs),
    }
}

#[test]
fn hooks_of_the_container_are_refused() {
    let error = parse(json!({"startContainer": [{"path": "/bin/true"}]})).unwrap_err();
    assert!(error.contains("hooks.startContainer"), "{error}");
    assert!(parse(json!({"poststop": [{"path": "true"}]})).unwrap_err().contains("absolute"));
    assert!(parse(json!({"poststop": [{"path": "/bin/true", "timeout": 0}]})).is_err());
}

#[test]
fn prestart_comes_before_create_runtime() {
    let hooks = parse(json!({"createRuntime": [{"path": "/b"}], "prestart": [{"path": "/a"}]}));
    let paths: Vec<PathBuf> = hooks.unwrap().create.into_iter().map(|hook| hook.path).collect();
    assert_eq!(paths, [PathBuf::from("/a"), PathBuf::from("/b")]);
}

#[test]
fn a_hook_gets_the_state_and_its_environment() {
    assert!(shell("test \"$(cat)\" = state && test \"$NAME\" = value", None).run("state").is_ok());
    assert!(shell("exec <&-; exit 0", None).run(&"x".repeat(60_000)).is_ok());
}

#[test]
fn a_failing_hook_is_named_with_its_output() {
    let error = shell("echo broken >&2; exit 3", None).run("").unwrap_err().to_string();
    assert!(
        error.contains("/bin/sh") && error.contains("broken") && error.contains('3'),
        "{error}"
    );
    let error = shell("sleep 60", Some(1)).run("").unwrap_err();
    assert!(matches!(error, HookError::Timeout { .. }));
}
