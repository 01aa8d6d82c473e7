//! The policy on tables of either vendor, made up here.

use proptest::prelude::*;

use super::*;

fn entry(function: u32, index: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 { function, index, eax, ebx, ecx, edx, ..Default::default() }
}

fn vendor(name: &[u8; 12]) -> kvm_cpuid_entry2 {
    let part = |at: usize| u32::from_le_bytes(name[at..at + 4].try_into().unwrap());
    entry(0, 0, [0x20, part(0), part(8), part(4)])
}

fn intel() -> Vec<kvm_cpuid_entry2> {
    vec![
        vendor(b"GenuineIntel"),
        entry(1, 0, [0, 0x07ff_0800, 0, 0]),
        entry(4, 0, [0xfc00_4121, 0, 0, 0]),
        entry(4, 3, [0xfc00_4163, 0, 0, 0]),
        entry(4, 4, [0, 0, 0, 0]),
        entry(0xa, 0, [0x0733_0405, 1, 2, 3]),
        entry(0xb, 0, [1, 2, 0x100, 0x77]),
        entry(0x1f, 0, [1, 2, 0x100, 0x77]),
        entry(SIGNATURE, 0, [0x4000_0001, 0, 0, 0]),
        entry(0x4000_0001, 0, [0x0100_7efb, 0, 0, 0]),
        entry(0x8000_0008, 0, [0x3027, 0, 0, 0]),
    ]
}

fn amd() -> Vec<kvm_cpuid_entry2> {
    vec![
        vendor(b"AuthenticAMD"),
        entry(1, 0, [0, 0, 0, 0]),
        entry(0x8000_0001, 0, [0, 0, u32::MAX, 0]),
        entry(0x8000_0008, 0, [0x3028, 0, 0x703f, 0]),
        entry(0x8000_001d, 0, [0x4121, 0, 0, 0]),
        entry(0x8000_001d, 3, [0x1_c163, 0, 0, 0]),
        entry(0x8000_001e, 0, [0x77, 0x0177, 0x0301, 0]),
        entry(0x8000_0022, 0, [1, 1, 1, 1]),
    ]
}

fn find(table: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
    *table.iter().find(|e| e.function == function && e.index == index).unwrap()
}

fn table(supported: &[kvm_cpuid_entry2], index: u8, vcpus: u8) -> Vec<kvm_cpuid_entry2> {
    CpuidTable::new(supported, true).of_vcpu(index, Topology { vcpus }, None)
}

#[test]
fn leaf_1_has_the_apic_id_and_what_is_added() {
    let leaf = find(&table(&intel(), 2, 3), 1, 0);
    assert_eq!(leaf.ebx, 0x0204_0800);
    assert_eq!(leaf.ecx, 1 << 21 | 1 << 24 | 1 << 31);
    assert_eq!(leaf.edx, 1 << 28);
    let alone = CpuidTable::new(&intel(), false).of_vcpu(0, Topology { vcpus: 1 }, None);
    assert_eq!(find(&alone, 1, 0).ebx, 0x0001_0800);
    assert_eq!(find(&alone, 1, 0).ecx, 1 << 21 | 1 << 31);
    assert_eq!(find(&alone, 1, 0).edx, 0);
}

#[test]
fn the_extended_topology_has_one_thread_per_core() {
    let table = table(&intel(), 5, 6);
    for function in [0xb, 0x1f] {
        let [threads, cores, end] = [0, 1, 2].map(|index| find(&table, function, index));
        assert_eq!([threads.eax, threads.ebx, threads.ecx, threads.edx], [0, 1, 0x100, 5]);
        assert_eq!([cores.eax, cores.ebx, cores.ecx, cores.edx], [3, 6, 0x201, 5]);
        assert_eq!([end.eax, end.ebx, end.ecx, end.edx], [0, 0, 2, 5]);
        assert_eq!(end.flags, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
    }
}

#[test]
fn leaves_that_the_host_lacks_stay_absent() {
    let table = table(&amd(), 0, 4);
    assert!(!table.iter().any(|e| matches!(e.function, 4 | 0xb | 0x1f)));
}

#[test]
fn intel_caches() {
    let table = table(&intel(), 0, 4);
    assert_eq!(find(&table, 4, 0).eax, 3 << 26 | 0x121);
    assert_eq!(find(&table, 4, 3).eax, 3 << 26 | 3 << 14 | 0x163);
    assert_eq!(find(&table, 4, 4).eax, 0);
    assert_eq!(find(&table, 0x8000_0008, 0).ecx, 0);
}

#[test]
fn amd_topology_and_caches() {
    let table = table(&amd(), 3, 4);
    assert_eq!(find(&table, 0x8000_0008, 0).ecx, 2 << 12 | 3);
    assert_eq!(find(&table, 0x8000_001d, 0).eax, 0x121);
    assert_eq!(find(&table, 0x8000_001d, 3).eax, 3 << 14 | 0x163);
    let ids = find(&table, 0x8000_001e, 0);
    assert_eq!([ids.eax, ids.ebx, ids.ecx], [3, 3, 0]);
}

#[test]
fn there_are_no_performance_counters() {
    let leaf = find(&table(&intel(), 0, 1), 0xa, 0);
    assert_eq!([leaf.eax, leaf.ebx, leaf.ecx, leaf.edx], [0; 4]);
    assert_eq!(find(&table(&amd(), 0, 1), 0x8000_0022, 0).eax, 0);
    assert_eq!(find(&table(&amd(), 0, 1), 0x8000_0001, 0).ecx, !(1 << 23 | 1 << 24));
}

#[test]
fn the_frequency_is_told_where_its_leaves_are() {
    let told = CpuidTable::new(&intel(), true).of_vcpu(0, Topology { vcpus: 1 }, Some(2_500_000));
    assert_eq!(find(&told, SIGNATURE, 0).eax, TIMING);
    assert_eq!(find(&told, TIMING, 0).eax, 2_500_000);
    assert_eq!(find(&told, 0x4000_0001, 0).eax, 0x0100_7efb);
    let untold = CpuidTable::new(&amd(), true).of_vcpu(0, Topology { vcpus: 1 }, Some(2_500_000));
    assert!(!untold.iter().any(|e| e.function == TIMING));
}

proptest! {
    #[test]
    fn nothing_panics_and_ids_are_the_vcpus(
        leaves in proptest::collection::vec((any::<u32>(), 0u32..8, any::<[u32; 4]>()), 0..40),
        index: u8,
        vcpus: u8,
    ) {
        let mut supported: Vec<_> = leaves.iter().map(|(f, i, r)| entry(*f, *i, *r)).collect();
        supported.extend(intel());
        supported.extend(amd());
        let table = table(&supported, index, vcpus);
        for leaf in table.iter().filter(|e| e.function == 0xb) {
            prop_assert_eq!(leaf.edx, u32::from(index));
        }
        for leaf in table.iter().filter(|e| e.function == 1) {
            prop_assert_eq!(leaf.ebx >> 24, u32::from(index));
        }
    }
}
