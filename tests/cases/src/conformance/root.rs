//! `root`: the root file system, whether it can be written to, and to whom it tells of mounts.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::runtime::{Runtime, plain};
use super::{Alone, Clause, Group, Script, alone, prints};
use crate::run::ROOTFS;

/// Groups of this topic.
pub(super) const GROUPS: &[Group] = &[
    Group::Inside("root", read_only, READ_ONLY),
    Group::Inside("root", |config| propagation(config, "private"), PRIVATE),
    Group::Inside("root", |config| propagation(config, "shared"), SHARED),
    Group::Inside("root", |config| propagation(config, "unbindable"), UNBINDABLE),
    Group::Alone("root", ALONE),
];

fn read_only(config: &mut Value) {
    config["root"]["readonly"] = true.into();
    let mount = json!({ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" });
    super::mounts::add(config, mount);
}

const READ_ONLY: &[Clause<Script>] = &[
    prints("readonly", "config: root.readonly", "touch /x 2>/dev/null || echo refused", "refused"),
    prints(
        "readonly_is_shown",
        "config: root.readonly",
        "findmnt -no VFS-OPTIONS / | cut -d , -f 1",
        "ro",
    ),
    prints("readonly_leaves_mounts_alone", "config: root.readonly", "touch /tmp/x && ls /tmp", "x"),
    prints(
        "readonly_leaves_dev_alone",
        "config: root.readonly",
        "echo x > /dev/shm/x && echo x > /dev/null && cat /dev/shm/x",
        "x",
    ),
];

fn propagation(config: &mut Value, kind: &str) {
    config["linux"]["rootfsPropagation"] = kind.into();
}

const PRIVATE: &[Clause<Script>] = &[prints(
    "propagation_private",
    "config-linux: rootfsPropagation",
    "findmnt -no PROPAGATION /",
    "private",
)];

const SHARED: &[Clause<Script>] = &[prints(
    "propagation_shared",
    "config-linux: rootfsPropagation",
    "findmnt -no PROPAGATION /",
    "shared",
)];

const UNBINDABLE: &[Clause<Script>] = &[prints(
    "propagation_unbindable",
    "config-linux: rootfsPropagation",
    "findmnt -no PROPAGATION /",
    "private,unbindable",
)];

const ALONE: &[Clause<Alone>] = &[
    alone("path_is_absolute", "config: root.path", path_is_absolute),
    alone("path_must_be_there", "config: root.path", path_must_be_there),
    alone("writes_are_the_containers", "config: root", writes_are_the_containers),
];

fn path_is_absolute(runtime: &Runtime) -> Result<()> {
    fn edit(config: &mut Value) {
        config["root"] = json!({ "path": ROOTFS, "readonly": true });
        // No mount point can be made: these are there.
        config["mounts"] = json!([
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
        ]);
    }
    runtime
        .run("test -d /proc/1 && ls /etc/hostname", edit)?
        .exits(0)?
        .prints("/etc/hostname")
        .map(drop)
}

fn path_must_be_there(runtime: &Runtime) -> Result<()> {
    let outcome = runtime.run("true", |config| config["root"]["path"] = "/no/such/root".into())?;
    ensure!(outcome.code != 0, "{outcome}");
    outcome.complains("/no/such/root").map(drop)
}

fn writes_are_the_containers(runtime: &Runtime) -> Result<()> {
    runtime.run("echo x > /new; rm /etc/passwd; ls /new", plain)?.exits(0)?.prints("/new")?;
    runtime.run("ls /new /etc/passwd 2>/dev/null", plain)?.prints("/etc/passwd").map(drop)
}
