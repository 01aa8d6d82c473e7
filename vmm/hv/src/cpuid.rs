//! What a guest is told of its CPU.
//!
//! The table is what KVM supports, with this machine's own topology: one socket, one thread per core, APIC
//! ids equal to the vCPUs' numbers, caches of level 3 and up shared by all. Leaves of one vendor are changed
//! only where they are present.
//!
//! Invariant: pure; nothing of the host's own topology gets through.

use kvm_bindings::{KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

/// Leaf of the hypervisor's signature and of its features (Linux, virt/kvm/x86/cpuid).
const SIGNATURE: u32 = 0x4000_0000;

/// Leaf of the TSC's and the APIC timer's frequency in kHz.
const TIMING: u32 = 0x4000_0010;

/// Frequency of KVM's APIC timer in kHz: one tick is a nanosecond.
const APIC_TIMER_KHZ: u32 = 1_000_000;

/// The CPUs of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// How many vCPUs there are, at least 1.
    pub vcpus: u8,
}

impl Topology {
    /// Bits that hold a core's number.
    fn core_bits(self) -> u32 {
        u32::from(self.vcpus.max(1)).next_power_of_two().trailing_zeros()
    }
}

/// What KVM can tell guests of the CPU.
#[derive(Clone, Debug)]
pub struct CpuidTable {
    entries: Vec<kvm_cpuid_entry2>,
}

impl CpuidTable {
    /// From what KVM supports; `deadline_timer` if its APIC timer has the TSC deadline mode.
    pub(crate) fn new(supported: &[kvm_cpuid_entry2], deadline_timer: bool) -> Self {
        let mut entries = supported.to_vec();
        for entry in &mut entries {
            match entry.function {
                1 => {
                    set_bit(&mut entry.ecx, 21, true); // x2APIC
                    set_bit(&mut entry.ecx, 24, deadline_timer);
                    set_bit(&mut entry.ecx, 31, true); // a hypervisor is there
                }
                // No performance counters: a guest does not need the host's.
                0xa | 0x8000_0022 => {
                    (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 0, 0, 0);
                }
                0x8000_0001 => {
                    set_bit(&mut entry.ecx, 23, false); // counters of the core
                    set_bit(&mut entry.ecx, 24, false); // and of the north bridge
                }
                _ => {}
            }
        }
        // One vendor's leaves of the form of 0xb are rebuilt, with as many levels as this topology has.
        let levelled = |function| entries.iter().any(|entry| entry.function == function);
        let present: Vec<u32> = [0xb, 0x1f].into_iter().filter(|f| levelled(*f)).collect();
        entries.retain(|entry| !present.contains(&entry.function));
        for function in present {
            entries.extend((0..3).map(|index| kvm_cpuid_entry2 {
                function,
                index,
                flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
                ..Default::default()
            }));
        }
        Self { entries }
    }

    /// The table of vCPU `index`.
    pub(crate) fn of_vcpu(
        &self,
        index: u8,
        topology: Topology,
        tsc_khz: Option<u32>,
    ) -> Vec<kvm_cpuid_entry2> {
        let mut entries = self.entries.clone();
        let amd = entries.iter().any(|e| e.function == 0 && is_amd(e));
        for entry in &mut entries {
            match entry.function {
                1 => basic(entry, index, topology),
                4 => caches(entry, topology, true),
                0xb | 0x1f => levels(entry, index, topology),
                0x8000_0008 if amd => {
                    let cores = u32::from(topology.vcpus).saturating_sub(1);
                    entry.ecx = cores | (topology.core_bits() << 12);
                }
                0x8000_001d => caches(entry, topology, false),
                0x8000_001e => {
                    entry.eax = index.into();
                    entry.ebx = index.into();
                    entry.ecx = 0;
                }
                _ => {}
            }
        }
        if let Some(khz) = tsc_khz {
            timing(&mut entries, khz);
        }
        entries
    }
}

fn is_amd(leaf0: &kvm_cpuid_entry2) -> bool {
    let vendor = [leaf0.ebx, leaf0.edx, leaf0.ecx].map(u32::to_le_bytes);
    matches!(vendor.as_flattened(), b"AuthenticAMD" | b"HygonGenuine")
}

fn set_bit(register: &mut u32, bit: u32, on: bool) {
    *register = *register & !(1 << bit) | u32::from(on) << bit;
}

/// Leaf 1: APIC id, number of logical processors.
fn basic(entry: &mut kvm_cpuid_entry2, index: u8, topology: Topology) {
    let count = (1u32 << topology.core_bits()).min(0xff);
    entry.ebx = u32::from(index) << 24 | count << 16 | entry.ebx & 0xffff;
    set_bit(&mut entry.edx, 28, topology.vcpus > 1);
}

/// Leaves 4 and 0x8000_001d: who shares a cache, and (leaf 4 only) cores of the package.
fn caches(entry: &mut kvm_cpuid_entry2, topology: Topology, counts_cores: bool) {
    if entry.eax & 0x1f == 0 {
        return; // the end of the list
    }
    let others = (1u32 << topology.core_bits()) - 1;
    let level = entry.eax >> 5 & 7;
    let sharing = if level >= 3 { others } else { 0 };
    let cores = if counts_cores { others.min(0x3f) } else { 0 };
    entry.eax = cores << 26 | sharing << 14 | entry.eax & 0x3fff;
}

/// Leaves 0xb and 0x1f: one thread per core, then the cores of the package.
fn levels(entry: &mut kvm_cpuid_entry2, index: u8, topology: Topology) {
    let (bits, count, kind) = match entry.index {
        0 => (0, 1, 1),
        1 => (topology.core_bits(), u32::from(topology.vcpus), 2),
        _ => (0, 0, 0),
    };
    entry.eax = bits;
    entry.ebx = count;
    entry.ecx = kind << 8 | entry.index;
    entry.edx = index.into();
}

/// The leaf with the frequencies, so that the guest need not measure.
fn timing(entries: &mut Vec<kvm_cpuid_entry2>, tsc_khz: u32) {
    let Some(signature) = entries.iter_mut().find(|entry| entry.function == SIGNATURE) else {
        return;
    };
    signature.eax = signature.eax.max(TIMING);
    entries.retain(|entry| entry.function != TIMING);
    entries.push(kvm_cpuid_entry2 {
        function: TIMING,
        eax: tsc_khz,
        ebx: APIC_TIMER_KHZ,
        ..Default::default()
    });
}

#[cfg(test)]
#[path = "cpuid_test.rs"]
mod cpuid_test;
