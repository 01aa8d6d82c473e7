//! What goes wrong is told in the words of runc, and leaves nothing behind.

use super::host::*;
use cofferdam_agent_protocol::*;

fn create(plan: ContainerPlan) -> request::Body {
    request::Body::Create(Box::new(plan))
}

#[test]
fn commands_that_cannot_be_run() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let cases = [
        ("foo", ErrorKind::CommandNotFound, "exec: \"foo\": executable file not found in $PATH"),
        (
            "/nope",
            ErrorKind::CommandNotFound,
            "exec: \"/nope\": stat /nope: no such file or directory",
        ),
        (
            "/etc/passwd",
            ErrorKind::CommandNotExecutable,
            "exec: \"/etc/passwd\": permission denied",
        ),
        ("/etc", ErrorKind::CommandNotExecutable, "exec: \"/etc\": is a directory"),
    ];
    for (command, kind, message) in cases {
        let refused = host.refused(create(container("c", &[command])));
        assert_eq!(refused, (kind, message.to_owned()));
    }
    // The id is free again.
    assert_eq!(host.shell_in(container("c", &["echo", "fine"])), "fine\n");
}

#[test]
fn execve_itself_fails_at_start() {
    if in_guest() || !possible() {
        return;
    }
    let mut host = Host::new();
    let outside = tempfile::tempdir().unwrap();
    let bad = outside.path().join("bad");
    std::fs::write(&bad, "\x7fELF nonsense").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&bad, mode).unwrap();
    let mut plan = container("c", &["/bad"]);
    let mut bind = Mount {
        source: bad.to_str().unwrap().into(),
        destination: b"/bad".into(),
        flags: libc::MS_BIND,
        ..Mount::default()
    };
    bind.set_kind(MountKind::Bind);
    plan.mounts.push(bind);
    host.create(plan);
    let start = request::Body::Start(request::Start { container: "c".into(), files: vec![] });
    let refused = host.refused(start);
    let text = "exec /bad: exec format error".to_owned();
    assert_eq!(refused, (ErrorKind::CommandNotExecutable, text));
    host.ended("c", "");
    host.delete("c", false);
}

#[test]
fn steps_that_fail_are_named() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["true"]);
    plan.mounts.push(filesystem("tmpfs", "/x", "nonsense=1"));
    let (_, message) = host.refused(create(plan));
    assert_eq!(message, "mounting tmpfs at /x: mount: invalid argument");

    let mut plan = container("c", &["true"]);
    plan.mounts.push(filesystem("nosuchfs", "/x", ""));
    let (_, message) = host.refused(create(plan));
    assert_eq!(message, "mounting nosuchfs at /x: mount: no such device");

    let mut plan = container("c", &["true"]);
    plan.sysctls = vec![Sysctl { name: "kernel.nosuch".into(), value: "1".into() }];
    let (_, message) = host.refused(create(plan));
    assert!(message.starts_with("writing /proc/sys/kernel/nosuch:"), "{message}");

    let mut plan = container("c", &["true"]);
    let setting = CgroupSetting { file: "nosuch.max".into(), value: "1".into() };
    plan.cgroup = Some(CgroupPlan { settings: vec![setting], ..CgroupPlan::default() });
    let (kind, message) = host.refused(create(plan));
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(message.contains("nosuch.max"), "{message}");

    let mut plan = container("c", &["true"]);
    plan.process.as_mut().unwrap().cwd = b"/etc/passwd".into();
    let (_, message) = host.refused(create(plan));
    let text = "chdir to cwd (\"/etc/passwd\") set in config.json failed: not a directory";
    assert_eq!(message, text);

    let mut plan = container("c", &["true"]);
    plan.rootfs.as_mut().unwrap().layers = vec![0x88];
    let (_, message) = host.refused(create(plan));
    assert!(message.contains("mounting the layer 0000:00:11.0"), "{message}");
    if !in_guest() {
        let run = host.directory.path().join("run/containers");
        assert_eq!(std::fs::read_dir(run).unwrap().count(), 0);
    }
}

#[test]
fn requests_that_make_no_sense() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let of = |container: &str| request::Container { container: container.into() };
    assert_eq!(host.refused(request::Body::List(of("x"))).0, ErrorKind::NotFound);
    assert_eq!(host.refused(create(container("../x", &["true"]))).0, ErrorKind::Unsupported);
    assert_eq!(host.refused(create(ContainerPlan::default())).0, ErrorKind::Unsupported);
    host.create(container("c", &["true"]));
    assert_eq!(host.refused(create(container("c", &["true"]))).0, ErrorKind::Exists);
    assert_eq!(host.refused(request::Body::Resume(of("c"))).0, ErrorKind::WrongState);
    host.start("c");
    host.ended("c", "");
    let start = request::Body::Start(request::Start { container: "c".into(), files: vec![] });
    assert_eq!(host.refused(start).0, ErrorKind::WrongState);
    assert_eq!(host.refused(exec("c", "e", process(&["true"]))).0, ErrorKind::WrongState);
}

#[test]
fn a_lost_connection_ends_the_agent() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.create(container("c", &["sleep", "100"]));
    host.start("c");
    // Dropping it waits for the agent.
    drop(host);
}

#[test]
fn another_protocol_version_is_refused() {
    if !possible() {
        return;
    }
    let mut host = Host::silent();
    host.welcome(PROTOCOL_VERSION + 1);
    let Some(agent_frame::Body::Refusal(refusal)) = host.receive() else { panic!("no refusal") };
    let (theirs, ours) = (PROTOCOL_VERSION + 1, PROTOCOL_VERSION);
    assert_eq!(refusal.reason, format!("the host speaks version {theirs}, the agent {ours}"));
    assert!(host.receive().is_none());
    assert!(!host.status().success());
}

#[test]
fn frames_that_make_no_sense_end_the_session() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.send(host_frame::Body::Welcome(Welcome::default()));
    assert!(matches!(host.receive(), Some(agent_frame::Body::Refusal(_))));
    assert!(!host.status().success());
}
