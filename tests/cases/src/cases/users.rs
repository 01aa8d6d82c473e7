//! Who the container's process is, and what it may do.

use anyhow::Result;
use serde_json::json;

use super::cases;
use crate::run::Run;

cases!("users":
    user_group_and_supplementary_groups,
    the_umask,
    the_capability_sets,
    ambient_capabilities_survive_a_change_of_user,
    no_new_privileges_stops_setuid_programs,
    home_comes_from_the_password_file,
    a_user_namespace_maps_ids,
    a_seccomp_profile_refuses_a_call,
    seccomp_compares_arguments,
    namespaces_are_its_own,
);

fn user_group_and_supplementary_groups() -> Result<()> {
    Run::bundle("id -u; id -g; id -G", |config| {
        config["process"]["user"] = json!({ "uid": 1234, "gid": 2345, "additionalGids": [50, 60] });
    })?
    .output()?
    .exits(0)?
    .prints("1234\n2345\n2345 50 60")
    .map(drop)
}

fn the_umask() -> Result<()> {
    Run::bundle("umask", |config| config["process"]["user"]["umask"] = json!(0o77))?
        .output()?
        .exits(0)?
        .prints("0077")
        .map(drop)
}

fn the_capability_sets() -> Result<()> {
    let script = "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status | awk '{ print $2 }'";
    Run::bundle(script, |config| {
        config["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_CHROOT"],
            "permitted": ["CAP_CHOWN", "CAP_KILL"],
            "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"],
            "ambient": [],
        });
    })?
    .output()?
    .exits(0)?
    // On execve root would regain what the bounding set holds, but for no_new_privs; the effective set
    // becomes the permitted one.
    .prints(
        "0000000000000020\n0000000000000021\n0000000000000021\n0000000000040021\n0000000000000000",
    )
    .map(drop)
}

fn ambient_capabilities_survive_a_change_of_user() -> Result<()> {
    Run::bundle("grep -E 'Cap(Eff|Amb)' /proc/self/status | awk '{ print $2 }'", |config| {
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        let set = json!(["CAP_NET_BIND_SERVICE"]);
        config["process"]["capabilities"] = json!({
            "bounding": set, "permitted": set, "effective": set, "inheritable": set, "ambient": set,
        });
    })?
    .output()?
    .exits(0)?
    .prints("0000000000000400\n0000000000000400")
    .map(drop)
}

fn no_new_privileges_stops_setuid_programs() -> Result<()> {
    let script = "grep NoNewPrivs /proc/self/status | awk '{ print $2 }'";
    Run::bundle(script, |config| config["process"]["noNewPrivileges"] = true.into())?
        .output()?
        .exits(0)?
        .prints("1")?;
    Run::bundle(script, |config| config["process"]["noNewPrivileges"] = false.into())?
        .output()?
        .exits(0)?
        .prints("0")
        .map(drop)
}

fn home_comes_from_the_password_file() -> Result<()> {
    Run::bundle("echo $HOME", |config| {
        config["process"]["user"] = json!({ "uid": 2, "gid": 2 });
    })?
    .output()?
    .exits(0)?
    .prints("/bin")
    .map(drop)
}

fn a_user_namespace_maps_ids() -> Result<()> {
    Run::bundle("id -u; cat /proc/self/uid_map; touch /tmp/x && stat -c %u /tmp/x", |config| {
        if let Some(list) = config["linux"]["namespaces"].as_array_mut() {
            list.push(json!({ "type": "user" }));
        }
        let map = json!([{ "containerID": 0, "hostID": 100000, "size": 65536 }]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
    })?
    .output()?
    .exits(0)?
    .has("100000      65536")
    .map(drop)
}

fn a_seccomp_profile_refuses_a_call() -> Result<()> {
    Run::bundle("mkdir /tmp/refused; mkdir() { :; }; echo $?", |config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
            "syscalls": [{
                "names": ["mkdir", "mkdirat", "no_such_call"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 28,
            }],
        });
    })?
    .output()?
    .exits(0)?
    .complains("No space left on device")
    .map(drop)
}

fn seccomp_compares_arguments() -> Result<()> {
    let script = "python3 -c 'import socket\n\
                  socket.socket(socket.AF_UNIX).close(); print(\"unix\")\n\
                  try: socket.socket(socket.AF_INET)\n\
                  except PermissionError: print(\"refused\")'";
    Run::bundle(script, |config| {
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{
                "names": ["socket"],
                "action": "SCMP_ACT_ERRNO",
                "args": [{ "index": 0, "value": 2, "op": "SCMP_CMP_EQ" }],
            }],
        });
    })?
    .output()?
    .exits(0)?
    .prints("unix\nrefused")
    .map(drop)
}

fn namespaces_are_its_own() -> Result<()> {
    let script = "echo $$; hostname; ls /sys/class/net; ipcs -q | wc -l; cat /proc/self/cgroup";
    Run::bundle(script, |config| config["hostname"] = "inside".into())?
        .output()?
        .exits(0)?
        .has("1\ninside\nlo\n")?
        .has("0::/\n")
        .map(drop)
}
