//! What a container looks like from inside.

use super::host::*;
use cofferdam_agent_protocol::*;

#[test]
fn it_runs_and_its_output_and_code_come_back() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let outcome = host.run(container("c", &["sh", "-c", "echo out; echo err >&2; exit 7"]));
    assert_eq!((outcome.code, outcome.signal), (7, 0));
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"));
    host.shutdown();
}

#[test]
fn namespaces_are_its_own() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "echo $$; hostname; ls /sys/class/net; cat /proc/self/cgroup; \
        cat /sys/class/net/lo/operstate; test -e /sys/fs/cgroup/cgroup.procs && echo cgroup";
    let text = host.shell(script);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines.contains(&"1") && lines.contains(&"boxed") && lines.contains(&"lo"), "{text}");
    assert!(lines.contains(&"0::/") && lines.contains(&"cgroup"), "{text}");
    assert!(lines.contains(&"unknown"), "lo is not up: {text}");
}

#[test]
fn nothing_of_the_agent_is_left_in_it() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let text = host.shell(
        "ls /proc/self/fd | wc -l; wc -l < /proc/self/mountinfo; cat /proc/self/mountinfo; \
         env; umask; grep -E 'Sig(Blk|Ign)' /proc/self/status",
    );
    let mut lines = text.lines();
    // 0, 1, 2 and the one that ls reads the directory with.
    assert_eq!(lines.next(), Some("4"), "{text}");
    let mounts: usize = lines.next().unwrap().parse().unwrap();
    assert_eq!(mounts, 8, "{text}");
    assert!(text.contains("SigBlk:\t0000000000000000"), "{text}");
    assert!(text.contains("SigIgn:\t0000000000000000"), "{text}");
    assert!(text.contains("\n0022\n"), "{text}");
    assert!(!text.contains("COFFERDAM"), "{text}");
    assert!(text.contains("HOME=/root"), "{text}");
}

#[test]
fn default_devices_and_links_are_there() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let text = host.shell(
        "for f in null zero full random urandom tty; do stat -c '%n %a %t:%T' /dev/$f; done; \
         readlink /dev/fd /dev/stdin /dev/stdout /dev/stderr /dev/ptmx; \
         head -c 4 /dev/zero | wc -c; echo through > /dev/stdout; echo x > /dev/null",
    );
    for line in [
        "/dev/null 666 1:3",
        "/dev/zero 666 1:5",
        "/dev/full 666 1:7",
        "/dev/random 666 1:8",
        "/dev/urandom 666 1:9",
        "/dev/tty 666 5:0",
        "/proc/self/fd",
        "/proc/self/fd/0",
        "pts/ptmx",
        "4",
        "through",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
    }
}

#[test]
fn devices_of_the_plan_are_made_and_no_others() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "stat -c '%F %a %u:%g %t:%T' /dev/a/fuse /dev/p; find /dev -type c | sort";
    let mut plan = container("c", &["sh", "-c", script]);
    let mut fuse = DeviceNode {
        path: b"/dev/a/fuse".into(),
        major: 10,
        minor: 229,
        mode: 0o640,
        uid: 5,
        gid: 6,
        ..DeviceNode::default()
    };
    fuse.set_kind(DeviceType::Character);
    let mut fifo = DeviceNode { path: b"/dev/p".into(), mode: 0o622, ..DeviceNode::default() };
    fifo.set_kind(DeviceType::Fifo);
    plan.devices = vec![fuse, fifo];
    let text = host.shell_in(plan);
    let expected = "character special file 640 5:6 a:e5\nfifo 622 0:0 0:0\n/dev/a/fuse\n";
    // The container's devpts has its own.
    assert_eq!(text, format!("{expected}/dev/pts/ptmx\n"));
}

#[test]
fn writes_go_to_the_upper_side_and_are_gone_with_it() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    assert_eq!(host.shell("echo x > /written-by-test; cat /written-by-test"), "x\n");
    assert_eq!(host.shell("ls /written-by-test 2>/dev/null || echo gone"), "gone\n");
    assert!(!std::path::Path::new("/written-by-test").exists());
    assert_eq!(host.shell("stat -c %a /"), "755\n");
}

#[test]
fn a_read_only_root_cannot_be_written() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["sh", "-c", "touch /x; touch /dev/shm/y && echo shm"]);
    plan.rootfs.as_mut().unwrap().readonly = true;
    let outcome = host.run(plan);
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
    assert_eq!(outcome.stdout, "shm\n");
}

#[test]
fn mounts_of_all_kinds() {
    if in_guest() || !possible() {
        return;
    }
    let mut host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("file"), "bound").unwrap();
    let script = "cat /new/dir/file; cat /etc/motd-of-test; touch /new/dir/x 2>&1; \
        stat -c %a /etc/motd-of-test; ls /etc/apt-copy; touch /ro/x 2>&1; cat /var/run/linked/f";
    let mut plan = container("c", &["sh", "-c", script]);
    let mut bind = Mount {
        source: outside.path().to_str().unwrap().into(),
        destination: b"/new/dir".into(),
        flags: libc::MS_BIND | libc::MS_RDONLY,
        ..Mount::default()
    };
    bind.set_kind(MountKind::Bind);
    let mut file = Mount {
        destination: b"/etc/motd-of-test".into(),
        content: b" brought\n".into(),
        mode: 0o640,
        ..Mount::default()
    };
    file.set_kind(MountKind::File);
    let mut linked = file.clone();
    linked.destination = b"/var/run/linked/f".into();
    let mut read_only = filesystem("tmpfs", "/ro", "size=1m");
    read_only.flags = libc::MS_RDONLY;
    let mut copied = filesystem("tmpfs", "/etc/apt", "");
    copied.copy_up = true;
    plan.mounts.extend([bind, file, linked, read_only, copied]);
    plan.process.as_mut().unwrap().args[2] = script.replace("/etc/apt-copy", "/etc/apt").into();
    let text = host.shell_in(plan);
    assert!(text.starts_with("bound brought\n"), "{text}");
    assert_eq!(text.matches("Read-only file system").count(), 2, "{text}");
    assert!(text.contains("\n640\n") && text.contains("sources.list"), "{text}");
    assert!(text.ends_with(" brought\n"), "{text}");
}

#[test]
fn a_file_that_was_brought_along_can_change_until_the_start() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "test \"$(cat /etc/hosts-of-test)\" = changed";
    let mut plan = container("c", &["sh", "-c", script]);
    let mut file = Mount {
        destination: b"/etc/hosts-of-test".into(),
        content: b"as it was, and longer\n".into(),
        mode: 0o444,
        ..Mount::default()
    };
    file.set_kind(MountKind::File);
    let mount = u32::try_from(plan.mounts.len()).unwrap();
    plan.mounts.push(file);
    host.create(plan);
    let content = |mount, text: &str| request::FileContent { mount, content: text.into() };
    // Other mounts are no such files.
    let files = vec![content(0, "no file"), content(mount, "changed\n"), content(999, "none")];
    host.done(request::Body::Start(request::Start { container: "c".into(), files }));
    assert_eq!(host.ended("c", ""), (0, 0));
    host.shutdown();
}

#[test]
fn masked_and_read_only_paths() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "ls /etc/apt | wc -l; wc -c < /etc/passwd; echo 1 > /proc/sys/kernel/core_uses_pid; \
        touch /usr/x; true";
    let mut plan = container("c", &["sh", "-c", script]);
    plan.masked_paths = ["/etc/apt", "/etc/passwd", "/nonexistent"].map(|p| p.into()).to_vec();
    plan.readonly_paths = ["/proc/sys", "/usr", "/nonexistent"].map(|p| p.into()).to_vec();
    let outcome = host.run(plan);
    assert_eq!(outcome.stdout, "0\n0\n");
    assert_eq!(outcome.stderr.matches("Read-only file system").count(), 2, "{outcome:?}");
}

#[test]
fn sysctls_are_set_in_its_namespaces() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni";
    let mut plan = container("c", &["sh", "-c", script]);
    let set = |name: &str, value: &str| Sysctl { name: name.into(), value: value.into() };
    plan.sysctls = vec![set("net.ipv4.ip_forward", "1"), set("kernel.shmmni", "77")];
    plan.domainname = "example.org".into();
    assert_eq!(host.shell_in(plan), "1\n77\n");
    let outside = std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
    assert_ne!(outside, "77\n");
}
