//! Containers that mean harm to the agent, to their neighbours or to their own launchers.

use std::time::{Duration, Instant};

use super::host::*;
use cofferdam_agent_protocol::*;

/// How often a race is run that the container wins almost each time, on a machine that has the time.
const TRIES: u32 = 100;

/// What is said where it never did.
const LOST: &str = "SKIPPED: the container won no race against a launcher here";

/// Starts one more process in `container` as often as it takes until it is refused; the reason, if it is.
fn refused_at_last(host: &mut Host, container: &str) -> Option<String> {
    for number in 0..TRIES {
        let body = exec(container, &format!("e{number}"), process(&["true"]));
        if let response::Body::Error(error) = host.request(body) {
            return Some(error.message);
        }
    }
    None
}

/// What `script`, the first process of a container, prints while launchers of others come and go.
fn seen_of_launchers(host: &mut Host, script: &str) -> String {
    let plan = container("c", &["sh", "-c", script]);
    let stdout = plan.process.as_ref().unwrap().stdio.as_ref().unwrap().stdout.unwrap();
    host.create(plan);
    host.start("c");
    for number in 0..TRIES {
        host.request(exec("c", &format!("e{number}"), process(&["true"])));
    }
    host.delete("c", true);
    host.all(stdout)
}

#[test]
fn a_launcher_that_the_container_stops_holds_up_nobody() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    host.create(container("c", &["sh", "-c", "while :; do kill -STOP -1; done"]));
    host.start("c");
    let begin = Instant::now();
    let message = refused_at_last(&mut host, "c");
    let Some(message) = message else { return println!("{LOST}") };
    assert_eq!(message, "the launcher was stopped by another process");
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
    host.delete("c", true);
    // After those that came through.
    let end = loop {
        match host.event() {
            event::Body::Ended(end) if end.process.is_empty() => break end,
            _ => {}
        }
    };
    assert_eq!((end.code, end.signal), (0, 9));
    host.shutdown();
}

#[test]
fn a_launcher_shows_no_descriptor_of_the_agent() {
    if !possible() {
        return;
    }
    // Stopped, it can be looked at by whoever may trace it: a line for each of its descriptors.
    let script = "cd /proc; while :; do kill -STOP -1
        for p in [0-9]*; do [ $p = 1 ] || ls -l $p/fd 2>/dev/null; done; done";
    let mut host = Host::new();
    let seen = seen_of_launchers(&mut host, script);
    let links: Vec<_> = seen.lines().filter_map(|line| Some(line.split_once(" -> ")?.1)).collect();
    if links.is_empty() {
        println!("{LOST}");
    }
    let agents = ["inotify", "eventpoll", "pidfd", "ptmx"];
    let shown: Vec<_> =
        links.iter().filter(|link| agents.iter().any(|kind| link.contains(kind))).collect();
    assert!(shown.is_empty(), "{shown:?}");
    host.shutdown();
}

#[test]
fn a_launcher_s_program_cannot_be_changed() {
    if !possible() {
        return;
    }
    // By the launcher's /proc/PID/exe; the other programs are the container's own. What a launcher is before it is executed
    // has the agent's, which is on a read-only mount too, but only in a guest.
    let script = "cd /proc; while :; do kill -STOP -1
        for p in [0-9]*; do case $(readlink $p/exe) in
            /usr/*|/bin/*|*/cofferdam-agent|'') ;;
            *) if chmod 755 $p/exe 2>/tmp/why
               # It may have become the container's own meanwhile.
               then case $(readlink $p/exe) in /usr/*|/bin/*|'') ;; *) echo changed ;; esac
               elif grep -q Read-only /tmp/why; then echo read-only; fi ;;
        esac; done; done";
    let mut host = Host::new();
    let seen = seen_of_launchers(&mut host, script);
    assert!(!seen.contains("changed"), "{seen}");
    if !seen.contains("read-only") {
        println!("{LOST}");
    }
    host.shutdown();
}

#[test]
fn memory_is_shared_until_its_last_container_is_deleted() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let sharing = |id: &str, name: &str, script: &str| {
        let mut plan = container(id, &["sh", "-c", script]);
        plan.mounts.retain(|mount| mount.destination != b"/dev/shm");
        let mut shared = filesystem("", "/dev/shm", "mode=1777,size=1048576");
        (shared.source, shared.fstype) = (name.into(), String::new());
        shared.set_kind(MountKind::Shared);
        plan.mounts.push(shared);
        plan
    };
    // As many as there may be at once, and more, one after the other; one of them fails.
    for number in 0..70 {
        let mut plan = sharing("c", &format!("m{number}"), "ls /dev/shm; echo x > /dev/shm/left");
        if number == 5 {
            plan.process.as_mut().unwrap().args = vec![b"/nope".into()];
            host.refused(request::Body::Create(Box::new(plan)));
            continue;
        }
        assert_eq!(host.shell_in(plan), "");
    }
    host.create(sharing("a", "pod", "echo here > /dev/shm/file; sleep 1000"));
    host.start("a");
    let seen = "until cat /dev/shm/file 2>/dev/null; do sleep 0.1; done";
    assert_eq!(host.shell_in(sharing("c", "pod", seen)), "here\n");
    assert_eq!(host.shell_in(sharing("c", "pod", seen)), "here\n");
    host.delete("a", true);
    assert_eq!(host.ended("a", ""), (0, 9));
    assert_eq!(host.shell_in(sharing("c", "pod", "ls /dev/shm")), "");
    host.shutdown();
}

#[test]
fn links_of_the_image_do_not_lead_a_mount_into_proc() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["true"]);
    // A link to /proc/self/mounts on most systems.
    if !std::fs::read_link("/etc/mtab").is_ok_and(|to| to.to_string_lossy().contains("proc/")) {
        eprintln!("SKIPPED: /etc/mtab is no link into /proc");
        return;
    }
    let mut file = Mount { destination: b"/etc/mtab".into(), mode: 0o644, ..Mount::default() };
    file.set_kind(MountKind::File);
    plan.mounts.push(file);
    let (_, message) = host.refused(request::Body::Create(Box::new(plan)));
    assert!(message.contains("inside /proc"), "{message}");
    host.shutdown();
}

#[test]
fn the_guest_s_null_keeps_its_permissions() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "chmod 666 /proc/timer_list 2>&1 | grep -o Read-only; echo fine > /proc/timer_list
        chmod 666 /proc/self/fd/0 2>&1 | grep -o Read-only";
    let mut plan = container("c", &["sh", "-c", script]);
    plan.masked_paths.push(b"/proc/timer_list".into());
    assert_eq!(host.shell_in(plan), "Read-only\nRead-only\n");
    host.shutdown();
}

#[test]
fn groups_with_long_names_far_below_are_listed_and_removed() {
    if !possible() {
        return;
    }
    // Deeper than a path is long.
    let script = "cd /sys/fs/cgroup; n=$(printf %0200d 0); i=0
        while [ $i -lt 30 ]; do mkdir $n && cd -P $n 2>/dev/null || exit 1; i=$((i+1)); done
        sleep 1000 & echo $! > cgroup.procs; wait";
    let mut host = Host::new();
    host.create(container("c", &["sh", "-c", script]));
    host.start("c");
    let list = || request::Body::List(request::Container { container: "c".into() });
    let begin = Instant::now();
    loop {
        let response::Body::Processes(processes) = host.request(list()) else { panic!("no list") };
        if processes.pids.len() == 2 {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{processes:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    host.delete("c", true);
    host.shutdown();
}
