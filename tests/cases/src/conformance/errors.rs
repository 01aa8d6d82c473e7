//! Configurations and command lines that are wrong: each is refused with a word about why, and leaves nothing.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::runtime::{Runtime, plain};
use super::{Alone, Clause, Edit, Group, alone};

/// Groups of this topic.
pub(super) const GROUPS: &[Group] =
    &[Group::Alone("errors", CONFIGURATION), Group::Alone("errors", COMMAND_LINE)];

/// `run` with this configuration fails with these words.
macro_rules! refused {
    ($name:literal, $source:literal, $words:literal, $edit:expr) => {
        alone($name, $source, |runtime| refused(runtime, $edit, $words))
    };
}

const CONFIGURATION: &[Clause<Alone>] = &[
    refused!("args_are_missing", "config: process.args", "args", |c| c["process"]["args"] =
        json!([])),
    refused!("process_is_missing", "config: process", "process", |c| remove(c, "process")),
    refused!("root_is_missing", "config: root", "root", |c| remove(c, "root")),
    refused!("cwd_is_missing", "config: process.cwd", "", |c| c["process"]["cwd"] = "".into()),
    refused!("cwd_is_relative", "config: process.cwd", "absolute path", |c| {
        c["process"]["cwd"] = "usr".into();
    }),
    refused!("an_unknown_rlimit", "config: process.rlimits", "RLIMIT_NOSUCH", |c| {
        c["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOSUCH", "soft": 1, "hard": 1 }]);
    }),
    refused!("a_soft_limit_over_the_hard_one", "config: process.rlimits", "", |c| {
        c["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 20, "hard": 10 }]);
    }),
    refused!("a_type_of_value_that_is_wrong", "config: json", "", |c| {
        c["process"]["user"]["uid"] = "root".into();
    }),
    refused!("a_negative_uid", "config: process.user.uid", "", |c| c["process"]["user"]["uid"] =
        json!(-1)),
    refused!("an_unknown_propagation", "config-linux: rootfsPropagation", "", |c| {
        c["linux"]["rootfsPropagation"] = "nosuch".into();
    }),
    refused!("an_unknown_file_system", "config: mounts.type", "", |c| {
        super::mounts::add(c, json!({ "destination": "/m", "type": "nosuchfs", "source": "x" }));
    }),
    refused!("a_bind_mount_of_nothing", "config: mounts.source", "/no/such/file", |c| {
        super::mounts::add(
            c,
            json!({
                "destination": "/m", "type": "bind", "source": "/no/such/file", "options": ["bind"],
            }),
        );
    }),
    refused!("a_bad_option_of_a_file_system", "config: mounts.options", "", |c| {
        super::mounts::add(
            c,
            json!({
                "destination": "/m", "type": "tmpfs", "source": "tmpfs", "options": ["nosuchoption=1"],
            }),
        );
    }),
    refused!("a_mount_over_the_root", "config: mounts.destination", "", |c| {
        super::mounts::add(
            c,
            json!({ "destination": "/proc", "type": "tmpfs", "source": "tmpfs" }),
        );
    }),
    refused!("an_unknown_device_type", "config-linux: devices", "", |c| {
        c["linux"]["devices"] = json!([{ "path": "/dev/x", "type": "z", "major": 1, "minor": 3 }]);
    }),
    refused!("a_sysctl_that_is_not_there", "config-linux: sysctl", "", |c| {
        c["linux"]["sysctl"] = json!({ "net.ipv4.no_such": "1" });
    }),
    refused!("a_sysctl_with_a_bad_value", "config-linux: sysctl", "", |c| {
        c["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "no number" });
    }),
    refused!("an_id_mapping_of_nothing", "config-linux: uidMappings", "", |c| {
        if let Some(all) = c["linux"]["namespaces"].as_array_mut() {
            all.push(json!({ "type": "user" }));
        }
    }),
    alone("intel_rdt_without_the_hardware", "config-linux: intelRdt", |runtime| {
        let edit: Edit = |c| {
            c["linux"]["intelRdt"] = json!({ "closID": "group", "l3CacheSchema": "L3:0=ffff" });
        };
        if runtime.ours() {
            let outcome = runtime.run("echo it ran", edit)?.exits(0)?.prints("it ran")?;
            return outcome.complains("linux.intelRdt").map(drop);
        }
        refused(runtime, edit, "")
    })
    .differs("the machine has no such hardware: ignored with a warning"),
];

fn remove(config: &mut Value, field: &str) {
    if let Some(config) = config.as_object_mut() {
        config.remove(field);
    }
}

fn refused(runtime: &Runtime, edit: Edit, words: &str) -> Result<()> {
    let outcome = runtime.run("echo it ran", edit)?;
    ensure!(outcome.code != 0 && !outcome.text().contains("it ran"), "{outcome}");
    ensure!(!outcome.stderr.trim().is_empty(), "no word about why");
    let outcome = outcome.complains(words)?;
    let left = runtime.call(&["list", "-q"])?.exits(0)?;
    ensure!(left.text().trim().is_empty(), "left behind: {left}, after {outcome}");
    Ok(())
}

const COMMAND_LINE: &[Clause<Alone>] = &[
    alone("no_id", "runc create", |runtime| {
        for command in
            ["create", "run", "start", "state", "kill", "delete", "pause", "resume", "ps", "events"]
        {
            let outcome = runtime.call(&[command])?;
            ensure!(outcome.code != 0, "{command}: {outcome}");
        }
        Ok(())
    }),
    alone("bad_ids", "runc create: id", |runtime| {
        let bundle = runtime.bundle("true", plain)?;
        for id in ["", "a/b", "../up", ".", "..", "sp ace", "st*r", "new\nline"] {
            let outcome = runtime.call(&["create", "--bundle", &bundle.path(), id])?;
            ensure!(outcome.code != 0, "{id:?}: {outcome}");
        }
        Ok(())
    }),
    alone("every_character_of_an_id", "runc create: id", |runtime| {
        let bundle = runtime.bundle("echo here", plain)?;
        let id = format!("A.b_c-d+{}", runtime.id());
        runtime.call(&["run", "--bundle", &bundle.path(), &id])?.exits(0)?.prints("here").map(drop)
    }),
    alone("too_many_arguments", "runc start", |runtime| {
        let outcome = runtime.call(&["start", "a", "b"])?;
        ensure!(outcome.code != 0, "{outcome}");
        Ok(())
    }),
    alone("no_bundle", "runc create --bundle", |runtime| {
        let outcome = runtime.call(&["create", "--bundle", "/no/such/bundle", &runtime.id()])?;
        ensure!(outcome.code != 0, "{outcome}");
        outcome.complains("o such file or directory").map(drop)
    }),
    alone("no_config", "bundle: config.json", |runtime| {
        let directory = runtime.file("empty");
        std::fs::create_dir(&directory)?;
        let path = directory.display().to_string();
        let outcome = runtime.call(&["create", "--bundle", &path, &runtime.id()])?;
        ensure!(outcome.code != 0, "{outcome}");
        outcome.complains("config.json").map(drop)
    }),
    alone("config_is_not_json", "config: json", |runtime| {
        let directory = runtime.file("bad");
        std::fs::create_dir(&directory)?;
        std::fs::write(directory.join("config.json"), "{ \"process\": ")?;
        let path = directory.display().to_string();
        let outcome = runtime.call(&["create", "--bundle", &path, &runtime.id()])?;
        ensure!(outcome.code != 0 && !outcome.stderr.trim().is_empty(), "{outcome}");
        Ok(())
    }),
    alone("pid_file_that_cannot_be_written", "runc create --pid-file", |runtime| {
        let bundle = runtime.bundle("true", plain)?;
        let id = runtime.id();
        let arguments =
            ["create", "--bundle", &bundle.path(), "--pid-file", "/no/such/dir/pid", &id];
        let outcome = runtime.call(&arguments)?;
        ensure!(outcome.code != 0, "{outcome}");
        let left = runtime.call(&["list", "-q"])?.exits(0)?;
        ensure!(left.text().trim().is_empty(), "left behind: {left}");
        Ok(())
    }),
    alone("console_socket_without_a_terminal", "runc create --console-socket", |runtime| {
        let bundle = runtime.bundle("true", plain)?;
        let outcome = runtime.call(&[
            "create",
            "--console-socket",
            "/no/such/socket",
            "--bundle",
            &bundle.path(),
            &runtime.id(),
        ])?;
        ensure!(outcome.code != 0, "{outcome}");
        Ok(())
    }),
];
