use proptest::prelude::*;

use super::super::bar::{BarError, MemoryBar};
use super::*;

const IDENTITY: Identity = Identity {
    vendor: 0x1af4,
    device: 0x1042,
    revision: 1,
    class: [0x01, 0x80, 0x00],
    subsystem_vendor: 0x1af4,
    subsystem: 0x1042,
};

fn read<const N: usize>(space: &ConfigSpace, offset: u16) -> [u8; N] {
    let mut data = [0xff; N];
    space.read(offset, &mut data);
    data
}

#[test]
fn the_header_says_what_it_is() {
    let space = ConfigSpace::new(&IDENTITY);
    assert_eq!(read(&space, 0), [0xf4, 0x1a, 0x42, 0x10]);
    assert_eq!(read(&space, 8), [1, 0x00, 0x80, 0x01]);
    // Header type 0, a single function; no capabilities yet.
    assert_eq!(read(&space, 0x0e), [0]);
    assert_eq!(read(&space, 0x06), [0, 0]);
}

#[test]
fn only_writable_bits_change() {
    let mut space = ConfigSpace::new(&IDENTITY);
    let before = space.clone();
    for offset in 0..0x100 {
        if !matches!(offset, 0x04 | 0x05 | 0x3c) {
            space.write(offset, &[0xff]);
        }
    }
    assert_eq!(space, before);
    space.write(4, &[0xff, 0xff]);
    assert_eq!(read(&space, 4), [0x06, 0x04]);
    assert!(space.memory_enabled());
}

#[test]
fn capabilities_form_a_list() {
    let mut space = ConfigSpace::new(&IDENTITY);
    let first = space.add_capability(0x09, &[1, 2, 3], &[0, 0xff]).unwrap();
    let second = space.add_capability(0x11, &[4, 5], &[]).unwrap();
    assert_eq!(read(&space, 0x34), [first]);
    assert_eq!(read(&space, first.into()), [0x09, second, 1, 2, 3]);
    assert_eq!(read(&space, second.into()), [0x11, 0, 4, 5]);
    assert!(second.is_multiple_of(4) && read::<1>(&space, 6)[0] & 0x10 != 0);

    space.write(first.into(), &[0xaa; 5]);
    assert_eq!(read(&space, first.into()), [0x09, second, 1, 0xaa, 3]);
}

#[test]
fn too_many_capabilities_are_refused() {
    let mut space = ConfigSpace::new(&IDENTITY);
    let before = std::iter::from_fn(|| space.add_capability(9, &[0; 62], &[]).ok()).count();
    assert_eq!(before, 3);
    assert_eq!(space.add_capability(9, &[0; 3], &[0xff; 4]), Err(NoRoom { id: 9, len: 5 }));
}

#[test]
fn past_the_end_reads_as_it_was() {
    let space = ConfigSpace::new(&IDENTITY);
    assert_eq!(read(&space, 0xfe), [0, 0, 0xff, 0xff]);
    assert_eq!(read(&space, 0x100), [0xff; 4]);
    assert_eq!(read(&space, 0xfff), [0xff; 8]);
}

#[test]
fn a_bar_can_be_sized_and_decodes_only_where_it_was_planned() {
    let mut space = ConfigSpace::new(&IDENTITY);
    let bar = MemoryBar::new(&mut space, 0x1_4000_0000, 0x4000).unwrap();
    assert_eq!(read(&space, 0x10), [0x04, 0, 0, 0x40, 1, 0, 0, 0]);
    assert!(!bar.decodes(&space));
    space.write(4, &[2]);
    assert!(bar.decodes(&space));

    // As Linux sizes: all ones to both halves, then the old values back.
    space.write(0x10, &[0xff; 4]);
    space.write(0x14, &[0xff; 4]);
    assert_eq!(read(&space, 0x10), [0x04, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    assert!(!bar.decodes(&space));
    space.write(0x10, &[0x04, 0, 0, 0x40]);
    space.write(0x14, &[1, 0, 0, 0]);
    assert!(bar.decodes(&space));
}

#[test]
fn a_fixed_bar_is_told_by_a_capability_and_cannot_be_moved() {
    let mut space = ConfigSpace::new(&IDENTITY);
    let bar = MemoryBar::fixed(&mut space, 0xc430_0000, 0x4000).unwrap();
    assert_eq!(read(&space, 0x34), [0x40]);
    // One entry: enabled, BAR 0, memory, two words; where; how far from there.
    assert_eq!(read(&space, 0x40), [0x14, 0, 1, 0, 0x02, 0, 0, 0x80]);
    assert_eq!(read(&space, 0x48), [0, 0, 0x30, 0xc4, 0xfc, 0x3f, 0, 0]);
    space.write(4, &[2]);
    for offset in [0x10, 0x14, 0x48] {
        space.write(offset, &[0xff; 4]);
    }
    assert_eq!(read(&space, 0x10), [0; 8]);
    assert_eq!(read(&space, 0x48), [0, 0, 0x30, 0xc4]);
    assert!(bar.decodes(&space));
    let high = (1 << 32, 0x4000);
    let refused = Err(BarError { address: high.0, size: high.1 });
    assert_eq!(MemoryBar::fixed(&mut space, high.0, high.1), refused);
}

#[test]
fn several_functions_are_told_in_the_header() {
    let mut space = ConfigSpace::new(&IDENTITY);
    assert_eq!(read(&space, 0x0e), [0]);
    space.set_multifunction();
    space.write(0x0e, &[0]);
    assert_eq!(read(&space, 0x0e), [0x80]);
}

#[test]
fn a_bar_that_cannot_be_is_refused() {
    let mut space = ConfigSpace::new(&IDENTITY);
    for (address, size) in [(0, 0), (0, 0x3000), (0x2000, 0x4000), (0, 8), (u64::MAX << 14, 0x4000)]
    {
        assert_eq!(MemoryBar::new(&mut space, address, size), Err(BarError { address, size }));
    }
}

proptest! {
    #[test]
    fn any_write_keeps_what_is_read_only(offset in 0u16..4096, data: [u8; 8], len in 1usize..=8) {
        let mut space = ConfigSpace::new(&IDENTITY);
        MemoryBar::new(&mut space, 0x4000, 0x4000).unwrap();
        space.write(offset, &data[..len]);
        prop_assert_eq!(read(&space, 0), [0xf4, 0x1a, 0x42, 0x10]);
        prop_assert_eq!(read::<1>(&space, 0x10)[0], 0x04);
        prop_assert_eq!(read(&space, 0x18), [0; 8]);
    }
}
