use super::*;

const TRACE: &str = "\
# tracer: nop
#
         measure-50      [000] .....    10.000100: sys_enter: NR 56 (1, 2)
         measure-51      [000] .....    10.000200: sys_enter: NR 13 (1, 2)
         measure-51      [000] .....    10.000300: sys_enter: NR 59 (1, 2)
   cofferdam-vmm-51      [000] .....    10.000400: sys_enter: NR 9 (1, 2)
         measure-50      [000] .....    10.000500: sys_enter: NR 9 (1, 2)
           vcpu0-52      [000] d....    10.000600: kvm_exit: vcpu 0 reason npf rip 0xffffffff81000010 info1 0x0000000100000014 info2 0x00000000000fee00 intr_info 0x00000000 error_code 0x00000000
           vcpu0-52      [000] .....    10.000700: sys_enter: NR 9 (1, 2)
           vcpu0-52      [000] d....    10.002000: kvm_exit: vcpu 0 reason hlt rip 0x10 info1 0x0 info2 0x0 intr_info 0x0 error_code 0x0
";

#[test]
fn exits_and_the_monitors_calls_are_counted_until_the_end() {
    let (exits, calls) = count(TRACE, 50, 10_000_000_000..10_001_000_000);

    assert_eq!(exits.len(), 1);
    assert_eq!((exits[0].at, exits[0].reason.as_str()), (600_000, "npf"));
    assert_eq!((exits[0].rip, exits[0].info), (0xffff_ffff_8100_0010, 0xfee00));
    assert_eq!(calls, BTreeMap::from([(59, 1), (9, 2)]));
}

#[test]
fn only_calls_of_the_threads_that_are_asked_for_are_counted() {
    let (exits, calls) = count_for(TRACE, &BTreeSet::from([51, 52]));

    assert_eq!(exits, BTreeMap::from([("hlt".to_owned(), 1), ("npf".to_owned(), 1)]));
    assert_eq!(calls, BTreeMap::from([(13, 1), (59, 1), (9, 2)]));
}
