//! Device rules to a `BPF_PROG_TYPE_CGROUP_DEVICE` program (kernel, `include/uapi/linux/bpf.h`).
//!
//! The kernel runs it with a pointer to `struct bpf_cgroup_dev_ctx` in R1: access (high half) and type
//! (low half) in one `u32`, then major and minor. It allows the access when R0 ends as 1.
//!
//! The last rule that names a device decides, for each of mknod, read and write by itself (as cgroup v1
//! did, OCI runtime-spec, config-linux#allowed-device-list). So the rules are tried from the last to the
//! first: a rule that denies any access still open refuses all; one that allows takes its accesses off
//! the open ones; when none is left, the access is allowed; past the first rule it is refused.
//!
//! Invariant: straight-line code with forward jumps only, so that the kernel's verifier accepts it.

/// `BPF_DEVCG_ACC_MKNOD`.
pub(crate) const MKNOD: u8 = 1;
/// `BPF_DEVCG_ACC_READ`.
pub(crate) const READ: u8 = 2;
/// `BPF_DEVCG_ACC_WRITE`.
pub(crate) const WRITE: u8 = 4;
/// Every access.
pub(crate) const ALL: u8 = MKNOD | READ | WRITE;

/// Instructions the kernel takes from a privileged process at most (`BPF_MAXINSNS` for old ones).
const MAX_RULES: usize = 400;

/// The type of device a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleType {
    /// Block and character devices.
    Any,
    /// Block devices.
    Block,
    /// Character devices.
    Character,
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRule {
    /// Allows, or denies.
    pub(crate) allow: bool,
    /// Which type.
    pub(crate) kind: RuleType,
    /// Which major number; absent means all.
    pub(crate) major: Option<u32>,
    /// Which minor number; absent means all.
    pub(crate) minor: Option<u32>,
    /// [`MKNOD`], [`READ`], [`WRITE`].
    pub(crate) access: u8,
}

/// Too many rules.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("linux.resources.devices: {0} rules; at most {MAX_RULES} fit into a device filter")]
pub struct TooManyRules(usize);

// Instruction classes and operations (kernel, Documentation/bpf/standardization/instruction-set.rst).
const LDX_MEM_W: u8 = 0x61;
const ALU_AND_K: u8 = 0x54;
const ALU_RSH_K: u8 = 0x74;
const ALU64_MOV_X: u8 = 0xbf;
const ALU64_MOV_K: u8 = 0xb7;
const JNE_K: u8 = 0x55;
const JSET_K: u8 = 0x45;
const JA: u8 = 0x05;
const EXIT: u8 = 0x95;

const TYPE: u8 = 2;
const OPEN: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    value: i32,
}

fn instruction(code: u8, target: u8, offset: i16, value: i32) -> Instruction {
    Instruction { code, registers: target, offset, value }
}

/// `R0 = value; exit`.
fn finish(value: i32) -> [Instruction; 2] {
    [instruction(ALU64_MOV_K, 0, 0, value), instruction(EXIT, 0, 0, 0)]
}

/// The program for `rules`, 8 bytes an instruction.
///
/// # Errors
/// [`TooManyRules`].
pub(crate) fn program(rules: &[DeviceRule]) -> Result<Vec<u8>, TooManyRules> {
    if rules.len() > MAX_RULES {
        return Err(TooManyRules(rules.len()));
    }
    let load = |target: u8, offset| Instruction {
        code: LDX_MEM_W,
        registers: target | 1 << 4,
        offset,
        value: 0,
    };
    let mut code = vec![
        load(TYPE, 0),
        Instruction { code: ALU64_MOV_X, registers: OPEN | TYPE << 4, offset: 0, value: 0 },
        instruction(ALU_AND_K, TYPE, 0, 0xffff),
        instruction(ALU_RSH_K, OPEN, 0, 16),
        load(MAJOR, 4),
        load(MINOR, 8),
    ];
    for rule in rules.iter().rev().filter(|rule| rule.access & ALL != 0) {
        code.extend(rule_code(rule));
    }
    code.extend(finish(0));
    Ok(code.iter().flat_map(encode).collect())
}

/// The code of one rule; falls through when nothing is decided.
fn rule_code(rule: &DeviceRule) -> Vec<Instruction> {
    let access = i32::from(rule.access & ALL);
    let mut body = if rule.allow {
        vec![
            instruction(ALU_AND_K, OPEN, 0, i32::from(!rule.access & ALL)),
            instruction(JNE_K, OPEN, 2, 0),
        ]
    } else {
        vec![instruction(JSET_K, OPEN, 1, access), instruction(JA, 0, 2, 0)]
    };
    body.extend(finish(i32::from(rule.allow)));
    let kind = match rule.kind {
        RuleType::Any => None,
        RuleType::Block => Some(1),
        RuleType::Character => Some(2),
    };
    // The kernel compares 64-bit registers with a sign-extended immediate; device numbers have 20 bits.
    let number = |n: Option<u32>| n.map(|n| i32::try_from(n).unwrap_or(i32::MAX));
    let tests = [(TYPE, kind), (MAJOR, number(rule.major)), (MINOR, number(rule.minor))];
    for (register, value) in tests.into_iter().rev() {
        let Some(value) = value else { continue };
        let over = i16::try_from(body.len()).unwrap_or(i16::MAX);
        body.insert(0, instruction(JNE_K, register, over, value));
    }
    body
}

fn encode(instruction: &Instruction) -> [u8; 8] {
    let [o0, o1] = instruction.offset.to_le_bytes();
    let [v0, v1, v2, v3] = instruction.value.to_le_bytes();
    [instruction.code, instruction.registers, o0, o1, v0, v1, v2, v3]
}

#[cfg(test)]
#[path = "device_filter_test.rs"]
mod device_filter_test;
