//! The programs, interpreted as the kernel would, against the rules applied one by one.

use proptest::prelude::*;

use super::*;

/// Runs a program over (type, access, major, minor); checks what the verifier would.
fn run(program: &[u8], kind: u32, access: u32, major: u32, minor: u32) -> bool {
    let context = [access << 16 | kind, major, minor];
    let mut registers = [0u64; 11];
    let mut at = 0usize;
    loop {
        let code: &[u8; 8] = program[at * 8..at * 8 + 8].try_into().unwrap();
        let (target, source) = (usize::from(code[1] & 15), usize::from(code[1] >> 4));
        let offset = i16::from_le_bytes([code[2], code[3]]);
        let value = i32::from_le_bytes([code[4], code[5], code[6], code[7]]);
        let immediate = i64::from(value).cast_unsigned();
        let low = u64::from(value.cast_unsigned());
        assert!(offset >= 0, "forward jumps only");
        let jump = usize::try_from(offset).unwrap();
        at += 1;
        match code[0] {
            LDX_MEM_W => registers[target] = context[jump / 4].into(),
            ALU_AND_K => registers[target] = registers[target] & low & 0xffff_ffff,
            ALU_RSH_K => registers[target] = (registers[target] & 0xffff_ffff) >> value,
            ALU64_MOV_X => registers[target] = registers[source],
            ALU64_MOV_K => registers[target] = immediate,
            JNE_K if registers[target] != immediate => at += jump,
            JSET_K if registers[target] & immediate != 0 => at += jump,
            JLT_K if registers[target] < immediate => at += jump,
            JNE_K | JSET_K | JLT_K => {}
            JA => at += jump,
            EXIT => return registers[0] == 1,
            other => panic!("unexpected instruction {other:#x}"),
        }
    }
}

/// The rules' meaning, bit by bit.
fn expected(rules: &[DeviceRule], kind: u32, access: u8, major: u32, minor: u32) -> bool {
    [MKNOD, READ, WRITE].into_iter().filter(|bit| access & bit != 0).all(|bit| {
        let decides = |rule: &&DeviceRule| {
            (match rule.kind {
                RuleType::Any => true,
                RuleType::Block => kind == 1,
                RuleType::Character => kind == 2,
            }) && rule.major.is_none_or(|m| m == major)
                && rule.minor.is_none_or(|m| m == minor)
                && rule.access & bit != 0
        };
        rules.iter().rev().find(decides).is_some_and(|rule| rule.allow)
    })
}

fn rule(allow: bool, major: Option<u32>, minor: Option<u32>, access: u8) -> DeviceRule {
    DeviceRule { allow, kind: RuleType::Character, major, minor, access }
}

#[test]
fn without_rules_all_is_refused() {
    assert!(!run(&program(&[], &[]).unwrap(), 2, 2, 1, 3));
}

#[test]
fn the_last_rule_decides_for_each_access() {
    let rules = [rule(true, Some(1), None, ALL), rule(false, Some(1), Some(3), WRITE)];
    let program = program(&rules, &[]).unwrap();
    assert!(run(&program, 2, READ.into(), 1, 3));
    assert!(!run(&program, 2, (READ | WRITE).into(), 1, 3));
    assert!(run(&program, 2, (READ | WRITE).into(), 1, 5));
    assert!(!run(&program, 1, READ.into(), 1, 3));
}

/// A disk of the host and what it is in the guest.
const GIVEN: Substitute = Substitute { host: (254, 0), guest: (254, 32) };
const OTHER: Substitute = Substitute { host: (7, 3), guest: (254, 48) };

#[test]
fn rules_about_a_disk_of_the_host_are_about_what_it_is_in_the_guest() {
    let block = |major, minor, access| DeviceRule {
        allow: true,
        kind: RuleType::Block,
        major: Some(major),
        minor: Some(minor),
        access,
    };
    let rules = [block(254, 0, READ), block(7, 3, ALL)];
    let program = program(&rules, &[GIVEN, OTHER]).unwrap();
    let may = |access: u8, major, minor| run(&program, 1, access.into(), major, minor);
    assert!(may(READ, 254, 32) && !may(WRITE, 254, 32));
    assert!(may(ALL, 254, 48));
    // What has these numbers in the guest is another disk, of the pod; nor is it that of a character device.
    assert!(!may(READ, 254, 0));
    assert!(!run(&program, 2, READ.into(), 254, 32));
    // A driver with a number of its own has the same everywhere.
    assert!(may(WRITE, 7, 3) && !may(WRITE, 7, 4));
}

#[test]
fn a_disk_of_the_pod_is_nobodys() {
    let all =
        DeviceRule { allow: true, kind: RuleType::Any, major: None, minor: None, access: ALL };
    for disks in [&[][..], &[GIVEN]] {
        let program = program(&[all], disks).unwrap();
        for access in [READ, WRITE, READ | MKNOD, ALL] {
            assert!(!run(&program, 1, access.into(), 254, 16));
            assert!(run(&program, 1, access.into(), 7, 0));
            assert!(run(&program, 2, access.into(), 254, 16));
        }
        assert!(run(&program, 1, MKNOD.into(), 254, 16), "a node alone does no harm");
        assert_eq!(run(&program, 1, ALL.into(), 254, 32), !disks.is_empty());
    }
}

#[test]
fn too_many_rules_are_refused() {
    let rules = vec![rule(true, None, None, ALL); MAX_RULES + 1];
    assert_eq!(program(&rules, &[]), Err(TooManyRules(MAX_RULES + 1)));
}

fn any_rule() -> impl Strategy<Value = DeviceRule> {
    let kind = prop_oneof![Just(RuleType::Any), Just(RuleType::Block), Just(RuleType::Character)];
    (any::<bool>(), kind, proptest::option::of(0..3u32), proptest::option::of(0..3u32), 0..8u8)
        .prop_map(|(allow, kind, major, minor, access)| DeviceRule {
            allow,
            kind,
            major,
            minor,
            access,
        })
}

proptest! {
    #[test]
    fn the_program_says_what_the_rules_say(
        rules in proptest::collection::vec(any_rule(), 0..12),
        kind in 1..3u32, access in 1..8u8, major in 0..4u32, minor in 0..4u32,
    ) {
        let program = program(&rules, &[]).unwrap();
        let got = run(&program, kind, access.into(), major, minor);
        prop_assert_eq!(got, expected(&rules, kind, access, major, minor));
    }
}
