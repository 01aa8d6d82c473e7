//! What a plan must be like, whatever it says.
//!
//! Invariant: pure. The host is trusted, but a plan that makes no sense must fail with a clear message
//! and before anything is done.

use cofferdam_agent_protocol::{ContainerPlan, Namespace, NamespaceKind, ProcessPlan};
use nix::sched::CloneFlags;

use crate::error::{Failure, Result};
use crate::launch::CLONE_NEWTIME;

/// Longest id.
const MAX_ID: usize = 255;

/// Most instructions of a seccomp filter, and most filters.
const MAX_INSTRUCTIONS: usize = 4096;
const MAX_FILTERS: usize = 64;

/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`: nobody here would listen.
const NEW_LISTENER: u64 = 1 << 3;

/// Refuses an id that is not a file name of letters, digits and `_+-.`.
pub(crate) fn id(id: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id.len() > MAX_ID || id == "." || id == ".." || !id.chars().all(fine) {
        let shown: String = id.chars().take(80).collect();
        return Err(Failure::unsupported(format!("bad id \"{shown}\"")));
    }
    Ok(())
}

/// Refuses a container that cannot be set up.
pub(crate) fn container(plan: &ContainerPlan) -> Result<&ProcessPlan> {
    id(&plan.id)?;
    let first = plan.process.as_ref();
    let first = first.ok_or_else(|| Failure::unsupported("a container without a process"))?;
    process(first)?;
    for hook in plan.create_hooks.iter().chain(&plan.start_hooks).flat_map(|list| &list.hooks) {
        if !hook.path.starts_with(b"/") || hook.args.is_empty() {
            return Err(Failure::unsupported("a hook without an absolute path or without args"));
        }
    }
    let clock = |clock: &str| clock == "monotonic" || clock == "boottime";
    if !plan.time_offsets.iter().all(|offset| clock(&offset.clock)) {
        return Err(Failure::unsupported("an offset of a clock that no namespace has"));
    }
    if !plan.time_offsets.is_empty() && !Namespaces::of(plan)?.new.contains(CLONE_NEWTIME) {
        return Err(Failure::unsupported("offsets of clocks without a new time namespace"));
    }
    Ok(first)
}

/// Refuses a process that cannot be started.
pub(crate) fn process(plan: &ProcessPlan) -> Result<()> {
    if plan.args.is_empty() {
        return Err(Failure::unsupported("a process without args"));
    }
    if plan.terminal.is_some() && plan.stdio.is_some() {
        return Err(Failure::unsupported("a process with a terminal and other streams too"));
    }
    if plan.seccomp.len() > MAX_FILTERS {
        return Err(Failure::unsupported("too many seccomp filters"));
    }
    for filter in &plan.seccomp {
        if filter.program.len() > MAX_INSTRUCTIONS * 8 || !filter.program.len().is_multiple_of(8) {
            return Err(Failure::unsupported("a malformed seccomp filter"));
        }
        if filter.flags & NEW_LISTENER != 0 {
            return Err(Failure::unsupported("seccomp notifications"));
        }
    }
    Ok(())
}

/// The flag of `clone3(2)` and `setns(2)` for a namespace.
pub(crate) fn clone_flag(namespace: &Namespace) -> Result<CloneFlags> {
    let kind = NamespaceKind::try_from(namespace.kind)
        .map_err(|_| Failure::unsupported(format!("namespace kind {}", namespace.kind)))?;
    Ok(match kind {
        NamespaceKind::Mount => CloneFlags::CLONE_NEWNS,
        NamespaceKind::Pid => CloneFlags::CLONE_NEWPID,
        NamespaceKind::Network => CloneFlags::CLONE_NEWNET,
        NamespaceKind::Ipc => CloneFlags::CLONE_NEWIPC,
        NamespaceKind::Uts => CloneFlags::CLONE_NEWUTS,
        NamespaceKind::User => CloneFlags::CLONE_NEWUSER,
        NamespaceKind::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        NamespaceKind::Time => CLONE_NEWTIME,
    })
}

/// The namespaces of a container.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Namespaces {
    /// To make.
    pub(crate) new: CloneFlags,
    /// To join: of which container, and which; user namespaces last.
    pub(crate) joins: Vec<(String, CloneFlags)>,
}

impl Namespaces {
    /// Those of `plan`.
    pub(crate) fn of(plan: &ContainerPlan) -> Result<Self> {
        let mut new = CloneFlags::CLONE_NEWNS;
        let mut joins: Vec<(String, CloneFlags)> = Vec::new();
        let mut seen = CloneFlags::empty();
        for namespace in &plan.namespaces {
            let flag = clone_flag(namespace)?;
            if seen.contains(flag) {
                return Err(Failure::unsupported("a namespace that is listed twice"));
            }
            seen |= flag;
            let target = &namespace.join;
            if target.is_empty() {
                new |= flag;
            } else if flag == CloneFlags::CLONE_NEWNS {
                return Err(Failure::unsupported("joining a mount namespace"));
            } else if let Some((_, kinds)) = joins.iter_mut().find(|(of, _)| of == target) {
                *kinds |= flag;
            } else {
                joins.push((target.clone(), flag));
            }
        }
        joins.sort_by_key(|(_, kinds)| kinds.contains(CloneFlags::CLONE_NEWUSER));
        Ok(Self { new, joins })
    }

    /// All that are not the agent's.
    pub(crate) fn own(&self) -> CloneFlags {
        self.joins.iter().fold(self.new, |all, (_, kinds)| all | *kinds)
    }
}

#[cfg(test)]
#[path = "check_test.rs"]
mod check_test;
