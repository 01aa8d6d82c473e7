//! Programs, interpreted as the kernel would, against what the profiles say.

use proptest::prelude::*;
use serde_json::json;

use super::*;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

/// Runs a program over `struct seccomp_data`.
fn run(program: &[u8], arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
    let (mut accumulator, mut at) = (0u32, 0usize);
    loop {
        let bytes = &program[at * 8..at * 8 + 8];
        let code = u16::from_le_bytes([bytes[0], bytes[1]]);
        let (jt, jf) = (usize::from(bytes[2]), usize::from(bytes[3]));
        let k = u32::from_le_bytes(bytes[4..8].try_into().unwrap());
        at += 1;
        let branch = |taken: bool| if taken { jt } else { jf };
        match code {
            program::LD_ABS => {
                let from = k as usize;
                accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            }
            program::AND => accumulator &= k,
            program::JA => at += k as usize,
            program::JEQ => at += branch(accumulator == k),
            program::JGT => at += branch(accumulator > k),
            program::JGE => at += branch(accumulator >= k),
            program::RET => return k,
            other => panic!("unexpected instruction {other:#x}"),
        }
    }
}

fn compile(profile: serde_json::Value) -> Result<Vec<u8>, SeccompError> {
    let profile: LinuxSeccomp = serde_json::from_value(profile).unwrap();
    filter(&profile).map(|filter| filter.program)
}

#[test]
fn several_actions_and_errnos_live_in_one_profile() {
    let program = compile(json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
            {"names": ["read", "write", "nosuchcall"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["ptrace"], "action": "SCMP_ACT_TRAP"},
            {"names": ["reboot"], "action": "SCMP_ACT_KILL_PROCESS"},
            {"names": ["mount"], "action": "SCMP_ACT_LOG"},
        ]
    }))
    .unwrap();
    let native = |number| run(&program, X86_64, number, [0; 6]);
    assert_eq!(native(0), RET_ALLOW);
    assert_eq!(native(1), RET_ALLOW);
    assert_eq!(native(2), RET_ERRNO | EPERM);
    assert_eq!(native(435), RET_ERRNO | 38);
    assert_eq!(native(101), RET_TRAP);
    assert_eq!(native(169), RET_KILL_PROCESS);
    assert_eq!(native(165), RET_LOG);
    assert_eq!(run(&program, I386, 3, [0; 6]), RET_ALLOW);
    assert_eq!(run(&program, I386, 0, [0; 6]), RET_ERRNO | EPERM);
    assert_eq!(native(1 << 30), RET_KILL_PROCESS, "x32 is not listed");
    assert_eq!(run(&program, 0xc000_00b7, 0, [0; 6]), RET_KILL_PROCESS, "another architecture");
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let profile = |default: &str| {
        json!({"defaultAction": default,
               "syscalls": [{"names": ["openat2"], "action": "SCMP_ACT_ALLOW"}]})
    };
    let refusing = compile(profile("SCMP_ACT_ERRNO")).unwrap();
    assert_eq!(run(&refusing, X86_64, 437, [0; 6]), RET_ALLOW);
    assert_eq!(run(&refusing, X86_64, 436, [0; 6]), RET_ERRNO | EPERM);
    assert_eq!(run(&refusing, X86_64, 438, [0; 6]), RET_ERRNO | ENOSYS);
    let logging = compile(profile("SCMP_ACT_LOG")).unwrap();
    assert_eq!(run(&logging, X86_64, 438, [0; 6]), RET_LOG);
}

#[test]
fn a_rule_without_conditions_beats_those_with() {
    let program = compile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        {"names": ["socket"], "action": "SCMP_ACT_TRAP", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]},
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW"},
    ]}))
    .unwrap();
    assert_eq!(run(&program, X86_64, 41, [1, 0, 0, 0, 0, 0]), RET_ALLOW);
}

#[test]
fn conditions_on_one_argument_are_alternatives_on_several_they_add_up() {
    let eq = |index: u32, value: u64| json!({"index": index, "value": value, "op": "SCMP_CMP_EQ"});
    let program = |args: Vec<serde_json::Value>| {
        compile(json!({"defaultAction": "SCMP_ACT_ERRNO",
            "syscalls": [{"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": args}]}))
        .unwrap()
    };
    let either = program(vec![eq(0, 0), eq(0, 8)]);
    assert_eq!(run(&either, X86_64, 135, [8, 0, 0, 0, 0, 0]), RET_ALLOW);
    assert_eq!(run(&either, X86_64, 135, [9, 0, 0, 0, 0, 0]), RET_ERRNO | EPERM);
    let both = program(vec![eq(0, 1), eq(1, 2)]);
    assert_eq!(run(&both, X86_64, 135, [1, 2, 0, 0, 0, 0]), RET_ALLOW);
    assert_eq!(run(&both, X86_64, 135, [1, 3, 0, 0, 0, 0]), RET_ERRNO | EPERM);
}

#[test]
fn what_cannot_be_done_is_refused_with_its_reason() {
    let syscall = |action: &str, extra: serde_json::Value| {
        let mut rule = json!({"names": ["read"], "action": action});
        rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        compile(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    };
    let fault = |outcome: Result<Vec<u8>, SeccompError>| outcome.unwrap_err().to_string();
    let message = fault(syscall("SCMP_ACT_NOTIFY", json!({})));
    assert!(
        message.starts_with("linux.seccomp.syscalls[0].action: failed to connect"),
        "{message}"
    );
    let message = fault(syscall("SCMP_ACT_NOTIFY", json!({"names": ["mkdir", "write"]})));
    assert!(message.ends_with("SCMP_ACT_NOTIFY cannot be used for the write syscall"), "{message}");
    let message = fault(syscall("SCMP_ACT_ERRNO", json!({"errnoRet": 5000})));
    assert_eq!(message, "linux.seccomp.syscalls[0].errnoRet: 5000 is over 4095");
    let args = json!({"args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"},
        {"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]});
    let message = fault(syscall("SCMP_ACT_ERRNO", args));
    assert!(message.starts_with("linux.seccomp.syscalls[0].args[1].index: "), "{message}");
    let message = fault(compile(json!({"defaultAction": "SCMP_ACT_NOTIFY"})));
    assert!(message.starts_with("linux.seccomp.defaultAction: "), "{message}");
    let listens = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x.sock"});
    compile(listens).expect("a listener that no rule needs");
}

#[test]
fn a_profile_without_flags_has_runcs() {
    let flags = |profile: serde_json::Value| {
        filter(&serde_json::from_value(profile).unwrap()).unwrap().flags
    };
    let action = "SCMP_ACT_ALLOW";
    assert_eq!(flags(json!({"defaultAction": action})), SPEC_ALLOW);
    assert_eq!(flags(json!({"defaultAction": action, "flags": []})), 0);
    let log = json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"]);
    assert_eq!(flags(json!({"defaultAction": action, "flags": log})), LOG);
}

#[test]
fn every_known_call_fits_for_all_three_abis() {
    let names: Vec<&str> = include_str!("syscalls.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert!(names.len() > 440);
    // The worst case: every other name allowed, so that hardly any ranges merge.
    let names: Vec<&str> = names.into_iter().step_by(2).collect();
    let program = compile(json!({"defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]}))
    .unwrap();
    assert!(program.len() / 8 < MAX_INSTRUCTIONS);
    for name in names {
        if let Some(number) = syscalls::number(name, Abi::I386) {
            assert_eq!(run(&program, I386, number, [0; 6]), RET_ALLOW, "{name}");
        }
        if let Some(number) = syscalls::number(name, Abi::X32) {
            assert_eq!(run(&program, X86_64, number, [0; 6]), RET_ALLOW, "{name}");
        }
    }
}

fn interesting() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..4u64,
        Just(u64::from(u32::MAX)),
        Just(1 << 32),
        Just((1 << 32) + 1),
        any::<u64>()
    ]
}

proptest! {
    #[test]
    fn comparisons_are_those_of_64_bit_numbers(
        conditions in proptest::collection::vec((0..7usize, interesting(), interesting()), 1..4),
        args in proptest::array::uniform6(interesting()),
    ) {
        let ops = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
        let json: Vec<_> = conditions.iter().enumerate().map(|(index, (op, value, two))| json!({
            "index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{}", ops[*op])
        })).collect();
        let program = compile(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": json}]})).unwrap();
        let holds = conditions.iter().zip(args).all(|((op, value, two), arg)| match op {
            0 => arg != *value, 1 => arg < *value, 2 => arg <= *value, 3 => arg == *value,
            4 => arg >= *value, 5 => arg > *value, _ => arg & value == *two,
        });
        let expected = if holds { RET_ALLOW } else { RET_ERRNO | EPERM };
        prop_assert_eq!(run(&program, X86_64, 0, args), expected);
    }
}
