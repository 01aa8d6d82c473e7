//! Attributes, propagation and id maps of mounts.

use super::host::*;
use cofferdam_agent_protocol::*;

/// What `/proc/self/mountinfo` says of the mount at `path`: its flags, and its propagation.
fn shows(path: &str) -> String {
    format!("grep ' {path} ' /proc/self/mountinfo | sed 's/^[^/]*//; s/ - .*//' | cut -d' ' -f2-")
}

fn bind(source: &str, destination: &str) -> Mount {
    let mut mount = Mount {
        source: source.into(),
        destination: destination.into(),
        flags: libc::MS_BIND | libc::MS_REC,
        ..Mount::default()
    };
    mount.set_kind(MountKind::Bind);
    mount
}

#[test]
fn recursive_attributes_reach_what_is_mounted_below() {
    if in_guest() || !possible() {
        return;
    }
    let mut host = Host::new();
    // The agent's own tree has mounts below /dev.
    let script =
        format!("{}; {}; touch /copy/shm/x 2>&1; true", shows("/copy"), shows("/copy/shm"));
    let mut plan = container("c", &["sh", "-c", &script]);
    let mut all = bind("/dev", "/copy");
    all.recursive_set =
        libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOATIME;
    all.recursive_clear = libc::MOUNT_ATTR__ATIME | libc::MOUNT_ATTR_NOEXEC;
    plan.mounts.push(all);
    let text = host.shell_in(plan.clone());
    assert!(text.contains("Read-only file system"), "{text}");
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("/copy")).collect();
    assert!(lines.len() >= 2, "{text}");
    for line in lines {
        assert!(line.contains("ro,nosuid") && line.contains("noatime"), "{text}");
        assert!(!line.contains("noexec"), "{text}");
    }
    // With the plain flag, what is below stays as it is.
    let plain = plan.mounts.last_mut().unwrap();
    (plain.recursive_set, plain.recursive_clear) = (0, 0);
    plain.flags |= libc::MS_RDONLY;
    plan.process = Some(process(&[
        "sh",
        "-c",
        "touch /copy/x 2>&1; mount -t tmpfs x /copy/shm && echo below",
    ]));
    let text = host.shell_in(plan);
    assert!(text.contains("Read-only file system") && text.ends_with("below\n"), "{text}");
}

#[test]
fn recursive_attributes_of_a_new_file_system() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["sh", "-c", &shows("/new")]);
    let mut new = filesystem("tmpfs", "/new", "size=1m,mode=700");
    new.recursive_set = libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSYMFOLLOW;
    plan.mounts.push(new);
    let text = host.shell_in(plan.clone());
    assert!(text.contains("nodev") && text.contains("nosymfollow"), "{text}");
    plan.mounts.last_mut().unwrap().recursive_set = 1 << 40;
    let (_, message) = host.refused(request::Body::Create(Box::new(plan)));
    assert!(
        message.contains("mounting tmpfs at /new: setting attributes 0x10000000000"),
        "{message}"
    );
}

#[test]
fn the_root_has_each_propagation() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    for (flag, word) in [
        (libc::MS_SHARED, "shared:"),
        (libc::MS_SLAVE, ""),
        (libc::MS_PRIVATE, ""),
        (libc::MS_UNBINDABLE, "unbindable"),
    ] {
        for flags in [flag, flag | libc::MS_REC] {
            let script = format!("{}; {}", shows("/"), shows("/dev"));
            let mut plan = container("c", &["sh", "-c", &script]);
            plan.rootfs.as_mut().unwrap().propagation = flags;
            let text = host.shell_in(plan);
            let (root, dev) = text.split_once('\n').unwrap();
            let is = |line: &str| match word {
                "" => !line.contains("shared:") && !line.contains("unbindable"),
                word => line.contains(word),
            };
            assert!(is(root), "{flags:#x}: {text}");
            // What is below changes only with MS_REC.
            assert_eq!(is(dev), word.is_empty() || flags & libc::MS_REC != 0, "{flags:#x}: {text}");
        }
    }
}

#[test]
fn each_mount_has_its_propagation() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = format!("{}; {}", shows("/shared"), shows("/unbindable"));
    let mut plan = container("c", &["sh", "-c", &script]);
    let with = |path, propagation| Mount { propagation, ..filesystem("tmpfs", path, "size=1m") };
    plan.mounts.push(with("/shared", libc::MS_SHARED | libc::MS_REC));
    plan.mounts.push(with("/unbindable", libc::MS_UNBINDABLE));
    let text = host.shell_in(plan);
    let (shared, unbindable) = text.split_once('\n').unwrap();
    assert!(shared.contains("shared:") && unbindable.contains("unbindable"), "{text}");
}

#[test]
fn id_mapped_mounts_show_other_owners() {
    if in_guest() || !possible() {
        return;
    }
    let mut host = Host::new();
    // Not every file system can be mapped; a tmpfs can.
    let outside = tempfile::tempdir_in("/dev/shm").unwrap();
    std::fs::write(outside.path().join("file"), "mine").unwrap();
    std::os::unix::fs::chown(outside.path().join("file"), Some(1000), Some(1001)).unwrap();
    let script = "stat -c %u:%g /mnt/file /opt/file /etc/issue; cat /etc/issue; \
        touch /mnt/new; stat -c %u:%g /mnt/new";
    let mut plan = container("c", &["sh", "-c", script]);
    plan.namespaces.push(namespace(NamespaceKind::User));
    let map = |container, host, size| vec![IdMap { container, host, size }];
    (plan.uid_map, plan.gid_map) = (map(0, 100_000, 65536), map(0, 200_000, 65536));
    let mut mapped = bind(outside.path().to_str().unwrap(), "/mnt");
    (mapped.uid_map, mapped.gid_map) = (plan.uid_map.clone(), plan.gid_map.clone());
    mapped.map_recursively = true;
    let plain = bind(outside.path().to_str().unwrap(), "/opt");
    let mut file = Mount {
        destination: b"/etc/issue".into(),
        content: b"brought\n".into(),
        mode: 0o640,
        uid_map: map(0, 100_033, 1),
        gid_map: map(0, 200_000, 1),
        ..Mount::default()
    };
    file.set_kind(MountKind::File);
    plan.mounts.extend([mapped, plain, file]);
    let outcome = host.run(plan.clone());
    assert_eq!(outcome.stdout, "1000:1001\n65534:65534\n33:0\nbrought\n0:0\n", "{outcome:?}");
    let made = std::fs::metadata(outside.path().join("new")).unwrap();
    assert_eq!(
        (std::os::unix::fs::MetadataExt::uid(&made), std::os::unix::fs::MetadataExt::gid(&made)),
        (0, 0)
    );
    assert!(!host.is_mounted("run/containers/c/files/7"));
    // proc cannot be mapped: the failure says where, and leaves nothing.
    let mut proc = bind("/proc", "/mnt");
    (proc.uid_map, proc.gid_map) = (plan.uid_map.clone(), plan.gid_map.clone());
    plan.mounts.push(proc);
    let (_, message) = host.refused(request::Body::Create(Box::new(plan)));
    assert!(message.starts_with("id-mapping the mount at /mnt: "), "{message}");
    assert!(!host.is_mounted("run/containers/c/files/7"));
}

#[test]
fn what_the_container_has_already_is_bound_again_with_other_owners() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "cat /again/below/file; stat -c %u:%g /again/below/file /mapped/below/file; \
                  touch /first/below/new; ls /again/below";
    let mut plan = container("c", &["sh", "-c", script]);
    plan.mounts.push(filesystem("tmpfs", "/first", ""));
    plan.mounts.push(filesystem("tmpfs", "/first/below", ""));
    let mut file =
        Mount { content: b"content\n".into(), mode: 0o644, ..bind("", "/first/below/file") };
    file.set_kind(MountKind::File);
    plan.mounts.push(file);
    let inner = |destination: &str| {
        let mut mount = bind("/first", destination);
        mount.set_kind(MountKind::Inner);
        mount
    };
    plan.mounts.push(inner("/again"));
    let map = |host| vec![IdMap { container: 0, host, size: 1 }];
    let (uid_map, gid_map) = (map(12), map(34));
    plan.mounts.push(Mount { uid_map, gid_map, map_recursively: true, ..inner("/mapped") });
    let text = host.shell_in(plan.clone());
    assert_eq!(text, "content\n0:0\n12:34\nfile\nnew\n");
    // A link leads no further than the container's root.
    let mut outside = inner("/x");
    outside.source = b"/first/../../../none".into();
    plan.mounts = vec![outside];
    let (_, message) = host.refused(request::Body::Create(Box::new(plan)));
    assert!(message.contains("binding /first/../../../none to /x: finding"), "{message}");
}
