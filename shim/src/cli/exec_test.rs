//! What options make of the container's own process.

use clap::Parser;
use serde_json::{Value, json};

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    exec: Exec,
}

/// The process of `exec OPTIONS c true` in a container with this one.
fn process(container: &Value, options: &str) -> Result<Process, String> {
    let words = ["exec"].into_iter().chain(options.split_whitespace()).chain(["c", "true"]);
    let line = Line::try_parse_from(words).unwrap();
    let spec =
        serde_json::from_value(json!({"ociVersion": "1.2.0", "process": container})).unwrap();
    line.exec.process(&spec).map(|(process, _)| process).map_err(|error| format!("{error:#}"))
}

fn with_user() -> Value {
    json!({"cwd": "/", "user": {"uid": 1000, "gid": 1000, "umask": 63, "additionalGids": [2000]}})
}

#[test]
fn another_user_keeps_the_groups_of_the_container() {
    let ids = |options: &str| {
        let process = process(&with_user(), options).unwrap();
        let user = process.user();
        assert_eq!(user.umask(), Some(63));
        (user.uid(), user.gid(), user.additional_gids().clone().unwrap_or_default())
    };
    assert_eq!(ids(""), (1000, 1000, vec![2000]));
    assert_eq!(ids("--user 1001"), (1001, 1000, vec![2000]));
    assert_eq!(ids("--user 1001:5"), (1001, 5, vec![2000]));
    assert_eq!(ids("--user 0:0 -g 5 -g 6"), (0, 0, vec![2000, 5, 6]));
    for (user, fault) in
        [("x", "x is no number"), ("1:", " is no number"), ("1:y", "y is no number")]
    {
        let error = process(&with_user(), &format!("--user {user}")).unwrap_err();
        assert!(error.starts_with(&format!("--user {user}: {fault}")), "{error}");
    }
}

#[test]
fn a_capability_becomes_ambient_where_it_can_be_inherited() {
    let ambient = |sets: Value| {
        let mut container = with_user();
        container["capabilities"] = sets;
        let process = process(&container, "--cap cap_kill --cap CAP_CHOWN").unwrap();
        let sets = process.capabilities().clone().unwrap();
        let all = [sets.bounding(), sets.effective(), sets.permitted()];
        let both = [Capability::Kill, Capability::Chown];
        let has =
            |set: &Option<Capabilities>| both.iter().all(|c| set.as_ref().unwrap().contains(c));
        assert!(all.into_iter().all(has), "{sets:?}");
        let mut names: Vec<String> =
            sets.ambient().iter().flatten().map(ToString::to_string).collect();
        names.sort_unstable();
        names
    };
    assert!(ambient(json!({})).is_empty());
    assert!(ambient(json!({"inheritable": []})).is_empty());
    assert_eq!(ambient(json!({"inheritable": ["CAP_KILL"]})), [Capability::Kill.to_string()]);
}

#[test]
fn nothing_to_run_is_said_in_runc_s_words() {
    let line = Line::try_parse_from(["exec", "c"]).unwrap();
    let spec = Spec::default();
    let error = line.exec.process(&spec).unwrap_err().to_string();
    assert_eq!(error, "exec args cannot be empty");
}
