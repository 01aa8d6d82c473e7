//! `linux.seccomp`: each action, each comparison, and what is refused.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::runtime::Runtime;
use super::{Alone, Clause, Group, Script, alone, prints};

/// Groups of this topic.
pub(super) const GROUPS: &[Group] =
    &[Group::Inside("seccomp", profile, PROFILE), Group::Alone("seccomp", ALONE)];

/// Calls system calls by number from python and prints the error of each, and the exit code if that is not 0.
macro_rules! call {
    ($name:literal, $source:literal, $calls:literal, $errors:literal) => {
        prints(
            $name,
            concat!("config-linux: seccomp.", $source),
            concat!(
                "python3 -S -E -c 'import ctypes, errno\nlibc = ctypes.CDLL(None, use_errno=True)\ndef call(*args):\n",
                "    ctypes.set_errno(0); libc.syscall(*map(ctypes.c_long, args))\n",
                "    print(errno.errorcode.get(ctypes.get_errno(), 0), end=\" \")\n",
                $calls,
                "' 2>&1; code=$?; test $code = 0 || echo $code"
            ),
            $errors,
        )
    };
}

fn profile(config: &mut Value) {
    let compare = |name: &str, index: u32, value: u64, op: &str| {
        json!({
            "names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
            "args": [{ "index": index, "value": value, "op": op }],
        })
    };
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [
            { "names": ["swapon", "no_such_call"], "action": "SCMP_ACT_ERRNO" },
            { "names": ["swapoff"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
            { "names": ["acct"], "action": "SCMP_ACT_KILL_PROCESS" },
            { "names": ["setdomainname"], "action": "SCMP_ACT_KILL" },
            { "names": ["reboot"], "action": "SCMP_ACT_TRAP" },
            { "names": ["syslog"], "action": "SCMP_ACT_TRACE" },
            { "names": ["getpgid"], "action": "SCMP_ACT_LOG" },
            compare("getpriority", 1, 77, "SCMP_CMP_EQ"),
            compare("getsid", 0, 0, "SCMP_CMP_NE"),
            compare("sched_getscheduler", 0, 5, "SCMP_CMP_LT"),
            compare("sched_getparam", 0, 5, "SCMP_CMP_LE"),
            compare("sched_get_priority_max", 0, 2, "SCMP_CMP_GT"),
            compare("sched_get_priority_min", 0, 2, "SCMP_CMP_GE"),
            { "names": ["umask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
              "args": [{ "index": 0, "value": 0o70, "valueTwo": 0o20, "op": "SCMP_CMP_MASKED_EQ" }] },
            { "names": ["access"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95,
              "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": 1, "value": 2, "op": "SCMP_CMP_EQ" }] },
            compare("ioprio_get", 0, 0xffff_ffff_0000_0001, "SCMP_CMP_EQ"),
        ],
    });
}

/// The numbers are those of x86-64.
const PROFILE: &[Clause<Script>] = &[
    call!("act_allow", "defaultAction", "call(110)", "0"),
    call!("act_errno", "syscalls.action", "call(167, 0, 0)", "EPERM"),
    call!("act_errno_with_a_number", "syscalls.errnoRet", "call(168, 0)", "ENOSYS"),
    call!("act_kill_process", "syscalls.action", "call(163, 0)", "Bad system call\n159"),
    call!("act_kill", "syscalls.action", "call(171, 0, 0)", "Bad system call\n159"),
    call!("act_trap", "syscalls.action", "call(169, 0, 0, 0, 0)", "Bad system call\n159"),
    call!("act_trace_without_tracer", "syscalls.action", "call(103, 10, 0, 0)", "ENOSYS"),
    call!("act_log", "syscalls.action", "call(121, 0)", "0"),
    call!("op_eq", "syscalls.args", "call(140, 0, 77); call(140, 0, 0)", "ENOTSUP 0"),
    call!("op_ne", "syscalls.args", "call(124, 1); call(124, 0)", "ENOTSUP 0"),
    call!("op_lt", "syscalls.args", "call(145, 4); call(145, 0x7ffffff)", "ENOTSUP ESRCH"),
    call!("op_le", "syscalls.args", "call(143, 5, 0); call(143, 0x7ffffff, 0)", "ENOTSUP EINVAL"),
    call!("op_gt", "syscalls.args", "call(146, 3); call(146, 2)", "ENOTSUP 0"),
    call!("op_ge", "syscalls.args", "call(147, 2); call(147, 1)", "ENOTSUP 0"),
    call!("op_masked_eq", "syscalls.args", "call(95, 0o26); call(95, 0o46)", "ENOTSUP 0"),
    call!(
        "all_arguments_must_match",
        "syscalls.args",
        "call(21, 1, 2); call(21, 1, 4); call(21, 0, 2)",
        "ENOTSUP EFAULT EFAULT"
    ),
    call!(
        "arguments_have_64_bits",
        "syscalls.args",
        "call(252, -0xffffffff, 0); call(252, 1, 0)",
        "ENOTSUP 0"
    ),
    prints(
        "mode_is_shown",
        "config-linux: seccomp",
        "awk '/^Seccomp:/ { print $2 }' /proc/self/status",
        "2",
    ),
];

const ALONE: &[Clause<Alone>] = &[
    alone("default_action_errno", "config-linux: seccomp.defaultErrnoRet", default_errno),
    alone("with_no_new_privileges", "config-linux: seccomp", |runtime| {
        let edit: super::Edit = |config| {
            config["process"]["noNewPrivileges"] = true.into();
            config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 }],
            });
        };
        runtime.run("mkdir /tmp/x", edit)?.exits(1)?.complains("not implemented").map(drop)
    }),
    alone("an_unknown_action_is_refused", "config-linux: seccomp.defaultAction", |runtime| {
        refused(runtime, |config| {
            config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_NOSUCH" });
        })
    }),
    alone("an_unknown_architecture_is_refused", "config-linux: seccomp.architectures", |runtime| {
        refused(runtime, |config| {
            config["linux"]["seccomp"] =
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOSUCH"] });
        })
    }),
    alone("an_unknown_operator_is_refused", "config-linux: seccomp.syscalls.args.op", |runtime| {
        refused(runtime, |config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{
                    "names": ["acct"], "action": "SCMP_ACT_ERRNO",
                    "args": [{ "index": 0, "value": 1, "op": "SCMP_CMP_NOSUCH" }],
                }],
            });
        })
    }),
    alone("an_unknown_flag_is_refused", "config-linux: seccomp.flags", |runtime| {
        refused(runtime, |config| {
            config["linux"]["seccomp"] = json!({
                "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NOSUCH"],
                "syscalls": [{ "names": ["acct"], "action": "SCMP_ACT_ERRNO" }],
            });
        })
    }),
    alone(
        "notify_without_a_listener_is_refused",
        "config-linux: seccomp.listenerPath",
        |runtime| {
            refused(runtime, |config| {
                config["linux"]["seccomp"] = json!({
                    "defaultAction": "SCMP_ACT_ALLOW",
                    "syscalls": [{ "names": ["acct"], "action": "SCMP_ACT_NOTIFY" }],
                });
            })
        },
    ),
];

/// The calls of a static program, and of the runtimes before they execute it.
const STATIC_PROGRAM: &str = "execve exit exit_group write writev read brk mmap munmap mprotect arch_prctl set_tid_address \
    set_robust_list rseq prlimit64 readlink readlinkat getrandom uname getuid geteuid getgid getegid setuid \
    setgid setgroups setresuid setresgid prctl capset capget close close_range openat fstat newfstatat fcntl \
    futex rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack nanosleep clock_nanosleep gettid getpid \
    tgkill epoll_ctl epoll_pwait epoll_wait pread64 lseek umask chdir faccessat faccessat2 access stat \
    fstatfs statfs sched_yield sched_getaffinity madvise dup3 dup2 ioctl clone clone3 fchdir getppid poll \
    ppoll getdents64 lstat open timer_settime timer_delete select";

/// All other calls are refused with a number.
fn default_errno(runtime: &Runtime) -> Result<()> {
    let edit: super::Edit = |config| {
        config["process"]["args"] = json!(["/bin/busybox", "mkdir", "/tmp/x"]);
        let names: Vec<&str> = STATIC_PROGRAM.split_whitespace().collect();
        config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
        });
    };
    let outcome = runtime.run("", edit)?.complains("not implemented")?;
    ensure!(outcome.code == 1, "{outcome}");
    Ok(())
}

fn refused(runtime: &Runtime, edit: super::Edit) -> Result<()> {
    let outcome = runtime.run("echo it ran", edit)?;
    ensure!(outcome.code != 0 && !outcome.text().contains("it ran"), "{outcome}");
    Ok(())
}
