//! The queue in shared memory, with the server's side written by hand.

use std::os::fd::AsFd;

use super::*;

fn slots() -> (Slots, SharedMemory) {
    let file = tempfile::tempfile().unwrap();
    file.set_len(MEMORY.try_into().unwrap()).unwrap();
    let map = || SharedMemory::map(file.as_fd(), MEMORY).unwrap();
    (Slots::new(map()), map())
}

/// The server uses the chain at `head`, as the `index`th.
fn used(memory: &SharedMemory, index: u16, head: u32, len: u32) {
    let entry = USED + 4 + 8 * usize::from(index % QUEUE_SIZE);
    memory.slice(entry, 8).unwrap().write_obj([head, len], 0).unwrap();
    memory.slice(USED + 2, 2).unwrap().write_obj(index.wrapping_add(1), 0).unwrap();
}

fn descriptor(memory: &SharedMemory, index: usize) -> (u64, u32, [u16; 2]) {
    let place = memory.slice(DESCRIPTORS + 16 * index, 16).unwrap();
    (place.read_obj(0).unwrap(), place.read_obj(8).unwrap(), place.read_obj(12).unwrap())
}

#[test]
fn what_is_offered_is_described() {
    let (mut slots, memory) = slots();
    slots.offer(1, (100, 50)).unwrap();
    let start = u64::try_from(FIRST_SLOT + SLOT_BYTES).unwrap();
    assert_eq!(descriptor(&memory, 2), (start, 100, [NEXT, 3]));
    assert_eq!(descriptor(&memory, 3), (start + 128, 50, [WRITE, 4]));
    let [flags, index, first]: [u16; 3] = memory.slice(AVAILABLE, 6).unwrap().read_obj(0).unwrap();
    assert_eq!((flags, index, first), (0, 1, 2));
    assert_eq!(slots.free(), Some(0));
}

#[test]
fn all_slots_come_back_in_any_order_again_and_again() {
    let (mut slots, memory) = slots();
    let mut index = 0u16;
    // The indices wrap around.
    for round in 0..(usize::from(u16::MAX) / usize::from(SLOTS) + 10) {
        for slot in 0..usize::from(SLOTS) {
            assert_eq!(slots.free(), Some(slot));
            slots.offer(slot, (40, 16)).unwrap();
        }
        assert_eq!(slots.free(), None);
        assert_eq!(slots.done(), Ok(None));
        for turn in 0..usize::from(SLOTS) {
            let slot = (turn + round) % usize::from(SLOTS);
            used(&memory, index, u32::try_from(2 * slot).unwrap(), 16);
            index = index.wrapping_add(1);
            assert_eq!(slots.done(), Ok(Some((slot, 40, 16))));
        }
    }
}

#[test]
fn a_server_that_breaks_the_rules_is_found_out() {
    let broken = |head: u32, len: u32, index: u16| {
        let (mut slots, memory) = slots();
        slots.offer(0, (40, 16)).unwrap();
        used(&memory, index, head, len);
        slots.done().unwrap_err()
    };
    assert_eq!(broken(0, 17, 0), Nonsense("more was written than there is room for"));
    assert_eq!(broken(1, 16, 0), Nonsense("a slot that it has not"));
    assert_eq!(broken(2, 16, 0), Nonsense("a slot that it has not"));
    assert_eq!(broken(u32::MAX, 16, 0), Nonsense("a slot that it has not"));
    assert_eq!(broken(0, 16, 1), Nonsense("more is used than was offered"));
    assert_eq!(broken(0, 16, 0x8000), Nonsense("more is used than was offered"));
}

#[test]
fn a_slot_is_used_once() {
    let (mut slots, memory) = slots();
    slots.offer(0, (40, 16)).unwrap();
    slots.offer(1, (40, 16)).unwrap();
    used(&memory, 0, 0, 16);
    assert_eq!(slots.done(), Ok(Some((0, 40, 16))));
    used(&memory, 1, 0, 16);
    assert!(slots.done().is_err());
}

#[test]
fn no_part_reaches_over_the_end_of_its_slot() {
    let (slots, _memory) = slots();
    assert!(slots.parts(0, (40, SLOT_BYTES - 64)).is_some());
    assert!(slots.parts(0, (40, SLOT_BYTES - 63)).is_none());
    assert!(slots.parts(usize::from(SLOTS), (40, 16)).is_none());
    assert!(slots.parts(0, (usize::MAX, usize::MAX)).is_none());
}
