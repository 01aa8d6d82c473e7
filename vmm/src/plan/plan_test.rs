//! Plans of every size are sound.

use cofferdam_vmm_api::*;
use proptest::prelude::*;

use super::layout::*;
use super::*;

pub(crate) fn spec(vcpus: u8, memory: u32, disks: usize) -> MachineSpec {
    with_nets(vcpus, memory, disks, 0)
}

fn with_nets(vcpus: u8, memory: u32, disks: usize, nets: usize) -> MachineSpec {
    let slot = |index: usize| FdSlot(u16::try_from(index).unwrap() + 4);
    let net = |index| NetSpec { taps: vec![slot(disks + index)], mac: None, mtu: None };
    let disk =
        |index: usize| DiskSpec { file: slot(index), readonly: false, serial: String::new() };
    MachineSpec {
        version: API_VERSION,
        vcpus,
        max_vcpus: None,
        memory: MiB(memory),
        max_memory: None,
        huge_pages: false,
        boot: BootSpec { kernel: FdSlot(0), initrd: Some(FdSlot(1)), cmdline: "quiet".into() },
        disks: (0..disks).map(disk).collect(),
        vsock: Some(VsockSpec { cid: Cid(3), connections: FdSlot(2) }),
        rng: true,
        nets: (0..nets).map(net).collect(),
        balloon: true,
        spare_queues: 0,
        console: Some(ConsoleSpec { log: FdSlot(3), limit: 0 }),
    }
}

#[test]
fn devices_have_their_places_in_order() {
    let plan = Plan::new(spec(1, 256, 3), 7).unwrap();
    assert_eq!(plan.vsock.unwrap().bdf().to_string(), "00:01.0");
    assert_eq!(plan.rng.unwrap().bdf().to_string(), "00:02.0");
    let disks: Vec<_> = plan.disk_addresses().iter().map(Bdf::to_string).collect();
    assert_eq!(disks, ["00:03.0", "00:04.0", "00:05.0"]);
    assert_eq!(plan.disks[0].bar, 0xc180_0000);
}

#[test]
fn the_largest_machine_fits_the_bus() {
    let plan =
        Plan::new(with_nets(64, 256, MAX_DISKS, MAX_NETS), MAX_DISKS + MAX_NETS + 4).unwrap();
    assert_eq!(plan.nets[0].bdf().to_string(), "00:1b.0");
    assert_eq!(plan.balloon.unwrap().bdf().to_string(), "00:1f.0");
    assert_eq!(plan.queues(), 4);
}

#[test]
fn what_may_be_plugged_in_must_find_places() {
    let planned = |disks, spare_queues| {
        let mut spec = with_nets(1, 256, disks, MAX_NETS);
        spec.spare_queues = spare_queues;
        Plan::new(spec, disks + MAX_NETS + 4).map(|_| ())
    };
    // One device number, with eight functions, is left.
    planned(MAX_DISKS - 1, 8).unwrap();
    assert!(matches!(planned(MAX_DISKS - 1, 9), Err(PlanError::BusFull)));
    planned(8, MAX_SPARE_QUEUES).unwrap();
}

#[test]
fn places_of_absent_devices_are_not_left_empty() {
    let mut spec = spec(1, 256, 0);
    spec.vsock = None;
    let plan = Plan::new(spec, 7).unwrap();
    assert_eq!(plan.rng.unwrap().device, 1);
    assert_eq!(plan.vsock, None);
}

#[test]
fn a_wrong_specification_is_no_plan() {
    let error = Plan::new(spec(0, 256, 0), 9).unwrap_err();
    assert_eq!(error, PlanError::Spec(SpecError::Vcpus(0)));
    assert!(matches!(Plan::new(spec(1, 256, 0), 3), Err(PlanError::Spec(_))));
}

#[test]
fn memory_to_be_plugged_in_begins_above_4_gib_on_a_boundary() {
    let room = |memory, all| MemoryLayout::new(MiB(memory)).growing_to(MiB(all)).pluggable;
    assert_eq!(room(256, 256), None);
    assert_eq!(room(256, 1024), Some((1 << 32, 768 << 20)));
    assert_eq!(room(256, 257), Some((1 << 32, 128 << 20)));
    assert_eq!(room(4000, 8000), Some(((4 << 30) + (1024 << 20), 4096 << 20)));
    let mut growing = spec(1, 256, 1);
    growing.max_memory = Some(MiB(512));
    let plan = Plan::new(growing, 5).unwrap();
    assert_eq!(plan.mem_hotplug.unwrap().bdf().to_string(), "00:05.0");
    assert_eq!(Plan::new(spec(1, 256, 1), 5).unwrap().mem_hotplug, None);
}

#[test]
fn a_bus_without_a_place_for_the_memory_device_is_refused() {
    let mut spec = with_nets(1, 256, MAX_DISKS, MAX_NETS);
    spec.max_memory = Some(MiB(512));
    assert_eq!(Plan::new(spec, MAX_DISKS + MAX_NETS + 4).unwrap_err(), PlanError::BusFull);
}

#[test]
fn memory_is_split_around_the_hole() {
    let small = MemoryLayout::new(MiB(3072));
    assert_eq!(small.ram, [(0, 0xc000_0000)]);
    let large = MemoryLayout::new(MiB(4096));
    assert_eq!(large.ram, [(0, 0xc000_0000), (1 << 32, 1 << 30)]);
    assert_eq!(large.low_end(), 0xc000_0000);
}

#[test]
fn linux_describes_its_memory_near_the_top() {
    let tables = |mib| MemoryLayout::new(MiB(mib)).described();
    assert_eq!(tables(128), 0x7a0_0000..0x7e0_0000);
    assert_eq!(tables(1152), 0x46a0_0000..0x47e0_0000);
    // Too little of it above the hole.
    assert_eq!(tables(3073), 1 << 32..1 << 32);
}

fn overlap(a: (u64, u64), b: (u64, u64)) -> bool {
    a.0 < b.0 + b.1 && b.0 < a.0 + a.1
}

fn disjoint(ranges: &[(u64, u64)]) -> bool {
    let rest = |index| &ranges[index + 1..];
    ranges.iter().enumerate().all(|(i, a)| rest(i).iter().all(|b| !overlap(*a, *b)))
}

proptest! {
    #[test]
    fn nothing_overlaps(
        vcpus in 1u8..=64,
        memory in 48u32..(1 << 20),
        disks in 0usize..=24,
        nets in 0usize..=4,
        more in 0u32..(1 << 20),
    ) {
        let mut spec = with_nets(vcpus, memory, disks, nets);
        spec.rng = more == 0;
        spec.max_memory = Some(MiB(memory.saturating_add(more).min(1 << 20)));
        let plan = Plan::new(spec, disks + nets + 4).unwrap();
        let memory_map: Vec<_> = plan.memory.map.iter().map(|r| (r.start, r.size)).collect();
        prop_assert!(disjoint(&memory_map));
        let mut fixed = plan.memory.ram.clone();
        fixed.extend(plan.memory.pluggable);
        fixed.extend([(ECAM, ECAM_SIZE), (IOAPIC, 0x1000), (LOCAL_APIC, 0x10_0000)]);
        fixed.push((0xfffb_c000, 0x4000)); // KVM's own pages
        let slots = plan.vsock.iter().chain(&plan.rng).chain(&plan.disks).chain(&plan.nets);
        let slots = slots.chain(&plan.balloon).chain(&plan.mem_hotplug);
        fixed.extend(slots.clone().map(|slot| (slot.bar, pci::STRIDE)));
        prop_assert!(disjoint(&fixed));
        prop_assert!(slots.clone().all(|s| s.bar >= BARS && s.bar + pci::STRIDE <= BARS + BARS_SIZE));
        let mut devices: Vec<_> = slots.map(|slot| slot.device).collect();
        devices.dedup();
        let others = 2 + usize::from(more == 0) + usize::from(plan.mem_hotplug.is_some());
        prop_assert_eq!(devices.len(), disks + nets + others);
        prop_assert!(devices.iter().all(|device| (1..32).contains(device)));
    }

    #[test]
    fn all_memory_is_backed_and_told(memory in 48u32..(1 << 20)) {
        let layout = MemoryLayout::new(MiB(memory));
        let bytes: u64 = layout.ram.iter().map(|(_, size)| size).sum();
        prop_assert_eq!(bytes, MiB(memory).bytes());
        for region in layout.map.iter().filter(|region| region.kind != Kind::Reserved) {
            let backed = layout.ram.iter().any(|(start, size)| {
                region.start >= *start && region.start + region.size <= start + size
            });
            prop_assert!(backed, "{:?}", region);
        }
        let tables = layout.described();
        prop_assert!(tables.start <= tables.end);
        let within = |(start, size)| tables.start >= start && tables.end <= start + size;
        prop_assert!(layout.ram.iter().copied().any(within));
    }
}

#[test]
fn what_the_boot_needs_lies_in_low_memory() {
    let low = [
        (GDT, 32),
        (START_INFO, 56),
        (MODULES, 32),
        (MEMORY_MAP, 24 * 8),
        (BOOT_PARAMS, 4096),
        (PAGE_TABLES, 3 * 4096),
        (CMDLINE, 2048),
    ];
    assert!(disjoint(&low));
    assert!(low.iter().all(|(start, size)| start + size <= 0x9_fc00));
}
