//! Users, capabilities, limits, seccomp.

use super::host::*;
use cofferdam_agent_protocol::*;

fn with(args: &[&str], change: impl FnOnce(&mut ProcessPlan)) -> ContainerPlan {
    let mut plan = container("c", args);
    change(plan.process.as_mut().unwrap());
    plan
}

#[test]
fn user_groups_umask_and_directory() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "id -u; id -g; id -G; umask; pwd; echo $HOME; echo ok > /dev/stdout";
    let text = host.shell_in(with(&["sh", "-c", script], |p| {
        (p.uid, p.gid) = (33, 44);
        p.additional_gids = vec![44, 55, 66];
        p.umask = Some(0o027);
        p.cwd = b"/made/for/this".into();
        p.capabilities = None;
    }));
    assert_eq!(text, "33\n44\n44 55 66\n0027\n/made/for/this\n/var/www\nok\n");
}

#[test]
fn capability_sets_are_as_planned() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let chown_and_kill = 1 << 0 | 1 << 5;
    let text = host.shell_in(with(&["grep", "^Cap", "/proc/self/status"], |p| {
        p.uid = 33;
        p.capabilities = Some(Capabilities {
            bounding: chown_and_kill,
            effective: chown_and_kill,
            inheritable: 1,
            permitted: chown_and_kill,
            ambient: 1,
        });
    }));
    let expected = "CapInh:\t0000000000000001\nCapPrm:\t0000000000000001\nCapEff:\t0000000000000001\n\
        CapBnd:\t0000000000000021\nCapAmb:\t0000000000000001\n";
    assert_eq!(text, expected);
    let text =
        host.shell_in(with(&["grep", "^Cap", "/proc/self/status"], |p| p.capabilities = None));
    assert_eq!(text.matches("0000000000000000").count(), 5, "{text}");
}

#[test]
fn limits_priorities_and_personality() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let script = "ulimit -n; ulimit -Hn; ulimit -c; cat /proc/self/oom_score_adj; nice; setarch --show \
        2>/dev/null; cat /proc/self/personality";
    let text = host.shell_in(with(&["sh", "-c", script], |p| {
        let limit = |resource, soft, hard| Rlimit { resource, soft, hard };
        p.rlimits = vec![limit(7, 100, 200), limit(4, 0, 0)];
        p.oom_score_adj = Some(500);
        p.scheduler = Some(Scheduler { nice: 5, ..Scheduler::default() });
        p.io_priority = Some(IoPriority { class: 2, level: 3 });
        p.personality = Some(0x0004_0000);
    }));
    assert!(text.starts_with("100\n200\n0\n500\n5\n"), "{text}");
    assert!(text.ends_with("00040000\n"), "{text}");
}

/// A filter that answers `mkdir` and `mkdirat` with errno 77 and allows the rest.
fn no_mkdir() -> SeccompFilter {
    let code = |code: u16, jt: u8, jf: u8, k: u32| {
        [code.to_ne_bytes().as_slice(), &[jt, jf], &k.to_ne_bytes()].concat()
    };
    let program = [
        code(0x20, 0, 0, 0),
        code(0x15, 1, 0, 83),
        code(0x15, 0, 1, 258),
        code(0x06, 0, 0, 0x0005_0000 | 77),
        code(0x06, 0, 0, 0x7fff_0000),
    ];
    SeccompFilter { program: program.concat(), flags: 0 }
}

#[test]
fn seccomp_filters_with_and_without_new_privileges() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    for no_new_privileges in [true, false] {
        let script = "mkdir /x 2>&1; grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status";
        let text = host.shell_in(with(&["sh", "-c", script], |p| {
            p.no_new_privileges = no_new_privileges;
            p.seccomp = vec![no_mkdir()];
            p.uid = 33;
            p.capabilities = None;
        }));
        assert!(text.contains("File descriptor in bad state"), "{text}");
        assert!(text.contains("Seccomp:\t2"), "{text}");
        let expected = format!("NoNewPrivs:\t{}", u8::from(no_new_privileges));
        assert!(text.contains(&expected), "{text}");
    }
}

#[test]
fn a_device_filter_is_attached() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    // Refuses everything: r0 = 0; exit.
    let program = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]].concat();
    let mut plan = container("c", &["sh", "-c", "cat /dev/zero"]);
    plan.cgroup = Some(CgroupPlan { device_filter: program, ..CgroupPlan::default() });
    let outcome = host.run(plan);
    assert!(outcome.stderr.contains("Operation not permitted"), "{outcome:?}");
}

#[test]
fn an_exec_has_its_cpus_and_the_first_process_has_all() {
    if !possible() {
        return;
    }
    let mut host = Host::new();
    let show = ["grep", "^Cpus_allowed_list", "/proc/self/status"];
    let only = |initial: &[u32], last: &[u32]| {
        Some(CpuAffinity { initial: initial.into(), last: last.into() })
    };
    let all = host.shell_in(with(&show, |p| p.affinity = only(&[], &[0])));
    assert_ne!(all, "Cpus_allowed_list:\t0\n", "this needs two CPUs");
    host.create(container("c", &["sleep", "1000"]));
    host.start("c");
    let mut exec = |id: &str, affinity| {
        let plan = ProcessPlan { affinity, ..process(&show) };
        let stdout = plan.stdio.clone().unwrap().stdout.unwrap();
        host.exec("c", id, plan);
        let text = host.all(stdout);
        assert_eq!(host.ended("c", id), (0, 0));
        text
    };
    assert_eq!(exec("last", only(&[], &[1])), "Cpus_allowed_list:\t1\n");
    assert_eq!(exec("both", only(&[0], &[1])), "Cpus_allowed_list:\t1\n");
    assert_eq!(exec("initial", only(&[0], &[])), all);
    assert_eq!(exec("none", None), all);
    let plan = ProcessPlan { affinity: only(&[], &[1000]), ..process(&show) };
    let (_, message) = host.refused(super::host::exec("c", "missing", plan));
    assert!(message.contains("execCPUAffinity.final: CPUs [1000]"), "{message}");
    host.delete("c", true);
}
