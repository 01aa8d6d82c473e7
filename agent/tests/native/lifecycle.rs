//! Create, start, exec, signal, pause, delete.

use super::host::*;
use cofferdam_agent_protocol::*;

fn signal(container: &str, process: &str, signal: u32, all: bool) -> request::Body {
    let (container, process) = (container.into(), process.into());
    request::Body::Signal(request::Signal { container, process, signal, all })
}

fn start(container: &str) -> request::Body {
    request::Body::Start(request::Start { container: container.into(), ..Default::default() })
}

fn of(container: &str) -> request::Container {
    request::Container { container: container.into() }
}

#[test]
fn a_created_container_waits_for_its_start() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let plan = container("c", &["sh", "-c", "echo started"]);
    let stdio = plan.process.as_ref().unwrap().stdio.clone().unwrap();
    let pid = host.create(plan);
    if !in_guest() {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(command.starts_with(b"cofferdam-launcher"), "{command:?}");
    }
    host.start("c");
    assert_eq!(host.all(stdio.stdout.unwrap()), "started\n");
    assert_eq!(host.ended("c", ""), (0, 0));
    host.delete("c", false);
}

#[test]
fn a_created_container_can_be_deleted() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.create(container("c", &["true"]));
    host.delete("c", false);
    assert_eq!(host.ended("c", ""), (0, 9));
    host.shutdown();
}

#[test]
fn exec_joins_the_container() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.create(container("c", &["sleep", "1000"]));
    host.start("c");
    let script = "hostname; cat /proc/1/comm; grep 0:: /proc/self/cgroup; exit 3";
    let plan = process(&["sh", "-c", script]);
    let stdio = plan.stdio.clone().unwrap();
    host.exec("c", "e1", plan);
    assert_eq!(host.all(stdio.stdout.unwrap()), "boxed\nsleep\n0::/\n");
    assert_eq!(host.ended("c", "e1"), (3, 0));
    let refused = host.refused(exec("c", "e2", process(&["nope"])));
    let text = "exec: \"nope\": executable file not found in $PATH".to_owned();
    assert_eq!(refused, (ErrorKind::CommandNotFound, text));
    let mut plan = process(&["true"]);
    plan.cwd = b"/not/there".into();
    let (_, message) = host.refused(exec("c", "e2", plan));
    let text = "chdir to cwd (\"/not/there\") set in config.json failed: no such file or directory";
    assert_eq!(message, text);
    host.delete("c", true);
    assert_eq!(host.ended("c", ""), (0, 9));
}

#[test]
fn the_end_of_the_first_process_ends_the_others() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    for own_pids in [true, false] {
        let mut plan = container("c", &["sleep", "1000"]);
        if !own_pids {
            plan.namespaces.retain(|n| n.kind() != NamespaceKind::Pid);
        }
        host.create(plan);
        host.start("c");
        host.exec("c", "e", process(&["sleep", "1000"]));
        host.done(signal("c", "", 9, false));
        let mut ends = vec![host.event(), host.event()];
        ends.sort_by_key(|e| matches!(e, event::Body::Ended(e) if e.process.is_empty()));
        for (end, process) in ends.into_iter().zip(["e", ""]) {
            let event::Body::Ended(end) = end else { panic!("{end:?}") };
            assert_eq!((end.process.as_str(), end.code, end.signal), (process, 0, 9));
        }
        host.delete("c", false);
    }
}

#[test]
fn signals_reach_one_or_all() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done";
    let plan = container("c", &["sh", "-c", script]);
    let stdout = plan.process.as_ref().unwrap().stdio.clone().unwrap().stdout.unwrap();
    host.create(plan);
    host.start("c");
    let mut stdout = host.stream(stdout);
    std::io::Read::read_exact(&mut stdout, &mut [0; 6]).unwrap();
    host.exec("c", "e", process(&["sleep", "1000"]));
    host.done(signal("c", "e", 15, false));
    assert_eq!(host.ended("c", "e"), (0, 15));
    assert_eq!(host.refused(signal("c", "e", 15, false)).0, ErrorKind::WrongState);
    assert_eq!(host.refused(signal("c", "nope", 15, false)).0, ErrorKind::NotFound);
    assert_eq!(host.refused(signal("c", "", 65, false)).0, ErrorKind::Unsupported);
    host.done(signal("c", "", 10, true));
    assert_eq!(host.ended("c", ""), (9, 0));
    host.delete("c", false);
}

#[test]
fn a_created_container_ends_by_what_ends_a_program() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    for own_pids in [true, false] {
        // SIGTERM, SIGHUP, SIGUSR1, SIGQUIT, the last real-time signal.
        for number in [15, 1, 10, 3, 64] {
            let mut plan = container("c", &["true"]);
            if !own_pids {
                plan.namespaces.retain(|n| n.kind() != NamespaceKind::Pid);
            }
            host.create(plan);
            // SIGCHLD, SIGCONT, SIGPIPE.
            for spared in [17, 18, 13] {
                host.done(signal("c", "", spared, false));
            }
            host.done(signal("c", "", number, false));
            assert_eq!(host.ended("c", ""), (128 + number, 0));
            assert_eq!(host.refused(start("c")).0, ErrorKind::WrongState);
            host.delete("c", false);
        }
    }
    // The program gets all of them as they are by default.
    host.create(container("c", &["sleep", "1000"]));
    host.start("c");
    host.exec("c", "e", process(&["sleep", "1000"]));
    host.done(signal("c", "", 15, false));
    host.done(signal("c", "e", 10, false));
    assert_eq!(host.ended("c", "e"), (0, 10));
    host.delete("c", true);
    assert_eq!(host.ended("c", ""), (0, 9));
}

#[test]
fn a_created_container_is_paused_and_goes_on_waiting() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.create(container("c", &["sh", "-c", "exit 5"]));
    host.done(request::Body::Pause(of("c")));
    assert_eq!(host.refused(request::Body::Pause(of("c"))).0, ErrorKind::WrongState);
    let text = "cannot start a paused container".to_owned();
    assert_eq!(host.refused(start("c")), (ErrorKind::WrongState, text));
    host.done(request::Body::Resume(of("c")));
    host.start("c");
    assert_eq!(host.ended("c", ""), (5, 0));
    host.delete("c", false);
    // One that is paused ends by force.
    host.create(container("c", &["true"]));
    host.done(request::Body::Pause(of("c")));
    host.delete("c", true);
    assert_eq!(host.ended("c", ""), (0, 9));
}

#[test]
fn orphans_are_reaped_and_told_to_nobody() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["sh", "-c", "(sleep 0.1 & ) ; (sleep 0.2 &) ; exec sleep 0.4"]);
    plan.namespaces.retain(|n| n.kind() != NamespaceKind::Pid);
    host.create(plan);
    host.start("c");
    assert_eq!(host.ended("c", ""), (0, 0));
    host.delete("c", false);
    let response::Body::Error(_) = host.request(request::Body::List(of("c"))) else { panic!() };
}

#[test]
fn a_paused_container_stands_still() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.create(container("c", &["sleep", "1000"]));
    host.start("c");
    host.done(request::Body::Pause(of("c")));
    assert_eq!(host.refused(exec("c", "e", process(&["true"]))).0, ErrorKind::WrongState);
    let response::Body::Processes(listed) = host.request(request::Body::List(of("c"))) else {
        panic!("no list")
    };
    assert_eq!(listed.pids.len(), 1);
    host.done(request::Body::Resume(of("c")));
    host.done(request::Body::Pause(of("c")));
    host.delete("c", true);
    assert_eq!(host.ended("c", ""), (0, 9));
}

#[test]
fn accounting_and_updates() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.create(container("c", &["sleep", "1000"]));
    host.start("c");
    let response::Body::Stats(stats) = host.request(request::Body::Stats(of("c"))) else {
        panic!("no stats")
    };
    let cpu = stats.files.iter().find(|file| file.file == "cpu.stat").unwrap();
    assert!(cpu.value.contains("usage_usec"), "{}", cpu.value);
    let set = |file: &str, value: &str| {
        let settings = vec![CgroupSetting { file: file.into(), value: value.into() }];
        request::Body::Update(request::Update { container: "c".into(), settings })
    };
    host.done(set("cgroup.max.descendants", "5"));
    assert_eq!(host.refused(set("../x", "1")).0, ErrorKind::Unsupported);
    assert_eq!(host.refused(set("nope.max", "1")).0, ErrorKind::Unsupported);
    host.delete("c", true);
}

#[test]
fn a_group_that_the_container_split_up_is_removed() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "mkdir -p /sys/fs/cgroup/a/b; echo $$ > /sys/fs/cgroup/a/b/cgroup.procs; \
        echo ready; exec sleep 1000";
    let plan = container("c", &["sh", "-c", script]);
    let stdout = plan.process.as_ref().unwrap().stdio.clone().unwrap().stdout.unwrap();
    host.create(plan);
    host.start("c");
    std::io::Read::read_exact(&mut host.stream(stdout), &mut [0; 6]).unwrap();
    let response::Body::Processes(listed) = host.request(request::Body::List(of("c"))) else {
        panic!("no list")
    };
    assert_eq!(listed.pids.len(), 1);
    host.delete("c", true);
}

#[test]
fn several_containers_run_beside_each_other() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    for i in 0..8 {
        host.create(container(&format!("c{i}"), &["sleep", "1000"]));
    }
    for i in 0..8 {
        host.start(&format!("c{i}"));
    }
    for i in 0..4 {
        host.delete(&format!("c{i}"), true);
    }
    host.shutdown();
}

#[test]
fn a_disk_for_writes_is_mounted_until_its_last_user_is_deleted() {
    if !possible() || in_guest() {
        return;
    }
    let mut host = Host::new();
    let disk = host.disk("0000:00:04.0");
    std::fs::write(disk.path().join("kept"), "content").unwrap();
    let names = || {
        let entries = std::fs::read_dir(disk.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let mounted = "run/scratch/0020";
    let plan = |id: &str, args: &[&str]| {
        let mut plan = container(id, args);
        plan.process.as_mut().unwrap().stdio = None;
        plan.rootfs.as_mut().unwrap().upper = Some(Upper::Disk(upper::Disk { address: 0x20 }));
        plan
    };
    for _ in 0..2 {
        for id in ["a", "b"] {
            host.create(plan(id, &["sh", "-c", "echo written > /written"]));
        }
        let refused = plan("c", &["/no/such/program"]);
        host.refused(request::Body::Create(Box::new(refused)));
        assert_eq!(names(), ["a", "b", "kept"]);
        host.start("a");
        assert_eq!(host.ended("a", ""), (0, 0));
        let written = disk.path().join("a/upper/written");
        assert_eq!(std::fs::read_to_string(written).unwrap(), "written\n");
        host.delete("a", false);
        assert!(host.is_mounted(mounted), "b uses it");
        host.delete("b", true);
        assert!(!host.is_mounted(mounted));
        assert!(!host.directory.path().join(mounted).exists());
        assert_eq!(names(), ["kept"]);
        while !matches!(host.event(), event::Body::Ended(ended) if ended.container == "b") {}
    }
    host.shutdown();
}
