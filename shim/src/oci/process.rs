//! A process (OCI runtime-spec, config#process).
//!
//! Invariant: nothing in the plan holds a NUL byte, and there is a program to run.

use std::os::unix::ffi::OsStrExt;

use cofferdam_agent_protocol as protocol;
use oci_spec::runtime::{
    Capabilities, IOPriorityClass, LinuxCapabilities, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, PosixRlimit, PosixRlimitType, Process, Scheduler,
};

use super::{OciError, invalid, unsupported};

/// Names of capabilities in the order of their numbers (`include/uapi/linux/capability.h`).
pub(super) const CAPABILITIES: [&str; 41] = [
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

/// The plan of `process`, without its streams, seccomp filter and personality.
pub(super) fn plan(
    process: &Process,
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
    for (field, value) in
        [("apparmorProfile", process.apparmor_profile()), ("selinuxLabel", process.selinux_label())]
    {
        if value.as_ref().is_some_and(|value| !value.is_empty()) {
            warnings
                .push(format!("process.{field}: the guest has no such security module; ignored"));
        }
    }
    if process.exec_cpu_affinity().is_some() {
        // As runc: it is about processes that come later.
        warnings.push("process.execCPUAffinity is not about the first process; ignored".into());
    }
    let rlimits = process.rlimits().as_deref().unwrap_or_default();
    Ok(protocol::ProcessPlan {
        args,
        env: strings("process.env", process.env().as_deref().unwrap_or_default())?,
        cwd,
        uid: process.user().uid(),
        gid: process.user().gid(),
        additional_gids: process.user().additional_gids().clone().unwrap_or_default(),
        umask: umask(process.user().umask())?,
        capabilities: process.capabilities().as_ref().map(capabilities),
        rlimits: rlimits.iter().map(rlimit).collect::<Result<_, _>>()?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: oom_score_adj(process.oom_score_adj())?,
        scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
        io_priority: io_priority(process)?,
        ..Default::default()
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

fn capabilities(sets: &LinuxCapabilities) -> protocol::Capabilities {
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

fn rlimit(limit: &PosixRlimit) -> Result<protocol::Rlimit, OciError> {
    if limit.soft() > limit.hard() {
        let problem = format!("{}: soft {} over hard {}", limit.typ(), limit.soft(), limit.hard());
        return Err(invalid("process.rlimits", problem));
    }
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
    Ok(protocol::Rlimit { resource, soft: limit.soft(), hard: limit.hard() })
}

fn scheduler(scheduler: &Scheduler) -> Result<protocol::Scheduler, OciError> {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(unsupported("process.scheduler.policy SCHED_ISO", "Linux never had it"));
        }
    };
    let flag = |flag: &LinuxSchedulerFlag| match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    };
    let priority = scheduler.priority().unwrap_or(0);
    let priority = u32::try_from(priority)
        .map_err(|_| invalid("process.scheduler.priority", format!("{priority} is negative")))?;
    Ok(protocol::Scheduler {
        policy,
        flags: scheduler.flags().iter().flatten().map(flag).fold(0, |all, bit| all | bit),
        nice: scheduler.nice().unwrap_or(0),
        priority,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    })
}

fn io_priority(process: &Process) -> Result<Option<protocol::IoPriority>, OciError> {
    let Some(priority) = process.io_priority() else { return Ok(None) };
    let level = u32::try_from(priority.priority()).ok().filter(|level| *level < 8);
    let level = level.ok_or_else(|| {
        invalid("process.ioPriority.priority", format!("{} is not 0 to 7", priority.priority()))
    })?;
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    Ok(Some(protocol::IoPriority { class, level }))
}

/// The argument of `personality(2)`.
pub(super) fn personality(domain: LinuxPersonalityDomain) -> u64 {
    match domain {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    }
}
