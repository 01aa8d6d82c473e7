//! What is understood although it is odd, and how the rest is named.

use oci_spec::runtime::{LinuxResources, LinuxSchedulerFlag, Process, Spec};
use serde_json::json;

use super::*;

fn fault<T: DeserializeOwned + std::fmt::Debug>(text: &str, parent: &str) -> String {
    parse::<T>(text.as_bytes(), parent).unwrap_err().to_string()
}

#[test]
fn the_field_at_fault_is_named_with_its_line() {
    let text = "{\n \"ociVersion\": \"1.2.0\",\n \"process\": {\"user\": {}, \"cwd\": \"/\",\n\"args\": [\"a\", 5]}}";
    let message = fault::<Spec>(text, "");
    assert!(message.starts_with("process.args[1]: invalid type: integer `5`"), "{message}");
    assert!(message.ends_with("at line 4 column 15"), "{message}");
    for (field, value) in [
        (
            "linux.resources.memory.limit",
            json!({"linux": {"resources": {"memory": {"limit": "1g"}}}}),
        ),
        (
            "mounts[1].options",
            json!({"mounts": [{"destination": "/a"}, {"destination": "/b", "options": 1}]}),
        ),
        ("mounts[0]", json!({"mounts": [{"source": "/a"}]})),
        (
            "linux.seccomp.syscalls[0].args[0].op",
            json!({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": [], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "op": "x"}]}]}}}),
        ),
        (
            "process.rlimits[0].type",
            json!({"process": {"cwd": "/", "rlimits": [{"type": "RLIMIT_X"}]}}),
        ),
        ("linux.namespaces[0].type", json!({"linux": {"namespaces": [{"type": "moon"}]}})),
        ("annotations.a", json!({"annotations": {"a": 1}})),
    ] {
        let message = fault::<Spec>(&value.to_string(), "");
        assert!(message.starts_with(&format!("{field}: ")), "{field}: {message}");
    }
}

#[test]
fn a_part_of_a_configuration_is_named_as_in_the_whole() {
    let message = fault::<Process>(r#"{"cwd": "/", "args": 1}"#, "process");
    assert!(message.starts_with("process.args: "), "{message}");
    let message = fault::<LinuxResources>(r#"{"pids": {"limit": "many"}}"#, "linux.resources");
    assert!(message.starts_with("linux.resources.pids.limit: "), "{message}");
    let message = fault::<LinuxResources>("5", "linux.resources");
    assert!(message.starts_with("linux.resources: "), "{message}");
}

#[test]
fn what_is_no_json_has_a_line_and_no_field() {
    for text in ["", "{", "{\"process\": {\"args\": [\"a\"", "{\"a\":}", "{} {}", "\u{1}"] {
        let message = fault::<Spec>(text, "");
        assert!(message.contains(" at line 1 column "), "{text}: {message}");
        assert!(!message.starts_with("process"), "{text}: {message}");
    }
}

#[test]
fn what_go_takes_is_taken() {
    let text = json!({"ociVersion": "1.2.0", "mounts": null, "process": {
        "cwd": "/", "args": ["a"], "apparmorProfile": null,
        "capabilities": {"bounding": null, "effective": ["CAP_FLY", "CAP_KILL"]},
        "scheduler": {"policy": "SCHED_DEADLINE", "flags": ["SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_RESET_ON_FORK"]},
        "execCPUAffinity": {"initial": "", "final": " 0 , 2-3,"},
    }, "linux": {"uidMappings": [{"containerID": null, "hostID": 5, "size": 1}]}});
    let (spec, warnings) = parse::<Spec>(text.to_string().as_bytes(), "").unwrap();
    let process = spec.process().as_ref().unwrap();
    assert_eq!(process.user().uid(), 0);
    let scheduler = process.scheduler().as_ref().unwrap();
    let both = [LinuxSchedulerFlag::SchedFlagDLOverrun, LinuxSchedulerFlag::SchedResetOnFork];
    assert_eq!(scheduler.flags().as_deref(), Some(&both[..]));
    let affinity = process.exec_cpu_affinity().as_ref().unwrap();
    assert_eq!(affinity.initial(), &None);
    assert_eq!(affinity.cpu_affinity_final().as_deref(), Some("0,2-3"));
    assert_eq!(
        warnings,
        ["process.capabilities.effective: unknown capabilities [\"CAP_FLY\"]; ignored"]
    );
}

#[test]
fn a_capability_has_one_name_whatever_else_is_in_the_list() {
    for odd in ["sys_admin", "SYS_ADMIN", "cap_sys_admin", "CAP_CAP_SYS_ADMIN"] {
        for rest in [vec!["CAP_KILL"], vec!["CAP_KILL", "CAP_FLY"]] {
            let mut names = rest.clone();
            names.push(odd);
            let process = json!({"cwd": "/", "user": {"uid": 0, "gid": 0}, "capabilities": {"bounding": names}});
            let whole = json!({"ociVersion": "1.2.0", "process": process});
            let (spec, warnings) = parse::<Spec>(whole.to_string().as_bytes(), "").unwrap();
            let (alone, same) =
                parse::<Process>(process.to_string().as_bytes(), "process").unwrap();
            assert_eq!(warnings, same);
            assert!(warnings.len() == 1 && warnings[0].contains(odd), "{warnings:?}");
            let of = |process: &Process| {
                process.capabilities().as_ref().unwrap().bounding().clone().unwrap()
            };
            let kill = [oci_spec::runtime::Capability::Kill].into();
            assert_eq!(of(spec.process().as_ref().unwrap()), kill);
            assert_eq!(of(&alone), kill);
        }
    }
}
