//! `linux.namespaces`: new ones, joined ones, and what depends on them.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::runtime::{Container, Runtime, SANDBOX_ID, SANDBOX_TYPE, plain};
use super::{Alone, Clause, Group, Script, Step, alone, prints, step};

/// Groups of this topic.
pub(super) const GROUPS: &[Group] = &[
    Group::Inside("namespaces", own, OWN),
    Group::Inside("namespaces", user, USER),
    Group::Inside("namespaces", time, TIME),
    Group::With("namespaces", &["run", "--detach"], sandbox, JOINED),
    Group::Alone("namespaces", ALONE),
];

/// A sandbox, with what those that join it can see.
fn sandbox(config: &mut Value) {
    config["hostname"] = "sandbox".into();
    config["annotations"] = json!({ SANDBOX_TYPE: "sandbox" });
    config["linux"]["sysctl"] = json!({ "kernel.msgmax": "54321", "net.ipv4.ip_forward": "1" });
}

fn own(config: &mut Value) {
    config["hostname"] = "own".into();
    super::mounts::add(config, json!({ "destination": "/m", "type": "tmpfs", "source": "tmpfs" }));
}

const OWN: &[Clause<Script>] = &[
    prints(
        "pid",
        "config-linux: namespaces, pid",
        "ps -e -o pid= | sort -n | head -n 1 | tr -d ' '",
        "1",
    ),
    prints(
        "pid_shows_only_its_own",
        "config-linux: namespaces, pid",
        "ps -e -o comm= | grep -c -e sshd -e kthreadd",
        "0",
    ),
    prints("network", "config-linux: namespaces, network", "ls /sys/class/net", "lo"),
    prints(
        "network_loopback_is_there",
        "config-linux: namespaces, network",
        "ip -brief link show lo | cut -d ' ' -f 1",
        "lo",
    ),
    prints("ipc", "config-linux: namespaces, ipc", "ipcs -q | grep -c 0x; ls /dev/mqueue", "0"),
    prints("uts", "config-linux: namespaces, uts", "hostname", "own"),
    prints(
        "mount",
        "config-linux: namespaces, mount",
        "findmnt -no FSTYPE /m; findmnt -no FSTYPE /mnt/share",
        "tmpfs",
    ),
    prints("cgroup", "config-linux: namespaces, cgroup", "cat /proc/self/cgroup", "0::/"),
];

fn user(config: &mut Value) {
    if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
        all.push(json!({ "type": "user" }));
    }
    config["linux"]["uidMappings"] =
        json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    config["linux"]["gidMappings"] =
        json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
}

const USER: &[Clause<Script>] = &[
    prints("user_is_root_inside", "config-linux: namespaces, user", "id -u", "0"),
    prints(
        "uid_mappings",
        "config-linux: uidMappings",
        "tr -s ' ' < /proc/self/uid_map",
        "0 100000 65536",
    ),
    prints(
        "gid_mappings",
        "config-linux: gidMappings",
        "tr -s ' ' < /proc/self/gid_map",
        "0 200000 65536",
    ),
    prints(
        "user_namespace_has_its_mounts",
        "config-linux: namespaces, user",
        "findmnt -no FSTYPE /dev/shm && echo x > /dev/shm/x && stat -c %u /dev/shm/x",
        "tmpfs\n0",
    ),
    prints(
        "user_namespace_has_devices",
        "config-linux: namespaces, user",
        "echo x > /dev/null && head -c 2 /dev/zero | wc -c",
        "2",
    ),
];

fn time(config: &mut Value) {
    if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
        all.push(json!({ "type": "time" }));
    }
    config["linux"]["timeOffsets"] = json!({
        "monotonic": { "secs": 172_800, "nanosecs": 0 }, "boottime": { "secs": 86400, "nanosecs": 0 },
    });
}

const TIME: &[Clause<Script>] = &[
    prints(
        "time_offsets",
        "config-linux: timeOffsets",
        "tr -s ' ' < /proc/self/timens_offsets",
        "monotonic 172800 0\nboottime 86400 0",
    )
    .since("1.2"),
    prints(
        "time_offset_of_boottime",
        "config-linux: timeOffsets",
        "test $(cut -d . -f 1 /proc/uptime) -ge 86400 && echo later",
        "later",
    )
    .since("1.2"),
];

/// With a container that is a sandbox: a second one that joins its namespaces by `/proc/PID/ns`.
const JOINED: &[Clause<Step>] = &[
    step("join_ipc", "config-linux: namespaces.path", |sandbox| {
        joined(sandbox, &["ipc"], "cat /proc/sys/kernel/msgmax", "54321")
    }),
    step("join_uts", "config-linux: namespaces.path", |sandbox| {
        joined(sandbox, &["uts"], "hostname", "sandbox")
    }),
    step("join_network", "config-linux: namespaces.path", |sandbox| {
        joined(sandbox, &["network"], "cat /proc/sys/net/ipv4/ip_forward", "1")
    }),
    step("join_pid", "config-linux: namespaces.path", |sandbox| {
        joined(
            sandbox,
            &["pid"],
            "test $$ != 1 && ps -p 1 -o args= | grep -o 'echo started'",
            "echo started",
        )
    }),
    step("join_nothing", "config-linux: namespaces.path", |sandbox| {
        joined(sandbox, &[], "test $(cat /proc/sys/kernel/msgmax) != 54321 && echo own", "own")
    }),
];

/// A container of the same pod that joins these namespaces of the sandbox prints `text`.
fn joined(sandbox: &Container<'_>, types: &[&str], script: &str, text: &str) -> Result<()> {
    let bundle = sandbox.runtime.bundle(script, plain)?;
    let mut config = bundle.config()?;
    config["annotations"] = json!({ SANDBOX_TYPE: "container", SANDBOX_ID: sandbox.id });
    if types.contains(&"uts")
        && let Some(config) = config.as_object_mut()
    {
        config.remove("hostname");
    }
    for namespace in config["linux"]["namespaces"].as_array_mut().into_iter().flatten() {
        let name = namespace["type"].as_str().unwrap_or_default().to_owned();
        if types.contains(&&*name) {
            let file = if name == "network" { "net" } else { &name };
            namespace["path"] = format!("/proc/{}/ns/{file}", sandbox.pid).into();
        }
    }
    bundle.write(&config)?;
    let runtime = sandbox.runtime;
    let id = runtime.id();
    runtime.call(&["run", "--bundle", &bundle.path(), &id])?.exits(0)?.prints(text).map(drop)
}

const ALONE: &[Clause<Alone>] = &[
    alone("the_same_type_twice_is_refused", "config-linux: namespaces", |runtime| {
        refused(runtime, |config| {
            if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
                all.push(json!({ "type": "pid" }));
            }
        })
    }),
    alone("an_unknown_type_is_refused", "config-linux: namespaces.type", |runtime| {
        refused(runtime, |config| config["linux"]["namespaces"][0]["type"] = "nosuch".into())
    }),
    alone("a_path_that_is_not_there_is_refused", "config-linux: namespaces.path", |runtime| {
        refused(runtime, |config| {
            config["linux"]["namespaces"][0]["path"] = "/no/such/namespace".into();
        })
    }),
    alone("hostname_needs_a_uts_namespace", "config: hostname", |runtime| {
        refused(runtime, |config| without(config, "uts"))
    }),
    alone("ipc_sysctl_needs_an_ipc_namespace", "config-linux: sysctl", |runtime| {
        refused(runtime, |config| {
            without(config, "ipc");
            config["linux"]["sysctl"] = json!({ "kernel.msgmax": "65536" });
        })
    }),
    alone("net_sysctl_needs_a_network_namespace", "config-linux: sysctl", |runtime| {
        refused(runtime, |config| {
            without(config, "network");
            config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
        })
    }),
    alone("a_sysctl_of_the_whole_kernel_is_refused", "config-linux: sysctl", |runtime| {
        refused(runtime, |config| {
            config["linux"]["sysctl"] = json!({ "vm.swappiness": "10" });
        })
    }),
    alone("without_a_pid_namespace", "config-linux: namespaces, pid", |runtime| {
        runtime
            .run("test $$ != 1 && echo shared", |config| without(config, "pid"))?
            .exits(0)?
            .prints("shared")
            .map(drop)
    }),
];

/// Leaves out a namespace.
fn without(config: &mut Value, name: &str) {
    if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
        all.retain(|namespace| namespace["type"] != name);
    }
}

/// `run` with this configuration fails, and says why.
fn refused(runtime: &Runtime, edit: super::Edit) -> Result<()> {
    let outcome = runtime.run("echo it ran", edit)?;
    ensure!(outcome.code != 0 && !outcome.text().contains("it ran"), "{outcome}");
    ensure!(!outcome.stderr.trim().is_empty(), "no word about why: {outcome}");
    Ok(())
}
