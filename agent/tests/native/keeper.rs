//! A pid namespace that containers share and none of them begins.

use cofferdam_agent_protocol::*;

use super::host::{Host, container, joined, namespace, possible, process};

/// A container that shares the pid namespace kept as "pod".
fn member(id: &str, args: &[&str]) -> ContainerPlan {
    let mut plan = container(id, args);
    plan.namespaces = vec![namespace(NamespaceKind::Mount), joined(NamespaceKind::Pid, "pod")];
    plan
}

fn keep(host: &mut Host) {
    let of = request::Container { container: "pod".into() };
    host.done(request::Body::Keep(of));
}

#[test]
fn containers_share_what_is_kept_and_outlive_each_other() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    keep(&mut host);
    keep(&mut host);
    for id in ["a", "b"] {
        host.create(member(id, &["sleep", "1000"]));
        host.start(id);
    }
    let see = "tr -d '\\0' < /proc/1/cmdline; echo; ps -e -o args= | grep -c '^sleep 1000'";
    let plan = process(&["sh", "-c", see]);
    let stdout = plan.stdio.clone().unwrap().stdout.unwrap();
    host.exec("a", "see", plan);
    assert_eq!(host.all(stdout), "pause\n2\n");
    host.delete("a", true);
    let plan = process(&["sh", "-c", see]);
    let stdout = plan.stdio.clone().unwrap().stdout.unwrap();
    host.exec("b", "see", plan);
    assert_eq!(host.all(stdout), "pause\n1\n");
    host.delete("b", true);
}

/// All capabilities that this process has.
fn own_rights() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

#[test]
fn the_keeper_has_nothing_and_reaps() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    keep(&mut host);
    let script = "grep -E '^Cap(Eff|Prm|Bnd)|^NoNewPrivs' /proc/1/status | tr -d '\\t'; \
        ls -a /proc/1/root/ /proc/1/fd 2>&1 | tr '\\n' ' '; \
        sh -c 'sleep 0.1 & exec true'; sleep 0.5; ps -e -o stat= | grep -c Z";
    let mut plan = member("c", &["sh", "-c", script]);
    let all = own_rights();
    let rights =
        Capabilities { effective: all, permitted: all, inheritable: 0, ambient: 0, bounding: all };
    plan.process.as_mut().unwrap().capabilities = Some(rights);
    let none = "0000000000000000";
    let expected = format!("CapPrm:{none}\nCapEff:{none}\nCapBnd:{none}\nNoNewPrivs:1\n");
    let outcome = host.run(plan);
    let (status, rest) = outcome.stdout.split_at(expected.len());
    assert_eq!(status, expected, "{outcome:?}");
    assert_eq!(rest, "/proc/1/fd: . .. 0 1 2  /proc/1/root/: . .. 0\n", "{outcome:?}");
}

#[test]
fn only_its_pid_namespace_can_be_joined() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    keep(&mut host);
    let mut plan = member("c", &["readlink", "/proc/self/ns/ipc"]);
    plan.namespaces.push(joined(NamespaceKind::Ipc, "pod"));
    let joins = host.shell_in(plan);
    let shares = host.shell_in(member("d", &["readlink", "/proc/self/ns/ipc"]));
    assert_eq!(joins, shares);
    host.create(container("taken", &["true"]));
    let of = request::Container { container: "taken".into() };
    let (kind, _) = host.refused(request::Body::Keep(of));
    assert_eq!(kind, ErrorKind::Exists);
}
