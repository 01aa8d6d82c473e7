//! A process (OCI runtime-spec, config#process).
//!
//! Invariant: nothing in the plan holds a NUL byte, and there is a program to run.

use std::os::unix::ffi::OsStrExt;

use cofferdam_agent_protocol as protocol;
use oci_spec::runtime::{
    Capabilities, Linux, LinuxCapabilities, LinuxPersonalityDomain, PosixRlimit, PosixRlimitType,
    Process, Spec,
};

use super::json::{self, JsonError};
use super::{OciError, invalid, scheduling, seccomp};

/// Names of capabilities in the order of their numbers (`include/uapi/linux/capability.h`).
pub(crate) const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A process as `runc exec --process` takes it: `process` of a configuration. Also gives what was ignored.
///
/// # Errors
/// [`JsonError`].
pub fn parse_process(text: &[u8]) -> Result<(Process, Vec<String>), JsonError> {
    json::parse(text, "process")
}

/// The plan of one more process in the container of `spec`, without its streams, and what was ignored.
///
/// What `process` does not say is as for the container's first process: capabilities, limits, priorities, CPUs.
/// Personality and system-call filter always are the container's, and so is the umask.
///
/// # Errors
/// The first thing that makes no sense or cannot be done in a pod.
pub fn exec(
    process: &Process,
    spec: &Spec,
) -> Result<(protocol::ProcessPlan, Vec<String>), OciError> {
    let mut process = process.clone();
    if let Some(first) = spec.process() {
        inherit(&mut process, first);
    }
    let mut warnings = Vec::new();
    let plan = plan(&process, spec.linux().as_ref(), &mut warnings)?;
    Ok((plan, warnings))
}

/// Gives `process` what it does not say for itself.
fn inherit(process: &mut Process, first: &Process) {
    if process.capabilities().is_none() {
        process.set_capabilities(first.capabilities().clone());
    }
    if process.rlimits().as_ref().is_none_or(Vec::is_empty) {
        process.set_rlimits(first.rlimits().clone());
    }
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(first.oom_score_adj());
    }
    if process.scheduler().is_none() {
        process.set_scheduler(first.scheduler().clone());
    }
    if process.io_priority().is_none() {
        process.set_io_priority(*first.io_priority());
    }
    if process.exec_cpu_affinity().is_none() {
        process.set_exec_cpu_affinity(first.exec_cpu_affinity().clone());
    }
    if process.user().umask().is_none() {
        process.user_mut().set_umask(first.user().umask());
    }
}

/// The plan of `process` in a container with `linux`, without its streams.
pub(crate) fn plan(
    process: &Process,
    linux: Option<&Linux>,
    warnings: &mut Vec<String>,
) -> Result<protocol::ProcessPlan, OciError> {
    let args = strings("process.args", process.args().as_deref().unwrap_or_default())?;
    if args.first().is_none_or(Vec::is_empty) {
        return Err(invalid("process.args", "is empty; there is nothing to run"));
    }
    let cwd = process.cwd().as_os_str().as_bytes().to_vec();
    if !process.cwd().is_absolute() || cwd.contains(&0) {
        let problem = format!("{:?} is not an absolute path", process.cwd());
        return Err(invalid("process.cwd", problem));
    }
    let labels = [
        ("apparmorProfile", process.apparmor_profile()),
        ("selinuxLabel", process.selinux_label()),
    ];
    for (field, value) in labels {
        if value.as_ref().is_some_and(|value| !value.is_empty()) {
            warnings
                .push(format!("process.{field}: the guest has no such security module; ignored"));
        }
    }
    let seccomp = linux.and_then(|linux| linux.seccomp().as_ref());
    Ok(protocol::ProcessPlan {
        args,
        env: strings("process.env", process.env().as_deref().unwrap_or_default())?,
        cwd,
        uid: process.user().uid(),
        gid: process.user().gid(),
        additional_gids: process.user().additional_gids().clone().unwrap_or_default(),
        umask: umask(process.user().umask())?,
        capabilities: process.capabilities().as_ref().map(|sets| capabilities(sets, warnings)),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: oom_score_adj(process.oom_score_adj())?,
        seccomp: seccomp.map(seccomp::filter).transpose()?.into_iter().collect(),
        scheduler: process.scheduler().as_ref().map(scheduling::scheduler).transpose()?,
        io_priority: scheduling::io_priority(process)?,
        personality: personality(linux, warnings),
        terminal: terminal(process),
        stdio: None,
        affinity: scheduling::affinity(process)?,
    })
}

fn strings(field: &str, list: &[String]) -> Result<Vec<Vec<u8>>, OciError> {
    if list.iter().any(|text| text.contains('\0')) {
        return Err(invalid(field, "holds a NUL byte"));
    }
    Ok(list.iter().map(|text| text.clone().into_bytes()).collect())
}

fn umask(umask: Option<u32>) -> Result<Option<u32>, OciError> {
    match umask {
        Some(bits) if bits > 0o777 => Err(invalid("process.user.umask", format!("{bits:#o}"))),
        other => Ok(other),
    }
}

fn oom_score_adj(score: Option<i32>) -> Result<Option<i32>, OciError> {
    match score {
        Some(score) if !(-1000..=1000).contains(&score) => {
            Err(invalid("process.oomScoreAdj", format!("{score} is not -1000 to 1000")))
        }
        other => Ok(other),
    }
}

fn capabilities(sets: &LinuxCapabilities, warnings: &mut Vec<String>) -> protocol::Capabilities {
    let (permitted, inheritable) =
        (bits(sets.permitted().as_ref()), bits(sets.inheritable().as_ref()));
    let lost = bits(sets.ambient().as_ref()) & !(permitted & inheritable);
    for (number, name) in CAPABILITIES.iter().enumerate() {
        if lost >> number & 1 == 1 {
            warnings.push(format!(
                "can't raise ambient capability CAP_{name}: it is not both permitted and inheritable"
            ));
        }
    }
    protocol::Capabilities {
        bounding: bits(sets.bounding().as_ref()),
        effective: bits(sets.effective().as_ref()),
        inheritable: bits(sets.inheritable().as_ref()),
        permitted: bits(sets.permitted().as_ref()),
        ambient: bits(sets.ambient().as_ref()),
    }
}

fn bits(set: Option<&Capabilities>) -> u64 {
    let number = |name: String| CAPABILITIES.iter().position(|known| *known == name);
    set.into_iter()
        .flatten()
        .filter_map(|capability| number(capability.to_string()))
        .fold(0, |bits, number| bits | 1 << number)
}

/// Resource limits, each at most once (config#process).
fn rlimits(limits: &[PosixRlimit]) -> Result<Vec<protocol::Rlimit>, OciError> {
    let mut all: Vec<protocol::Rlimit> = Vec::with_capacity(limits.len());
    for (index, limit) in limits.iter().enumerate() {
        let field = format!("process.rlimits[{index}]");
        if limit.soft() > limit.hard() {
            let (soft, hard) = (limit.soft(), limit.hard());
            let problem = format!("{}: soft {soft} over hard {hard}", limit.typ());
            return Err(invalid(field, problem));
        }
        let limit = rlimit(limit);
        if all.iter().any(|other| other.resource == limit.resource) {
            return Err(invalid(format!("{field}.type"), "is listed twice"));
        }
        all.push(limit);
    }
    Ok(all)
}

fn rlimit(limit: &PosixRlimit) -> protocol::Rlimit {
    let resource = match limit.typ() {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    };
    protocol::Rlimit { resource, soft: limit.soft(), hard: limit.hard() }
}

/// A terminal of the size that `process` wants, if it wants one; its stream is filled in later.
fn terminal(process: &Process) -> Option<protocol::Terminal> {
    let size = process.console_size();
    let side = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).min(u16::MAX.into());
    process.terminal().unwrap_or(false).then(|| protocol::Terminal {
        plain_newlines: false,
        stream: 0,
        rows: size.map_or(0, |size| side(size.height())),
        columns: size.map_or(0, |size| side(size.width())),
    })
}

/// The argument of `personality(2)`.
fn personality(linux: Option<&Linux>, warnings: &mut Vec<String>) -> Option<u64> {
    let personality = linux.and_then(|linux| linux.personality().as_ref())?;
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        // As runc: the specification names none.
        warnings.push("linux.personality.flags: no flag is known; ignored".into());
    }
    Some(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

#[cfg(test)]
#[path = "process_test.rs"]
mod process_test;
