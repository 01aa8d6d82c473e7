//! Machine and container of a plan.

use cofferdam_vmm_api::MiB;

use super::*;
use crate::oci::default_spec;
use crate::units::Bytes;

fn plan(flags: Overrides) -> RunPlan {
    let spec = default_spec().unwrap();
    let bundle =
        Bundle { directory: "/b".into(), rootfs: "/b/rootfs".into(), spec, warnings: vec![] };
    RunPlan::new((Path::new("/none"), "c"), &bundle, Overrides::default(), flags).unwrap()
}

#[test]
fn the_machine_names_each_descriptor_once() {
    for scratch in [Scratch::Tmpfs, Scratch::Disk(Bytes(1 << 30))] {
        for console in [true, false] {
            let flags =
                Overrides { scratch: Some(scratch), console: Some(console), ..Default::default() };
            let plan = plan(flags);
            let machine = plan.machine(false, 0);
            let count = 4 + usize::from(scratch != Scratch::Tmpfs) + usize::from(console);
            machine.check(count).unwrap();
            assert_eq!(
                machine.vsock.unwrap().connections,
                FdSlot(u16::try_from(count).unwrap() - 1)
            );
            assert_eq!(machine.boot.cmdline.contains("ttyS0"), console);
        }
    }
}

#[test]
fn the_container_gets_the_disks_addresses() {
    let placed = |scratch| Placed { layer: Some(Bdf(24)), scratch, given: Vec::new() };
    let on = plan(Overrides::default()).container_on(&placed(Some(Bdf(32)))).unwrap();
    let rootfs = on.rootfs.unwrap();
    assert_eq!(rootfs.layers, [24]);
    assert_eq!(rootfs.upper, Some(Upper::Disk(upper::Disk { address: 32 })));
    let flags = Overrides { scratch: Some(Scratch::Tmpfs), ..Default::default() };
    let on = plan(flags).container_on(&placed(None)).unwrap();
    assert!(matches!(on.rootfs.unwrap().upper, Some(Upper::Tmpfs(_))));
}

#[test]
fn each_disk_of_the_host_has_a_queue() {
    let plan = plan(Overrides::default());
    assert_eq!(plan.machine(false, 3).spare_queues, SPARE_QUEUES + 3);
}

#[test]
fn what_podman_starts_a_pod_with_has_places_for_others() {
    let mut spec = serde_json::to_value(default_spec().unwrap()).unwrap();
    let mut places = |args: serde_json::Value| {
        spec["process"]["args"] = args;
        let spec = serde_json::from_value(spec.clone()).unwrap();
        let (directory, rootfs) = ("/b".into(), "/b/rootfs".into());
        let bundle = Bundle { directory, rootfs, spec, warnings: vec![] };
        let (none, other) = Default::default();
        RunPlan::new((Path::new("/none"), "c"), &bundle, none, other).unwrap().places()
    };
    assert_eq!(places(serde_json::json!(["/catatonit", "-P"])), SANDBOX_SPARE_QUEUES);
    assert_eq!(places(serde_json::json!(["/pause"])), SANDBOX_SPARE_QUEUES);
    // The same program, as the first process of a container (`--init`).
    assert_eq!(places(serde_json::json!(["/dev/init/catatonit", "--", "sh"])), SPARE_QUEUES);
}

#[test]
fn a_sandbox_has_room_to_grow() {
    let bundle = annotated(serde_json::json!({
        "io.kubernetes.cri.container-type": "sandbox",
        "io.kubernetes.cri.sandbox-id": "s",
        "io.kubernetes.cri.sandbox-memory": "134217728",
        "io.cofferdam.max_vcpus": "5",
        "io.cofferdam.max_memory": "2G",
    }));
    let (none, other) = Default::default();
    let plan = RunPlan::new((Path::new("/none"), "s"), &bundle, none, other).unwrap();
    let machine = plan.machine(false, 0);
    assert_eq!((machine.vcpus, machine.max_vcpus), (1, Some(5)));
    assert_eq!((machine.memory, machine.max_memory), (MiB(256 + 130), Some(MiB(2048))));
    assert_eq!(plan.room.base.memory, MiB(256));
    machine.check(6).unwrap();
}

#[test]
fn a_terminal_has_no_other_streams() {
    let container = plan(Overrides::default()).container;
    let process = container.process.unwrap();
    assert!(process.terminal.is_some() && process.stdio.is_none());
}

/// A bundle with these annotations.
fn annotated(annotations: serde_json::Value) -> Bundle {
    let mut spec = serde_json::to_value(default_spec().unwrap()).unwrap();
    spec["annotations"] = annotations;
    let spec = serde_json::from_value(spec).unwrap();
    Bundle { directory: "/b".into(), rootfs: "/b/rootfs".into(), spec, warnings: vec![] }
}

#[test]
fn annotations_tell_the_pod() {
    let root = tempfile::tempdir().unwrap();
    let plan = |id: &str, bundle: &Bundle| {
        RunPlan::new((root.path(), id), bundle, Overrides::default(), Overrides::default())
    };
    for (kind, sandbox) in SANDBOX_ANNOTATIONS {
        let bundle = annotated(serde_json::json!({ kind: "sandbox", sandbox: "s" }));
        let made = plan("s", &bundle).unwrap();
        assert!(matches!(made.pod, PodKind::Sandbox));
        assert_eq!(made.machine(false, 0).spare_queues, SANDBOX_SPARE_QUEUES);
        let bundle = annotated(serde_json::json!({ kind: "container", sandbox: "s" }));
        let error = plan("c", &bundle).unwrap_err().to_string();
        assert_eq!(error, format!("annotation {sandbox}: the sandbox s does not run"));
    }
    let alone = plan("c", &annotated(serde_json::json!({}))).unwrap();
    assert!(matches!(alone.pod, PodKind::Own));
    let machine = alone.machine(false, 0);
    assert_eq!((machine.max_vcpus, machine.max_memory), (None, None), "it stays as it is");
}

#[test]
fn a_sandbox_that_pauses_runs_nothing() {
    let sandbox = |args: serde_json::Value, more: serde_json::Value| {
        let mut spec = serde_json::to_value(default_spec().unwrap()).unwrap();
        spec["annotations"] = serde_json::json!({ "io.kubernetes.cri.container-type": "sandbox" });
        spec["process"]["args"] = args;
        spec["linux"]["sysctl"] = serde_json::json!({ "net.ipv4.ip_forward": "1" });
        spec["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .extend(more.as_array().unwrap().iter().cloned());
        spec["linux"]["uidMappings"] =
            serde_json::json!([{ "containerID": 0, "hostID": 1, "size": 9 }]);
        spec["linux"]["gidMappings"] = spec["linux"]["uidMappings"].clone();
        let spec = serde_json::from_value(spec).unwrap();
        let (directory, rootfs) = ("/b".into(), "/b/rootfs".into());
        let bundle = Bundle { directory, rootfs, spec, warnings: vec![] };
        let (none, other) = Default::default();
        let mut plan = RunPlan::new((Path::new("/none"), "s"), &bundle, none, other).unwrap();
        let with = plan.machine(false, 0).disks.len();
        plan.vacate();
        let machine = plan.machine(false, 0);
        assert_eq!(machine.disks.len(), with - usize::from(plan.vacant));
        machine.check(6 - usize::from(plan.vacant)).unwrap();
        assert_eq!(plan.pod_sysctls().is_empty(), !plan.vacant);
        plan.vacant
    };
    let none = || serde_json::json!([]);
    assert!(sandbox(serde_json::json!(["/pause"]), none()));
    assert!(!sandbox(serde_json::json!(["/bin/own-init"]), none()));
    // Its user namespace is there to be joined.
    assert!(!sandbox(serde_json::json!(["/pause"]), serde_json::json!([{ "type": "user" }])));
    let mut alone = plan(Overrides::default());
    alone.container.process.as_mut().unwrap().args = vec![b"/pause".to_vec()];
    alone.vacate();
    assert!(!alone.vacant, "a container of its own");
}
