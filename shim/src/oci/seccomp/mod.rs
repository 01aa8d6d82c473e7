//! An OCI seccomp profile to one classic BPF program (OCI runtime-spec, config-linux#seccomp).
//!
//! A profile may mix several actions and errno values, so its rules cannot be a stack of filters with
//! one action each: they become, per architecture, a table "number -> what to do" that is looked up by
//! binary search.
//!
//! Where the specification is silent we do what runc does: names unknown to this kernel are skipped;
//! conditions on one argument given twice are alternatives; a rule with the default action says nothing;
//! a rule without conditions beats those with; system calls newer than every one that the profile names
//! give `ENOSYS` where they would be refused with another errno, so that programs can fall back; a listener that no rule
//! needs means nothing.
//!
//! Invariant: pure; every program that comes out ends in a `RET` on every path.

mod program;
mod syscalls;

use std::collections::BTreeMap;

use cofferdam_agent_protocol::SeccompFilter;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};

use program::{Comparison, Condition, Entry, Rule, Section};
use syscalls::Abi;

/// A profile that cannot be applied in the guest.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeccompError {
    /// Needs a listener outside the guest.
    #[error(
        "linux.seccomp.{field}: failed to connect with seccomp agent: notification hands system calls to a process on \
         the host, which cannot act on a process inside the virtual machine"
    )]
    Notify {
        /// The field.
        field: String,
    },
    /// Would hand the answer of a notified process to that process.
    #[error("linux.seccomp.{field}: SCMP_ACT_NOTIFY cannot be used for the write syscall")]
    NotifyWrite {
        /// The field.
        field: String,
    },
    /// An argument index.
    #[error("linux.seccomp.{field}: a system call has arguments 0 to 5, not {index}")]
    Argument {
        /// The field.
        field: String,
        /// The argument.
        index: usize,
    },
    /// An errno.
    #[error("linux.seccomp.{field}: {errno} is over 4095")]
    Errno {
        /// The field.
        field: String,
        /// The number.
        errno: u32,
    },
    /// The kernel's limit.
    #[error("linux.seccomp: {0} BPF instructions; the kernel takes at most 4096")]
    TooLong(usize),
}

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_KILL_THREAD: u32 = 0;
const RET_TRAP: u32 = 0x0003_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_TRACE: u32 = 0x7ff0_0000;
const RET_LOG: u32 = 0x7ffc_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// `SECCOMP_FILTER_FLAG_LOG` and `SECCOMP_FILTER_FLAG_SPEC_ALLOW`.
const LOG: u64 = 1 << 1;
const SPEC_ALLOW: u64 = 1 << 2;

/// Those of a profile that does not say, as with runc.
const DEFAULT_FLAGS: u64 = SPEC_ALLOW;

/// Most instructions of a filter (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// The filter for `profile`.
///
/// # Errors
/// What in the profile cannot be applied.
pub(super) fn filter(profile: &LinuxSeccomp) -> Result<SeccompFilter, SeccompError> {
    let fields = ("defaultAction", "defaultErrnoRet");
    let default = ret(fields, profile.default_action(), profile.default_errno_ret())?;
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let mut sections = Vec::new();
    for abi in abis(profile.architectures().as_deref().unwrap_or_default()) {
        sections.push(Section { abi, entries: entries(rules, abi, default)?, default });
    }
    let instructions = program::build(&sections, RET_KILL_PROCESS);
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong(instructions.len()));
    }
    let program = instructions.iter().flat_map(|i| i.to_bytes()).collect();
    let flags = profile.flags().as_deref().map_or(DEFAULT_FLAGS, flags);
    // As runc tells it.
    tracing::debug!("seccomp filter flags: {flags}");
    Ok(SeccompFilter { program, flags })
}

/// The ABIs a profile covers: always the native one.
fn abis(architectures: &[Arch]) -> Vec<Abi> {
    let listed = |arch| architectures.contains(&arch);
    let mut abis = vec![Abi::X86_64];
    if listed(Arch::ScmpArchX86) {
        abis.push(Abi::I386);
    }
    if listed(Arch::ScmpArchX32) {
        abis.push(Abi::X32);
    }
    abis
}

fn flags(flags: &[LinuxSeccompFilterFlag]) -> u64 {
    flags.iter().fold(0, |all, flag| {
        all | match flag {
            // The filter is installed by a single-threaded process: TSYNC has nothing to do.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
        }
    })
}

/// The value a filter returns for `action`; `fields` are where action and errno are.
fn ret(fields: (&str, &str), action: Action, errno: Option<u32>) -> Result<u32, SeccompError> {
    let data = errno.unwrap_or(EPERM);
    if data > 4095 {
        return Err(SeccompError::Errno { field: fields.1.to_owned(), errno: data });
    }
    Ok(match action {
        Action::ScmpActKill | Action::ScmpActKillThread => RET_KILL_THREAD,
        Action::ScmpActKillProcess => RET_KILL_PROCESS,
        Action::ScmpActTrap => RET_TRAP,
        Action::ScmpActErrno => RET_ERRNO | data,
        Action::ScmpActTrace => RET_TRACE | data,
        Action::ScmpActLog => RET_LOG,
        Action::ScmpActAllow => RET_ALLOW,
        Action::ScmpActNotify => {
            return Err(SeccompError::Notify { field: fields.0.to_owned() });
        }
    })
}

/// The table of one ABI, sorted by number.
fn entries(rules: &[LinuxSyscall], abi: Abi, default: u32) -> Result<Vec<Entry>, SeccompError> {
    let mut table: BTreeMap<u32, Entry> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("syscalls[{index}]");
        let fields = (format!("{field}.action"), format!("{field}.errnoRet"));
        let writes = || rule.names().iter().any(|name| name == "write");
        if rule.action() == Action::ScmpActNotify && writes() {
            return Err(SeccompError::NotifyWrite { field: fields.0 });
        }
        let action = ret((&fields.0, &fields.1), rule.action(), rule.errno_ret())?;
        let alternatives = conditions(&field, rule.args().as_deref().unwrap_or_default())?;
        if action == default {
            continue;
        }
        for number in rule.names().iter().filter_map(|name| syscalls::number(name, abi)) {
            let entry = table.entry(number).or_insert_with(|| Entry::new(number, default));
            if alternatives.is_empty() && !entry.unconditional {
                entry.unconditional = true;
                entry.otherwise = action;
                entry.rules.clear();
            } else if !entry.unconditional {
                let new = alternatives.iter().map(|all| Rule { all: all.clone(), action });
                entry.rules.extend(new);
            }
        }
    }
    let newest = table.keys().next_back().copied();
    let refuses = default & 0xffff_0000 == RET_ERRNO
        || default == RET_KILL_THREAD
        || default == RET_KILL_PROCESS
        || default == RET_TRAP;
    if let Some(next) = newest.map(|n| n + 1).filter(|_| refuses && default != RET_ERRNO | ENOSYS) {
        let mut unknown = Entry::new(next, RET_ERRNO | ENOSYS);
        unknown.and_above = true;
        table.insert(next, unknown);
    }
    Ok(table.into_values().collect())
}

/// Conditions as alternatives of conjunctions; none at all means always.
fn conditions(field: &str, args: &[LinuxSeccompArg]) -> Result<Vec<Vec<Condition>>, SeccompError> {
    let one = |(index, arg)| condition(|| format!("{field}.args[{index}].index"), arg);
    let all = args.iter().enumerate().map(one).collect::<Result<Vec<_>, _>>()?;
    let twice = |c: &Condition| all.iter().filter(|other| other.argument == c.argument).count() > 1;
    if all.is_empty() {
        Ok(Vec::new())
    } else if all.iter().any(twice) {
        Ok(all.into_iter().map(|condition| vec![condition]).collect())
    } else {
        Ok(vec![all])
    }
}

fn condition(field: impl Fn() -> String, arg: &LinuxSeccompArg) -> Result<Condition, SeccompError> {
    let argument = u8::try_from(arg.index()).ok().filter(|index| *index < 6);
    let argument =
        argument.ok_or_else(|| SeccompError::Argument { field: field(), index: arg.index() })?;
    let value = arg.value();
    let comparison = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => Comparison::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Comparison::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Comparison::LessOrEqual(value),
        LinuxSeccompOperator::ScmpCmpEq => Comparison::Equal(value),
        LinuxSeccompOperator::ScmpCmpGe => Comparison::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Comparison::Greater(value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            Comparison::MaskedEqual { mask: value, value: arg.value_two().unwrap_or(0) }
        }
    };
    Ok(Condition { argument, comparison })
}

#[cfg(test)]
#[path = "seccomp_test.rs"]
mod seccomp_test;
