//! The divided program decides as the whole one does, and sooner.

use super::*;
use crate::jail::filter::{Kind, table};

/// `AUDIT_ARCH_X86_64`, and that of 32 bits (Linux, uapi/linux/audit.h).
const ARCHITECTURES: [u32; 2] = [0xc000_003e, 0x4000_0003];

/// What `program` answers to a call whose arguments are all `argument`, and after how many instructions.
fn run(program: &[sock_filter], number: u32, architecture: u32, argument: u64) -> (u32, usize) {
    let (mut at, mut accumulator) = (0, 0);
    for steps in 1.. {
        let sock_filter { code, jt, jf, k } = program[at].clone();
        at += 1;
        let mut branch = |answer| at += usize::from(if answer { jt } else { jf });
        match code {
            0x20 => {
                accumulator = match k {
                    0 => number,
                    4 => architecture,
                    16.. => {
                        let half = argument.to_le_bytes();
                        let at = usize::try_from(k % 8).unwrap();
                        u32::from_le_bytes(half[at..at + 4].try_into().unwrap())
                    }
                    _ => panic!("loads byte {k}"),
                }
            }
            0x54 => accumulator &= k,
            0x05 => at += usize::try_from(k).unwrap(),
            0x15 => branch(accumulator == k),
            0x25 => branch(accumulator > k),
            0x35 => branch(accumulator >= k),
            0x06 => return (k, steps),
            _ => panic!("instruction {code:#x}"),
        }
    }
    unreachable!()
}

#[test]
fn it_decides_as_the_whole_does() {
    for kind in Kind::ALL {
        let table = table(kind).unwrap();
        let (divided, whole) = (compile(&table).unwrap(), whole(table).unwrap());
        let mut arguments: Vec<u64> =
            whole.iter().map(|instruction| instruction.k.into()).collect();
        arguments.extend([0, 1, u64::MAX, 1 << 32]);
        let numbers = (0..700).chain([0x3fff_ffff, 0x4000_0000, 0x4000_0010, u32::MAX]);
        for (number, architecture) in numbers.flat_map(|n| ARCHITECTURES.map(|a| (n, a))) {
            for &argument in &arguments {
                let [one, other] =
                    [&divided, &whole].map(|p| run(p, number, architecture, argument).0);
                assert_eq!(
                    one, other,
                    "{kind:?}: call {number} of {architecture:#x}, {argument:#x}"
                );
            }
        }
    }
}

#[test]
fn it_is_done_with_most_calls_in_half_the_steps() {
    for kind in Kind::ALL {
        let table = table(kind).unwrap();
        let programs = [compile(&table).unwrap(), whole(table).unwrap()];
        let [divided, whole] = programs.map(|program| {
            (0..450).map(|number| run(&program, number, ARCHITECTURES[0], 0).1).sum::<usize>()
        });
        assert!(2 * divided < whole, "{kind:?}: {divided}, {whole}");
    }
}

#[test]
fn tables_of_every_length_are_whole_programs() {
    for count in 1..12 {
        let table: Table = (0..count).map(|number| (number * 3, Vec::new())).collect();
        let divided = compile(&table).unwrap();
        for number in 0..40 {
            let allowed = number % 3 == 0 && i64::from(number) / 3 < count;
            let (answer, _) = run(&divided, number, ARCHITECTURES[0], 0);
            assert_eq!(answer == libc::SECCOMP_RET_ALLOW, allowed, "{count}: {number}");
        }
    }
}
