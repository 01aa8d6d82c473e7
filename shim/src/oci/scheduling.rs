//! Priorities and CPUs of a process (OCI runtime-spec, config#linux-process).
//!
//! Invariant: what the kernel would refuse for its form alone is refused here, by field.

use cofferdam_agent_protocol as protocol;
use oci_spec::runtime::{
    IOPriorityClass, LinuxSchedulerFlag, LinuxSchedulerPolicy, Process, Scheduler,
};

use super::{OciError, invalid, unsupported};

// `SCHED_*` of `linux/sched.h`.
const OTHER: u32 = 0;
const FIFO: u32 = 1;
const ROUND_ROBIN: u32 = 2;
const BATCH: u32 = 3;
const DEADLINE: u32 = 6;

/// Most CPUs that an affinity can name.
const MAX_CPUS: u32 = 1024;

/// The scheduling policy of a process.
pub(super) fn scheduler(scheduler: &Scheduler) -> Result<protocol::Scheduler, OciError> {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => OTHER,
        LinuxSchedulerPolicy::SchedFifo => FIFO,
        LinuxSchedulerPolicy::SchedRr => ROUND_ROBIN,
        LinuxSchedulerPolicy::SchedBatch => BATCH,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => DEADLINE,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(unsupported("process.scheduler.policy", "Linux never had SCHED_ISO"));
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
    let nice = scheduler.nice().unwrap_or(0);
    if (policy == OTHER || policy == BATCH) && !(-20..=19).contains(&nice) {
        return Err(invalid("process.scheduler.nice", format!("{nice} is not -20 to 19")));
    }
    let priority = scheduler.priority().unwrap_or(0);
    if priority != 0 && policy != FIFO && policy != ROUND_ROBIN {
        let problem = "only SCHED_FIFO and SCHED_RR have one";
        return Err(invalid("process.scheduler.priority", problem));
    }
    let times = [
        ("runtime", scheduler.runtime()),
        ("deadline", scheduler.deadline()),
        ("period", scheduler.period()),
    ];
    for (field, _) in times.into_iter().filter(|(_, time)| time.is_some_and(|time| time != 0)) {
        if policy != DEADLINE {
            let field = format!("process.scheduler.{field}");
            return Err(invalid(field, "only SCHED_DEADLINE has one"));
        }
    }
    let priority = u32::try_from(priority)
        .map_err(|_| invalid("process.scheduler.priority", format!("{priority} is negative")))?;
    Ok(protocol::Scheduler {
        policy,
        flags: scheduler.flags().iter().flatten().map(flag).fold(0, |all, bit| all | bit),
        nice,
        priority,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    })
}

/// The I/O priority of a process.
pub(super) fn io_priority(process: &Process) -> Result<Option<protocol::IoPriority>, OciError> {
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

/// The CPUs of one more process.
pub(super) fn affinity(process: &Process) -> Result<Option<protocol::CpuAffinity>, OciError> {
    let Some(affinity) = process.exec_cpu_affinity() else { return Ok(None) };
    let affinity = protocol::CpuAffinity {
        initial: cpus("initial", affinity.initial().as_deref())?,
        last: cpus("final", affinity.cpu_affinity_final().as_deref())?,
    };
    Ok((affinity != protocol::CpuAffinity::default()).then_some(affinity))
}

/// The CPUs of a list such as `0-3,8`, by rising number.
fn cpus(field: &str, list: Option<&str>) -> Result<Vec<u32>, OciError> {
    let fault = |problem: String| invalid(format!("process.execCPUAffinity.{field}"), problem);
    let number = |text: &str| match text.trim().parse::<u32>() {
        Ok(cpu) if cpu < MAX_CPUS => Ok(cpu),
        _ => Err(fault(format!("{text:?} is not a CPU, 0 to {}", MAX_CPUS - 1))),
    };
    let mut all = Vec::new();
    for part in list.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        if first > last {
            return Err(fault(format!("{part:?} is no range")));
        }
        all.extend(first..=last);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

#[cfg(test)]
#[path = "scheduling_test.rs"]
mod scheduling_test;
