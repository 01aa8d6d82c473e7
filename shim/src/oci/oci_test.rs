//! Whole specifications and the plans they become.

use std::io;
use std::path::Path;

use cofferdam_agent_protocol as protocol;
use protocol::{MountKind, NamespaceKind};
use serde_json::json;

use super::*;

fn bundle(text: &str) -> Bundle {
    let (spec, warnings) = bundle::parse(text.as_bytes(), Path::new("config.json")).unwrap();
    Bundle { directory: "/bundle".into(), rootfs: "/bundle/rootfs".into(), spec, warnings }
}

fn read(path: &Path) -> io::Result<HostFile> {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("resolv.conf" | "hostname" | "containerenv") => Ok(HostFile {
            content: b"content".into(),
            mode: 0o644,
            of_root: true,
            memory: None,
            live: Live::Cannot("it is a test".into()),
        }),
        _ => Err(io::ErrorKind::NotFound.into()),
    }
}

fn plan(text: &str) -> Translated {
    translate("c1", &bundle(text), &read, &|_| None).unwrap()
}

/// The error for the default specification changed by `change`.
fn refused(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut spec: serde_json::Value = serde_json::from_str(&default_spec_text()).unwrap();
    change(&mut spec);
    translate("c1", &bundle(&spec.to_string()), &read, &|_| None).unwrap_err().to_string()
}

/// The plan of the default specification changed by `change`.
fn changed(change: impl FnOnce(&mut serde_json::Value)) -> Translated {
    let mut spec: serde_json::Value = serde_json::from_str(&default_spec_text()).unwrap();
    change(&mut spec);
    plan(&spec.to_string())
}

fn settings(plan: &Translated) -> Vec<String> {
    let cgroup = plan.container.cgroup.as_ref().unwrap();
    cgroup.settings.iter().map(|s| format!("{}={}", s.file, s.value)).collect()
}

fn kinds(plan: &Translated) -> Vec<NamespaceKind> {
    plan.container.namespaces.iter().map(protocol::Namespace::kind).collect()
}

#[test]
fn the_default_specification() {
    let plan = plan(&default_spec_text());
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    assert!(plan.terminal);
    assert_eq!(plan.needs, Needs::default());
    let container = &plan.container;
    assert_eq!(container.mounts.len(), 7);
    assert!(container.mounts.iter().all(|mount| mount.kind() == MountKind::Filesystem));
    assert!(container.rootfs.as_ref().unwrap().readonly);
    assert_eq!((container.masked_paths.len(), container.readonly_paths.len()), (10, 5));
    assert!(settings(&plan).is_empty());
    assert!(!kinds(&plan).contains(&NamespaceKind::User));
    let process = container.process.as_ref().unwrap();
    assert_eq!(process.args, [b"sh".to_vec()]);
    let capabilities = process.capabilities.clone().unwrap();
    assert_eq!(capabilities.bounding, 1 << 29 | 1 << 5 | 1 << 10);
    assert_eq!((capabilities.ambient, capabilities.inheritable), (0, 0));
    assert_eq!(process.rlimits, [protocol::Rlimit { resource: 7, soft: 1024, hard: 1024 }]);
    assert!(process.no_new_privileges);
}

#[test]
fn what_docker_writes() {
    let plan = plan(include_str!("../../testdata/docker.json"));
    assert_eq!(plan.warnings.len(), 1, "{:?}", plan.warnings);
    assert_eq!(
        plan.needs,
        Needs { memory: Some(512 << 20), millicpus: Some(1500), numbered: None }
    );
    let expected = [
        "memory.swap.max=536870912",
        "memory.max=536870912",
        "memory.low=268435456",
        "cpu.weight=59",
        "cpu.max=150000 100000",
        "pids.max=100",
    ];
    assert_eq!(settings(&plan), expected);
    let container = &plan.container;
    let files: Vec<_> = container.mounts.iter().filter(|m| m.kind() == MountKind::File).collect();
    assert_eq!(files.len(), 2);
    assert_eq!(files[0].destination, b"/etc/resolv.conf");
    assert_eq!(files[0].propagation, libc::MS_PRIVATE | libc::MS_REC);
    let process = container.process.as_ref().unwrap();
    assert_eq!((process.uid, process.gid, process.umask), (1000, 1000, Some(0o22)));
    assert_eq!(process.additional_gids, [4, 27]);
    assert_eq!(process.seccomp.len(), 1);
    assert_eq!(container.sysctls.len(), 2);
    assert!(plan.container.rootfs.as_ref().is_some_and(|rootfs| !rootfs.readonly));
}

#[test]
fn what_podman_writes() {
    let plan = plan(include_str!("../../testdata/podman.json"));
    // The last of them has number 3 in the machine, too.
    assert_eq!(plan.needs, Needs { memory: None, millicpus: Some(3000), numbered: Some(4) });
    let container = &plan.container;
    assert_eq!(settings(&plan), ["cpuset.cpus=0-1,3", "pids.max=2048", "memory.high=100000000"]);
    assert!(kinds(&plan).contains(&NamespaceKind::User));
    assert_eq!(container.uid_map[0], protocol::IdMap { container: 0, host: 100_000, size: 65536 });
    let rootfs = container.rootfs.as_ref().unwrap();
    assert_eq!(rootfs.propagation, libc::MS_SLAVE | libc::MS_REC);
    assert!(container.mounts.iter().any(|mount| mount.copy_up));
    assert_eq!(container.devices[0].path, b"/dev/fuse");
    let names: Vec<&str> = container.sysctls.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["kernel.shmmax", "net.ipv4.ip_forward"]);
    let process = container.process.as_ref().unwrap();
    let terminal = process.terminal.clone().unwrap();
    assert_eq!((terminal.rows, terminal.columns), (40, 120));
    assert_eq!(process.personality, Some(8));
    assert_eq!(process.oom_score_adj, Some(100));
    assert_eq!(process.io_priority, Some(protocol::IoPriority { class: 2, level: 4 }));
    let scheduler = process.scheduler.clone().unwrap();
    assert_eq!((scheduler.policy, scheduler.nice), (3, 5));
    assert_eq!(process.rlimits[1].hard, u64::MAX);
    assert_eq!(plan.hooks.poststop.len(), 1);
    assert_eq!(plan.annotations["io.cofferdam.vcpus"], "2");
}

#[test]
fn everything_at_once() {
    let read = |_: &Path| {
        Ok(HostFile {
            content: b"content".into(),
            mode: 0o644,
            of_root: true,
            memory: None,
            live: Live::Cannot("it is a test".into()),
        })
    };
    let bundle = bundle(include_str!("../../testdata/everything.json"));
    let plan = translate("c1", &bundle, &read, &|_| None).unwrap();
    let container = &plan.container;
    let offsets: Vec<_> =
        container.time_offsets.iter().map(|o| (o.clock.as_str(), o.seconds)).collect();
    assert_eq!(offsets, [("boottime", -3), ("monotonic", 1)]);
    assert_eq!(container.create_hooks.as_ref().unwrap().hooks[0].timeout, 3);
    assert_eq!(container.start_hooks.as_ref().unwrap().hooks[0].env, [b"X=y".to_vec()]);
    assert_eq!((plan.hooks.create.len(), plan.hooks.poststop.len()), (1, 1));
    assert_eq!(container.mounts[1].destination, b"/tmp");
    assert_eq!(container.mounts[2].uid_map[0].host, 5);
    assert_eq!(container.rootfs.as_ref().unwrap().propagation, libc::MS_UNBINDABLE | libc::MS_REC);
    let process = container.process.as_ref().unwrap();
    assert_eq!(process.affinity.as_ref().unwrap().initial, [0, 1, 3]);
    assert_eq!(process.scheduler.as_ref().unwrap().flags, 4);
    assert!(settings(&plan).contains(&"cpuset.cpus=0-1".to_owned()));
    // Each of these has no meaning in the guest, and none is told twice.
    let mut told: Vec<&str> =
        plan.warnings.iter().filter_map(|w| w.split([' ', ':']).next()).collect();
    told.sort_unstable();
    assert_eq!(
        told,
        [
            "linux.mountLabel",
            "linux.personality.flags",
            "linux.resources.cpu.realtimeRuntime",
            "linux.resources.memory.swappiness",
            "linux.resources.network",
            "linux.resources.rdma",
            "mounts[1].destination",
            "process.apparmorProfile",
            "process.selinuxLabel",
        ]
    );
}

#[test]
fn a_container_plan_fits_into_a_frame() {
    let container = plan(include_str!("../../testdata/docker.json")).container;
    let create = protocol::request::Body::Create(Box::new(container));
    let request = protocol::Request { id: 1, body: Some(create) };
    let body = Some(protocol::host_frame::Body::Request(request));
    protocol::encode(&protocol::HostFrame { body }).unwrap();
}

#[test]
fn a_deadline_and_a_set_of_cpus_exclude_each_other() {
    let message = refused(|spec| {
        spec["process"]["scheduler"] =
            json!({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3});
        spec["linux"]["resources"]["cpu"] = json!({"cpus": "0"});
    });
    assert!(message.contains("can't be used together with AllowedCPUs"), "{message}");
}

#[test]
fn what_cannot_be_done_is_refused_by_field() {
    let cases: [(&str, &str, serde_json::Value); 13] = [
        ("/process/args", "process.args", json!([])),
        ("/process/args", "process.args", json!(["a\u{0}b"])),
        ("/process/cwd", "process.cwd", json!("relative")),
        ("/process/oomScoreAdj", "process.oomScoreAdj", json!(2000)),
        (
            "/process/rlimits",
            "soft 2 over hard 1",
            json!([{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]),
        ),
        ("/hostname", "hostname", json!("x".repeat(65))),
        (
            "/linux/namespaces",
            "/proc/7/ns/net",
            json!([{"type": "uts"}, {"type": "network", "path": "/proc/7/ns/net"}]),
        ),
        ("/linux/namespaces", "listed twice", json!([{"type": "uts"}, {"type": "uts"}])),
        ("/linux/namespaces", "uts namespace", json!([{"type": "pid"}])),
        ("/linux/sysctl", "kernel.panic", json!({"kernel.panic": "1"})),
        ("/linux/sysctl", "what the field hostname sets", json!({"kernel.hostname": "x"})),
        ("/linux/rootfsPropagation", "linux.rootfsPropagation", json!("sideways")),
        ("/linux/timeOffsets", "linux.timeOffsets", json!({"boottime": {"secs": 1}})),
    ];
    for (pointer, expected, value) in cases {
        let message = refused(|spec| {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            spec.pointer_mut(parent).unwrap()[key] = value;
        });
        assert!(message.contains(expected), "{pointer}: {message}");
    }
}

#[test]
fn sysctls_need_their_namespace() {
    let message = refused(|spec| {
        spec["linux"]["namespaces"] = serde_json::json!([{"type": "uts"}, {"type": "pid"}]);
        spec["linux"]["sysctl"] = serde_json::json!({"net.ipv4.ip_forward": "1"});
    });
    assert!(message.contains("network namespace"), "{message}");
}

#[test]
fn id_maps_without_a_user_namespace_mean_nothing_and_are_told() {
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    let with = |user: bool| {
        let plan = changed(|spec| {
            spec["linux"]["uidMappings"] = map.clone();
            spec["linux"]["gidMappings"] = map.clone();
            if user {
                spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
            }
        });
        let maps = (plan.container.uid_map.len(), plan.container.gid_map.len());
        (maps, plan.warnings.iter().filter(|warning| warning.contains("Mappings")).count())
    };
    assert_eq!(with(false), ((0, 0), 2));
    assert_eq!(with(true), ((1, 1), 0));
}

#[test]
fn a_control_group_is_the_user_s_where_it_can_be_written_in_a_namespace_of_its_own() {
    let delegated = |namespace: bool, options: serde_json::Value| {
        let plan = changed(|spec| {
            let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
            namespaces.retain(|listed| listed["type"] != "cgroup");
            if namespace {
                namespaces.push(json!({"type": "cgroup"}));
            }
            let mounts = spec["mounts"].as_array_mut().unwrap();
            mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
            mounts.push(
                json!({"destination": "/sys/fs/cgroup/", "type": "cgroup", "source": "cgroup",
                "options": options}),
            );
        });
        plan.container.cgroup.unwrap().delegated
    };
    assert!(delegated(true, json!(["rw", "nosuid"])));
    assert!(!delegated(true, json!(["ro"])));
    assert!(!delegated(false, json!([])));
    assert!(!changed(|_| {}).container.cgroup.unwrap().delegated);
}
