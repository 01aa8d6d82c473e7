//! A table of system calls as a program for the kernel (`seccomp(2)`).
//!
//! The kernel works out beforehand which calls a filter always allows, by running it for every number there is. A filter
//! that compares one call after the other makes that the longest part of its installation, so the calls are
//! divided into groups, and what comes first says which group may know a call:
//!
//! ```text
//! load the number ─► at least the first of group 3? ─► group 3: the architecture, then each of its calls; or the trap
//!                    at least the first of group 2? ─► group 2: …
//!                    …                              ─► group 1
//! ```
//!
//! Invariant: it decides as one filter with all the rules would; each group is a whole filter of `seccompiler`.

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch, sock_filter,
};

/// What a system call's number leads to, by the number.
pub(super) type Table = BTreeMap<i64, Vec<SeccompRule>>;

/// Calls in one group.
const GROUP: usize = 5;

/// Instructions of classic BPF (Linux, uapi/linux/bpf_common.h): load a word of the data, jump, jump if at least.
const LOAD_WORD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_IF_AT_LEAST: u16 = 0x35;

/// Where the data has the call's number (Linux, uapi/linux/seccomp.h, `struct seccomp_data`).
const NUMBER: u32 = 0;

/// The program that allows what is in `table`, which is not empty, and traps everything else.
///
/// # Errors
/// If the table makes no sense, or is too long.
pub(super) fn compile(table: &Table) -> Result<BpfProgram, BackendError> {
    let entries: Vec<_> = table.iter().collect();
    let mut program = vec![instruction(LOAD_WORD, 0, NUMBER)];
    let mut groups = Vec::new();
    for group in entries.chunks(GROUP) {
        // No call has a number of more bits.
        let first = group.first().and_then(|(number, _)| u32::try_from(**number).ok());
        let rules = group.iter().map(|(number, rules)| (**number, (*rules).clone())).collect();
        groups.push((first.unwrap_or(u32::MAX), whole(rules)?));
    }
    // From the last group to the first, which needs no question: each question is two instructions.
    let mut ahead = groups.len().saturating_sub(1) * 2;
    let mut lengths: usize = groups.iter().map(|(_, group)| group.len()).sum();
    for (first, group) in groups.iter().skip(1).rev() {
        (ahead, lengths) = (ahead - 2, lengths - group.len());
        let distance = ahead + lengths;
        let distance =
            u32::try_from(distance).map_err(|_| BackendError::FilterTooLarge(distance))?;
        program.push(instruction(JUMP_IF_AT_LEAST, 1, *first));
        program.push(instruction(JUMP, 0, distance));
    }
    program.extend(groups.into_iter().flat_map(|(_, group)| group));
    Ok(program)
}

/// One filter with all of `rules`. A call for another architecture, such as one of 32 bits, kills the process whatever
/// they say.
pub(super) fn whole(rules: Table) -> Result<BpfProgram, BackendError> {
    let (other, allow) = (SeccompAction::Trap, SeccompAction::Allow);
    SeccompFilter::new(rules, other, allow, TargetArch::x86_64)?.try_into()
}

/// An instruction that goes on `otherwise` further if it asks and the answer is no.
fn instruction(code: u16, otherwise: u8, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: otherwise, k }
}

#[cfg(test)]
#[path = "program_test.rs"]
mod program_test;
