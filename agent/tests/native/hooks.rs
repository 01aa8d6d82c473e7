//! Hooks that run in the container's namespaces.

use super::host::*;
use cofferdam_agent_protocol::*;

fn hook(args: &[&str]) -> GuestHook {
    let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
    GuestHook { path: args[0].clone(), args, ..GuestHook::default() }
}

fn shell(script: &str) -> GuestHook {
    hook(&["/bin/sh", "-c", script])
}

fn hooks(name: &str, hooks: Vec<GuestHook>) -> Option<GuestHooks> {
    Some(GuestHooks {
        name: name.into(),
        hooks,
        state_before_pid: "{\"id\":\"c\",\"pid\":".into(),
        state_after_pid: ",\"bundle\":\"/b\"}".into(),
    })
}

#[test]
fn create_hooks_run_at_the_container_s_root_with_its_mounts_and_their_state() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let first = shell(
        "cat > /dev/shm/state; pwd > /dev/shm/cwd; hostname > /dev/shm/name; \
         ls /proc/self/fd | wc -l > /dev/shm/fds; env > /dev/shm/env; \
         test -e /proc/1/status && test -c /dev/null && mount -t tmpfs tmpfs /mnt && echo x > /mnt/by-hook",
    );
    let second = GuestHook { env: vec![b"A=b".into()], ..shell("echo $A > /dev/shm/second") };
    let script = "cat /dev/shm/state; echo; cat /dev/shm/cwd /dev/shm/second /mnt/by-hook \
         /dev/shm/fds; grep -c . /dev/shm/env; cat /dev/shm/name";
    let mut plan = container("c", &["sh", "-c", script]);
    plan.create_hooks = hooks("createContainer", vec![first, second]);
    let text = host.shell_in(plan);
    // PWD alone, which the shell sets itself; the name of the machine, since runc sets the container's later.
    let expected = "{\"id\":\"c\",\"pid\":1,\"bundle\":\"/b\"}\n/\nb\nx\n4\n1\n";
    assert!(text.starts_with(expected), "{text}");
    assert!(!text.contains("boxed"), "{text}");
}

#[test]
fn create_hooks_have_no_right_that_the_container_cannot_have() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "exec > /dev/shm/seen; grep -E '^(Cap(Prm|Eff|Bnd|Inh|Amb)|NoNewPrivs|Seccomp):' /proc/self/status
        (: < /dev/zero) 2>/dev/null || echo no device
        grep -c cofferdam /proc/self/mountinfo; head -c 1 /proc/timer_list | wc -c
        mkdir /x && ! chroot /x /bin/true 2>/dev/null && rmdir /x && echo at the root";
    let mut plan = container("c", &["cat", "/dev/shm/seen"]);
    plan.create_hooks = hooks("createContainer", vec![shell(script)]);
    plan.masked_paths.push(b"/proc/timer_list".into());
    plan.cgroup = Some(CgroupPlan { device_filter: null_alone(), ..CgroupPlan::default() });
    plan.rootfs.as_mut().unwrap().readonly = true;
    let process = plan.process.as_mut().unwrap();
    (process.uid, process.no_new_privileges) = (33, true);
    process.seccomp = vec![allow_all()];
    // CAP_KILL alone.
    process.capabilities = Some(Capabilities { bounding: 0x20, ..Capabilities::default() });
    let text = host.shell_in(plan);
    let sets = "CapInh:\t0000000000000000\nCapPrm:\t0000000000000020\nCapEff:\t0000000000000020\n\
                CapBnd:\t0000000000000020\nCapAmb:\t0000000000000000\n";
    let rest = "NoNewPrivs:\t1\nSeccomp:\t2\nno device\n0\n0\nat the root\n";
    assert_eq!(text, format!("{sets}{rest}"));
}

/// A filter that allows everything.
fn allow_all() -> SeccompFilter {
    let program = [&6u16.to_ne_bytes()[..], &[0, 0], &0x7fff_0000u32.to_ne_bytes()].concat();
    SeccompFilter { program, flags: 0 }
}

/// A program that allows /dev/null and what is made, no other device: an instruction of eBPF is an operation, registers,
/// an offset and a number.
fn null_alone() -> Vec<u8> {
    let code = |code: u8, registers: u8, offset: i16, number: i32| {
        [&[code, registers][..], &offset.to_ne_bytes(), &number.to_ne_bytes()].concat()
    };
    // r2 = minor, r1 = access; 1 if the minor is that of null or nothing is read or written (BPF_DEVCG_ACC_MKNOD is 1).
    [
        code(0x61, 0x12, 8, 0),
        code(0x61, 0x11, 0, 0),
        code(0x74, 0x01, 0, 16),
        code(0xb7, 0x00, 0, 1),
        code(0x15, 0x02, 2, 3),
        code(0x15, 0x01, 1, 1),
        code(0xb7, 0x00, 0, 0),
        code(0x95, 0x00, 0, 0),
    ]
    .concat()
}

#[test]
fn a_create_hook_that_fails_ends_the_creation_with_its_output() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let refused = |host: &mut Host, hook: GuestHook| {
        let mut plan = container("c", &["true"]);
        plan.create_hooks = hooks("createContainer", vec![shell("true"), hook]);
        host.refused(request::Body::Create(Box::new(plan))).1
    };
    let said = refused(&mut host, shell("echo some; echo words >&2; exit 3"));
    let expected =
        "error running createContainer hook #1: /bin/sh: exit status 3, output: some\nwords";
    assert_eq!(said, expected);
    let missing = refused(&mut host, hook(&["/no/such/hook"]));
    assert!(missing.contains("exec: no such file or directory"), "{missing}");
    let killed = refused(&mut host, shell("kill -9 $$"));
    assert!(killed.contains("signal: killed"), "{killed}");
    // A writer without end is neither kept nor waited for.
    let long = refused(&mut host, shell("yes | head -c 3000000; exit 4"));
    assert!(long.contains("exit status 4") && long.len() < 4096, "{long}");
    assert_eq!(host.shell("echo fine"), "fine\n");
}

#[test]
fn a_hook_is_killed_with_its_group_after_its_time_out() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["true"]);
    let slow = GuestHook { timeout: 1, ..shell("echo waiting; sleep 600 & wait") };
    plan.create_hooks = hooks("createContainer", vec![slow]);
    let begun = std::time::Instant::now();
    let (_, said) = host.refused(request::Body::Create(Box::new(plan)));
    assert!(said.contains("killed after its time-out of 1 seconds, output: waiting"), "{said}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(60));
}

#[test]
fn start_hooks_run_as_the_process_would_and_before_it() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "cat /dev/shm/seen; echo; echo process";
    let mut plan = container("c", &["sh", "-c", script]);
    let process = plan.process.as_mut().unwrap();
    (process.uid, process.gid, process.cwd) = (33, 33, b"/dev/shm".into());
    process.capabilities = None;
    process.no_new_privileges = true;
    process.env.push(b"FROM=process".into());
    plan.hostname = "boxed".into();
    let inherits = shell("echo $FROM $HOME $(id -u) $(hostname) $(pwd) > seen; cat >> seen");
    plan.start_hooks = hooks("startContainer", vec![inherits]);
    let text = host.shell_in(plan);
    let state = "{\"id\":\"c\",\"pid\":1,\"bundle\":\"/b\"}";
    assert_eq!(text, format!("process /var/www 33 boxed /dev/shm\n{state}\nprocess\n"));
}

#[test]
fn a_start_hook_that_fails_ends_the_start() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let mut plan = container("c", &["sh", "-c", "echo must not run"]);
    let cat = GuestHook { path: b"/bin/cat".into(), ..hook(&["cat", "/nosuchfile"]) };
    plan.start_hooks = hooks("startContainer", vec![cat]);
    let stdout = plan.process.as_ref().unwrap().stdio.clone().unwrap().stdout.unwrap();
    host.create(plan);
    let start = request::Start { container: "c".into(), files: vec![] };
    let (_, said) = host.refused(request::Body::Start(start));
    assert!(
        said.starts_with("error running startContainer hook #0: /bin/cat: exit status 1"),
        "{said}"
    );
    assert!(said.contains("cat: /nosuchfile: No such file or directory"), "{said}");
    assert_eq!(host.all(stdout), "");
    host.delete("c", true);
}

#[test]
fn start_hooks_run_under_a_filter_that_refuses_new_ways_to_make_processes() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let code = |code: u16, jt: u8, jf: u8, k: u32| {
        [code.to_ne_bytes().as_slice(), &[jt, jf], &k.to_ne_bytes()].concat()
    };
    // clone3 is answered with ENOSYS, as by the default profiles of engines.
    let program = [
        code(0x20, 0, 0, 0),
        code(0x15, 0, 1, 435),
        code(0x06, 0, 0, 0x0005_0000 | 38),
        code(0x06, 0, 0, 0x7fff_0000),
    ];
    for no_new_privileges in [false, true] {
        let mut plan = container("c", &["cat", "/dev/shm/seen"]);
        let process = plan.process.as_mut().unwrap();
        process.no_new_privileges = no_new_privileges;
        process.seccomp = vec![SeccompFilter { program: program.concat(), flags: 0 }];
        let hook = shell("grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status > /dev/shm/seen");
        plan.start_hooks = hooks("startContainer", vec![hook]);
        let expected = format!("NoNewPrivs:\t{}\nSeccomp:\t2\n", u8::from(no_new_privileges));
        assert_eq!(host.shell_in(plan), expected);
    }
}
