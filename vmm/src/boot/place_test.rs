//! Every byte gets to its place, by either way.

use cofferdam_vmm_hv::allocate_ram;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::testing::file;

const MIB: u64 = 1 << 20;

fn span(offset: u64, to: u64, size: u64) -> Span {
    Span { offset, to, size }
}

fn everything() -> Vec<Range<u64>> {
    std::iter::once(0..u64::MAX).collect()
}

#[test]
fn a_huge_page_in_which_anything_changes_is_copied() {
    let whole = span(2 * MIB, 16 * MIB, 7 * MIB);
    // The last byte of the second huge page, all of the third, and none of the short one at the end.
    let changed = [6 * MIB - 1..6 * MIB, 6 * MIB..8 * MIB];
    let expected = [
        (span(2 * MIB, 16 * MIB, 2 * MIB), false),
        (span(4 * MIB, 18 * MIB, 4 * MIB), true),
        (span(8 * MIB, 22 * MIB, MIB), false),
    ];
    assert_eq!(pieces(whole, &changed), expected);
    assert_eq!(pieces(whole, &[]), [(whole, false)]);
    assert_eq!(pieces(whole, &everything()), [(whole, true)]);
    assert_eq!(pieces(span(0, 16 * MIB, 0), &[]), []);
}

#[test]
fn what_the_guest_writes_stays_out_of_the_file() {
    let ram = allocate_ram(&[(0, 4 * MIB)], false).unwrap();
    let kernel = file(&[7; 0x3000]);
    place(&ram, &kernel, span(0, MIB, 0x3000), &[]).unwrap();
    ram.write_slice(&[9; 0x3000], GuestAddress(MIB)).unwrap();
    let mut again = allocate_ram(&[(0, 4 * MIB)], false).unwrap();
    place(&again, &kernel, span(0, MIB, 0x3000), &[]).unwrap();
    let mut bytes = [0; 0x3000];
    again.read_slice(&mut bytes, GuestAddress(MIB)).unwrap();
    assert_eq!(bytes, [7; 0x3000]);
    again = ram;
    again.read_slice(&mut bytes, GuestAddress(MIB)).unwrap();
    assert_eq!(bytes, [9; 0x3000]);
}

#[test]
fn what_is_not_in_the_file_or_not_in_memory_is_refused() {
    let ram = allocate_ram(&[(0, 2 * MIB)], false).unwrap();
    let kernel = file(&[7; 0x3000]);
    for changed in [Vec::new(), everything()] {
        for wrong in [span(0, 0, 0x3001), span(0x2fff, 0, 2), span(0, 2 * MIB - 0x1000, 0x2000)] {
            assert!(place(&ram, &kernel, wrong, &changed).is_err(), "{wrong:?}");
        }
    }
}

proptest! {
    #[test]
    fn nothing_around_it_changes(
        offset in 0..0x3000_u64, to in 0x1000..0x5000_u64, size in 0..0x5000_u64, aligned: bool,
        copied: bool,
    ) {
        let words: Vec<u8> = (0..0x8000_u32 / 4).flat_map(u32::to_le_bytes).collect();
        let to = if aligned { to / PAGE * PAGE + offset % PAGE } else { to };
        let ram = allocate_ram(&[(0, 0x1_0000)], false).unwrap();
        ram.write_slice(&[0xaa; 0x1_0000], GuestAddress(0)).unwrap();
        let changed = 0..if copied { u64::MAX } else { 0 };

        place(&ram, &file(&words), span(offset, to, size), &[changed]).unwrap();

        let mut memory = vec![0; 0x1_0000];
        ram.read_slice(&mut memory, GuestAddress(0)).unwrap();
        let [offset, to, size] = [offset, to, size].map(|n| usize::try_from(n).unwrap());
        prop_assert_eq!(&memory[to..to + size], &words[offset..offset + size]);
        let around = memory[..to].iter().chain(&memory[to + size..]);
        prop_assert!(around.copied().all(|byte| byte == 0xaa));
    }
}
