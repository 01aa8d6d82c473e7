//! How much memory a machine has, by its device's word.

use cofferdam_vmm_api::MiB;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::plan::plan_test::spec;

fn plan(boot: u32, max: u32) -> Plan {
    let mut spec = spec(1, boot, 0);
    spec.max_memory = Some(MiB(max));
    Plan::new(spec, 4).unwrap()
}

/// Stands for a machine's address space.
struct Nothing;

impl Reclaim for Nothing {
    fn give_back(&self, _address: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
}

impl ports::MemoryChunks for Nothing {
    fn map(&self, _index: u32) -> io::Result<()> {
        Ok(())
    }

    fn unmap(&self, _index: u32) {}
}

fn growing(boot: u32, max: u32) -> GuestMemory {
    let plan = plan(boot, max);
    let room = Room::reserve(&plan).unwrap().unwrap();
    let device = MemHotplug::new(room.address, Arc::clone(&room.blocks), Arc::new(Nothing));
    GuestMemory::new(&plan.spec, Some(device.size()))
}

#[test]
fn sizes_are_those_of_the_whole_machine() {
    let memory = growing(256, 1024);
    let state = |wanted| MemoryState { wanted: MiB(wanted), present: MiB(256) };
    assert_eq!(memory.state(), state(256));
    assert_eq!(memory.set(MiB(1024)), Ok(state(1024)));
    // Blocks have 2 MiB.
    assert_eq!(memory.set(MiB(299)), Ok(state(300)));
    assert_eq!(memory.set(MiB(256)), Ok(state(256)));
}

#[test]
fn what_the_machine_cannot_have_is_refused() {
    let memory = growing(256, 512);
    memory.set(MiB(512)).unwrap();
    for wanted in [MiB(0), MiB(255), MiB(513), MiB(u32::MAX)] {
        let expected = ResizeError::Size { wanted, boot: MiB(256), max: MiB(512) };
        assert_eq!(memory.set(wanted), Err(expected));
    }
    assert_eq!(memory.state().wanted, MiB(512));
    let fixed = GuestMemory::new(&spec(1, 256, 0), None);
    assert_eq!(fixed.set(MiB(256)), Err(ResizeError::Fixed(MiB(256))));
    assert_eq!(fixed.state(), MemoryState { wanted: MiB(256), present: MiB(256) });
}

#[test]
fn without_a_larger_size_there_is_no_room_and_devices_see_what_is_there() {
    let plan = plan(64, 64);
    assert!(Room::reserve(&plan).unwrap().is_none());
    let ram = allocate_ram(&plan.memory.ram, false).unwrap();
    let seen = seen(&ram, None).unwrap();
    seen.write_obj(7u8, GuestAddress(0x1000)).unwrap();
    assert_eq!(ram.read_obj::<u8>(GuestAddress(0x1000)).unwrap(), 7);
}

#[test]
fn what_is_not_plugged_in_is_seen_by_no_device_and_given_back_all_the_same() {
    let plan = plan(64, 192);
    let (ram, room) = (allocate_ram(&plan.memory.ram, false).unwrap(), Room::reserve(&plan));
    let room = room.unwrap().unwrap();
    let seen = seen(&ram, Some(&room)).unwrap();
    assert_eq!(room.address, 1 << 32);
    assert!(seen.write_obj(7u8, GuestAddress(1 << 32)).is_err());
    room.memory.write_obj(7u8, GuestAddress(1 << 32)).unwrap();
    ram.write_obj(7u8, GuestAddress(0x1000)).unwrap();
    let returned = Returned::new(&ram, Some(&room));
    returned.give_back(0x1000, 0x1000).unwrap();
    returned.give_back(1 << 32, 0x1000).unwrap();
    assert_eq!(room.memory.read_obj::<u8>(GuestAddress(1 << 32)).unwrap(), 0);
    assert_eq!(ram.read_obj::<u8>(GuestAddress(0x1000)).unwrap(), 0);
}
