//! What keeps a container from the rest of its pod.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use super::super::cases;
use super::messages::{LinuxPodSandboxConfig, NamespaceOption, SecurityProfile, profile};
use super::pod::{exec, refusal, says, start};
use super::{Cri, Pod};

cases!(Cri:
    system_calls_are_filtered,
    a_filter_of_the_node,
    paths_are_masked_and_read_only,
    a_privileged_container,
    a_privileged_container_needs_a_privileged_pod,
    control_groups_are_read_only,
);

/// Sets the filter of system calls; what /proc says of it.
fn filter(pod: &Pod<'_>, profile_type: i32) -> Result<String> {
    pod.prints("grep '^Seccomp:' /proc/self/status | cut -f 2", |config| {
        let localhost_ref = String::new();
        config.security().seccomp = Some(SecurityProfile { profile_type, localhost_ref });
    })
}

fn system_calls_are_filtered(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    ensure!(filter(&pod, profile::UNCONFINED)? == "0\n");
    ensure!(filter(&pod, profile::DEFAULT)? == "2\n");
    // What it forbids: a namespace of users, which nobody needs a privilege for.
    let tries = "unshare -U true 2>/dev/null; echo $?";
    let id = pod.start_with("sleep 1000", |config| {
        config.security().seccomp =
            Some(SecurityProfile { profile_type: profile::DEFAULT, ..Default::default() });
    })?;
    ensure!(says(&id, tries)? != "0");
    ensure!(says(&id, "grep '^Seccomp:' /proc/self/status | cut -f 2")? == "2");
    Ok(())
}

fn a_filter_of_the_node(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let file = cri.file("profile.json");
    let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 });
    let text = json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [rule] });
    fs::write(&file, text.to_string())?;
    let of = |path: String| {
        pod.start_with("sleep 1000", |config| {
            let profile_type = profile::LOCALHOST;
            config.security().seccomp = Some(SecurityProfile { profile_type, localhost_ref: path });
        })
    };
    let id = of(file.display().to_string())?;
    let answer = exec(&id, "mkdir /tmp/d")?;
    let text = super::pod::text(&answer.stderr);
    ensure!(answer.exit_code != 0 && text.contains("No space left"), "{text}");
    says(&id, "touch /tmp/f")?;
    let refused = refusal(of("/no/such/profile.json".to_owned()))?;
    ensure!(refused.message.contains("/no/such/profile.json"), "{refused}");
    Ok(())
}

fn paths_are_masked_and_read_only(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let id = pod.start_with("sleep 1000", |config| {
        let security = config.security();
        security.masked_paths =
            ["/proc/keys", "/proc/scsi", "/etc/changed"].map(String::from).into();
        security.readonly_paths = ["/proc/sys", "/proc/irq"].map(String::from).into();
    })?;
    ensure!(says(&id, "cat /etc/changed /proc/keys | wc -c")? == "0");
    let answer = exec(&id, "echo 1 > /proc/sys/vm/drop_caches")?;
    let text = super::pod::text(&answer.stderr);
    ensure!(answer.exit_code != 0 && text.contains("Read-only file system"), "{text}");
    // Without these, nothing is hidden.
    let open = pod.start("sleep 1000")?;
    ensure!(says(&open, "cat /etc/changed")? == "of the last layer");
    Ok(())
}

fn a_privileged_container(cri: &Cri) -> Result<()> {
    let pod = cri.pod_with(|config| {
        let linux = config.linux.get_or_insert_with(LinuxPodSandboxConfig::default);
        linux.security_context.get_or_insert_default().privileged = true;
    })?;
    let id = pod.start_with("sleep 1000", |config| {
        let security = config.security();
        security.privileged = true;
        security.namespace_options = Some(NamespaceOption { pid: 1, ..Default::default() });
    })?;
    let all = "last=$(cat /proc/sys/kernel/cap_last_cap); printf '%016x\\n' $(((1 << (last + 1)) - 1)); \
               sed -n 's/^CapEff:.//p' /proc/self/status";
    let sets = says(&id, all)?;
    let (wanted, seen) = sets.split_once('\n').unwrap_or_default();
    ensure!(wanted == seen, "{sets}");
    ensure!(says(&id, "grep '^Seccomp:' /proc/self/status | cut -f 2")? == "0");
    // It may mount, and write to what others only read.
    says(&id, "mkdir /tmp/m; mount -t tmpfs none /tmp/m; echo x > /tmp/m/file; umount /tmp/m")?;
    says(&id, "echo 1 > /proc/sys/net/ipv4/ip_forward")?;
    says(&id, "mkdir /sys/fs/cgroup/own; rmdir /sys/fs/cgroup/own")?;
    // The others of its pod are as they were.
    let other = pod.start("sleep 1000")?;
    ensure!(exec(&other, "mount -t tmpfs none /mnt")?.exit_code != 0);
    ensure!(says(&other, "sed -n 's/^CapEff:.//p' /proc/self/status")? == "00000000a80425fb");
    Ok(())
}

fn a_privileged_container_needs_a_privileged_pod(cri: &Cri) -> Result<()> {
    let pod = cri.shared()?;
    let made = pod.create("true", |config| config.security().privileged = true);
    let refused = refusal(made.and_then(|id| start(&id)))?;
    ensure!(refused.message.contains("no privileged container allowed in sandbox"), "{refused}");
    Ok(())
}

fn control_groups_are_read_only(cri: &Cri) -> Result<()> {
    let id = cri.shared()?.start("sleep 1000")?;
    let answer = exec(&id, "mkdir /sys/fs/cgroup/own")?;
    let text = super::pod::text(&answer.stderr);
    ensure!(answer.exit_code != 0 && text.contains("Read-only file system"), "{text}");
    // It is in the root of what it sees.
    ensure!(says(&id, "cat /proc/self/cgroup")? == "0::/");
    Ok(())
}
