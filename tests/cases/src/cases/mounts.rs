//! The container's view of its file systems.

use anyhow::{Result, ensure};
use serde_json::json;

use super::cases;
use crate::run::{Run, busybox_rootfs};

cases!("mounts":
    the_default_mounts_are_there,
    a_tmpfs_takes_its_options,
    a_read_only_root_refuses_writes,
    masked_paths_show_nothing,
    read_only_paths_refuse_writes,
    device_nodes_work,
    a_small_file_of_the_host_is_brought_along,
    a_socket_of_the_host_is_refused_by_name,
    writes_never_reach_the_hosts_directory,
    a_link_cannot_lead_a_mount_out_of_the_root,
    the_cgroup_file_system_shows_its_own_group,
    hostname_and_sysctls_are_set,
);

/// Adds `mount` to the mounts of a configuration.
fn add_mount(config: &mut serde_json::Value, mount: serde_json::Value) {
    if let Some(list) = config["mounts"].as_array_mut() {
        list.push(mount);
    }
}

fn the_default_mounts_are_there() -> Result<()> {
    let script = "for d in /proc /dev /dev/pts /dev/shm /dev/mqueue /sys /sys/fs/cgroup; do \
                  stat -f -c \"$d %T\" $d; done";
    Run::bundle(script, |_| ())?
        .output()?
        .exits(0)?
        .prints(
            "/proc proc\n/dev tmpfs\n/dev/pts devpts\n/dev/shm tmpfs\n/dev/mqueue mqueue\n/sys sysfs\n\
             /sys/fs/cgroup cgroup2fs",
        )
        .map(drop)
}

fn a_tmpfs_takes_its_options() -> Result<()> {
    let script = "grep ' /scratch ' /proc/mounts; df -k /scratch | tail -n 1 | awk '{ print $2 }'; \
                  stat -c %a /scratch";
    Run::bundle(script, |config| {
        let options = ["nosuid", "nodev", "noexec", "size=1m", "mode=1770"];
        add_mount(
            config,
            json!({ "destination": "/scratch", "type": "tmpfs", "source": "tmpfs", "options": options }),
        );
    })?
    .output()?
    .exits(0)?
    .has("nosuid,nodev,noexec")?
    .has("\n1024\n1770\n")
    .map(drop)
}

fn a_read_only_root_refuses_writes() -> Result<()> {
    Run::bundle("touch /x; touch /dev/shm/y && echo tmpfs", |config| {
        config["root"]["readonly"] = true.into();
    })?
    .output()?
    .prints("tmpfs")?
    .complains("Read-only file system")
    .map(drop)
}

fn masked_paths_show_nothing() -> Result<()> {
    let (_directory, root) = busybox_rootfs()?;
    std::fs::write(root.join("etc/secret"), "secret")?;
    std::fs::write(root.join("root/secret"), "secret")?;
    Run::bundle("cat /etc/secret; ls -A /root", |config| {
        config["root"]["path"] = root.display().to_string().into();
        config["linux"]["maskedPaths"] = json!(["/etc/secret", "/root", "/no/such/path"]);
    })?
    .output()?
    .exits(0)?
    .prints("")
    .map(drop)
}

fn read_only_paths_refuse_writes() -> Result<()> {
    Run::bundle("touch /etc/x; touch /tmp/y && echo written", |config| {
        config["linux"]["readonlyPaths"] = json!(["/etc", "/no/such/path"]);
    })?
    .output()?
    .prints("written")?
    .complains("Read-only file system")
    .map(drop)
}

fn device_nodes_work() -> Result<()> {
    let script = "for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; \
                  head -c 4 /dev/zero | od -An -tx1; head -c 1 /dev/zero > /dev/full; readlink /dev/fd /dev/stdin; \
                  stat -c '%t:%T %a' /dev/mine";
    Run::bundle(script, |config| {
        config["linux"]["devices"] = json!([
            { "path": "/dev/mine", "type": "c", "major": 1, "minor": 7, "fileMode": 0o640, "uid": 0, "gid": 0 },
        ]);
    })?
    .output()?
    .exits(0)?
    .prints("00 00 00 00\n/proc/self/fd\n/proc/self/fd/0\n1:7 640")?
    .complains("No space left on device")
    .map(drop)
}

fn a_small_file_of_the_host_is_brought_along() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), "nameserver 192.0.2.1\n")?;
    Run::bundle("cat /etc/resolv.conf", |config| {
        add_mount(
            config,
            json!({ "destination": "/etc/resolv.conf", "type": "bind", "source": file.path(),
                    "options": ["rbind", "ro"] }),
        );
    })?
    .output()?
    .exits(0)?
    .prints("nameserver 192.0.2.1")
    .map(drop)
}

fn a_socket_of_the_host_is_refused_by_name() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&path)?;
    let path = path.display().to_string();
    Run::bundle("true", |config| {
        add_mount(
            config,
            json!({ "destination": "/data", "type": "bind", "source": path, "options": ["rbind"] }),
        );
    })?
    .output()?
    .exits(1)?
    .complains(&path)?
    .complains("it is a socket")
    .map(drop)
}

fn writes_never_reach_the_hosts_directory() -> Result<()> {
    let (_directory, root) = busybox_rootfs()?;
    let script = "echo changed > /etc/passwd; echo new > /new; cat /etc/passwd /new";
    Run::in_rootfs(&root, &["sh", "-c", script]).output()?.exits(0)?.prints("changed\nnew")?;
    ensure!(std::fs::read_to_string(root.join("etc/passwd"))?.starts_with("root:"));
    ensure!(!root.join("new").exists());
    Ok(())
}

fn a_link_cannot_lead_a_mount_out_of_the_root() -> Result<()> {
    let (_directory, root) = busybox_rootfs()?;
    std::os::unix::fs::symlink("/../../../../mnt/outside", root.join("link"))?;
    std::fs::create_dir_all(root.join("mnt/outside"))?;
    Run::bundle("cat /proc/mounts", |config| {
        config["root"]["path"] = root.display().to_string().into();
        add_mount(config, json!({ "destination": "/link", "type": "tmpfs", "source": "tmpfs" }));
    })?
    .output()?
    .exits(0)?
    .has(" /mnt/outside tmpfs")
    .map(drop)
}

fn the_cgroup_file_system_shows_its_own_group() -> Result<()> {
    Run::bundle("cat /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs | head -n 1", |_| ())?
        .output()?
        .exits(0)?
        .prints("0::/\n1")
        .map(drop)
}

fn hostname_and_sysctls_are_set() -> Result<()> {
    let script = "hostname; cat /proc/sys/kernel/domainname /proc/sys/kernel/msgmax \
                  /proc/sys/net/ipv4/ip_unprivileged_port_start";
    Run::bundle(script, |config| {
        config["hostname"] = "box".into();
        config["domainname"] = "example".into();
        config["linux"]["sysctl"] =
            json!({ "kernel.msgmax": "65536", "net.ipv4.ip_unprivileged_port_start": "0" });
    })?
    .output()?
    .exits(0)?
    .prints("box\nexample\n65536\n0")
    .map(drop)
}
