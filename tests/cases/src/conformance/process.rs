//! `process`: who the container's first process is, and what it may do.

use serde_json::{Value, json};

use super::{Clause, Group, Script, prints};

/// What `/proc` shows as the limits with a title.
macro_rules! rlimit {
    ($name:literal, $title:literal, $limits:literal) => {
        prints(
            $name,
            "config: process.rlimits",
            concat!("sed -En 's/^", $title, " +(\\w+) +(\\w+).*/\\1 \\2/p' /proc/1/limits"),
            $limits,
        )
    };
}

/// A line of the first process's status: a capability set.
macro_rules! set {
    ($name:literal, $title:literal, $bits:literal) => {
        prints(
            $name,
            "config: process.capabilities",
            concat!("awk '/", $title, "/ { print $2 }' /proc/1/status"),
            $bits,
        )
    };
}

/// Groups of this topic.
pub(super) const GROUPS: &[Group] = &[
    Group::Inside("process", process, PROCESS),
    Group::Inside("process", as_root, ROOT),
    Group::Inside("capabilities", capabilities, CAPABILITIES),
    Group::Inside("capabilities", root_capabilities, ROOT_CAPABILITIES),
    Group::Inside("process", scheduling, SCHEDULING),
    Group::Inside("process", personality, PERSONALITY),
];

fn process(config: &mut Value) {
    let process = &mut config["process"];
    process["user"] =
        json!({ "uid": 1234, "gid": 2345, "additionalGids": [50, 60], "umask": 0o27 });
    process["cwd"] = "/usr/share".into();
    process["env"] =
        json!(["PATH=/usr/bin:/bin", "WORDS=two  words", "EMPTY=", "SAME=1", "SAME=2"]);
    process["oomScoreAdj"] = 321.into();
    process["noNewPrivileges"] = true.into();
    process["rlimits"] = json!([
        { "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 },
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        { "type": "RLIMIT_CPU", "soft": 1000, "hard": 2000 },
        { "type": "RLIMIT_FSIZE", "soft": 1 << 30, "hard": 1_u64 << 31 },
        { "type": "RLIMIT_MEMLOCK", "soft": 65536, "hard": 131_072 },
        { "type": "RLIMIT_MSGQUEUE", "soft": 4096, "hard": 8192 },
        { "type": "RLIMIT_NICE", "soft": 5, "hard": 10 },
        { "type": "RLIMIT_NPROC", "soft": 500, "hard": 600 },
        { "type": "RLIMIT_RTPRIO", "soft": 3, "hard": 4 },
        { "type": "RLIMIT_SIGPENDING", "soft": 50, "hard": 60 },
        { "type": "RLIMIT_STACK", "soft": 4 << 20, "hard": 8 << 20 },
        { "type": "RLIMIT_DATA", "soft": 1_u64 << 32, "hard": 1_u64 << 33 },
        { "type": "RLIMIT_RSS", "soft": 1_u64 << 32, "hard": 1_u64 << 33 },
        { "type": "RLIMIT_AS", "soft": 1_u64 << 34, "hard": 1_u64 << 35 },
        { "type": "RLIMIT_LOCKS", "soft": 10, "hard": 20 },
        { "type": "RLIMIT_RTTIME", "soft": 1_000_000, "hard": 2_000_000 },
    ]);
    if let Some(args) = process["args"].as_array_mut() {
        args.extend(["zeroth".into(), "two words".into(), "".into()]);
    }
    config["hostname"] = "conformance".into();
    config["unknown"] = json!({ "property": 1 });
}

const PROCESS: &[Clause<Script>] = &[
    prints("user_uid", "config: process.user.uid", "id -u", "1234"),
    prints("user_gid", "config: process.user.gid", "id -g", "2345"),
    prints("user_additional_gids", "config: process.user.additionalGids", "id -G", "2345 50 60"),
    prints("user_umask", "config: process.user.umask", "umask", "0027"),
    prints("cwd", "config: process.cwd", "pwd", "/usr/share"),
    prints("env", "config: process.env", "echo \"$WORDS\"", "two  words"),
    prints("env_empty", "config: process.env", "echo \"${EMPTY-unset}.\"", "."),
    prints("env_last_wins", "config: process.env", "echo $SAME", "2"),
    prints("env_path", "config: process.env", "echo $PATH", "/usr/bin:/bin"),
    prints("env_nothing_of_the_callers", "config: process.env", "env | grep COFFERDAM", ""),
    prints("home_without_a_user_name", "config: process.user", "echo $HOME", "/"),
    prints("args", "config: process.args", "echo \"$0,$1,$2,$#\"", "zeroth,two words,,2"),
    prints("first_process", "config-linux: namespaces, pid", "echo $$", "1"),
    prints("session", "config: process", "ps -o pid=,pgid=,sid= -p 1 | tr -s ' '", "1 1 1"),
    prints("no_other_descriptor", "config: process", "ls /proc/1/fd | tr '\\n' ' '", "0 1 2"),
    prints(
        "no_signal_blocked_or_ignored",
        "config: process",
        "awk '/SigBlk|SigIgn/ { print $2 }' /proc/self/status | tr '\\n' ' '",
        "0000000000000000 0000000000000000",
    ),
    prints("oom_score_adj", "config: process.oomScoreAdj", "cat /proc/1/oom_score_adj", "321"),
    prints(
        "no_new_privileges",
        "config: process.noNewPrivileges",
        "awk '/NoNewPrivs/ { print $2 }' /proc/1/status",
        "1",
    ),
    prints("hostname", "config: hostname", "hostname", "conformance"),
    prints("unknown_properties_are_ignored", "config: extensibility", "echo here", "here"),
    rlimit!("rlimit_nofile", "Max open files", "100 200"),
    rlimit!("rlimit_core", "Max core file size", "0 0"),
    rlimit!("rlimit_cpu", "Max cpu time", "1000 2000"),
    rlimit!("rlimit_fsize", "Max file size", "1073741824 2147483648"),
    rlimit!("rlimit_memlock", "Max locked memory", "65536 131072"),
    rlimit!("rlimit_msgqueue", "Max msgqueue size", "4096 8192"),
    rlimit!("rlimit_nice", "Max nice priority", "5 10"),
    rlimit!("rlimit_nproc", "Max processes", "500 600"),
    rlimit!("rlimit_rtprio", "Max realtime priority", "3 4"),
    rlimit!("rlimit_sigpending", "Max pending signals", "50 60"),
    rlimit!("rlimit_stack", "Max stack size", "4194304 8388608"),
    rlimit!("rlimit_data", "Max data size", "4294967296 8589934592"),
    rlimit!("rlimit_rss", "Max resident set", "4294967296 8589934592"),
    rlimit!("rlimit_as", "Max address space", "17179869184 34359738368"),
    rlimit!("rlimit_locks", "Max file locks", "10 20"),
    rlimit!("rlimit_rttime", "Max realtime timeout", "1000000 2000000"),
];

fn as_root(config: &mut Value) {
    config["process"]["env"] = json!(["PATH=/usr/bin:/bin"]);
    config["domainname"] = "example".into();
    config["linux"]["sysctl"] = json!({
        "net.ipv4.ip_forward": "1", "kernel.msgmax": "65536", "fs.mqueue.msg_max": "20",
    });
}

const ROOT: &[Clause<Script>] = &[
    prints("home_of_the_user", "config: process.user", "echo $HOME", "/root"),
    prints("umask_by_default", "config: process.user.umask", "umask", "0022"),
    prints("domainname", "config: domainname", "cat /proc/sys/kernel/domainname", "example")
        .since("1.2"),
    prints("sysctl_net", "config-linux: sysctl", "cat /proc/sys/net/ipv4/ip_forward", "1"),
    prints("sysctl_ipc", "config-linux: sysctl", "cat /proc/sys/kernel/msgmax", "65536"),
    prints("sysctl_mqueue", "config-linux: sysctl", "cat /proc/sys/fs/mqueue/msg_max", "20"),
    prints(
        "no_new_privileges_off",
        "config: process.noNewPrivileges",
        "awk '/NoNewPrivs/ { print $2 }' /proc/1/status",
        "0",
    ),
    prints("standard_input_ends", "config: process", "wc -c", "0"),
    prints("no_terminal", "config: process.terminal", "tty", "not a tty"),
];

fn capabilities(config: &mut Value) {
    config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    config["process"]["capabilities"] = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SYS_CHROOT"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "inheritable": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_KILL"],
        "ambient": ["CAP_KILL"],
    });
}

/// For another user than root, an execution leaves of the permitted and effective sets what is ambient.
const CAPABILITIES: &[Clause<Script>] = &[
    set!("bounding", "CapBnd", "0000000000042021"),
    set!("inheritable", "CapInh", "0000000000000021"),
    set!("permitted", "CapPrm", "0000000000000020"),
    set!("effective", "CapEff", "0000000000000020"),
    set!("ambient", "CapAmb", "0000000000000020"),
];

fn root_capabilities(config: &mut Value) {
    config["process"]["capabilities"] = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NOT_KNOWN"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NOT_KNOWN"],
        "effective": ["CAP_CHOWN", "CAP_KILL", "CAP_NOT_KNOWN"],
    });
}

const ROOT_CAPABILITIES: &[Clause<Script>] = &[
    set!("unknown_ones_are_left_out", "CapBnd", "0000000000000021"),
    set!("root_gets_the_bounding_set", "CapPrm", "0000000000000021"),
    set!("none_is_ambient_by_default", "CapAmb", "0000000000000000"),
];

fn scheduling(config: &mut Value) {
    config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": 5 });
    config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 6 });
    config["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "0" });
}

const SCHEDULING: &[Clause<Script>] = &[
    prints(
        "scheduler",
        "config: process.scheduler",
        "chrt -p 1 | head -n 1 | sed 's/.*: //'",
        "SCHED_BATCH",
    )
    .since("1.2"),
    prints("scheduler_nice", "config: process.scheduler", "ps -o ni= -p 1 | tr -d ' '", "5")
        .since("1.2"),
    prints("io_priority", "config: process.ioPriority", "ionice -p 1", "best-effort: prio 6")
        .since("1.2"),
];

fn personality(config: &mut Value) {
    config["linux"]["personality"] = json!({ "domain": "LINUX32" });
}

const PERSONALITY: &[Clause<Script>] =
    &[prints("personality", "config-linux: personality", "uname -m", "i686").since("1.2")];
