//! What only a guest has: its own kernel, disks, and all controllers of its control groups.

use super::host::*;
use cofferdam_agent_protocol::*;

fn set(file: &str, value: &str) -> CgroupSetting {
    CgroupSetting { file: file.into(), value: value.into() }
}

fn limited(args: &[&str], settings: Vec<CgroupSetting>) -> ContainerPlan {
    let mut plan = container("c", args);
    plan.cgroup = Some(CgroupPlan { settings, ..CgroupPlan::default() });
    plan
}

#[test]
fn limits_of_the_control_group() {
    if !in_guest() {
        return;
    }
    let mut host = Host::new();
    let settings = vec![
        set("memory.max", "67108864"),
        set("pids.max", "7"),
        set("cpu.max", "50000 100000"),
        set("cpu.weight", "50"),
    ];
    let script = "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max cpu.weight; \
        echo max > pids.max || cat pids.max";
    let outcome = host.run(limited(&["sh", "-c", script], settings));
    // Limits of the root of a namespace belong to the outside (nsdelegate).
    assert_eq!(outcome.stdout, "67108864\n7\n50000 100000\n50\n7\n");
}

#[test]
fn lack_of_memory_is_told() {
    if !in_guest() {
        return;
    }
    let mut host = Host::new();
    let settings = vec![set("memory.max", "16777216"), set("memory.swap.max", "0")];
    // It keeps the last lines in memory, and there is only one.
    let mut plan = limited(&["tail", "/dev/zero"], settings);
    plan.process.as_mut().unwrap().stdio = None;
    host.create(plan);
    host.start("c");
    let event::Body::OutOfMemory(of) = host.event() else { panic!("no lack of memory") };
    assert_eq!(of.container, "c");
    assert_eq!(host.ended("c", ""), (0, 9));
    let of = request::Container { container: "c".into() };
    let response::Body::Stats(stats) = host.request(request::Body::Stats(of)) else { panic!() };
    let events = stats.files.iter().find(|file| file.file == "memory.events").unwrap();
    assert!(events.value.contains("oom_kill 1"), "{}", events.value);
    host.delete("c", false);
}

#[test]
fn writes_go_to_a_scratch_disk() {
    if !in_guest() {
        return;
    }
    let mut host = Host::new();
    for _ in 0..2 {
        let script = "test ! -e /big && head -c 30000000 /dev/zero > /big && stat -c %s /big; \
            grep ' / ' /proc/self/mounts";
        let mut plan = container("c", &["sh", "-c", script]);
        let address = 0x20;
        plan.rootfs.as_mut().unwrap().upper = Some(Upper::Disk(upper::Disk { address }));
        let text = host.shell_in(plan);
        assert!(text.starts_with("30000000\noverlay"), "{text}");
        assert!(text.contains("run/cofferdam/scratch"), "{text}");
    }
    host.shutdown();
}

#[test]
fn the_guest_is_small_and_complete() {
    if !in_guest() {
        return;
    }
    let mut host = Host::new();
    let text = host.shell("cat /sys/fs/cgroup/cgroup.controllers; ulimit -n; ulimit -Hn");
    for controller in ["cpu", "memory", "io", "pids", "cpuset", "hugetlb"] {
        assert!(text.split_whitespace().any(|word| word == controller), "{controller}: {text}");
    }
    assert!(text.ends_with("\n1024\n1048576\n"), "{text}");
}
