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
//! Rules name devices of the host. A disk of the host that is given to the container has a number of its own in the
//! guest: the program begins by putting the host's in its place. The pod's own disks have numbers that the guest's
//! kernel gave them as it liked, so that a rule which names them means other devices: they are refused.
//!
//! Invariant: straight-line code with forward jumps only, so that the kernel's verifier accepts it; no container reads or
//! writes a disk of the pod that was not given to it, whatever its rules say.

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

/// A disk of the host that a container was given, by its numbers (major, minor).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Substitute {
    /// On the host.
    pub host: (u32, u32),
    /// In the guest.
    pub guest: (u32, u32),
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

impl DeviceRule {
    /// Whether it is about the block device `major`:`minor`.
    pub(crate) fn names_block(&self, (major, minor): (u32, u32)) -> bool {
        self.kind != RuleType::Character
            && self.major.is_none_or(|own| own == major)
            && self.minor.is_none_or(|own| own == minor)
    }
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
const JLT_K: u8 = 0xa5;
const JA: u8 = 0x05;
const EXIT: u8 = 0x95;

/// `BPF_DEVCG_DEV_BLOCK` and `BPF_DEVCG_DEV_CHAR`.
const BLOCK: i32 = 1;
const CHARACTER: i32 = 2;

/// The least major number that the kernel gives to a driver without one of its own, as that of virtio disks is
/// (kernel, Documentation/admin-guide/devices.txt).
const FIRST_DYNAMIC: i32 = 234;

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

/// The program for `rules` of a container that was given `disks`, 8 bytes an instruction.
///
/// # Errors
/// [`TooManyRules`].
pub(crate) fn program(rules: &[DeviceRule], disks: &[Substitute]) -> Result<Vec<u8>, TooManyRules> {
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
    code.extend(block_code(disks));
    for rule in rules.iter().rev().filter(|rule| rule.access & ALL != 0) {
        code.extend(rule_code(rule));
    }
    code.extend(finish(0));
    Ok(code.iter().flat_map(encode).collect())
}

/// The code for the numbers of block devices; falls through with those that the rules are about.
fn block_code(disks: &[Substitute]) -> Vec<Instruction> {
    // From the end: how far it is from there.
    let mut body = vec![
        instruction(JLT_K, MAJOR, 4, FIRST_DYNAMIC),
        instruction(JSET_K, OPEN, 1, i32::from(READ | WRITE)),
        instruction(JA, 0, 2, 0),
    ];
    body.extend(finish(0));
    for Substitute { host, guest } in disks.iter().rev() {
        let over = distance(&body);
        let mut one = vec![
            instruction(JNE_K, MAJOR, 4, number(guest.0)),
            instruction(JNE_K, MINOR, 3, number(guest.1)),
            instruction(ALU64_MOV_K, MAJOR, 0, number(host.0)),
            instruction(ALU64_MOV_K, MINOR, 0, number(host.1)),
            instruction(JA, 0, over, 0),
        ];
        one.append(&mut body);
        body = one;
    }
    body.insert(0, instruction(JNE_K, TYPE, distance(&body), BLOCK));
    body
}

/// How far a jump over `code` goes.
fn distance(code: &[Instruction]) -> i16 {
    i16::try_from(code.len()).unwrap_or(i16::MAX)
}

/// The kernel compares 64-bit registers with a sign-extended immediate; device numbers have 20 bits.
fn number(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
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
        RuleType::Block => Some(BLOCK),
        RuleType::Character => Some(CHARACTER),
    };
    let tests = [(TYPE, kind), (MAJOR, rule.major.map(number)), (MINOR, rule.minor.map(number))];
    for (register, value) in tests.into_iter().rev() {
        let Some(value) = value else { continue };
        body.insert(0, instruction(JNE_K, register, distance(&body), value));
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
