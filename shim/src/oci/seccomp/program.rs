//! Tables of system calls to classic BPF (kernel, Documentation/userspace-api/seccomp_filter.rst).
//!
//! A program is composed of pieces, each of which ends in `RET` on every path; so a jump only ever skips
//! one whole piece, and pieces can be put one after the other.
//!
//! Invariant: conditional jumps skip at most 255 instructions (`sock_filter.jt` has 8 bits); farther
//! ones go by `JA`.

use super::syscalls::{Abi, X32_BIT};

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) jt: u8,
    pub(super) jf: u8,
    pub(super) k: u32,
}

impl Instruction {
    pub(super) fn to_bytes(self) -> [u8; 8] {
        let [c0, c1] = self.code.to_le_bytes();
        let [k0, k1, k2, k3] = self.k.to_le_bytes();
        [c0, c1, self.jt, self.jf, k0, k1, k2, k3]
    }
}

/// What to do with the system calls of one ABI.
pub(super) struct Section {
    pub(super) abi: Abi,
    /// Sorted by number.
    pub(super) entries: Vec<Entry>,
    pub(super) default: u32,
}

/// What to do with one system call.
pub(super) struct Entry {
    pub(super) number: u32,
    /// Also all numbers up to the next entry.
    pub(super) and_above: bool,
    /// `otherwise` is a rule of its own, not the default.
    pub(super) unconditional: bool,
    /// Tried in this order.
    pub(super) rules: Vec<Rule>,
    /// Returned when no rule fits.
    pub(super) otherwise: u32,
}

impl Entry {
    pub(super) fn new(number: u32, otherwise: u32) -> Self {
        Self { number, and_above: false, unconditional: false, rules: Vec::new(), otherwise }
    }
}

/// Conditions that must all hold, and what is returned then.
pub(super) struct Rule {
    pub(super) all: Vec<Condition>,
    pub(super) action: u32,
}

/// A condition on an argument.
#[derive(Clone, Copy)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u8,
    pub(super) comparison: Comparison,
}

/// Comparisons of a 64-bit argument with a value, unsigned.
#[derive(Clone, Copy)]
pub(super) enum Comparison {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    MaskedEqual { mask: u64, value: u64 },
}

pub(super) const LD_ABS: u16 = 0x20;
pub(super) const JA: u16 = 0x05;
pub(super) const JEQ: u16 = 0x15;
pub(super) const JGT: u16 = 0x25;
pub(super) const JGE: u16 = 0x35;
pub(super) const AND: u16 = 0x54;
pub(super) const RET: u16 = 0x06;

// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
const AUDIT_ARCH_I386: u32 = 0x4000_0003;

fn statement(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// `yes` if the accumulator passes `code k`, else `no`.
fn choose(code: u16, k: u32, yes: Vec<Instruction>, no: Vec<Instruction>) -> Vec<Instruction> {
    let mut piece = match u8::try_from(yes.len()) {
        Ok(over) => vec![jump(code, k, 0, over)],
        Err(_) => {
            let over = u32::try_from(yes.len()).unwrap_or(u32::MAX);
            vec![jump(code, k, 1, 0), statement(JA, over)]
        }
    };
    piece.extend(yes);
    piece.extend(no);
    piece
}

/// The program for all sections; other architectures get `foreign`.
pub(super) fn build(sections: &[Section], foreign: u32) -> Vec<Instruction> {
    let section = |abi| sections.iter().find(|section| section.abi == abi);
    let refuse = || vec![statement(RET, foreign)];
    let numbers = |abi| {
        section(abi).map_or_else(refuse, |section| {
            let mut piece = vec![statement(LD_ABS, NUMBER)];
            piece.extend(lookup(&ranges(section)));
            piece
        })
    };
    let mut native = vec![statement(LD_ABS, NUMBER)];
    native.extend(choose(JGE, X32_BIT, numbers(Abi::X32), numbers(Abi::X86_64)));
    let other = choose(JEQ, AUDIT_ARCH_I386, numbers(Abi::I386), refuse());
    let mut program = vec![statement(LD_ABS, ARCHITECTURE)];
    program.extend(choose(JEQ, AUDIT_ARCH_X86_64, native, other));
    program
}

/// A section as (first number of a range, what to do), without gaps; neighbours that do the same are one.
fn ranges(section: &Section) -> Vec<(u32, Vec<Instruction>)> {
    let default = vec![statement(RET, section.default)];
    let mut ranges = vec![(0, default.clone())];
    let mut push = |start: u32, piece: Vec<Instruction>| match ranges.last_mut() {
        Some((_, last)) if *last == piece => {}
        Some((first, last)) if *first == start => *last = piece,
        _ => ranges.push((start, piece)),
    };
    for (index, entry) in section.entries.iter().enumerate() {
        push(entry.number, entry_piece(entry));
        let next = section.entries.get(index + 1).map(|next| next.number);
        if !entry.and_above && next != Some(entry.number + 1) {
            push(entry.number + 1, default.clone());
        }
    }
    ranges
}

/// Binary search by the number in the accumulator.
fn lookup(ranges: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    match ranges {
        [] => Vec::new(),
        [(_, piece)] => piece.clone(),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            choose(JGE, high[0].0, lookup(high), lookup(low))
        }
    }
}

fn entry_piece(entry: &Entry) -> Vec<Instruction> {
    let end = vec![statement(RET, entry.otherwise)];
    entry.rules.iter().rev().fold(end, |next, rule| rule_piece(rule, &next))
}

/// `rule`, or `next` if it does not fit.
///
/// The checks are laid out in a row; a failing one goes to `next`, which follows them all.
fn rule_piece(rule: &Rule, next: &[Instruction]) -> Vec<Instruction> {
    let checks: Vec<Check> = rule.all.iter().map(Check::new).collect();
    let total: usize = checks.iter().map(Check::len).sum();
    let mut piece = Vec::with_capacity(total + 1 + next.len());
    for check in &checks {
        let end = piece.len() + check.len();
        let failed = u8::try_from(total - end + 1).unwrap_or(u8::MAX);
        check.emit(failed, &mut piece);
    }
    piece.push(statement(RET, rule.action));
    piece.extend_from_slice(next);
    piece
}

/// The check of one condition: the accumulator is loaded with the high, then with the low half.
struct Check {
    offset: u32,
    comparison: Comparison,
}

impl Check {
    fn new(condition: &Condition) -> Self {
        let offset = ARGUMENTS + 8 * u32::from(condition.argument);
        Self { offset, comparison: condition.comparison }
    }
}

fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

impl Check {
    fn len(&self) -> usize {
        match self.comparison {
            Comparison::Equal(_) | Comparison::NotEqual(_) => 4,
            Comparison::MaskedEqual { .. } => 6,
            _ => 5,
        }
    }

    /// Falls through to the next instruction if it holds; else skips `failed` more.
    fn emit(&self, failed: u8, piece: &mut Vec<Instruction>) {
        let high = statement(LD_ABS, self.offset + 4);
        let low = statement(LD_ABS, self.offset);
        match self.comparison {
            Comparison::Equal(value) => {
                let (h, l) = halves(value);
                piece.extend([high, jump(JEQ, h, 0, failed + 2)]);
                piece.extend([low, jump(JEQ, l, 0, failed)]);
            }
            Comparison::NotEqual(value) => {
                let (h, l) = halves(value);
                piece.extend([high, jump(JEQ, h, 0, 2)]);
                piece.extend([low, jump(JEQ, l, failed, 0)]);
            }
            Comparison::MaskedEqual { mask, value } => {
                let ((mh, ml), (h, l)) = (halves(mask), halves(value));
                piece.extend([high, statement(AND, mh), jump(JEQ, h, 0, failed + 3)]);
                piece.extend([low, statement(AND, ml), jump(JEQ, l, 0, failed)]);
            }
            Comparison::Greater(value) => self.ordered(value, JGT, (0, failed), piece),
            Comparison::GreaterOrEqual(value) => self.ordered(value, JGE, (0, failed), piece),
            Comparison::LessOrEqual(value) => self.ordered(value, JGT, (failed, 0), piece),
            Comparison::Less(value) => self.ordered(value, JGE, (failed, 0), piece),
        }
    }

    /// Skips `skip.0` after these instructions if the argument is greater (or equal, with `JGE`), else
    /// `skip.1`.
    fn ordered(&self, value: u64, code: u16, skip: (u8, u8), piece: &mut Vec<Instruction>) {
        let (high, low) = halves(value);
        let (greater, less) = skip;
        piece.extend([
            statement(LD_ABS, self.offset + 4),
            jump(JGT, high, greater + 3, 0),
            jump(JEQ, high, 0, less + 2),
            statement(LD_ABS, self.offset),
            jump(code, low, greater, less),
        ]);
    }
}
