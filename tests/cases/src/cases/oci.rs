//! Fields of the OCI runtime specification, and what they are in a pod.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::cases;
use crate::run::{COFFERDAM, Outcome, Run, bundle, unique_id};

cases!("oci":
    clocks_have_offsets,
    mounts_have_recursive_attributes,
    the_root_is_propagated,
    a_file_of_the_host_is_mapped_to_other_owners,
    a_process_has_its_priorities_and_personality,
    a_set_of_the_host_s_cpus_is_fitted_to_the_machine,
    an_unknown_control_group_file_is_named,
    hooks_of_the_container_run_in_the_guest,
    a_create_hook_that_fails_is_told,
    a_start_hook_that_fails_is_told,
    a_wrong_type_is_named_by_its_field,
    one_more_process_has_the_container_s_limits_and_its_own_cpus,
);

/// The same bundle by cofferdam and by runc: both must print the same and exit with the same code.
pub(super) fn same_as_runc(script: &str, edit: impl Fn(&mut Value)) -> Result<Outcome> {
    let ours = Run::bundle(script, &edit)?.output()?;
    let theirs = Run::bundle(script, &edit)?.by("runc").output()?;
    ensure!(
        (ours.code, ours.text()) == (theirs.code, theirs.text()),
        "cofferdam: {ours}\nrunc: {theirs}"
    );
    Ok(ours)
}

/// Adds `item` to the list at `pointer`.
fn add(config: &mut Value, pointer: &str, item: Value) {
    if let Some(list) = config.pointer_mut(pointer).and_then(Value::as_array_mut) {
        list.push(item);
    }
}

fn clocks_have_offsets() -> Result<()> {
    let script = "tr -s ' ' < /proc/self/timens_offsets; cut -d. -f1 /proc/uptime; echo $$";
    let outcome = Run::bundle(script, |config| {
        add(config, "/linux/namespaces", json!({ "type": "time" }));
        config["linux"]["timeOffsets"] = json!({
            "monotonic": { "secs": 7881, "nanosecs": 2_718_281 },
            "boottime": { "secs": 10_000_000 },
        });
    })?
    .output()?
    .exits(0)?
    .has("monotonic 7881 2718281\nboottime 10000000 0\n100000")?;
    ensure!(outcome.text().ends_with("\n1\n"), "it is not the first process: {outcome}");
    Ok(())
}

// What runc 1.1, which Debian 13 has, does not do yet or does otherwise is not compared with it: recursive attributes
// of new file systems, the propagation of the root, clocks, scheduling, the words about hooks.

fn mounts_have_recursive_attributes() -> Result<()> {
    let script = "awk '$5 == \"/mnt\" { print $6 }' /proc/self/mountinfo; touch /mnt/x; echo $?; \
                  stat -f -c %b /mnt";
    let options =
        ["rro", "rnodev", "rnoexec", "rnoatime", "rnosymfollow", "size=64k", "nr_inodes=9"];
    Run::bundle(script, |config| {
        let mount = json!({ "destination": "/mnt", "type": "tmpfs", "source": "tmpfs", "options": options });
        add(config, "/mounts", mount);
    })?
    .output()?
    .has("ro,nodev,noexec,noatime,nosymfollow\n1\n16")?
    .complains("Read-only file system")
    .map(drop)
}

fn the_root_is_propagated() -> Result<()> {
    let script = "awk '$5 == \"/\" || $5 == \"/dev\" { sub(\":.*\", \"\", $7); print $5, $7 }' /proc/self/mountinfo";
    for (name, expected) in [
        ("rshared", "/ shared\n/dev shared"),
        ("private", "/ -\n/dev -"),
        ("unbindable", "/ unbindable\n/dev -"),
    ] {
        let run = Run::bundle(script, |config| config["linux"]["rootfsPropagation"] = name.into())?;
        run.output()?.prints(expected).context(name)?;
    }
    Ok(())
}

fn a_file_of_the_host_is_mapped_to_other_owners() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), "brought")?;
    std::fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    Run::bundle("stat -c %u:%g /etc/issue; cat /etc/issue", |config| {
        let map = |id: u32| json!([{ "containerID": 0, "hostID": id, "size": 1 }]);
        let mount = json!({
            "destination": "/etc/issue", "type": "bind", "source": file.path(),
            "options": ["bind", "ro", "idmap"], "uidMappings": map(12), "gidMappings": map(34),
        });
        add(config, "/mounts", mount);
    })?
    .output()?
    .exits(0)?
    .prints("12:34\nbrought")
    .map(drop)
}

fn a_process_has_its_priorities_and_personality() -> Result<()> {
    let script =
        "chrt -p $$ | head -n 2 | sed 's/.*: //'; nice; ionice -p $$; uname -m; umask; ulimit -c";
    Run::bundle(script, |config| {
        config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 7 });
        config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
        config["process"]["user"]["umask"] = 0o27.into();
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_CORE", "soft": 0, "hard": 0 }]);
        config["linux"]["personality"] = json!({ "domain": "LINUX32" });
    })?
    .output()?
    .exits(0)?
    .prints("SCHED_BATCH\n0\n7\nbest-effort: prio 6\ni686\n0027\n0")
    .map(drop)
}

fn a_set_of_the_host_s_cpus_is_fitted_to_the_machine() -> Result<()> {
    let files = "cpuset.cpus cpuset.cpus.effective cpu.max cpu.max.burst cpu.idle hugetlb.2MB.max \
                 memory.high memory.swap.max io.weight";
    let script = format!("nproc; cd /sys/fs/cgroup; cat {files}");
    Run::bundle(&script, |config| {
        config["annotations"] = json!({ "io.cofferdam.vcpus": "2" });
        config["linux"]["resources"] = json!({
            "cpu": { "cpus": "7", "quota": 20000, "period": 50000, "burst": 1000, "idle": 1, "shares": 500 },
            "memory": { "limit": -1 },
            "hugepageLimits": [{ "pageSize": "2MB", "limit": 4_194_304 }],
            "blockIO": { "weight": 10 },
            "unified": { "memory.high": "104857600" },
        });
    })?
    .output()?
    .exits(0)?
    .prints("1\n0\n0\n20000 50000\n1000\n1\n4194304\n104857600\nmax\ndefault 1")
    .map(drop)
}

fn an_unknown_control_group_file_is_named() -> Result<()> {
    Run::bundle("true", |config| {
        config["linux"]["resources"]["unified"] = json!({ "memory.nosuch": "5" });
    })?
    .output()?
    .exits(1)?
    .complains("memory.nosuch")
    .map(drop)
}

fn hooks_of_the_container_run_in_the_guest() -> Result<()> {
    let hook = |script: &str| json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
    Run::bundle("cat /dev/shm/log; uname -r | grep -c cofferdam", |config| {
        config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        config["process"]["env"] = json!(["PATH=/usr/bin:/bin", "OF=process"]);
        config["hooks"]["createContainer"] = json!([
            hook("umask 0; read s; echo \"$s\" > /dev/shm/log; uname -r | grep -c cofferdam >> /dev/shm/log"),
            hook("echo second $(id -u) \"$OF\" >> /dev/shm/log"),
        ]);
        config["hooks"]["startContainer"] = json!([hook("read s; echo $(id -u) $OF ${s%%,*} >> /dev/shm/log")]);
        config["annotations"] = json!({ "a": "b" });
    })?
    .output()?
    .exits(0)?
    .has("\"annotations\":{\"a\":\"b\"},\"bundle\":\"")?
    .has("\"status\":\"creating\",\"pid\":1}\n1\nsecond 0 \n1000 process {\"annotations\":")?
    .has("\n1\n")
    .map(drop)
}

/// A hook that fails, second in the list `name`, in the words of runc 1.3.
fn failing_hook(name: &str) -> Result<()> {
    let outcome = Run::bundle("echo must not run", |config| {
        let fails = json!({ "path": "/bin/cat", "args": ["cat", "/nosuchfile"] });
        config["hooks"][name] = json!([{ "path": "/bin/true" }, fails]);
    })?
    .output()?
    .exits(1)?;
    ensure!(!outcome.text().contains("must not run"), "{outcome}");
    outcome
        .complains(&format!("error running {name} hook #1: "))?
        .complains("exit status 1")?
        .complains("cat: /nosuchfile: No such file or directory")
        .map(drop)
}

fn a_create_hook_that_fails_is_told() -> Result<()> {
    failing_hook("createContainer")
}

fn a_start_hook_that_fails_is_told() -> Result<()> {
    failing_hook("startContainer")
}

fn a_wrong_type_is_named_by_its_field() -> Result<()> {
    Run::bundle("true", |config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": "1g" });
    })?
    .output()?
    .exits(1)?
    .complains("linux.resources.memory.limit: invalid type: string")?
    .complains("line ")
    .map(drop)
}

/// A container that is deleted at the end, however that comes.
struct Container(String);

impl Container {
    /// `cofferdam` with `arguments`; what it prints. It must succeed.
    fn cofferdam(arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(COFFERDAM);
        command.args(arguments).stdin(Stdio::null());
        let outcome = command.output()?;
        let errors = String::from_utf8_lossy(&outcome.stderr);
        ensure!(outcome.status.success(), "cofferdam {arguments:?}: {errors}");
        Ok(String::from_utf8_lossy(&outcome.stdout).into_owned())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new(COFFERDAM).args(["delete", "--force", &self.0]).output();
    }
}

fn one_more_process_has_the_container_s_limits_and_its_own_cpus() -> Result<()> {
    let bundle = bundle()?;
    let path = bundle.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    config["root"] = json!({ "path": crate::run::ROOTFS });
    config["process"]["terminal"] = false.into();
    config["process"]["args"] = json!(["sleep", "1000"]);
    config["process"]["oomScoreAdj"] = 77.into();
    config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH" });
    config["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "1" });
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 }],
    });
    config["annotations"] = json!({ "io.cofferdam.vcpus": "2" });
    std::fs::write(&path, config.to_string())?;
    let container = Container(unique_id());
    let directory = bundle.path().display().to_string();
    let log = std::fs::File::create(bundle.path().join("log"))?;
    let created = Command::new(COFFERDAM)
        .args(["create", "--bundle", &directory, &container.0])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .status()?;
    let log = || std::fs::read_to_string(bundle.path().join("log")).unwrap_or_default();
    ensure!(created.success(), "cofferdam create: {}", log());
    Container::cofferdam(&["start", &container.0])?;
    let script = "cat /proc/self/oom_score_adj; chrt -p $$ | head -n 2 | sed 's/.*: //'; \
                  grep ^Cpus_allowed_list /proc/self/status; mkdir /tmp/x 2>&1; grep ^Seccomp: /proc/1/status";
    let said = Container::cofferdam(&["exec", &container.0, "sh", "-c", script])?;
    let expected = "77\nSCHED_BATCH\n0\nCpus_allowed_list:\t1\n\
        mkdir: cannot create directory '/tmp/x': No space left on device\nSeccomp:\t2\n";
    ensure!(said == expected, "{said}");
    Ok(())
}
