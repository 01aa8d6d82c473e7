//! User namespaces, and namespaces of other containers.

use super::host::*;
use cofferdam_agent_protocol::*;

/// A container with a user namespace that maps its ids to 100000 and up.
fn mapped(id: &str, args: &[&str]) -> ContainerPlan {
    let mut plan = container(id, args);
    plan.namespaces.push(namespace(NamespaceKind::User));
    let map = IdMap { container: 0, host: 100_000, size: 65536 };
    (plan.uid_map, plan.gid_map) = (vec![map.clone()], vec![map]);
    plan
}

#[test]
fn a_user_namespace_maps_ids() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "id -u; cat /proc/self/uid_map | tr -s ' '; stat -c %u /etc/passwd; \
        echo x > /dev/null && echo null; echo out > /dev/stdout; hostname renamed && hostname";
    let text = host.shell_in(mapped("c", &["sh", "-c", script]));
    assert_eq!(text, "0\n 0 100000 65536\n65534\nnull\nout\nrenamed\n");
}

#[test]
fn a_user_owns_a_control_group_that_is_delegated() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "cd /sys/fs/cgroup; stat -c %u . cgroup.procs cgroup.max.depth; mkdir below && rmdir below && echo made; true";
    let mut plan = mapped("c", &["sh", "-c", script]);
    plan.process.as_mut().unwrap().uid = 1;
    plan.cgroup = Some(CgroupPlan { delegated: true, ..CgroupPlan::default() });
    let text = host.shell_in(plan.clone());
    let lines: Vec<&str> = text.lines().collect();
    // Its limits stay the agent's, who is nobody in there.
    assert_eq!(lines, ["1", "1", "65534", "made"]);
    plan.cgroup = None;
    assert!(host.shell_in(plan).starts_with("65534\n65534\n"));
}

#[test]
fn exec_into_a_user_namespace() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.create(mapped("c", &["sleep", "1000"]));
    host.start("c");
    let mut plan = process(&["sh", "-c", "id -u; id -g; echo again > /dev/stdout"]);
    (plan.uid, plan.gid) = (33, 34);
    let stdio = plan.stdio.clone().unwrap();
    host.exec("c", "e", plan);
    assert_eq!(host.all(stdio.stdout.unwrap()), "33\n34\nagain\n");
    assert_eq!(host.ended("c", "e"), (0, 0));
    host.delete("c", true);
}

#[test]
fn containers_of_a_pod_share_namespaces() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut sandbox = container("sandbox", &["sleep", "1000"]);
    sandbox.hostname = "pod".into();
    host.create(sandbox);
    host.start("sandbox");
    let mut plan =
        container("app", &["sh", "-c", "hostname; cat /proc/1/comm; readlink /proc/self/ns/net"]);
    plan.hostname = String::new();
    plan.namespaces = vec![
        namespace(NamespaceKind::Mount),
        namespace(NamespaceKind::Cgroup),
        joined(NamespaceKind::Uts, "sandbox"),
        joined(NamespaceKind::Network, "sandbox"),
        joined(NamespaceKind::Ipc, "sandbox"),
        joined(NamespaceKind::Pid, "sandbox"),
    ];
    let text = host.shell_in(plan);
    assert!(text.starts_with("pod\nsleep\nnet:["), "{text}");
    host.delete("sandbox", true);
}

#[test]
fn a_user_namespace_is_shared_too() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.create(mapped("sandbox", &["sleep", "1000"]));
    host.start("sandbox");
    let mut plan =
        container("app", &["sh", "-c", "id -u; cat /proc/1/comm; tr -s ' ' < /proc/self/uid_map"]);
    plan.namespaces = vec![
        namespace(NamespaceKind::Mount),
        namespace(NamespaceKind::Pid),
        namespace(NamespaceKind::Cgroup),
        joined(NamespaceKind::User, "sandbox"),
        joined(NamespaceKind::Network, "sandbox"),
        joined(NamespaceKind::Ipc, "sandbox"),
        joined(NamespaceKind::Uts, "sandbox"),
    ];
    assert_eq!(host.shell_in(plan), "0\nsh\n 0 100000 65536\n");
    host.delete("sandbox", true);
}

#[test]
fn joining_a_container_that_is_not_there() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["true"]);
    plan.namespaces = vec![joined(NamespaceKind::Pid, "nobody")];
    let (kind, _) = host.refused(request::Body::Create(Box::new(plan)));
    assert_eq!(kind, ErrorKind::NotFound);
}

#[test]
fn a_time_namespace_is_made() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["readlink", "/proc/self/ns/time"]);
    plan.namespaces.push(namespace(NamespaceKind::Time));
    let mut shared = plan.clone();
    let inside = host.shell_in(plan);
    shared.namespaces.retain(|n| n.kind() != NamespaceKind::Time);
    shared.process = Some(process(&["readlink", "/proc/self/ns/time"]));
    assert_ne!(inside, host.shell_in(shared));
}

#[test]
fn exec_into_a_time_namespace() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["sleep", "1000"]);
    plan.namespaces.push(namespace(NamespaceKind::Time));
    host.create(plan);
    host.start("c");
    let script = "test $(readlink /proc/1/ns/time) = $(readlink /proc/self/ns/time) && echo same";
    let plan = process(&["sh", "-c", script]);
    let stdout = plan.stdio.clone().unwrap().stdout.unwrap();
    host.exec("c", "e", plan);
    assert_eq!(host.all(stdout), "same\n");
}

/// Clocks of a container that the host's uptime has nothing to do with.
fn offsets() -> Vec<TimeOffset> {
    let offset =
        |clock: &str, seconds| TimeOffset { clock: clock.into(), seconds, nanoseconds: 2_718_281 };
    vec![offset("monotonic", 7881), offset("boottime", 100_000_000)]
}

const SHOW_CLOCKS: &str =
    "tr -s ' ' < /proc/self/timens_offsets; cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time";

fn has_offsets(text: &str) {
    assert!(text.starts_with("monotonic 7881 2718281\nboottime 100000000 2718281\n"), "{text}");
    let uptime: u64 = text.lines().nth(2).unwrap().parse().unwrap();
    assert!(uptime > 100_000_000, "{text}");
}

#[test]
fn clocks_have_offsets() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["sh", "-c", SHOW_CLOCKS]);
    plan.namespaces.push(namespace(NamespaceKind::Time));
    plan.time_offsets = offsets();
    has_offsets(&host.shell_in(plan.clone()));
    plan.process = Some(process(&["sh", "-c", "echo $$; id -u"]));
    assert_eq!(host.shell_in(plan), "1\n0\n");
}

#[test]
fn clocks_have_offsets_in_a_user_namespace_and_beside_another_container() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = mapped("own", &["sh", "-c", SHOW_CLOCKS]);
    plan.namespaces.push(namespace(NamespaceKind::Time));
    plan.time_offsets = offsets();
    has_offsets(&host.shell_in(plan));
    host.create(mapped("sandbox", &["sleep", "1000"]));
    host.start("sandbox");
    let mut plan = container("app", &["sh", "-c", SHOW_CLOCKS]);
    plan.namespaces = vec![
        namespace(NamespaceKind::Mount),
        namespace(NamespaceKind::Pid),
        namespace(NamespaceKind::Time),
        joined(NamespaceKind::User, "sandbox"),
        joined(NamespaceKind::Network, "sandbox"),
        joined(NamespaceKind::Ipc, "sandbox"),
        joined(NamespaceKind::Uts, "sandbox"),
    ];
    plan.time_offsets = offsets();
    has_offsets(&host.shell_in(plan));
    host.delete("sandbox", true);
}

#[test]
fn exec_sees_the_offsets() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = mapped("c", &["sleep", "1000"]);
    plan.namespaces.push(namespace(NamespaceKind::Time));
    plan.time_offsets = offsets();
    host.create(plan);
    host.start("c");
    let plan = process(&["sh", "-c", SHOW_CLOCKS]);
    let stdout = plan.stdio.clone().unwrap().stdout.unwrap();
    host.exec("c", "e", plan);
    has_offsets(&host.all(stdout));
    host.delete("c", true);
}

#[test]
fn an_offset_that_the_kernel_does_not_take_is_named() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["true"]);
    plan.namespaces.push(namespace(NamespaceKind::Time));
    let clock = "monotonic".into();
    plan.time_offsets = vec![TimeOffset { clock, seconds: i64::MAX, nanoseconds: 0 }];
    let (_, message) = host.refused(request::Body::Create(Box::new(plan)));
    assert!(message.contains("offsets (monotonic 9223372036854775807 0)"), "{message}");
}
