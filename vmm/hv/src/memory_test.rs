//! Where memory is, and what it costs.

use std::io::{Read, Seek, Write};

use vm_memory::{Bytes, GuestMemoryBackend};

use super::*;

const HIGH: u64 = 1 << 32;

const MIB: u64 = 1 << 20;

fn ram(ranges: &[(u64, u64)]) -> Result<GuestRam, MemoryError> {
    allocate_ram(ranges, false)
}

#[test]
fn ranges_begin_at_huge_pages() {
    for (low, high) in [(0x10_0000, 0x20_0000), (0x1000, 0x30_1000)] {
        for region in ram(&[(0, low), (HIGH, high)]).unwrap().iter() {
            assert_eq!(region.as_ptr().addr() % (2 << 20), 0);
        }
    }
}

#[test]
fn it_reads_as_zero_and_keeps_what_is_written() {
    let ram = ram(&[(0, 0x1000), (HIGH, 0x1000)]).unwrap();
    let address = GuestAddress(HIGH + 0xff8);
    assert_eq!(ram.read_obj::<u64>(address).unwrap(), 0);
    ram.write_obj(0x1234_u64, address).unwrap();
    assert_eq!(ram.read_obj::<u64>(address).unwrap(), 0x1234);
    assert!(ram.write_obj(0_u64, GuestAddress(0x1000)).is_err());
}

/// The flags of the mapping that `ram` has at guest address `at`.
fn flags(ram: &GuestRam, at: u64) -> String {
    let place = ram.get_host_address(GuestAddress(at)).unwrap().addr();
    let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut found = false;
    for line in text.lines() {
        let range = line.split(' ').next().unwrap().split_once('-');
        let hex = |text| usize::from_str_radix(text, 16).ok();
        if let Some((Some(start), Some(end))) = range.map(|(start, end)| (hex(start), hex(end))) {
            found = (start..end).contains(&place);
        } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| found) {
            return format!("{flags} ");
        }
    }
    panic!("not mapped");
}

#[test]
fn huge_pages_are_asked_for_where_they_are_wanted() {
    let size = 16 << 20;
    let small = ram(&[(0, size), (HIGH, size)]).unwrap();
    prefer_huge_pages(&small, 0x50_0000..0x61_0000);
    for (at, huge) in [(0x3f_f000, false), (0x40_0000, true), (0x7f_f000, true), (0x80_0000, false)]
    {
        assert_eq!(flags(&small, at).contains(" hg "), huge, "{at:#x}");
    }
    assert!(flags(&small, HIGH).contains(" nh "));
    let huge = allocate_ram(&[(0, size)], true).unwrap();
    assert!(flags(&huge, 0).contains(" hg "));
    // Beyond the end of memory.
    prefer_huge_pages(&huge, size - 1..u64::MAX);
}

#[test]
fn impossible_ranges_are_refused() {
    assert!(ram(&[(0, 0x20_2000), (0x20_0000, 0x2000)]).is_err());
    assert!(ram(&[(0x1000, 0x2000)]).is_err());
    assert!(ram(&[(u64::MAX - 0x1f_ffff, 0x40_0000)]).is_err());
    assert!(ram(&[(0, u64::MAX)]).is_err());
    assert!(ram(&[(0, 0)]).is_err());
    assert!(ram(&[]).is_err());
}

/// Two ranges with a hole between them, every byte 7.
fn filled() -> GuestRam {
    let ram = allocate_ram(&[(0, MIB), (4 * MIB, MIB)], false).unwrap();
    for start in [0, 4 * MIB] {
        ram.write_slice(&vec![7; 1 << 20], GuestAddress(start)).unwrap();
    }
    ram
}

fn byte(ram: &GuestRam, address: u64) -> u8 {
    ram.read_obj(GuestAddress(address)).unwrap()
}

#[test]
fn whole_pages_are_given_back_and_read_as_zero() {
    let ram = filled();
    give_back(&ram, 4 * MIB + 100, 3 * PAGE).unwrap();
    for (address, expected) in [(PAGE - 1, 7), (PAGE, 0), (3 * PAGE - 1, 0), (3 * PAGE, 7)] {
        assert_eq!(byte(&ram, 4 * MIB + address), expected, "{address:#x}");
    }
    // It is memory as before.
    ram.write_obj(9u8, GuestAddress(4 * MIB + PAGE)).unwrap();
    assert_eq!(byte(&ram, 4 * MIB + PAGE), 9);
}

#[test]
fn what_is_not_memory_is_left_alone() {
    let ram = filled();
    for (address, size) in [(MIB, 3 * MIB), (u64::MAX, 1), (u64::MAX - 5, u64::MAX), (5, 4000)] {
        give_back(&ram, address, size).unwrap();
    }
    assert!((0..MIB).step_by(4096).all(|at| byte(&ram, at) == 7 && byte(&ram, 4 * MIB + at) == 7));
    give_back(&ram, 0, u64::MAX).unwrap();
    assert!((0..MIB).step_by(4096).all(|at| byte(&ram, at) == 0 && byte(&ram, 4 * MIB + at) == 0));
}

#[test]
fn pages_of_a_file_are_the_guests_own_once_it_writes() {
    let mut contents = tempfile::tempfile().unwrap();
    contents.write_all(&[5; 0x3000]).unwrap();
    let ram = filled();
    map_file(&ram, &contents, 0x1000, (4 * MIB + 0x2000, 0x2000)).unwrap();
    for (address, expected) in [(0x1fff, 7), (0x2000, 5), (0x3fff, 5), (0x4000, 7)] {
        assert_eq!(byte(&ram, 4 * MIB + address), expected, "{address:#x}");
    }
    ram.write_obj(9u8, GuestAddress(4 * MIB + 0x2000)).unwrap();
    assert_eq!(byte(&ram, 4 * MIB + 0x2000), 9);
    let mut now = Vec::new();
    contents.rewind().unwrap();
    contents.read_to_end(&mut now).unwrap();
    assert_eq!(now, [5; 0x3000]);
    // Given back, it is what the file holds.
    give_back(&ram, 4 * MIB, MIB).unwrap();
    assert_eq!((byte(&ram, 4 * MIB + 0x1fff), byte(&ram, 4 * MIB + 0x2000)), (0, 5));
}

#[test]
fn a_file_is_mapped_by_whole_pages_within_memory() {
    let contents = tempfile::tempfile().unwrap();
    contents.set_len(0x4000).unwrap();
    let ram = filled();
    for (offset, address, size) in [
        (0x800, 0, 0x1000),
        (0, 0x800, 0x1000),
        (0, 0, 0x800),
        (0, MIB - 0x1000, 0x2000),
        (0, 2 * MIB, 0x1000),
        (0, u64::MAX - 0xfff, 0x1000),
        (0, 0, 0),
    ] {
        assert!(map_file(&ram, &contents, offset, (address, size)).is_err(), "{address:#x}");
    }
    assert_eq!(byte(&ram, MIB - 1), 7);
}
