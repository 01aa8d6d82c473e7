//! One more process, and what it has from the container's first.
#![allow(clippy::needless_pass_by_value, reason = "json! makes values")]

use serde_json::{Value, json};

use super::*;

fn container() -> Spec {
    serde_json::from_value(json!({"ociVersion": "1.2.0",
    "process": {
        "user": {"uid": 5, "umask": 0o77}, "cwd": "/first", "args": ["first"], "env": ["A=b"],
        "noNewPrivileges": true, "oomScoreAdj": 7,
        "capabilities": {"bounding": ["CAP_KILL"], "ambient": ["CAP_CHOWN"]},
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}],
        "scheduler": {"policy": "SCHED_BATCH", "nice": 3},
        "ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 1},
        "execCPUAffinity": {"initial": "0", "final": "0-1"},
    },
    "linux": {
        "personality": {"domain": "LINUX32"},
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
    }}))
    .unwrap()
}

fn planned(process: Value) -> protocol::ProcessPlan {
    let (process, warnings) = parse_process(process.to_string().as_bytes()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    exec(&process, &container()).unwrap().0
}

#[test]
fn a_process_has_what_it_does_not_say_from_the_first() {
    let plan = planned(json!({"cwd": "/", "args": ["sh"], "terminal": true}));
    assert_eq!((plan.uid, plan.umask, plan.no_new_privileges), (0, Some(0o77), false));
    assert!(plan.env.is_empty());
    let capabilities = plan.capabilities.unwrap();
    assert_eq!((capabilities.bounding, capabilities.ambient), (1 << 5, 1));
    assert_eq!(plan.rlimits, [protocol::Rlimit { resource: 4, soft: 1, hard: 2 }]);
    assert_eq!(plan.scheduler.unwrap().policy, 3);
    assert_eq!(plan.io_priority, Some(protocol::IoPriority { class: 1, level: 1 }));
    assert_eq!(plan.oom_score_adj, Some(7));
    let affinity = protocol::CpuAffinity { initial: vec![0], last: vec![0, 1] };
    assert_eq!(plan.affinity, Some(affinity));
    assert_eq!((plan.personality, plan.seccomp.len()), (Some(8), 1));
    assert!(plan.terminal.is_some() && plan.stdio.is_none());
}

#[test]
fn what_it_says_for_itself_counts() {
    let plan = planned(json!({"cwd": "/", "args": ["sh"], "user": {"uid": 1, "umask": 0o22},
        "capabilities": {}, "rlimits": [{"type": "RLIMIT_CPU", "soft": 5, "hard": 5}],
        "scheduler": {"policy": "SCHED_OTHER"}, "execCPUAffinity": {"final": "1"},
        "oomScoreAdj": -3, "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 0}}));
    assert_eq!(plan.capabilities, Some(protocol::Capabilities::default()));
    assert_eq!((plan.umask, plan.rlimits.len(), plan.rlimits[0].resource), (Some(0o22), 1, 0));
    assert_eq!(plan.scheduler.unwrap().policy, 0);
    assert_eq!(plan.affinity.unwrap().initial, [0; 0]);
    assert_eq!(plan.oom_score_adj, Some(-3));
    assert_eq!(plan.io_priority.unwrap().class, 2);
}

#[test]
fn odd_processes_are_named_by_field() {
    let fault = |process: Value| {
        let (process, _) = parse_process(process.to_string().as_bytes()).unwrap();
        exec(&process, &container()).unwrap_err().to_string()
    };
    assert!(fault(json!({"cwd": "/", "args": []})).starts_with("process.args: "));
    assert!(fault(json!({"cwd": "", "args": ["a"]})).starts_with("process.cwd: "));
    let twice = json!([{"type": "RLIMIT_CPU"}, {"type": "RLIMIT_CPU"}]);
    let message = fault(json!({"cwd": "/", "args": ["a"], "rlimits": twice}));
    assert_eq!(message, "process.rlimits[1].type: is listed twice");
    let message = parse_process(b"{\"args\": [5]}").unwrap_err().to_string();
    assert!(message.starts_with("process.args[0]: "), "{message}");
    let message = parse_process(b"{\"args\": [\"a\"]}").unwrap_err().to_string();
    assert!(message.contains("missing field `cwd`"), "{message}");
}

#[test]
fn labels_and_flags_of_a_personality_are_told_and_ignored() {
    let (process, _) = parse_process(
        br#"{"cwd": "/", "args": ["a"], "apparmorProfile": "p", "selinuxLabel": "l"}"#,
    )
    .unwrap();
    let mut spec = container();
    let flags = json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]});
    let linux: Linux = serde_json::from_value(json!({ "personality": flags })).unwrap();
    spec.set_linux(Some(linux));
    let (plan, mut warnings) = exec(&process, &spec).unwrap();
    assert_eq!(plan.personality, Some(0));
    let count = warnings.len();
    warnings.retain(|warning| !warning.starts_with("can't raise ambient capability CAP_"));
    assert_eq!(warnings.len() + 1, count, "one is not both permitted and inheritable");
    let fields = ["process.apparmorProfile", "process.selinuxLabel", "linux.personality.flags"];
    assert_eq!(warnings.len(), fields.len());
    for (warning, field) in warnings.iter().zip(fields) {
        assert!(warning.starts_with(&format!("{field}: ")), "{warning}");
    }
}
