use std::os::unix::fs::MetadataExt;

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::memory::allocate_ram;

const MIB: u64 = 1 << 20;

/// Two ranges with a hole between them, every byte 7.
fn ram() -> GuestRam {
    let ram = allocate_ram(&[(0, MIB), (4 * MIB, MIB)]).unwrap();
    for start in [0, 4 * MIB] {
        ram.write_slice(&vec![7; 1 << 20], GuestAddress(start)).unwrap();
    }
    ram
}

fn host_bytes(ram: &GuestRam) -> u64 {
    let file = ram.iter().next().unwrap().file_offset().unwrap();
    file.file().metadata().unwrap().blocks() * 512
}

fn byte(ram: &GuestRam, address: u64) -> u8 {
    ram.read_obj(GuestAddress(address)).unwrap()
}

#[test]
fn the_host_gets_whole_pages_and_the_guest_reads_zero() {
    let ram = ram();
    let reclaimer = Reclaimer::new(ram.clone(), &[]);
    let before = host_bytes(&ram);
    reclaimer.give_back(4 * MIB + 100, 3 * PAGE).unwrap();
    assert_eq!(host_bytes(&ram), before - 2 * PAGE);
    assert_eq!(byte(&ram, 4 * MIB + PAGE - 1), 7);
    assert_eq!(byte(&ram, 4 * MIB + PAGE), 0);
    assert_eq!(byte(&ram, 4 * MIB + 3 * PAGE - 1), 0);
    assert_eq!(byte(&ram, 4 * MIB + 3 * PAGE), 7);
    // It is memory as before.
    ram.write_obj(9u8, GuestAddress(4 * MIB + PAGE)).unwrap();
    assert_eq!(byte(&ram, 4 * MIB + PAGE), 9);
}

#[test]
fn kept_pages_stay() {
    let ram = ram();
    let kept = [(10 * PAGE + 5, PAGE), (2 * PAGE, 1), (5 * PAGE + 1, 0)];
    let reclaimer = Reclaimer::new(ram.clone(), &kept);
    reclaimer.give_back(0, u64::MAX).unwrap();
    assert_eq!(host_bytes(&ram), 3 * PAGE);
    for page in 0..256 {
        let stays = matches!(page, 2 | 10 | 11);
        assert_eq!(byte(&ram, page * PAGE + 77) == 7, stays, "page {page}");
    }
}

#[test]
fn what_is_not_memory_is_left_alone() {
    let ram = ram();
    let before = host_bytes(&ram);
    let reclaimer = Reclaimer::new(ram.clone(), &[]);
    for (address, size) in [
        (MIB, 3 * MIB),
        (5 * MIB, MIB),
        (u64::MAX - PAGE, u64::MAX),
        (u64::MAX, 1),
        (0, PAGE - 1),
        (1, PAGE),
        (PAGE, 0),
    ] {
        reclaimer.give_back(address, size).unwrap();
    }
    assert_eq!(host_bytes(&ram), before);
}

proptest! {
    /// A page is given back if it lies in the range and in the region as a whole and is not kept.
    #[test]
    fn exactly_the_pages_that_may_go(
        (address, size) in (0u64..40 * PAGE, 0u64..40 * PAGE),
        (base, pages) in (0u64..8, 1u64..16),
        kept in prop::collection::vec((0u64..32 * PAGE, 0u64..4 * PAGE), 0..4),
    ) {
        let (base, bytes) = (base * PAGE, pages * PAGE);
        let ram = allocate_ram(&[(0, PAGE)]).unwrap();
        let reclaimer = Reclaimer::new(ram, &kept);
        let pieces = reclaimer.pieces((address, size), (base, bytes));
        for page in 0..pages {
            let (start, end) = (base + page * PAGE, base + (page + 1) * PAGE);
            let kept = kept.iter().any(|&(at, len)| len > 0 && at < end && at + len > start);
            let wanted = address <= start && end <= address + size && !kept;
            let given = pieces.iter().any(|&(at, len)| base + at <= start && end <= base + at + len);
            prop_assert_eq!(given, wanted, "page {}", page);
        }
        let total: u64 = pieces.iter().map(|piece| piece.1).sum();
        prop_assert!(total <= bytes);
    }
}
