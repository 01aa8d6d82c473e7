//! `linux.resources` and `linux.cgroupsPath`, as the files of cgroup v2 show them.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::runtime::Runtime;
use super::{Alone, Clause, Group, Script, alone, prints};

/// Groups of this topic.
pub(super) const GROUPS: &[Group] = &[
    Group::Inside("cgroups", resources, RESOURCES),
    Group::Inside("cgroups", unified, UNIFIED),
    Group::Alone("cgroups", ALONE),
];

/// A file of the container's group.
macro_rules! file {
    ($name:literal, $source:literal, $file:literal, $text:literal) => {
        prints(
            $name,
            concat!("config-linux: ", $source),
            concat!("cat /sys/fs/cgroup/", $file),
            $text,
        )
    };
}

fn resources(config: &mut Value) {
    let resources = &mut config["linux"]["resources"];
    resources["memory"] = json!({ "limit": 128 << 20, "reservation": 64 << 20, "swap": 192 << 20, "checkBeforeUpdate": true });
    resources["cpu"] = json!({
        "shares": 512, "quota": 50000, "period": 200_000, "burst": 10000, "cpus": "0", "mems": "0",
    });
    resources["pids"] = json!({ "limit": 123 });
    resources["hugepageLimits"] = json!([{ "pageSize": "2MB", "limit": 4 << 20 }]);
    config["process"]["oomScoreAdj"] = 100.into();
}

const RESOURCES: &[Clause<Script>] = &[
    file!("memory_limit", "resources.memory.limit", "memory.max", "134217728"),
    file!("memory_reservation", "resources.memory.reservation", "memory.low", "67108864"),
    file!("memory_swap", "resources.memory.swap", "memory.swap.max", "67108864"),
    prints(
        "cpu_shares",
        "config-linux: resources.cpu.shares",
        // Since 1.3.2, runc has another conversion.
        "grep -cx -e 20 -e 59 /sys/fs/cgroup/cpu.weight",
        "1",
    ),
    file!("cpu_quota_and_period", "resources.cpu.quota", "cpu.max", "50000 200000"),
    file!("cpu_burst", "resources.cpu.burst", "cpu.max.burst", "10000").since("1.2"),
    file!("cpu_cpus", "resources.cpu.cpus", "cpuset.cpus", "0"),
    file!("cpu_mems", "resources.cpu.mems", "cpuset.mems", "0")
        .ours("", "the machine has one memory node"),
    file!("pids_limit", "resources.pids.limit", "pids.max", "123"),
    file!("hugepage_limit", "resources.hugepageLimits", "hugetlb.2MB.max", "4194304"),
    prints(
        "process_is_in_its_group",
        "config-linux: cgroupsPath",
        "grep -cx 1 /sys/fs/cgroup/cgroup.procs",
        "1",
    ),
];

fn unified(config: &mut Value) {
    config["linux"]["resources"]["unified"] = json!({
        "memory.high": "104857600", "pids.max": "77", "cpu.weight": "33",
    });
    config["linux"]["resources"]["memory"] = json!({ "limit": -1, "swap": -1 });
    config["linux"]["resources"]["pids"] = json!({ "limit": 55 });
    config["linux"]["resources"]["cpu"] = json!({ "idle": 0 });
}

const UNIFIED: &[Clause<Script>] = &[
    file!("unified_memory_high", "resources.unified", "memory.high", "104857600"),
    file!("unified_cpu_weight", "resources.unified", "cpu.weight", "33"),
    file!("unified_wins", "resources.unified", "pids.max", "77"),
    file!("memory_without_limit", "resources.memory.limit", "memory.max", "max"),
];

const ALONE: &[Clause<Alone>] = &[
    alone("memory_limit_kills", "config-linux: resources.memory.limit", |runtime| {
        let script = "exec python3 -c 'x = []\nwhile True: x.append(bytearray(1 << 20))'";
        let edit: super::Edit = |config| {
            config["linux"]["resources"]["memory"] = json!({ "limit": 48 << 20, "swap": 48 << 20 });
        };
        runtime.run(script, edit)?.exits(137).map(drop)
    }),
    alone("pids_limit_holds", "config-linux: resources.pids.limit", |runtime| {
        let script = "i=0; while [ $i -lt 30 ]; do sleep 100 & i=$((i+1)); done; echo unlimited";
        let edit: super::Edit =
            |config| config["linux"]["resources"]["pids"] = json!({ "limit": 10 });
        let outcome = runtime.run(script, edit)?.complains("fork")?;
        ensure!(!outcome.text().contains("unlimited"), "{outcome}");
        Ok(())
    }),
    alone(
        "oom_killer_cannot_be_disabled_in_v2",
        "config-linux: resources.memory.disableOOMKiller",
        |runtime| {
            let edit: super::Edit = |config| {
                config["linux"]["resources"]["memory"] =
                    json!({ "limit": 128 << 20, "disableOOMKiller": false });
            };
            runtime.run("echo ran", edit)?.exits(0)?.prints("ran").map(drop)
        },
    ),
    alone("an_unknown_file_in_unified_is_refused", "config-linux: resources.unified", |runtime| {
        refused(runtime, |config| {
            config["linux"]["resources"]["unified"] = json!({ "memory.nosuch": "1" });
        })
    }),
    alone("a_bad_value_in_unified_is_refused", "config-linux: resources.unified", |runtime| {
        refused(runtime, |config| {
            config["linux"]["resources"]["unified"] = json!({ "pids.max": "many" });
        })
    }),
    alone("a_cpuset_that_the_host_lacks", "config-linux: resources.cpu.cpus", |runtime| {
        let edit: super::Edit =
            |config| config["linux"]["resources"]["cpu"] = json!({ "cpus": "500" });
        if runtime.ours() {
            let script = "cat /sys/fs/cgroup/cpuset.cpus";
            return runtime.run(script, edit)?.exits(0)?.prints("0").map(drop);
        }
        refused(runtime, edit)
    })
    .differs("a set was written for the host's CPUs: of the machine's, only as many are taken"),
    alone("rdma_and_network_are_accepted", "config-linux: resources.rdma, network", |runtime| {
        let edit: super::Edit = |config| {
            config["linux"]["resources"]["network"] = json!({ "classID": 1, "priorities": [] });
        };
        runtime.run("echo ran", edit)?.exits(0)?.prints("ran").map(drop)
    }),
    alone("cgroups_path_is_accepted", "config-linux: cgroupsPath", |runtime| {
        let edit: super::Edit =
            |config| config["linux"]["cgroupsPath"] = "/conformance/group".into();
        let outcome = runtime.run("cat /proc/self/cgroup", edit)?.exits(0)?.prints("0::/");
        // runc leaves the parents that it made.
        let _ = std::fs::remove_dir("/sys/fs/cgroup/conformance");
        outcome.map(drop)
    }),
];

fn refused(runtime: &Runtime, edit: super::Edit) -> Result<()> {
    let outcome = runtime.run("echo it ran", edit)?;
    ensure!(outcome.code != 0 && !outcome.text().contains("it ran"), "{outcome}");
    Ok(())
}
